"""The wall clock that paces a live session."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import pylsl

RESYNC_AFTER_S = 0.5
"""Lateness beyond which the time line is moved instead of caught up: a machine that slept or a stopped process."""


class Tick(NamedTuple):
    """One control step's place in time, seconds on `pylsl.local_clock()`."""

    deadline: float
    """when the step was due: the time stamp of everything that it publishes"""
    started: float
    """when it really began"""
    skipped_s: float
    """how far the time line was moved before this step; 0 unless the process was stopped for long"""


class RealtimeClock:
    """Hands out control steps at a fixed period on the LSL clock.

    A late step starts at once and keeps its deadline, so that sample times stay regular and the loop catches up.
    """

    def __init__(
        self,
        period_s: float,
        now: Callable[[], float] = pylsl.local_clock,
        sleep: Callable[[float], object] = time.sleep,
    ):
        self.period_s = period_s
        self._now, self._sleep = now, sleep
        self._next = 0.0

    def start(self) -> None:
        """The first step is due one period from now."""
        self._next = self._now() + self.period_s

    def wait(self) -> Tick:
        """Sleeps until the next step is due."""
        ahead = self._next - self._now()
        while ahead > 0:
            self._sleep(ahead)
            ahead = self._next - self._now()
        started = self._now()
        skipped = 0.0
        if started - self._next > RESYNC_AFTER_S:
            skipped = started - self._next
            self._next = started
        tick = Tick(self._next, started, skipped)
        self._next += self.period_s
        return tick
