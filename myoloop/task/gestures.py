"""How well prompted gestures are told apart: balanced accuracy over them.

A prompt asks for one of a few named gestures (task/prompts.py); the five answers of a control step say the gesture whose labels
are nearest. Gestures that are asked for longer, as the rest is, count no more than others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

STEADY_S = 0.8
"""s after a prompt from which the steady steps begin: the hand needs 0.4 s, a window of 0.2 s must fill, and answers may come
only every 50 ms."""


class GestureAccuracy(NamedTuple):
    """Shares of control steps that say the gesture asked for; chance is one over the number of gestures."""

    balanced: float
    """mean over the gestures, of all steps"""
    steady: float | None
    """mean over the gestures, of the steps from STEADY_S after a prompt on; None if there are none"""
    by_gesture: dict[str, float]
    """of all steps, of those gestures that were asked for"""


def gesture_accuracy(
    target: np.ndarray, answer: np.ndarray, gestures: Mapping[str, Sequence[float]], dt: float
) -> GestureAccuracy | None:
    """The accuracy of one recording.

    Args:
      target: (steps, 5) labels asked for, thumb to little.
      answer: (steps, 5) probabilities answered.
      gestures: name and 5 labels of each prompt.
      dt: seconds of a step.

    Returns:
      None if there are no steps, or no gestures.
    """
    if not len(target) or not gestures:
        return None
    labels = np.array(list(gestures.values()), float)
    asked, said = (np.argmin(np.square(values[:, None] - labels).sum(-1), axis=1) for values in (target, answer))
    steps = np.arange(len(asked))
    since = steps - np.maximum.accumulate(np.where(np.diff(asked, prepend=-1), steps, 0))
    steady = since * dt >= STEADY_S - 1e-9
    right = {name: float(np.mean(said[asked == k] == k)) for k, name in enumerate(gestures) if np.any(asked == k)}
    held = [np.mean(said[steady & (asked == k)] == k) for k in range(len(labels)) if np.any(steady & (asked == k))]
    return GestureAccuracy(float(np.mean(list(right.values()))), float(np.mean(held)) if held else None, right)
