"""Train a decoder on recorded EMG (phase 1.5): crops, augmentation, AdamW, the best state on validation recordings, and
probabilities that are calibrated on them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from myoloop.body.names import FINGERS
from myoloop.decoder import networks
from myoloop.decoder.lda import LdaConfig
from myoloop.errors import MyoloopError
from myoloop.learn.augmentation import AugmentationConfig, augment
from myoloop.learn.linear import fit_discriminants
from myoloop.learn.metrics import cross_entropy, right

_LDA_CROPS = 960  # crops that discriminants are fitted to: 40 minutes at 2.5 s


class Recordings(NamedTuple):
    """EMG with what was asked for, any number of recordings of one length."""

    emg: np.ndarray
    """(recordings, samples, channels) float32, microvolts."""
    labels: np.ndarray
    """(recordings, frames, 5) float32: 1 where the finger was asked to be flexed at the end of the frame; for target flexion,
    how far, 0 to 1, or NaN where nobody knows."""

    def crops(self, rng: np.random.Generator, count: int, steps: int) -> Recordings:
        """`count` random stretches of `steps` frames of random recordings."""
        samples = self.emg.shape[1] // self.labels.shape[1]
        which = rng.integers(len(self.emg), size=count)
        starts = rng.integers(self.labels.shape[1] - steps + 1, size=count)
        emg = np.stack([self.emg[r, s * samples : (s + steps) * samples] for r, s in zip(which, starts, strict=True)])
        labels = np.stack([self.labels[r, s : s + steps] for r, s in zip(which, starts, strict=True)])
        return Recordings(emg, labels)


class Source(Protocol):
    """Where crops come from: Recordings in memory, or a dataset on disk."""

    def crops(self, rng: np.random.Generator, count: int, steps: int) -> Recordings:
        """`count` random stretches of `steps` frames."""


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How a decoder is trained."""

    updates: int = 400
    """Steps of the optimiser. Discriminants (lda) are fitted at once, to 960 crops."""
    batch: int = 32
    """Crops per step."""
    crop_s: float = 2.5
    """Length of a crop, seconds; the first part, as long as the network looks back, only warms it up."""
    learning_rate: float = 4e-3
    """Peak of the learning rate: reached after a tenth of the updates, then a cosine down to zero."""
    weight_decay: float = 1e-2
    """AdamW's pull of the weights towards zero (Loshchilov & Hutter 2019)."""
    augmentation: AugmentationConfig = dataclasses.field(default_factory=AugmentationConfig)
    """How crops are changed."""
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

    params: networks.Params
    history: tuple[Progress, ...]
    temperature: float
    """What the log-odds were divided by so that the probabilities are calibrated on the validation recordings."""


def train(
    network: networks.Config,
    config: TrainingConfig,
    training: Source,
    validation: Recordings,
    on_update: Callable[[int, float, Progress | None], None] = lambda update, loss, progress: None,
    target: str = "flexed",
) -> Trained:
    """Fit a decoder of any kind.

    Args:
      network: which, and its sizes.
      config: how to train.
      training: recordings to learn from.
      validation: recordings of other references: they choose the state that is kept and its calibration.
      on_update: called after every update with (updates done, loss, newest Progress or None before the first).
      target: of contract.TARGETS: what the labels are.

    Returns:
      the best parameters with calibrated log-odds, and the learning curve. The same seed and data give the same
      weights on the same machine.

    Raises:
      MyoloopError: recordings that do not fit the decoder, or labels that are not the target's.
    """
    frames, warm = _crop_frames(network, config)
    if isinstance(network, LdaConfig) and target != "flexed":
        raise MyoloopError(f"discriminants tell flexed from extended; for target '{target}' train a tcn or a gru.")
    if isinstance(training, Recordings):
        check_recordings(network, training, frames, target)
    check_recordings(network, validation, warm + 1, target)
    rng = np.random.default_rng(config.seed)

    def crops() -> Recordings:
        drawn = training.crops(rng, config.batch, frames)
        if not isinstance(training, Recordings):
            check_recordings(network, drawn, frames, target)
        return drawn

    learn = _fit if isinstance(network, LdaConfig) else _descend
    params, history = learn(network, config, crops, validation, on_update)
    temperature = fit_temperature(run_offline(network, params, validation.emg), validation.labels)
    return Trained(networks.tempered(params, temperature), history, temperature)


def _descend(
    network: networks.Config,
    config: TrainingConfig,
    crops: Callable[[], Recordings],
    validation: Recordings,
    on_update: Callable[[int, float, Progress | None], None],
) -> tuple[networks.Params, tuple[Progress, ...]]:
    """Parameters by gradient descent: those that were best on the validation recordings."""
    key = jax.random.key(config.seed)
    params = networks.standardise(network, networks.init_params(network, key), jnp.asarray(crops().emg))
    optimiser_state = make_optimiser(config).init(params)
    history: list[Progress] = []
    best, best_params, recent = float("inf"), params, []
    marks = set(np.linspace(0, config.updates, config.validations + 1)[1:].round().astype(int).tolist())
    for update in range(1, config.updates + 1):
        now = crops()
        step_key = jax.random.fold_in(key, update)
        params, optimiser_state, loss, accuracy = _update(
            network, config, params, optimiser_state, step_key, jnp.asarray(now.emg), jnp.asarray(now.labels)
        )
        recent.append((float(loss), float(accuracy)))
        if update in marks:
            history.append(_progress(update, recent, run_offline(network, params, validation.emg), validation))
            recent = []
            if history[-1].validation_loss < best:
                best, best_params = history[-1].validation_loss, params
        on_update(update, float(loss), history[-1] if history else None)
    return best_params, tuple(history)


def _fit(
    network: networks.Config,
    config: TrainingConfig,
    crops: Callable[[], Recordings],
    validation: Recordings,
    on_update: Callable[[int, float, Progress | None], None],
) -> tuple[networks.Params, tuple[Progress, ...]]:
    """Discriminants, fitted at once to augmented crops."""
    assert isinstance(network, LdaConfig)
    seen: list[Recordings] = []

    def augmented() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        key = jax.random.key(config.seed)
        for n in range(-(-_LDA_CROPS // config.batch)):
            now = crops()
            seen[:] = [
                Recordings(
                    np.asarray(augment(config.augmentation, jax.random.fold_in(key, n), jnp.asarray(now.emg))),
                    now.labels,
                )
            ]
            yield seen[0]

    params = fit_discriminants(network, augmented())
    odds = run_offline(network, params, seen[0].emg)
    recent = [(cross_entropy(odds, seen[0].labels), right(odds, seen[0].labels))]
    progress = _progress(config.updates, recent, run_offline(network, params, validation.emg), validation)
    on_update(config.updates, progress.loss, progress)
    return params, (progress,)


def _progress(update: int, recent: list[tuple[float, float]], odds: np.ndarray, validation: Recordings) -> Progress:
    loss, accuracy = np.mean(recent, axis=0)
    found = cross_entropy(odds, validation.labels), right(odds, validation.labels)
    return Progress(update, float(loss), float(accuracy), *found)


def make_optimiser(config: TrainingConfig) -> optax.GradientTransformation:
    """AdamW with clipped gradients and a warmed-up cosine."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, max(1, config.updates // 10), max(2, config.updates)
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=config.weight_decay))


def run_offline(network: networks.Config, params: networks.Params, emg: np.ndarray, batch: int = 8) -> np.ndarray:
    """Log-odds (recordings, frames, 5) of whole recordings (recordings, samples, channels), from the silent state."""
    odds = []
    for first in range(0, len(emg), batch):
        part = emg[first : first + batch]
        padded = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), part.dtype)])
        answer = _run(network, params, jnp.asarray(padded))
        odds.append(np.asarray(answer)[: len(part)])
    return np.concatenate(odds)


@functools.partial(jax.jit, static_argnums=0)
def _run(network: networks.Config, params: networks.Params, emg: jax.Array) -> jax.Array:
    return networks.logits(network, params, networks.init_state(network, emg.shape[0]), emg)[0]


def fit_temperature(odds: np.ndarray, labels: np.ndarray) -> float:
    """The number by which to divide log-odds so that their cross-entropy is least (Guo et al. 2017)."""
    candidates = np.geomspace(0.3, 5.0, 60)
    losses = [cross_entropy(odds / t, labels) for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def check_recordings(network: networks.Config, recordings: Recordings, frames: int, target: str = "flexed") -> None:
    """Refuse recordings that do not fit the network, hold no numbers or labels that are not the target's, or are too short."""
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
    good = np.isin(labels, (0.0, 1.0)) if target == "flexed" else ~((labels < 0.0) | (labels > 1.0))
    if not good.all():
        recording, frame, finger = (int(each) for each in np.argwhere(~good)[0])
        expected = "0 (extended) or 1 (flexed). Threshold them first" if target == "flexed" else "flexion, 0 to 1"
        raise MyoloopError(
            f"recording {recording}, frame {frame}: the {FINGERS[finger]}'s label is {labels[recording, frame, finger]:g}; "
            f"labels to train on must be {expected}."
        )


def _crop_frames(network: networks.Config, config: TrainingConfig) -> tuple[int, int]:
    """(frames of a crop, of those the ones that only warm up)."""
    frame_s = network.samples_per_call / network.rate_hz
    warm = int(np.ceil(network.looks_back_s / frame_s))
    frames = round(config.crop_s / frame_s)
    if frames <= warm:
        raise MyoloopError(
            f"crop_s is {config.crop_s} s, but the network looks {network.looks_back_s:.2f} s back; choose a "
            "longer crop."
        )
    return frames, warm


@functools.partial(jax.jit, static_argnums=(0, 1))
def _update(
    network: networks.Config,
    config: TrainingConfig,
    params: networks.Params,
    optimiser_state: optax.OptState,
    key: jax.Array,
    emg: jax.Array,
    labels: jax.Array,
) -> tuple[networks.Params, optax.OptState, jax.Array, jax.Array]:
    """One step of the optimiser on crops; also the loss and the accuracy of these crops before it."""
    _, warm = _crop_frames(network, config)
    augment_key, dropout_key = jax.random.split(key)

    def loss_of(params: networks.Params) -> tuple[jax.Array, jax.Array]:
        emg_now = augment(config.augmentation, augment_key, emg)
        odds, _ = networks.logits(network, params, networks.init_state(network, emg.shape[0]), emg_now, dropout_key)
        odds, wanted = odds[:, warm:], labels[:, warm:]
        known = jnp.isfinite(wanted)
        loss = optax.sigmoid_binary_cross_entropy(odds, jnp.where(known, wanted, 0.5)).mean(where=known)
        return loss, jnp.mean((odds > 0) == (wanted > 0.5), where=known)

    (loss, accuracy), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
    change, optimiser_state = make_optimiser(config).update(gradient, optimiser_state, params)
    return optax.apply_updates(params, change), optimiser_state, loss, accuracy
