"""How good a decoder's answers are: accuracy per finger, calibration, and what is lost while a finger changes."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np


class Scores(NamedTuple):
    """Answers against labels, over all recordings and frames. Per-finger tuples go from thumb to little."""

    accuracy: float
    """Fraction of frames and fingers answered right; chance is about 0.5."""
    accuracy_per_finger: tuple[float, ...]
    balanced_per_finger: tuple[float, ...]
    """Mean of the fractions right among flexed and among extended frames: blind to how often a finger is flexed."""
    settled_accuracy: float
    """Accuracy over frames whose label is at least 0.4 s old: without the transitions."""
    loss: float
    """Cross-entropy, nats per finger and frame; ln 2 = 0.693 knows nothing."""
    brier: float
    """Mean squared error of the probability (Brier 1950); 0.25 knows nothing."""
    calibration_error: float
    """Expected calibration error over ten bins (Naeini, Cooper & Hauskrecht 2015)."""
    delay_ms: float
    """Median time from a change of the label to the first frame answered right, ms; not a number without changes."""


def score(odds: np.ndarray, labels: np.ndarray, frame_ms: float = 20.0) -> Scores:
    """Score log-odds (recordings, frames, 5) against labels 0/1 of the same shape."""
    odds = odds.astype(np.float64)
    flexed = labels > 0.5
    right = (odds > 0) == flexed
    probability = 0.5 * (1.0 + np.tanh(0.5 * odds))
    settled = label_age(flexed) >= round(400.0 / frame_ms)
    return Scores(
        accuracy=float(right.mean()),
        accuracy_per_finger=tuple(right.mean(axis=(0, 1)).tolist()),
        balanced_per_finger=tuple(_balanced(right[..., f], flexed[..., f]) for f in range(labels.shape[-1])),
        settled_accuracy=float(right[settled].mean()) if settled.any() else float("nan"),
        loss=cross_entropy(odds, labels),
        brier=float(np.mean((probability - flexed) ** 2)),
        calibration_error=_calibration_error(probability, flexed),
        delay_ms=_delay(right, flexed) * frame_ms,
    )


def cross_entropy(odds: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log of the probability given to what was asked, nats; least where the value is the mean of labels 0 to 1. Labels
    that are NaN do not count."""
    return float(np.nanmean(np.logaddexp(0.0, odds) - odds * labels))


def right(odds: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of frames and fingers on the right side of one half, of those whose label is not NaN."""
    known = np.isfinite(labels)
    return float(np.mean(((odds > 0) == (labels > 0.5))[known]))


class FlexionScores(NamedTuple):
    """Flexion answered against flexion asked for, over all recordings and frames. Per-finger tuples go from thumb to little."""

    r2: float
    """Fraction of the variance explained, 1 - squared error / variance, mean over fingers; 0 knows nothing but the mean."""
    r2_per_finger: tuple[float, ...]
    rmse: float
    """Root of the mean squared error, in units of the way from extended to flexed."""
    rmse_per_finger: tuple[float, ...]
    accuracy: float
    """Fraction of frames and fingers on the right side of one half."""


def score_flexion(odds: np.ndarray, flexion: np.ndarray) -> FlexionScores:
    """Score log-odds (recordings, frames, 5), whose sigmoid is the flexion answered, against flexion 0..1 of the same shape."""
    answered = 0.5 * (1.0 + np.tanh(0.5 * odds.astype(np.float64)))
    square = np.mean((answered - flexion) ** 2, axis=(0, 1))
    r2 = 1.0 - square / np.maximum(np.var(flexion.astype(np.float64), axis=(0, 1)), 1e-12)
    rmse = float(np.sqrt(square.mean()))
    return FlexionScores(
        float(r2.mean()), tuple(r2.tolist()), rmse, tuple(np.sqrt(square).tolist()), right(odds, flexion)
    )


def _balanced(right: np.ndarray, flexed: np.ndarray) -> float:
    parts = [right[mask].mean() for mask in (flexed, ~flexed) if mask.any()]
    return float(np.mean(parts))


def label_age(flexed: np.ndarray) -> np.ndarray:
    """Frames since the label last changed; a recording starts with a settled label."""
    frames = np.arange(flexed.shape[1])[None, :, None]
    changed = np.zeros_like(flexed)
    changed[:, 1:] = flexed[:, 1:] != flexed[:, :-1]
    last = np.maximum.accumulate(np.where(changed, frames, -(10**9)), axis=1)
    return frames - last


def _calibration_error(probability: np.ndarray, flexed: np.ndarray, bins: int = 10) -> float:
    """Weighted mean distance between what was claimed and what was found, over bins of the claim."""
    index = np.minimum((probability * bins).astype(int), bins - 1).ravel()
    weight = np.bincount(index, minlength=bins)
    claimed = np.bincount(index, probability.ravel(), bins)
    found = np.bincount(index, flexed.ravel().astype(float), bins)
    return float(np.sum(np.abs(claimed - found)) / weight.sum())


def _delay(right: np.ndarray, flexed: np.ndarray) -> float:
    """Median frames from a change of a label to the first right answer before the next change."""
    delays: list[int] = []
    for recording in range(flexed.shape[0]):
        for finger in range(flexed.shape[2]):
            label, good = flexed[recording, :, finger], right[recording, :, finger]
            edges = [*(np.flatnonzero(label[1:] != label[:-1]) + 1).tolist(), len(label)]
            for start, end in itertools.pairwise(edges):
                hits = np.flatnonzero(good[start:end])
                if hits.size:
                    delays.append(int(hits[0]))
    return float(np.median(delays)) if delays else float("nan")
