"""How the participant holds on to predictions: fresh, stale, lost, back; and how old they were when first used."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from myoloop.body.names import FINGERS
from myoloop.streams.pairs import SAME_S
from myoloop.streams.predictions import Prediction

LOST_AFTER_S = 1.0
"""Silence after which the decoder counts as lost (one event); stale, a matter of one control step, comes earlier."""
ANSWER_S = 20.0
"""Answers that come later than this after their EMG was sent get no answer time."""


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
        self.stale_after_s = stale_after_s
        """age from which on a held prediction counts as stale"""
        self._pauses: deque[tuple[float, float]] = deque(maxlen=100)  # (when it ended, how long it was), s
        self._event = event
        self._number = 0
        self._lost = False
        self.stale_steps = 0
        """steps that had to use a stale prediction, or had none"""

    def paused(self, until: float, seconds: float) -> None:
        """The time line was moved by so much: predictions of before it are not older for it."""
        self._pauses.append((until, seconds))

    def step(self, latest: Prediction | None, now: float) -> Feedback:
        """The feedback of a control step that starts at `now` (local_clock)."""
        if latest is None:
            self.stale_steps += 1
            return Feedback(np.full(len(FINGERS), 0.5, np.float32), float("nan"), True, float("nan"))
        now -= sum(seconds for until, seconds in self._pauses if until > latest.emg_time)
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
        stale = age > self.stale_after_s
        self.stale_steps += stale
        return Feedback(latest.values, age, stale, 1e3 * age if first else float("nan"), latest if first else None)


class AnswerTimes:
    """How long answers take on the wall clock, whatever the session's clock."""

    def __init__(self, control_hz: float):
        self._period_s = 1.0 / control_hz
        self._sent: deque[tuple[float, float]] = deque(maxlen=round(ANSWER_S * control_hz))

    def sent(self, stamp: float, at: float) -> None:
        """Notes a chunk: the stamp of its newest sample, and when it went out (local_clock)."""
        self._sent.append((stamp, at))

    def ms(self, feedback: Feedback) -> float:
        """From sending the EMG behind a prediction that is used for the first time to its arrival; NaN if it is unknown. The
        chunk is the one whose newest sample is the first at or after the prediction's stamp."""
        new = feedback.new
        if new is None or not self._sent or new.emg_time < self._sent[0][0] - self._period_s:
            return float("nan")
        chunk = bisect.bisect_left(self._sent, new.emg_time - SAME_S, key=lambda sent: sent[0])
        return 1e3 * (new.received - self._sent[chunk][1]) if chunk < len(self._sent) else float("nan")
