"""The way of predictions from their arrival to the control step that uses them: delay, jitter, loss and copies, as injected.

A prediction that arrives at t may be used from t + delay_ms + jitter on, the jitter drawn evenly from 0 to jitter_ms for
each by itself: so one may overtake another, and then the older one never replaces the newer. With probability `drop` it
never gets here; with probability `duplicate` a copy comes too, with a jitter of its own. Everything is drawn from the
experiment's seed, in the order of arrival, the same number of draws for each: so other losses do not change the jitter.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import Any

import numpy as np

from myoloop.sections import LinkSettings
from myoloop.streams.predictions import RECENT, Prediction

SEED = 0x11A7
"""Sets the link's draws apart from others of the experiment's seed."""


class Link:
    """Takes predictions as they arrive, gives the newest that may be used; pure but for what is on its way.

    Example:
      link = Link(LinkSettings(delay_ms=120), seed=0)
      prediction = link.step(inbox.recent, now=tick.started)
    """

    def __init__(self, settings: LinkSettings, seed: int):
        self.settings = settings
        """what is done to predictions that arrive from now on; may be exchanged between two steps"""
        self._rng = np.random.default_rng([SEED, seed])
        self._coming: list[tuple[float, int, bool, Prediction]] = []
        """heap: when it may be used, how many arrived before it, whether it is a copy, which"""
        self._received = 0
        self._latest: Prediction | None = None
        self.recent: deque[Prediction] = deque(maxlen=RECENT)
        """all that got through, copies and overtaken ones too, for whoever takes them out; the oldest give way"""
        self.dropped = 0
        self.duplicated = 0
        self.overtaken = 0
        """those that may be used only when a newer one is in use, and so never are; copies do not count"""

    def step(self, arrived: deque[Prediction], now: float) -> Prediction | None:
        """The prediction that a control step which starts at `now` uses: the newest that may be used; None before the first.

        Args:
          arrived: those that arrived since the last call, in that order; taken out.
          now: seconds, on the clock of `Prediction.arrived`.

        Returns:
          A prediction whose `arrived` is the time from which it may be used; its number and EMG time stay.
        """
        while arrived:
            self._send(arrived.popleft())
        while self._coming and self._coming[0][0] <= now:
            usable, _, copy, prediction = heapq.heappop(self._coming)
            heard = prediction._replace(arrived=usable)
            self.recent.append(heard)
            if copy:
                continue  # it has been heard before: the first of the two to get here counts
            if self._latest is None or heard.number > self._latest.number:
                self._latest = heard
            else:
                self.overtaken += 1
        return self._latest

    def status(self) -> dict[str, Any]:
        """Settings and what became of the predictions, JSON-able."""
        counts = {name: getattr(self, name) for name in ("dropped", "duplicated", "overtaken")}
        return self.settings.model_dump() | {"received": self._received} | counts

    def _send(self, prediction: Prediction) -> None:
        link = self.settings
        lost, copied, *jitters = self._rng.random(4)
        self._received += 1
        if lost < link.drop:
            self.dropped += 1
            return
        twice = bool(copied < link.duplicate)
        self.duplicated += twice
        for number, jitter in enumerate(sorted(jitters) if twice else jitters[:1]):
            usable = prediction.arrived + 1e-3 * (link.delay_ms + link.jitter_ms * jitter)
            heapq.heappush(self._coming, (usable, 2 * self._received + number, number > 0, prediction))


def longest_s(settings: LinkSettings | None) -> float:
    """The longest that a prediction may take, s."""
    return 1e-3 * (settings.delay_ms + settings.jitter_ms) if settings else 0.0


def lag_s(settings: LinkSettings | None, control_hz: float) -> float:
    """Whole control steps, in seconds, by which answers are used later because of the link: on average, rounded up, as a
    control step uses what was there before it began."""
    if settings is None:
        return 0.0
    return math.ceil(1e-3 * (settings.delay_ms + settings.jitter_ms / 2) * control_hz - 1e-9) / control_hz
