"""How well a decoder of named gestures is used: five answers are the gesture whose labels they are nearest to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

STEADY_S = 0.8
"""s after a prompt from which on a step is steady: the hand needs 0.4 s to get there (task/reference.py), windows and the
time between answers of usual software 0.2 to 0.3 s more."""


class GestureScores(NamedTuple):
    """Shares of control steps, 0..1."""

    balanced_accuracy: float
    """Mean over the gestures that were asked for."""
    balanced_accuracy_steady: float | None
    """The same of the steps from STEADY_S after a prompt on; None if there are none."""
    by_gesture: dict[str, float]
    """Of all steps in which the gesture was asked for."""


def nearest_gesture(values: np.ndarray, gestures: Mapping[str, tuple[float, ...]]) -> np.ndarray:
    """Index of the gesture whose labels are nearest to each (n, 5) answer: (n,) int."""
    labels = np.array(list(gestures.values()), float)
    return np.argmin(np.square(np.asarray(values, float)[:, None] - labels).sum(-1), axis=1)


def score_gestures(
    target: np.ndarray, answer: np.ndarray, gestures: Mapping[str, tuple[float, ...]], dt: float
) -> GestureScores:
    """Of consecutive control steps.

    Args:
      target: (n, 5) labels asked for.
      answer: (n, 5) answers in hand.
      gestures: name and labels of each.
      dt: s a step.
    """
    asked, said = nearest_gesture(target, gestures), nearest_gesture(answer, gestures)
    step = np.arange(len(asked))
    began = np.maximum.accumulate(np.where(np.diff(asked, prepend=-1) != 0, step, 0))
    steady = (step - began) * dt >= STEADY_S - 1e-9
    by_gesture = {name: float(np.mean(said[asked == k] == k)) for k, name in enumerate(gestures) if np.any(asked == k)}
    held = [float(np.mean(said[steady & (asked == k)] == k)) for k in np.unique(asked[steady])]
    return GestureScores(float(np.mean(list(by_gesture.values()))), float(np.mean(held)) if held else None, by_gesture)
