"""A causal, streaming temporal convolutional network: raw surface EMG in, probability of flexed per finger out.

The front-end is what decoders of surface EMG usually compute by hand, but learned and inside the network: spatial
filters (mixtures of electrodes), a bank of temporal filters, rectification by squaring, power averaged over a frame of
about 20 ms and over 2, 4 and 8 frames, logarithm. Dilated causal convolutions over frames (Bai, Kolter & Koltun 2018)
read these features. Every layer keeps the few past values it needs, so the network can be fed frame by frame or all at
once:

    state = init_state(config, batch)
    prediction, state = step(config, params, state, emg)        # emg (batch, samples_per_call, channels), microvolts

Everything is pure JAX: `step` can be called inside a jitted loop, with `config` static.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from myoloop.body.names import FINGERS
from myoloop.errors import MyoloopError

Params = Any
"""The network's parameters: a nested dict of float32 arrays."""

_CLIP_UV = 10_000.0  # microvolts: well above any surface EMG; keeps an electrode artefact from overflowing the squares


@dataclasses.dataclass(frozen=True)
class TcnConfig:
    """Sizes of the network. Times are asked for in milliseconds and rounded to whole samples or frames."""

    channels: int = 16
    """Channels of the armband."""
    rate_hz: float = 2000.0
    """Sampling rate of the EMG, Hz."""
    frame_ms: float = 20.0
    """Length of a frame, ms: the network is called, and answers, once a frame."""
    spatial_filters: int = 32
    """Learned mixtures of the channels that are looked at."""
    temporal_filters: int = 4
    """Learned temporal filters, shared by all mixtures."""
    filter_ms: float = 8.0
    """Length of a temporal filter, ms (at least three samples are taken)."""
    hidden: int = 64
    """Width of the convolutions over frames."""
    taps: int = 3
    """Frames that each convolution over frames looks at."""
    dilations: tuple[int, ...] = (1, 2, 4)
    """Spacing of those frames, one entry per layer."""
    dropout: float = 0.15
    """Fraction of hidden values dropped during training."""
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

    @property
    def filter_taps(self) -> int:
        """Samples in a temporal filter."""
        return max(3, round(self.rate_hz * self.filter_ms / 1000.0))

    @property
    def features(self) -> int:
        """Powers per frame and averaging length."""
        return self.spatial_filters * self.temporal_filters

    @property
    def receptive_field_s(self) -> float:
        """How far back a prediction looks, seconds."""
        frames = 1 + (_AVERAGES[-1] - 1) + sum((self.taps - 1) * d for d in self.dilations)
        return (frames * self.samples_per_call + self.filter_taps - 1) / self.rate_hz


_AVERAGES = (1, 2, 4, 8)  # frames over which power is averaged; each is the mean of two of the one before


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
        raw=jnp.zeros((batch, config.filter_taps - 1, config.channels), jnp.float32),
        power=jnp.zeros((batch, _AVERAGES[-1] - 1, config.features), jnp.float32),
        hidden=tuple(jnp.zeros((batch, (config.taps - 1) * d, config.hidden), jnp.float32) for d in config.dilations),
    )


class _Network(nn.Module):
    """The layers. Called on (batch, frames x samples_per_call, channels); answers (batch, frames, 5) logits."""

    config: TcnConfig

    @nn.compact
    def __call__(
        self, emg: jax.Array, state: TcnState, *, train: bool = False, power: jax.Array | None = None
    ) -> tuple[jax.Array, TcnState]:
        """power: of the frames, instead of the EMG's (`logits_of_power`)."""
        c = self.config
        raw = jnp.concatenate([state.raw, jnp.clip(emg, -_CLIP_UV, _CLIP_UV)], axis=1)
        new_power = self._frame_power(raw, emg.shape[1] // c.samples_per_call) if power is None else power
        self.sow("intermediates", "power", new_power)
        power = jnp.concatenate([state.power, new_power], axis=1)
        h = self._log_features(power)
        h = nn.gelu(_dense(c.hidden, "features_in")(h))
        carried = []
        for layer, dilation in enumerate(c.dilations):
            past = (c.taps - 1) * dilation
            frames = jnp.concatenate([state.hidden[layer], h], axis=1)
            taps = [frames[:, k * dilation : frames.shape[1] - past + k * dilation] for k in range(c.taps)]
            update = nn.gelu(_dense(c.hidden, f"layer_{layer}")(jnp.concatenate(taps, axis=-1)))
            update = nn.Dropout(c.dropout, deterministic=not train)(update)
            h = nn.LayerNorm(name=f"norm_{layer}")(h + update)
            carried.append(frames[:, frames.shape[1] - past :])
        logits = _dense(len(FINGERS), "head")(h)
        kept_raw = raw[:, raw.shape[1] - (c.filter_taps - 1) :]
        return logits, TcnState(kept_raw, power[:, power.shape[1] - (_AVERAGES[-1] - 1) :], tuple(carried))

    def _frame_power(self, raw: jax.Array, frames: int) -> jax.Array:
        """(batch, past + samples, channels), microvolts -> (batch, frames, features): mean square of every filter."""
        c = self.config
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

    def _log_features(self, power: jax.Array) -> jax.Array:
        """(batch, 7 + frames, features) -> (batch, frames, 4 x features): standardised log of averaged power."""
        frames = power.shape[1] - (_AVERAGES[-1] - 1)
        averaged = [power]
        for shift in _AVERAGES[:-1]:
            last = averaged[-1]
            averaged.append(0.5 * (last[:, shift:] + last[:, : last.shape[1] - shift]))
        newest = jnp.concatenate([a[:, a.shape[1] - frames :] for a in averaged], axis=-1)
        log_power = jnp.log(newest + self.config.floor_uv**2)
        self.sow("intermediates", "log_power", log_power)
        mean = self.param("feature_mean", nn.initializers.zeros, (log_power.shape[-1],))
        spread = self.param("feature_spread", nn.initializers.ones, (log_power.shape[-1],))
        return (log_power - mean) / spread


def _dense(width: int, name: str) -> nn.Dense:
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


def init_params(config: TcnConfig, key: jax.Array) -> Params:
    """Random parameters from a key."""
    emg = jnp.zeros((1, config.samples_per_call, config.channels), jnp.float32)
    return jax.jit(_Network(config).init)(key, emg, init_state(config, 1))["params"]


def count_parameters(params: Params) -> int:
    """How many numbers the parameters hold."""
    return int(sum(np.size(leaf) for leaf in jax.tree.leaves(params)))


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
    _check_shape(config, emg)
    rngs = None if dropout is None else {"dropout": dropout}
    odds, state = cast(
        tuple[jax.Array, TcnState],
        _Network(config).apply({"params": params}, emg, state, train=dropout is not None, rngs=rngs),
    )
    return odds, state


def predict(config: TcnConfig, params: Params, state: TcnState, emg: jax.Array) -> tuple[jax.Array, TcnState]:
    """Probability of flexed after every frame: (batch, frames, 5), and the next state. Arguments as in `logits`."""
    odds, state = logits(config, params, state, emg)
    return nn.sigmoid(odds), state


def step(config: TcnConfig, params: Params, state: TcnState, emg: jax.Array) -> tuple[jax.Array, TcnState]:
    """Probability of flexed, thumb to little, for the newest frame: (batch, 5), and the next state."""
    probability, state = predict(config, params, state, emg)
    return probability[:, -1], state


def frame_power(config: TcnConfig, params: Params, emg: jax.Array) -> jax.Array:
    """(batch, frames, features) microvolts^2: power of every filter's output in every frame, spatial filters outermost.

    Arguments as in `logits`, from a fresh state.
    """
    _check_shape(config, emg)
    start = init_state(config, emg.shape[0])
    _, seen = _Network(config).apply({"params": params}, emg, start, mutable=["intermediates"])
    return seen["intermediates"]["power"][0]


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
    _check_shape(config, emg)
    log_power = _log_power(config, params, emg)[:, _AVERAGES[-1] :]
    flat = log_power.reshape(-1, log_power.shape[-1])
    return {**params, "feature_mean": flat.mean(axis=0), "feature_spread": flat.std(axis=0) + 1e-3}


@functools.partial(jax.jit, static_argnums=0)
def _log_power(config: TcnConfig, params: Params, emg: jax.Array) -> jax.Array:
    """(batch, frames, 4 x features) log of averaged power, as the layers after it see it before standardisation."""
    start = init_state(config, emg.shape[0])
    _, seen = _Network(config).apply({"params": params}, emg, start, mutable=["intermediates"])
    return seen["intermediates"]["log_power"][0]


def _check_shape(config: TcnConfig, emg: jax.Array) -> None:
    samples, channels = emg.shape[1], emg.shape[2]
    if channels != config.channels or samples == 0 or samples % config.samples_per_call:
        raise MyoloopError(
            f"the decoder reads (batch, multiple of {config.samples_per_call} samples, {config.channels} channels); "
            f"found shape {tuple(emg.shape)}. Cut the EMG into whole frames of the armband that the decoder was made "
            "for."
        )
