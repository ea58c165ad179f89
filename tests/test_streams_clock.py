"""The wall clock that paces live sessions, on a clock made of numbers."""

from __future__ import annotations

import itertools

from myoloop.streams.clock import RealtimeClock


class Hours:
    """A clock that only moves when somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 100.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_deadlines_stay_regular_however_long_steps_take() -> None:
    hours = Hours()
    clock = RealtimeClock(0.02, lambda: hours.now, hours.sleep)
    clock.start()
    deadlines = []
    for work in (0.001, 0.019, 0.045, 0.001, 0.001, 0.001):
        deadlines.append(clock.wait().deadline)
        hours.now += work
    gaps = [b - a for a, b in itertools.pairwise(deadlines)]
    assert all(abs(gap - 0.02) < 1e-9 for gap in gaps)


def test_late_step_starts_at_once() -> None:
    hours = Hours()
    clock = RealtimeClock(0.02, lambda: hours.now, hours.sleep)
    clock.start()
    clock.wait()
    hours.now += 0.05
    tick = clock.wait()
    assert tick.started == hours.now and tick.started > tick.deadline and tick.skipped_s == 0


def test_time_line_is_moved_after_a_long_stop_and_says_by_how_much() -> None:
    hours = Hours()
    clock = RealtimeClock(0.02, lambda: hours.now, hours.sleep)
    clock.start()
    clock.wait()
    hours.now += 5.0
    tick = clock.wait()
    assert abs(tick.skipped_s - 4.98) < 1e-6
    assert abs(clock.wait().deadline - tick.deadline - 0.02) < 1e-9
