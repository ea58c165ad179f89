"""A small recurrent decoder, as a yardstick beside the TCN: the same front-end, then gated recurrent units (Cho et al. 2014).

state = init_state(config, batch)
odds, state = logits(config, params, state, emg)        # emg (batch, frames x samples_per_call, channels), microvolts
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from myoloop.body.names import FINGERS
from myoloop.decoder.front_end import (
    FrontEnd,
    FrontEndConfig,
    Params,
    check_emg,
    dense,
    silent_power,
    silent_raw,
    standardised,
)


@dataclasses.dataclass(frozen=True)
class GruConfig(FrontEndConfig):
    """Sizes of the network."""

    hidden: int = 64
    """Width: of the layer that reads the features, and of the recurrent one."""
    dropout: float = 0.15
    """Fraction of the values into the recurrent layer dropped during training."""
    memory_s: float = 0.3
    """Seconds that the recurrent layer is given to settle before its answers count in training."""

    @property
    def looks_back_s(self) -> float:
        """What a prediction needs to have heard, seconds; its memory may reach further back."""
        return self.front_end_s + self.memory_s


class GruState(NamedTuple):
    """What the network remembers between calls. First axis: batch. All zero at the start, as after a long silence."""

    raw: jax.Array
    """(batch, filter_taps - 1, channels): newest samples, microvolts."""
    power: jax.Array
    """(batch, 7, features): power of the newest frames."""
    hidden: jax.Array
    """(batch, hidden): of the recurrent layer."""


def init_state(config: GruConfig, batch: int) -> GruState:
    """The state before the first sample."""
    return GruState(silent_raw(config, batch), silent_power(config, batch), jnp.zeros((batch, config.hidden)))


class _Network(FrontEnd):
    """The layers. Called on (batch, frames x samples_per_call, channels); answers (batch, frames, 5) logits."""

    config: GruConfig

    @nn.compact
    def __call__(self, emg: jax.Array, state: GruState, *, train: bool = False) -> tuple[jax.Array, GruState]:
        c = self.config
        h, raw, power = self.read(c, emg, state.raw, state.power)
        h = nn.gelu(dense(c.hidden, "features_in")(h))
        h = nn.Dropout(c.dropout, deterministic=not train)(h)
        if h.shape[1] == 1:  # as it is exported: a single step, no loop
            hidden, last = nn.GRUCell(c.hidden, name="cell")(state.hidden, h[:, 0])
            h = last[:, None]
        else:
            over_frames = nn.scan(
                nn.GRUCell, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1
            )
            hidden, h = over_frames(c.hidden, name="cell")(state.hidden, h)
        self.sow("intermediates", "head_in", h)
        return dense(len(FINGERS), "head")(h), GruState(raw, power, hidden)


def init_params(config: GruConfig, key: jax.Array) -> Params:
    """Random parameters from a key."""
    emg = jnp.zeros((1, config.samples_per_call, config.channels), jnp.float32)
    return jax.jit(_Network(config).init)(key, emg, init_state(config, 1))["params"]


def logits(
    config: GruConfig, params: Params, state: GruState, emg: jax.Array, dropout: jax.Array | None = None
) -> tuple[jax.Array, GruState]:
    """(batch, frames, 5) log-odds of flexed after every frame, and the next state. Arguments as of `tcn.logits`."""
    check_emg(config, emg)
    rngs = None if dropout is None else {"dropout": dropout}
    with jax.default_matmul_precision("highest"):  # flax's cell has no setting of its own; see front_end.dense
        odds, state = cast(
            tuple[jax.Array, GruState],
            _Network(config).apply({"params": params}, emg, state, train=dropout is not None, rngs=rngs),
        )
    return odds, state


def standardise(config: GruConfig, params: Params, emg: jax.Array) -> Params:
    """Parameters whose log-power features have mean 0 and spread 1 on the given EMG (batch, samples, channels)."""
    return standardised(params, _intermediate(config, params, emg, "log_power"))


def head_inputs(config: GruConfig, params: Params, emg: jax.Array) -> jax.Array:
    """(batch, frames, hidden) what the last layer reads, from a fresh state."""
    return _intermediate(config, params, emg, "head_in")


@functools.partial(jax.jit, static_argnums=(0, 3))
def _intermediate(config: GruConfig, params: Params, emg: jax.Array, name: str) -> jax.Array:
    """What a layer handed on, from a fresh state."""
    check_emg(config, emg)
    start = init_state(config, emg.shape[0])
    _, seen = _Network(config).apply({"params": params}, emg, start, mutable=["intermediates"])
    return cast(jax.Array, seen["intermediates"][name][0])
