"""Which answer belongs to which control step, when answers come from somewhere else, late, twice, or not at all.

An answer carries the time of the newest EMG sample behind it, and a step's EMG ends at the step's own stamp: so an answer
belongs to the step whose stamp is nearest, if that is within half a control step. Of several, the nearest in time counts.
What has no answer `late_s` after it never gets one.
"""

from __future__ import annotations

import bisect
from collections import Counter

import numpy as np

from myoloop.learn.heard import Answers, Heard, Steps

SURE = 1e-3
"""Answers are taken as no surer than this: software that says 0 or 1 would have infinite log-odds."""


class Pairing:
    """Takes steps and answers in, gives stretches of pairs out.

    Example:
      pairing = Pairing(period_s=0.02, stretch=48, past=15)
      pairing.take(steps, answers)
      for heard in pairing.complete(): ...
    """

    def __init__(self, period_s: float, stretch: int, past: int, late_s: float = 0.5):
        """
        Args:
          period_s: length of a control step, s.
          stretch: control steps of a stretch.
          past: control steps before an answer's that have to do with it: after a gap, so many have no answer.
          late_s: how long an answer is waited for, s.
        """
        self._period_s, self._stretch, self._past, self._late_s = period_s, stretch, past, late_s
        self._times: list[float] = []
        self._rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._known: list[bool] = []
        self._answers: dict[int, tuple[float, np.ndarray]] = {}
        """by place in the lists above: how far off in time, and the values"""
        self._expected = -1
        self._since_gap = past
        self._closed = -np.inf
        """stamp of the last step that was given out"""
        self.counts: Counter[str] = Counter()
        """steps, paired; gaps: steps that are missing; surplus, late, stray: answers that were dropped, a stray one because
        no step is near; unheard: steps that got no answer"""

    def take(self, steps: Steps, answers: Answers) -> None:
        """What came in; answers may belong to these steps or to earlier ones."""
        for number, time, obs, command, labels, fresh in zip(*steps, strict=True):
            if self._times and time <= self._times[-1]:
                continue  # time does not go back: nothing sensible can be paired
            gap = number != self._expected and self._expected >= 0
            self.counts["gaps"] += int(number) - self._expected if gap else 0
            self._since_gap = 0 if gap or fresh else self._since_gap + 1
            self._expected = int(number) + 1
            self._times.append(float(time))
            self._rows.append((obs, command, labels))
            self._known.append(self._since_gap >= self._past)
            self.counts["steps"] += 1
        for time, values in zip(*answers, strict=True):
            self._pair(float(time), values)

    def _pair(self, time: float, values: np.ndarray) -> None:
        half = self._period_s / 2
        if time <= self._closed + half:
            self.counts["late"] += 1
            return
        after = bisect.bisect(self._times, time)
        near = [k for k in (after - 1, after) if 0 <= k < len(self._times) and abs(self._times[k] - time) <= half]
        if not near:
            self.counts["stray"] += 1
            return
        place = min(near, key=lambda k: abs(self._times[k] - time))
        off = abs(self._times[place] - time)
        if place in self._answers:
            self.counts["surplus"] += 1
            if off >= self._answers[place][0]:
                return
        self._answers[place] = off, np.asarray(values, np.float32)

    def complete(self) -> list[Heard]:
        """Stretches (T, 1, ...) whose answers have come or will not come any more; NaN where there is none."""
        out = []
        while len(self._times) > self._stretch and (
            self._times[-1] - self._times[self._stretch - 1] >= self._late_s
            or all(k in self._answers for k in range(self._stretch))
        ):
            out.append(self._give())
        return out

    def _give(self) -> Heard:
        n = self._stretch
        odds = np.full((n, 1, 5), np.nan, np.float32)
        for place in range(n):
            if place in self._answers and self._known[place]:
                p = np.clip(self._answers[place][1], SURE, 1.0 - SURE)
                odds[place, 0] = np.log(p / (1.0 - p))
                self.counts["paired"] += 1
            elif place not in self._answers:
                self.counts["unheard"] += 1
        obs, command, labels = (
            np.stack(column)[:, None].astype(np.float32) for column in zip(*self._rows[:n], strict=True)
        )
        self._closed = self._times[n - 1]
        self._answers = {k - n: v for k, v in self._answers.items() if k >= n}
        del self._times[:n], self._rows[:n], self._known[:n]
        return Heard(obs, command, odds, labels)  # type: ignore[arg-type]
