"""A running session's figures: how often the answers were right, what it cost, how fast the steps were."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from myoloop.body.names import FINGERS
from myoloop.live.feedback import Feedback

RECENT = 500
"""Steps whose times the medians are of."""


class Tally:
    """Of one participant; the loop adds each step."""

    def __init__(self) -> None:
        self.steps = 0
        self._judged = 0
        self._right = np.zeros(len(FINGERS))
        self._effort = 0.0
        self._step_ms: deque[float] = deque(maxlen=RECENT)
        self._latency_ms: deque[float] = deque(maxlen=RECENT)

    def judge(self, feedback: Feedback, target: np.ndarray) -> None:
        """Counts an answer: every control step from the first prediction on, stale ones too."""
        if np.isfinite(feedback.age_s):
            self._judged += 1
            self._right += (feedback.values > 0.5) == (target > 0.5)

    def step(self, feedback: Feedback, excitation: np.ndarray, step_ms: float) -> None:
        """Counts a step that is over: its latency, effort and duration."""
        self.steps += 1
        self._effort += float(np.mean(excitation**2))
        self._step_ms.append(step_ms)
        if np.isfinite(feedback.latency_ms):
            self._latency_ms.append(feedback.latency_ms)

    @property
    def accuracy(self) -> float:
        """Mean over fingers and judged steps; NaN before the first."""
        return float(np.mean(self._right) / self._judged) if self._judged else float("nan")

    def status(self) -> dict[str, Any]:
        """JSON-able; None where there is nothing yet."""
        return {
            "steps": self.steps,
            "step_ms": _median(self._step_ms),
            "feedback_latency_ms": _median(self._latency_ms),
            "accuracy": self.accuracy if self._judged else None,
            "effort": self._effort / self.steps if self.steps else None,
        }


def bits(labels: np.ndarray) -> str:
    """Finger labels as they stand in events, e.g. `01100`."""
    return "".join("1" if x > 0.5 else "0" for x in labels)


def _median(values: deque[float]) -> float | None:
    return round(float(np.median(list(values))), 2) if values else None
