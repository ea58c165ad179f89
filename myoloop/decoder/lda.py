"""What the field has used for decades, as a yardstick: the log-variance of each channel over a sliding window, and a linear
discriminant for each finger (Englehart & Hudgins 2003 use such features, windows and discriminants).

The discriminants are fitted by learn/linear.py; here they answer, frame by frame, after every hop of a frame:

    state = init_state(config, batch)
    odds, state = logits(config, params, state, emg)        # emg (batch, frames x samples_per_call, channels), microvolts

Surface EMG has no mean: its variance is its mean square.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from myoloop.body.names import FINGERS
from myoloop.decoder.front_end import CLIP_UV, Params, StreamConfig, check_emg


@dataclasses.dataclass(frozen=True)
class LdaConfig(StreamConfig):
    """What is looked at."""

    window_ms: float = 160.0
    """Length of the window, ms, rounded to whole frames (150 to 250 ms: Smith et al. 2011)."""

    @property
    def window_frames(self) -> int:
        """Frames in a window."""
        return max(1, round(self.window_ms / self.frame_ms))

    @property
    def looks_back_s(self) -> float:
        """How far back a prediction looks, seconds."""
        return self.window_frames * self.samples_per_call / self.rate_hz


class LdaState(NamedTuple):
    """What is remembered between calls. First axis: batch. All zero at the start, as after a long silence."""

    power: jax.Array
    """(batch, window_frames - 1, channels): mean square of the newest frames, microvolts^2."""


def init_state(config: LdaConfig, batch: int) -> LdaState:
    """The state before the first sample."""
    return LdaState(jnp.zeros((batch, config.window_frames - 1, config.channels), jnp.float32))


def init_params(config: LdaConfig, key: jax.Array) -> Params:
    """Discriminants that know nothing."""
    width = len(FINGERS)
    return {"head": {"kernel": jnp.zeros((config.channels, width)), "bias": jnp.zeros(width)}}


def logits(
    config: LdaConfig, params: Params, state: LdaState, emg: jax.Array, dropout: jax.Array | None = None
) -> tuple[jax.Array, LdaState]:
    """(batch, frames, 5) log-odds of flexed after every frame, and the next state. Arguments as of `tcn.logits`; nothing is
    ever dropped."""
    features, state = _log_variance(config, state, emg)
    head = params["head"]
    return jnp.matmul(features, head["kernel"], precision="highest") + head["bias"], state


def head_inputs(config: LdaConfig, params: Params, emg: jax.Array) -> jax.Array:
    """(batch, frames, channels) what the discriminants read: log-variance of each channel over the window, from silence."""
    return _log_variance(config, init_state(config, emg.shape[0]), emg)[0]


def _log_variance(config: LdaConfig, state: LdaState, emg: jax.Array) -> tuple[jax.Array, LdaState]:
    check_emg(config, emg)
    batch, samples, channels = emg.shape
    frames, past = samples // config.samples_per_call, config.window_frames - 1
    square = jnp.square(jnp.clip(emg, -CLIP_UV, CLIP_UV))
    power = jnp.mean(square.reshape(batch, frames, config.samples_per_call, channels), axis=2)
    power = jnp.concatenate([state.power, power], axis=1)
    window = sum(power[:, k : k + frames] for k in range(past + 1)) / (past + 1)
    return jnp.log(window + config.floor_uv**2), LdaState(power[:, power.shape[1] - past :])
