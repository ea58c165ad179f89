"""What the networks compute of the EMG first: learned spatial filters, a learned bank of temporal filters, and the logarithm of
the power of each over a frame of about 20 ms and over 2, 4 and 8 frames.

It is what decoders of surface EMG usually compute by hand, but learned and inside the network. It keeps the few past values
that it needs, so that a network can be fed frame by frame or all at once.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from myoloop.errors import MyoloopError

Params = Any
"""A decoder's parameters: a nested dict of float32 arrays."""

AVERAGES = (1, 2, 4, 8)
"""Frames over which power is averaged; each is the mean of two of the one before."""

CLIP_UV = 10_000.0  # microvolts: well above any surface EMG; keeps an electrode artefact from overflowing the squares


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """What any decoder reads. Times are asked for in milliseconds and rounded to whole samples or frames."""

    channels: int = 16
    """Channels of the armband."""
    rate_hz: float = 2000.0
    """Sampling rate of the EMG, Hz."""
    frame_ms: float = 20.0
    """Length of a frame, ms: the decoder is called, and answers, once a frame."""
    floor_uv: float = 1.0
    """Amplitude below which the logarithm of power flattens, microvolts: about the noise of an amplifier."""

    def __post_init__(self) -> None:
        if self.channels < 1 or self.rate_hz <= 0:
            raise MyoloopError(
                f"a decoder needs at least one channel and a positive rate; found {self.channels} channels at "
                f"{self.rate_hz} Hz. Take both from the armband."
            )
        if self.samples_per_call < 1:
            raise MyoloopError(
                f"a frame of {self.frame_ms} ms at {self.rate_hz} Hz holds no sample; choose frame_ms of at least "
                f"{1000.0 / self.rate_hz:.1f}."
            )

    @property
    def samples_per_call(self) -> int:
        """Samples in a frame."""
        return round(self.rate_hz * self.frame_ms / 1000.0)


@dataclasses.dataclass(frozen=True)
class FrontEndConfig(StreamConfig):
    """Sizes of the front-end."""

    spatial_filters: int = 32
    """Learned mixtures of the channels that are looked at."""
    temporal_filters: int = 4
    """Learned temporal filters, shared by all mixtures."""
    filter_ms: float = 8.0
    """Length of a temporal filter, ms (at least three samples are taken)."""

    @property
    def filter_taps(self) -> int:
        """Samples in a temporal filter."""
        return max(3, round(self.rate_hz * self.filter_ms / 1000.0))

    @property
    def features(self) -> int:
        """Powers per frame and averaging length."""
        return self.spatial_filters * self.temporal_filters

    @property
    def front_end_s(self) -> float:
        """How far back the features look, seconds."""
        return (AVERAGES[-1] * self.samples_per_call + self.filter_taps - 1) / self.rate_hz


def silent_raw(config: FrontEndConfig, batch: int) -> jax.Array:
    """(batch, filter_taps - 1, channels) microvolts: the samples before the first."""
    return jnp.zeros((batch, config.filter_taps - 1, config.channels), jnp.float32)


def silent_power(config: FrontEndConfig, batch: int) -> jax.Array:
    """(batch, 7, features): the power before the first frame."""
    return jnp.zeros((batch, AVERAGES[-1] - 1, config.features), jnp.float32)


class FrontEnd(nn.Module):
    """Base of the networks: `read` gives the features. Its parameters are the network's own: spatial, temporal, feature_mean,
    feature_spread."""

    def read(
        self, c: FrontEndConfig, emg: jax.Array, raw: jax.Array, power: jax.Array, given: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Features of every frame, and what to remember.

        Args:
          emg: (batch, frames x samples_per_call, channels), microvolts.
          raw, power: of `silent_raw` and `silent_power`, or of the last call.
          given: (batch, frames, features) power of the frames, to be taken instead of the EMG's.

        Returns:
          (batch, frames, 4 x features) standardised logarithms, the next raw and the next power.
        """
        raw = jnp.concatenate([raw, jnp.clip(emg, -CLIP_UV, CLIP_UV)], axis=1)
        new = self._frame_power(c, raw, emg.shape[1] // c.samples_per_call) if given is None else given
        self.sow("intermediates", "power", new)
        power = jnp.concatenate([power, new], axis=1)
        features = self._log_features(c, power)
        return features, raw[:, raw.shape[1] - (c.filter_taps - 1) :], power[:, power.shape[1] - (AVERAGES[-1] - 1) :]

    def _frame_power(self, c: FrontEndConfig, raw: jax.Array, frames: int) -> jax.Array:
        """(batch, past + samples, channels), microvolts -> (batch, frames, features): mean square of every filter."""
        batch, length, _ = raw.shape
        mixtures = self.param("spatial", _spatial_start, (c.channels, c.spatial_filters))
        mixed = jnp.matmul(raw, mixtures, precision="highest")
        bank = self.param("temporal", _temporal_start, (c.filter_taps, c.temporal_filters))
        lines = jnp.swapaxes(mixed, 1, 2).reshape(batch * c.spatial_filters, 1, length)
        filtered = jax.lax.conv_general_dilated(
            lines, bank.T[:, None, :], (1,), "VALID", dimension_numbers=("NCH", "OIH", "NCH"), precision="highest"
        )  # (batch x spatial, temporal, samples)
        square = jnp.square(filtered).reshape(batch, c.features, frames, c.samples_per_call)
        return jnp.swapaxes(jnp.mean(square, axis=-1), 1, 2)

    def _log_features(self, c: FrontEndConfig, power: jax.Array) -> jax.Array:
        """(batch, 7 + frames, features) -> (batch, frames, 4 x features): standardised log of averaged power."""
        frames = power.shape[1] - (AVERAGES[-1] - 1)
        averaged = [power]
        for shift in AVERAGES[:-1]:
            last = averaged[-1]
            averaged.append(0.5 * (last[:, shift:] + last[:, : last.shape[1] - shift]))
        newest = jnp.concatenate([a[:, a.shape[1] - frames :] for a in averaged], axis=-1)
        log_power = jnp.log(newest + c.floor_uv**2)
        self.sow("intermediates", "log_power", log_power)
        mean = self.param("feature_mean", nn.initializers.zeros, (log_power.shape[-1],))
        spread = self.param("feature_spread", nn.initializers.ones, (log_power.shape[-1],))
        return (log_power - mean) / spread


def standardised(params: Params, log_power: jax.Array) -> Params:
    """Parameters whose features have mean 0 and spread 1, from log-powers (batch, frames, n) after the first frames."""
    flat = log_power[:, AVERAGES[-1] :].reshape(-1, log_power.shape[-1])
    return {**params, "feature_mean": flat.mean(axis=0), "feature_spread": flat.std(axis=0) + 1e-3}


def dense(width: int, name: str) -> nn.Dense:
    """A linear layer that keeps full precision on accelerators, where ONNX on a CPU could not follow TF32."""
    return nn.Dense(width, precision="highest", name=name)


def _spatial_start(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
    """Mixtures to start from: the channels, then differences of neighbours around the arm, each with a little noise."""
    channels, filters = shape
    eye = np.eye(channels)
    around = np.tile(np.concatenate([eye, eye - np.roll(eye, 1, axis=0)], axis=1), -(-filters // (2 * channels)))
    return jnp.asarray(around[:, :filters], dtype) + 0.05 * jax.random.normal(key, shape, dtype)


def _temporal_start(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
    """Temporal filters to start from: noise with unit gain for white input, so that the scale in microvolts is kept."""
    bank = jax.random.normal(key, shape, dtype)
    return bank / jnp.linalg.norm(bank, axis=0)


def check_emg(config: StreamConfig, emg: jax.Array) -> None:
    """Refuses EMG of another number of channels, or that is not cut into whole frames."""
    samples, channels = emg.shape[1], emg.shape[2]
    if channels != config.channels or samples == 0 or samples % config.samples_per_call:
        raise MyoloopError(
            f"the decoder reads (batch, multiple of {config.samples_per_call} samples, {config.channels} channels); "
            f"found shape {tuple(emg.shape)}. Cut the EMG into whole frames of the armband that the decoder was made "
            "for."
        )
