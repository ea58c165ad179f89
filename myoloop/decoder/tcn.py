"""A causal, streaming temporal convolutional network: raw surface EMG in, probability of flexed per finger out.

Dilated causal convolutions over frames (Bai, Kolter & Koltun 2018) read the features of front_end.py. Every layer keeps the few
past values it needs, so the network can be fed frame by frame or all at once:

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
from myoloop.errors import MyoloopError


@dataclasses.dataclass(frozen=True)
class TcnConfig(FrontEndConfig):
    """Sizes of the network."""

    hidden: int = 64
    """Width of the convolutions over frames."""
    taps: int = 3
    """Frames that each convolution over frames looks at."""
    dilations: tuple[int, ...] = (1, 2, 4)
    """Spacing of those frames, one entry per layer."""
    dropout: float = 0.15
    """Fraction of hidden values dropped during training."""

    @property
    def looks_back_s(self) -> float:
        """How far back a prediction looks, seconds."""
        past = sum((self.taps - 1) * d for d in self.dilations)
        return self.front_end_s + past * self.samples_per_call / self.rate_hz


class TcnState(NamedTuple):
    """What the network remembers between calls. First axis: batch. All zero at the start, as after a long silence."""

    raw: jax.Array
    """(batch, filter_taps - 1, channels): newest samples, microvolts."""
    power: jax.Array
    """(batch, 7, features): power of the newest frames."""
    hidden: tuple[jax.Array, ...]
    """Per layer (batch, (taps - 1) x dilation, hidden): its newest inputs."""


def init_state(config: TcnConfig, batch: int) -> TcnState:
    """The state before the first sample."""
    return TcnState(
        raw=silent_raw(config, batch),
        power=silent_power(config, batch),
        hidden=tuple(jnp.zeros((batch, (config.taps - 1) * d, config.hidden), jnp.float32) for d in config.dilations),
    )


class _Network(FrontEnd):
    """The layers. Called on (batch, frames x samples_per_call, channels); answers (batch, frames, 5) logits."""

    config: TcnConfig

    @nn.compact
    def __call__(
        self, emg: jax.Array, state: TcnState, *, train: bool = False, power: jax.Array | None = None
    ) -> tuple[jax.Array, TcnState]:
        """power: of the frames, instead of the EMG's (`logits_of_power`)."""
        c = self.config
        h, kept_raw, kept_power = self.read(c, emg, state.raw, state.power, power)
        h = nn.gelu(dense(c.hidden, "features_in")(h))
        carried = []
        for layer, dilation in enumerate(c.dilations):
            past = (c.taps - 1) * dilation
            frames = jnp.concatenate([state.hidden[layer], h], axis=1)
            taps = [frames[:, k * dilation : frames.shape[1] - past + k * dilation] for k in range(c.taps)]
            update = nn.gelu(dense(c.hidden, f"layer_{layer}")(jnp.concatenate(taps, axis=-1)))
            update = nn.Dropout(c.dropout, deterministic=not train)(update)
            h = nn.LayerNorm(name=f"norm_{layer}")(h + update)
            carried.append(frames[:, frames.shape[1] - past :])
        self.sow("intermediates", "head_in", h)
        logits = dense(len(FINGERS), "head")(h)
        return logits, TcnState(kept_raw, kept_power, tuple(carried))


def init_params(config: TcnConfig, key: jax.Array) -> Params:
    """Random parameters from a key."""
    emg = jnp.zeros((1, config.samples_per_call, config.channels), jnp.float32)
    return jax.jit(_Network(config).init)(key, emg, init_state(config, 1))["params"]


def logits(
    config: TcnConfig, params: Params, state: TcnState, emg: jax.Array, dropout: jax.Array | None = None
) -> tuple[jax.Array, TcnState]:
    """Log-odds of flexed after every frame.

    Args:
      config: sizes (static under jit).
      params: from `init_params` or a checkpoint.
      state: from `init_state` or the last call.
      emg: (batch, frames x samples_per_call, channels), microvolts. Any whole number of frames gives the same stream.
      dropout: a key while training; None otherwise.

    Returns:
      (batch, frames, 5) log-odds and the next state.
    """
    check_emg(config, emg)
    rngs = None if dropout is None else {"dropout": dropout}
    odds, state = cast(
        tuple[jax.Array, TcnState],
        _Network(config).apply({"params": params}, emg, state, train=dropout is not None, rngs=rngs),
    )
    return odds, state


def frame_power(config: TcnConfig, params: Params, emg: jax.Array) -> jax.Array:
    """(batch, frames, features) microvolts^2: power of every filter's output in every frame, spatial filters outermost.

    Arguments as in `logits`, from a fresh state.
    """
    check_emg(config, emg)
    return _intermediate(config, params, emg, "power")


def logits_of_power(config: TcnConfig, params: Params, power: jax.Array) -> jax.Array:
    """Log-odds of flexed after every frame from the powers of `frame_power`, however they come about.

    Args:
      power: (batch, frames, features) microvolts^2, after a silence.

    Returns:
      (batch, frames, 5) log-odds.
    """
    batch, frames, features = power.shape
    if features != config.features:
        raise MyoloopError(f"the decoder reads {config.features} powers a frame; found shape {tuple(power.shape)}.")
    nothing = jnp.zeros((batch, frames * config.samples_per_call, config.channels))
    odds, _ = _Network(config).apply({"params": params}, nothing, init_state(config, batch), power=power)
    return odds  # type: ignore[no-any-return]


def standardise(config: TcnConfig, params: Params, emg: jax.Array) -> Params:
    """Parameters whose log-power features have mean 0 and spread 1 on the given EMG (batch, samples, channels)."""
    check_emg(config, emg)
    return standardised(params, _intermediate(config, params, emg, "log_power"))


def head_inputs(config: TcnConfig, params: Params, emg: jax.Array) -> jax.Array:
    """(batch, frames, hidden) what the last layer reads, from a fresh state."""
    check_emg(config, emg)
    return _intermediate(config, params, emg, "head_in")


@functools.partial(jax.jit, static_argnums=(0, 3))
def _intermediate(config: TcnConfig, params: Params, emg: jax.Array, name: str) -> jax.Array:
    """What a layer handed on, from a fresh state."""
    start = init_state(config, emg.shape[0])
    _, seen = _Network(config).apply({"params": params}, emg, start, mutable=["intermediates"])
    return cast(jax.Array, seen["intermediates"][name][0])
