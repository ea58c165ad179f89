"""A copy of somebody's decoder: a network of ours that answers the same EMG as the original did, to adapt to in the batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from myoloop.decoder import networks
from myoloop.errors import MyoloopError
from myoloop.learn.augmentation import AugmentationConfig
from myoloop.learn.supervised import Progress, Recordings, TrainingConfig, run_offline, train
from myoloop.streams.pairs import Pairs, stretches
from myoloop.task.gestures import nearest_gesture

KEPT_OUT = 5
"""One of so many stretches is never learned from: it says how far copy and original agree; another chooses the best state."""


@dataclasses.dataclass(frozen=True)
class CopyConfig:
    """How a copy is made."""

    hidden: int = 64
    """Width of the network's layers over frames."""
    stretch_s: float = 5.0
    """s of EMG that are learned from, or kept out, together."""
    training: TrainingConfig = dataclasses.field(
        default_factory=lambda: TrainingConfig(updates=2000, augmentation=AugmentationConfig(0.0, 0.0, 0.0, 0.0))
    )
    """As it is trained: on the EMG as it was, since the original's answers belong to this and no other."""


class Agreement(NamedTuple):
    """How often two decoders say the same of the same EMG, 0..1."""

    fingers: float
    """Mean over fingers and control steps: both flexed, or both extended."""
    gestures: float | None
    """Part of the control steps in which both mean the same gesture; None for a decoder without gestures."""
    steps: int
    """Control steps compared: those that got an answer of their own."""


class Copy(NamedTuple):
    """What copying gives."""

    network: networks.Config
    params: networks.Params
    kept_out: Agreement
    """On stretches that it has not learned from."""
    stretches: int
    """Of EMG with answers that were there."""


def copy_decoder(
    config: CopyConfig,
    sessions: Sequence[Pairs],
    control_hz: float,
    gestures: Mapping[str, tuple[float, ...]] | None = None,
    on_update: Callable[[int, float, Progress | None], None] = lambda update, loss, progress: None,
) -> Copy:
    """Trains a temporal convolutional network on what the original answered.

    Args:
      config: how.
      sessions: EMG with answers, of one armband.
      control_hz: Hz: a frame is a control step.
      gestures: that the original knows, if it does.
      on_update: see learn.supervised.train.

    Raises:
      MyoloopError: sessions of different armbands, or too little to learn from.
    """
    rates = {(pairs.rate_hz, pairs.emg.shape[1]) for pairs in sessions if len(pairs.emg)}
    if len(rates) != 1:
        raise MyoloopError(f"sessions with EMG of one rate and number of channels are needed, found {sorted(rates)}.")
    rate_hz, channels = rates.pop()
    frame = round(rate_hz / control_hz)
    network = networks.make_config("tcn", channels=channels, rate_hz=rate_hz, hidden=config.hidden)
    frames = round(config.stretch_s * control_hz)
    parts = [stretches(pairs, frame, frames) for pairs in sessions]
    emg, answers = (np.concatenate([part[k] for part in parts if len(part[0])] or [parts[0][k]]) for k in (0, 1))
    if len(emg) < 2 * KEPT_OUT:
        raise MyoloopError(
            f"the decoder answered {len(emg)} stretches of {config.stretch_s:g} s: at least {2 * KEPT_OUT} are needed to "
            "copy it. Record longer, or see in the session's report why it was silent."
        )
    place = np.arange(len(emg)) % KEPT_OUT
    taught, chosen, kept = (Recordings(emg[who], answers[who]) for who in (place > 1, place == 1, place == 0))
    trained = train(network, config.training, taught, chosen, on_update, target="flexion")  # answers are probabilities
    agreed = agreement(run_offline(network, trained.params, kept.emg), kept.labels, gestures)
    return Copy(network, trained.params, agreed, len(emg))


def agreement_with(
    network: networks.Config,
    params: networks.Params,
    pairs: Pairs,
    control_hz: float,
    gestures: Mapping[str, tuple[float, ...]] | None = None,
    stretch_s: float = CopyConfig.stretch_s,
) -> Agreement:
    """Of a decoder of ours with what the original answered in a session that the copy knows nothing of.

    Raises:
      MyoloopError: nowhere were there `stretch_s` of EMG with answers.
    """
    frame = round(pairs.rate_hz / control_hz)
    emg, answers = stretches(pairs, frame, round(stretch_s * control_hz))
    if len(emg) == 0:
        raise MyoloopError(
            f"the session holds no {stretch_s:g} s of EMG with answers: see in its report why the decoder was silent."
        )
    return agreement(run_offline(network, params, emg), answers, gestures)


def agreement(
    odds: np.ndarray, answers: np.ndarray, gestures: Mapping[str, tuple[float, ...]] | None, warm: int = 25
) -> Agreement:
    """Of log-odds with answers, both (n, frames, 5), where there are answers. The first `warm` frames of a stretch, which the
    copy hears out of silence, do not count."""
    said, original = odds[:, warm:].reshape(-1, 5), answers[:, warm:].reshape(-1, 5)
    there = np.isfinite(original[:, 0])
    said, original = said[there], original[there]
    same = float(np.mean((said > 0) == (original > 0.5)))
    meant = None
    if gestures:
        own = 1.0 / (1.0 + np.exp(-said))
        meant = float(np.mean(nearest_gesture(own, gestures) == nearest_gesture(original, gestures)))
    return Agreement(same, meant, len(said))
