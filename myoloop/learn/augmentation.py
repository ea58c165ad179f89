"""EMG as it might have been on another day: louder, noisier, with a lost electrode, or with the armband a little turned."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from myoloop.errors import MyoloopError


@dataclass(frozen=True)
class AugmentationConfig:
    """How much the EMG of a crop is changed while a decoder learns; 0 leaves it as it is."""

    gain_sd: float = 0.1
    """Spread of the random gain of a whole crop (natural logarithm)."""
    channel_gain_sd: float = 0.05
    """Spread of the random gain of each channel besides (natural logarithm)."""
    noise_uv: float = 3.0
    """Largest RMS of the noise added to a crop, microvolts."""
    lost_channel: float = 0.1
    """Probability that a crop loses one channel, which then only carries noise."""
    turn_sd: float = 0.0
    """Spread by which the armband is turned, in distances between neighbouring channels (16 around the arm: 22.5 degrees).
    Only for channels that stand in order and evenly around the whole arm; values between two electrodes are interpolated."""

    def __post_init__(self) -> None:
        for name in ("gain_sd", "channel_gain_sd", "noise_uv", "lost_channel", "turn_sd"):
            value = getattr(self, name)
            if not 0.0 <= value < float("inf") or (name == "lost_channel" and value > 1.0):
                expected = "a probability, 0 to 1" if name == "lost_channel" else "0 or more"
                raise MyoloopError(f"augmentation: {name} is {value}; expected {expected}.")


def augment(config: AugmentationConfig, key: Array, emg: Array) -> Array:
    """EMG (batch, samples, channels), microvolts, each of the batch changed in its own way."""
    batch, _, channels = emg.shape
    keys = jax.random.split(key, 6)
    if config.turn_sd:
        turns = config.turn_sd * jax.random.normal(jax.random.fold_in(key, 6), (batch,))
        emg = turned(emg, turns)
    gain = config.gain_sd * jax.random.normal(keys[0], (batch, 1, 1))
    gain += config.channel_gain_sd * jax.random.normal(keys[1], (batch, 1, channels))
    lost = jax.random.randint(keys[2], (batch, 1, 1), 0, channels) == jnp.arange(channels)
    lost &= jax.random.bernoulli(keys[3], config.lost_channel, (batch, 1, 1))
    noise = config.noise_uv * jax.random.uniform(keys[4], (batch, 1, 1)) * jax.random.normal(keys[5], emg.shape)
    return jnp.where(lost, 0.0, emg * jnp.exp(gain)) + noise


def turned(emg: Array, turns: Array) -> Array:
    """EMG (batch, samples, channels) of a ring of channels turned by `turns` (batch,) distances between channels: channel c
    hears what stood at c + turn. By Fourier interpolation around the ring, so that power is kept; a whole turn is exact."""
    channels = emg.shape[2]
    places = jnp.arange(channels)
    apart = places[:, None] - places[None, :] - turns[:, None, None]  # (batch, from, to)
    waves = jnp.arange(1, (channels + 1) // 2)
    kernel = 1.0 + 2.0 * jnp.cos(2.0 * jnp.pi * apart[..., None] * waves / channels).sum(axis=-1)
    if channels % 2 == 0:
        kernel = kernel + jnp.cos(jnp.pi * apart)
    return jnp.einsum("bsc,bcd->bsd", emg, kernel / channels)
