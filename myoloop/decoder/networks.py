"""The decoders of this project behind one set of functions, whatever their kind: `tcn` (the default), `gru`, `lda`.

    config = make_config("gru", channels=16, rate_hz=2000.0)
    state = init_state(config, batch)
    prediction, state = step(config, params, state, emg)        # emg (batch, samples_per_call, channels), microvolts

Everything is pure JAX: these functions can be called inside a jitted loop, with `config` static. Its class tells the kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from myoloop.decoder import gru, lda, tcn
from myoloop.decoder.front_end import Params
from myoloop.decoder.gru import GruConfig
from myoloop.decoder.lda import LdaConfig
from myoloop.decoder.tcn import TcnConfig
from myoloop.errors import unknown_name

Config = TcnConfig | GruConfig | LdaConfig
"""What any of them reads, and its sizes."""
State = Any
"""What any of them remembers between calls: a NamedTuple of arrays whose first axis is the batch; all zero at the start."""

KINDS = ("tcn", "gru", "lda")
_CONFIGS: dict[str, Any] = {"tcn": TcnConfig, "gru": GruConfig, "lda": LdaConfig}
_MODULES: dict[type, Any] = {TcnConfig: tcn, GruConfig: gru, LdaConfig: lda}


def make_config(kind: str, **sizes: Any) -> Config:
    """The configuration of a kind; sizes by the names of its fields. An unknown kind raises a MyoloopError."""
    if kind not in KINDS:
        raise unknown_name("decoder kind", kind, KINDS)
    if "dilations" in sizes:  # as a file has it
        sizes["dilations"] = tuple(sizes["dilations"])
    return _CONFIGS[kind](**sizes)  # type: ignore[no-any-return]


def kind_of(config: Config) -> str:
    """One of KINDS."""
    return next(kind for kind in KINDS if type(config) is _CONFIGS[kind])


def init_params(config: Config, key: jax.Array) -> Params:
    """Parameters to start from."""
    return _MODULES[type(config)].init_params(config, key)


def init_state(config: Config, batch: int) -> State:
    """The state before the first sample."""
    return _MODULES[type(config)].init_state(config, batch)


def logits(
    config: Config, params: Params, state: State, emg: jax.Array, dropout: jax.Array | None = None
) -> tuple[jax.Array, State]:
    """Log-odds after every frame.

    Args:
      config: which decoder (static under jit).
      params: from `init_params` or a checkpoint.
      state: from `init_state` or the last call.
      emg: (batch, frames x samples_per_call, channels), microvolts. Any whole number of frames gives the same stream.
      dropout: a key while training; None otherwise.

    Returns:
      (batch, frames, 5) log-odds and the next state.
    """
    return _MODULES[type(config)].logits(config, params, state, emg, dropout)  # type: ignore[no-any-return]


def predict(config: Config, params: Params, state: State, emg: jax.Array) -> tuple[jax.Array, State]:
    """The five values after every frame, 0..1: (batch, frames, 5), and the next state. Arguments as in `logits`."""
    odds, state = logits(config, params, state, emg)
    return jax.nn.sigmoid(odds), state


def step(config: Config, params: Params, state: State, emg: jax.Array) -> tuple[jax.Array, State]:
    """The five values, thumb to little, after the newest frame: (batch, 5), and the next state."""
    values, state = predict(config, params, state, emg)
    return values[:, -1], state


def standardise(config: Config, params: Params, emg: jax.Array) -> Params:
    """Parameters whose features have mean 0 and spread 1 on the given EMG (batch, samples, channels), where it has any."""
    return params if isinstance(config, LdaConfig) else _MODULES[type(config)].standardise(config, params, emg)


def head_inputs(config: Config, params: Params, emg: jax.Array) -> jax.Array:
    """(batch, frames, n) what the last, linear layer reads, from a fresh state."""
    return _MODULES[type(config)].head_inputs(config, params, emg)  # type: ignore[no-any-return]


def tempered(params: Params, temperature: float) -> Params:
    """Parameters whose log-odds are divided by the temperature."""
    return {**params, "head": jax.tree.map(lambda leaf: leaf / temperature, params["head"])}


def count_parameters(params: Params) -> int:
    """How many numbers the parameters hold."""
    return int(sum(np.size(leaf) for leaf in jax.tree.leaves(params)))


def named(state: State) -> Iterator[tuple[str, jax.Array]]:
    """A state's arrays, each with a name: the field's, with a number where it holds several."""
    for field, value in state._asdict().items():
        if isinstance(value, tuple):
            yield from ((f"{field}_{n}", array) for n, array in enumerate(value))
        else:
            yield field, value
