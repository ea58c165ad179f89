"""How the participant holds on to predictions: fresh, stale, lost, back; and how old they were when first used."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from myoloop.body.names import FINGERS
from myoloop.streams.predictions import Prediction

LOST_AFTER_S = 1.0
"""Silence after which the decoder counts as lost (one event); stale, a matter of one control step, comes earlier."""


class Feedback(NamedTuple):
    """The decoder's answer as one control step sees it."""

    values: np.ndarray
    """(5,) probability of flexed; 0.5 before the first prediction"""
    age_s: float
    """from the newest EMG sample behind it to now; NaN before the first prediction"""
    stale: bool
    latency_ms: float
    """the age, if this step is the first to use this prediction; else NaN"""
    new: Prediction | None = None
    """the prediction, if this step is the first to use it"""


class FeedbackHold:
    """Holds the last prediction, marks it stale, and reports loss and return once each."""

    def __init__(self, stale_after_s: float, event: Callable[[str], None]):
        self._stale_after_s = stale_after_s
        self._event = event
        self._number = 0
        self._lost = False
        self.stale_steps = 0
        """steps that had to use a stale prediction, or had none"""

    def step(self, latest: Prediction | None, now: float) -> Feedback:
        """The feedback of a control step that starts at `now` (local_clock)."""
        if latest is None:
            self.stale_steps += 1
            return Feedback(np.full(len(FINGERS), 0.5, np.float32), float("nan"), True, float("nan"))
        age = now - latest.emg_time
        first = latest.number != self._number
        self._number = latest.number
        silence = now - latest.arrived
        if self._lost and first:
            self._lost = False
            self._event("decoder back")
        elif not self._lost and silence > LOST_AFTER_S:
            self._lost = True
            self._event("decoder lost")
        stale = age > self._stale_after_s
        self.stale_steps += stale
        return Feedback(latest.values, age, stale, 1e3 * age if first else float("nan"), latest if first else None)
