"""Train a decoder on recorded EMG (phase 1.5): crops, augmentation, AdamW, the best state on validation recordings."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from myoloop.decoder import tcn
from myoloop.errors import MyoloopError
from myoloop.learn.metrics import Scores, cross_entropy, score


class Recordings(NamedTuple):
    """EMG with the labels that were asked for, any number of recordings of one length."""

    emg: np.ndarray
    """(recordings, samples, channels) float32, microvolts."""
    labels: np.ndarray
    """(recordings, frames, 5) float32: 1 where the finger was asked to be flexed at the end of the frame."""


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How a decoder is trained."""

    updates: int = 400
    """Steps of the optimiser."""
    batch: int = 32
    """Crops per step."""
    crop_s: float = 2.5
    """Length of a crop, seconds; its first receptive field only warms the network up."""
    learning_rate: float = 4e-3
    """Peak of the learning rate: reached after a tenth of the updates, then a cosine down to zero."""
    weight_decay: float = 1e-2
    """AdamW's pull of the weights towards zero (Loshchilov & Hutter 2019)."""
    gain_sd: float = 0.1
    """Spread of the random gain of a whole crop and, at half of it, of each channel (natural logarithm)."""
    noise_uv: float = 3.0
    """Largest RMS of the noise added to a crop, microvolts."""
    lost_channel: float = 0.1
    """Probability that a crop loses one channel, which then only carries noise."""
    validations: int = 10
    """How often the validation recordings are scored; the best state of these is kept."""
    seed: int = 0
    """Seed of the start weights, the crops and the augmentation."""


class Progress(NamedTuple):
    """One point of the learning curve."""

    update: int
    loss: float
    """Mean cross-entropy of the crops since the last point, nats per finger."""
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float


class Trained(NamedTuple):
    """What training gives."""

    params: tcn.Params
    history: tuple[Progress, ...]
    validation: Scores
    temperature: float
    """What the log-odds were divided by so that the probabilities are calibrated on the validation recordings."""


def train(
    network: tcn.TcnConfig,
    config: TrainingConfig,
    training: Recordings,
    validation: Recordings,
    on_update: Callable[[int, float, Progress | None], None] = lambda update, loss, progress: None,
) -> Trained:
    """Fit a TCN.

    Args:
      network: its sizes.
      config: how to train.
      training: recordings to learn from.
      validation: recordings of other references: they choose the state that is kept and its calibration.
      on_update: called after every update with (updates done, loss, newest Progress or None before the first).

    Returns:
      the best parameters with calibrated log-odds, and the learning curve. The same seed and data give the same
      weights on the same machine.
    """
    frames, warm = _crop_frames(network, config)
    check_recordings(network, training, frames)
    check_recordings(network, validation, warm + 1)
    rng = np.random.default_rng(config.seed)
    key = jax.random.key(config.seed)
    params = tcn.init_params(network, key)
    params = tcn.standardise(network, params, jnp.asarray(_crops(rng, network, training, frames, config.batch).emg))
    optimiser = make_optimiser(config)
    optimiser_state = optimiser.init(params)
    history: list[Progress] = []
    best, best_params, recent = float("inf"), params, []
    marks = set(np.linspace(0, config.updates, config.validations + 1)[1:].round().astype(int).tolist())
    for update in range(1, config.updates + 1):
        crops = _crops(rng, network, training, frames, config.batch)
        step_key = jax.random.fold_in(key, update)
        params, optimiser_state, loss, accuracy = _update(
            network, config, params, optimiser_state, step_key, jnp.asarray(crops.emg), jnp.asarray(crops.labels)
        )
        recent.append((float(loss), float(accuracy)))
        if update in marks:
            odds = run_offline(network, params, validation.emg)
            checked = score(odds, validation.labels)
            mean_loss, mean_accuracy = np.mean(recent, axis=0)
            history.append(Progress(update, float(mean_loss), float(mean_accuracy), checked.loss, checked.accuracy))
            recent = []
            if checked.loss < best:
                best, best_params = checked.loss, params
        on_update(update, float(loss), history[-1] if history else None)
    odds = run_offline(network, best_params, validation.emg)
    temperature = fit_temperature(odds, validation.labels)
    head = jax.tree.map(lambda leaf: leaf / temperature, best_params["head"])
    return Trained(
        {**best_params, "head": head}, tuple(history), score(odds / temperature, validation.labels), temperature
    )


def make_optimiser(config: TrainingConfig) -> optax.GradientTransformation:
    """AdamW with clipped gradients and a warmed-up cosine."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, max(1, config.updates // 10), max(2, config.updates)
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=config.weight_decay))


def run_offline(network: tcn.TcnConfig, params: tcn.Params, emg: np.ndarray, batch: int = 8) -> np.ndarray:
    """Log-odds (recordings, frames, 5) of whole recordings (recordings, samples, channels), from the silent state."""
    odds = []
    for first in range(0, len(emg), batch):
        part = emg[first : first + batch]
        padded = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), part.dtype)])
        answer = _run(network, params, jnp.asarray(padded))
        odds.append(np.asarray(answer)[: len(part)])
    return np.concatenate(odds)


@functools.partial(jax.jit, static_argnums=0)
def _run(network: tcn.TcnConfig, params: tcn.Params, emg: jax.Array) -> jax.Array:
    return tcn.logits(network, params, tcn.init_state(network, emg.shape[0]), emg)[0]


def fit_temperature(odds: np.ndarray, labels: np.ndarray) -> float:
    """The number by which to divide log-odds so that their cross-entropy is least (Guo et al. 2017)."""
    candidates = np.geomspace(0.3, 5.0, 60)
    losses = [cross_entropy(odds / t, labels) for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def check_recordings(network: tcn.TcnConfig, recordings: Recordings, frames: int) -> None:
    """Refuse recordings that do not fit the network, hold no numbers or other labels than 0 and 1, or are too short."""
    emg, labels = recordings
    if emg.ndim != 3 or emg.shape[2] != network.channels or labels.ndim != 3 or labels.shape[2] != 5:
        raise MyoloopError(
            f"recordings are EMG (recordings, samples, {network.channels}) with labels (recordings, frames, 5); found "
            f"{emg.shape} and {labels.shape}."
        )
    if labels.shape[:2] != (emg.shape[0], emg.shape[1] // network.samples_per_call) or (
        emg.shape[1] % network.samples_per_call
    ):
        raise MyoloopError(
            f"every {network.samples_per_call} samples of EMG need one label; found EMG {emg.shape} and labels "
            f"{labels.shape}."
        )
    if labels.shape[1] < frames:
        raise MyoloopError(
            f"recordings hold {labels.shape[1]} frames of {network.frame_ms:g} ms, training needs {frames}: record "
            "longer."
        )
    if not np.isfinite(emg).all():
        raise MyoloopError("the EMG to train on holds values that are not finite. Remove those recordings.")
    if not np.isin(labels, (0.0, 1.0)).all():
        raise MyoloopError("labels to train on must be 0 (extended) or 1 (flexed). Threshold them first.")


def _crop_frames(network: tcn.TcnConfig, config: TrainingConfig) -> tuple[int, int]:
    """(frames of a crop, of those the ones that only warm up)."""
    frame_s = network.samples_per_call / network.rate_hz
    warm = int(np.ceil(network.receptive_field_s / frame_s))
    frames = round(config.crop_s / frame_s)
    if frames <= warm:
        raise MyoloopError(
            f"crop_s is {config.crop_s} s, but the network looks {network.receptive_field_s:.2f} s back; choose a "
            "longer crop."
        )
    return frames, warm


def _crops(rng: np.random.Generator, network: tcn.TcnConfig, data: Recordings, frames: int, count: int) -> Recordings:
    """Random stretches of random recordings."""
    samples = network.samples_per_call
    which = rng.integers(len(data.emg), size=count)
    starts = rng.integers(data.labels.shape[1] - frames + 1, size=count)
    emg = np.stack([data.emg[r, s * samples : (s + frames) * samples] for r, s in zip(which, starts, strict=True)])
    labels = np.stack([data.labels[r, s : s + frames] for r, s in zip(which, starts, strict=True)])
    return Recordings(emg, labels)


def augment(config: TrainingConfig, key: jax.Array, emg: jax.Array) -> jax.Array:
    """EMG (batch, samples, channels) as it might have been on another day: other gains, noise, a lost electrode."""
    batch, _, channels = emg.shape
    keys = jax.random.split(key, 6)
    gain = config.gain_sd * jax.random.normal(keys[0], (batch, 1, 1))
    gain += 0.5 * config.gain_sd * jax.random.normal(keys[1], (batch, 1, channels))
    lost = jax.random.randint(keys[2], (batch, 1, 1), 0, channels) == jnp.arange(channels)
    lost &= jax.random.bernoulli(keys[3], config.lost_channel, (batch, 1, 1))
    noise = config.noise_uv * jax.random.uniform(keys[4], (batch, 1, 1)) * jax.random.normal(keys[5], emg.shape)
    return jnp.where(lost, 0.0, emg * jnp.exp(gain)) + noise


@functools.partial(jax.jit, static_argnums=(0, 1))
def _update(
    network: tcn.TcnConfig,
    config: TrainingConfig,
    params: tcn.Params,
    optimiser_state: optax.OptState,
    key: jax.Array,
    emg: jax.Array,
    labels: jax.Array,
) -> tuple[tcn.Params, optax.OptState, jax.Array, jax.Array]:
    """One step of the optimiser on crops; also the loss and the accuracy of these crops before it."""
    _, warm = _crop_frames(network, config)
    augment_key, dropout_key = jax.random.split(key)

    def loss_of(params: tcn.Params) -> tuple[jax.Array, jax.Array]:
        emg_now = augment(config, augment_key, emg)
        odds, _ = tcn.logits(network, params, tcn.init_state(network, emg.shape[0]), emg_now, dropout_key)
        odds, wanted = odds[:, warm:], labels[:, warm:]
        loss = optax.sigmoid_binary_cross_entropy(odds, wanted).mean()
        return loss, jnp.mean((odds > 0) == (wanted > 0.5))

    (loss, accuracy), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
    change, optimiser_state = make_optimiser(config).update(gradient, optimiser_state, params)
    return optax.apply_updates(params, change), optimiser_state, loss, accuracy
