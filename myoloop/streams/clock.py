"""Who sets a session's pace: the wall clock, the decoder's answers, or nobody."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import pylsl

RESYNC_AFTER_S = 0.5
"""Lateness beyond which the time line is moved instead of caught up: a machine that slept or a stopped process."""
AHEAD_S = 1e6
"""How far ahead of `local_clock` simulated time begins: eleven days, so that no stamp of the one is taken for the other's."""


class Tick(NamedTuple):
    """One control step's place in time, seconds on the session's clock."""

    deadline: float
    """when the step was due: the time stamp of everything that it publishes"""
    started: float
    """when it really began"""
    skipped_s: float = 0.0
    """how far the time line was moved before this step; 0 unless the process was stopped for long"""
    waited_s: float = 0.0
    """how long, on the wall clock, the step was kept waiting for the decoder's answer"""


class Clock(Protocol):
    """Hands out control steps at a fixed period."""

    period_s: float
    timeouts: int
    """steps that began without the answer they waited for"""

    def start(self) -> None:
        """The session begins."""

    def wait(self) -> Tick:
        """Comes back when the next step is due."""

    def resume(self) -> float:
        """After a pause: the next step is due one period from now. How far that moved the time line, s."""

    def now(self) -> float:
        """The session's time: `local_clock`, or the simulated time of the newest step."""

    def overrun(self, tick: Tick) -> bool:
        """Whether a step that ends now has taken too long."""


class RealtimeClock:
    """Steps at a fixed period on the LSL clock.

    A late step starts at once and keeps its deadline, so that sample times stay regular and the loop catches up.
    """

    timeouts = 0

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

    def resume(self) -> float:
        """The next step is due one period from now, whatever was due before."""
        due = self._now() + self.period_s
        moved, self._next = max(0.0, due - self._next), due
        return moved

    def now(self) -> float:
        """`local_clock`."""
        return self._now()

    def overrun(self, tick: Tick) -> bool:
        """Whether the next step is late already."""
        return self._now() > tick.deadline + self.period_s


class SimulatedClock:
    """Steps on simulated time, each as soon as the one before has ended: `free`. It begins `AHEAD_S` ahead of `local_clock`."""

    timeouts = 0

    def __init__(self, period_s: float, now: Callable[[], float] = pylsl.local_clock):
        self.period_s = period_s
        self._wall = now
        self._time = now() + AHEAD_S

    def start(self) -> None:
        """Nothing is due before it."""

    def wait(self) -> Tick:
        """The next step, at once."""
        self._time += self.period_s
        return Tick(self._time, self._time)

    def resume(self) -> float:
        """Simulated time stood still by itself."""
        return 0.0

    def now(self) -> float:
        """When the newest step was due, simulated."""
        return self._time

    def overrun(self, tick: Tick) -> bool:
        """Nobody waits for it: never."""
        return False


class LockstepClock(SimulatedClock):
    """Steps on simulated time, each when the answer to the EMG of the one before is there.

    While nobody answers - before the first answer, while a decoder is calibrated, after it was lost - steps follow each
    other at a chosen speed, by default that of real time: so what listens is not flooded.
    """

    def __init__(
        self,
        period_s: float,
        answered: Callable[[float, float], bool],
        answers: Callable[[], int],
        timeout_s: float = 1.0,
        behind_s: float = 0.0,
        unanswered: float = 1.0,
        now: Callable[[], float] = pylsl.local_clock,
        sleep: Callable[[float], object] = time.sleep,
    ):
        """
        Args:
          period_s: s between steps.
          answered: called with a time stamp and how many s to wait at most: whether an answer is there to EMG as new as that.
          answers: how many answers there were so far.
          timeout_s: s (wall clock) that a step waits; then it begins without, and the decoder counts as silent.
          behind_s: s that the newest answer may be behind the EMG: more than 0 for who answers less often than at every step.
          unanswered: speed while nobody answers, times real time.
          now, sleep: for tests.
        """
        super().__init__(period_s, now)
        self._answered, self._answers, self._sleep = answered, answers, sleep
        self._timeout_s, self._behind_s, self._unanswered = timeout_s, behind_s, unanswered
        self._in_dialogue = False
        self._seen = 0
        self._began = 0.0
        self.timeouts = 0

    def wait(self) -> Tick:
        """Waits for the answer, or, while nobody answers, for the pace of that."""
        called = self._wall()
        if not self._in_dialogue:
            self._sleep(max(0.0, self._began + self.period_s / self._unanswered - called))
            self._in_dialogue = self._answers() > self._seen
        if self._in_dialogue and not self._answered(self._time - self._behind_s, self._timeout_s):
            self.timeouts += 1
            self._in_dialogue = False
            self._seen = self._answers()
        self._began = self._wall()
        return super().wait()._replace(waited_s=self._began - called)
