"""The clocks that pace live sessions, on a clock made of numbers."""

from __future__ import annotations

import itertools

from myoloop.streams.clock import LockstepClock, RealtimeClock, SimulatedClock


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
    assert abs(tick.skipped_s - 4.98) < 1e-6 and tick.deadline == tick.started
    after = clock.wait()
    assert abs(after.deadline - tick.deadline - 0.02) < 1e-9 and after.skipped_s == 0, "moved once"


class Dialogue:
    """A decoder that answers, or not, on a clock made of numbers."""

    def __init__(self) -> None:
        self.hours = Hours()
        self.takes = 0.001
        """s that an answer takes; None: it never comes"""
        self.count = 0
        self.asked: list[float] = []
        self.clock = LockstepClock(
            0.02, self.answered, lambda: self.count, 1.0, 0.05, 2.0, lambda: self.hours.now, self.hours.sleep
        )

    def answered(self, since: float, timeout: float) -> bool:
        self.asked.append(since)
        self.hours.sleep(min(self.takes, timeout))
        self.count += self.takes <= timeout
        return self.takes <= timeout


def test_lockstep_waits_for_the_answer_to_the_step_before_less_what_it_may_be_behind() -> None:
    talk = Dialogue()
    talk.clock.start()
    talk.count = 1  # it has answered before
    first = talk.clock.wait()
    second = talk.clock.wait()
    assert abs(second.deadline - first.deadline - 0.02) < 1e-9 and second.started == second.deadline
    assert abs(talk.asked[-1] - (first.deadline - 0.05)) < 1e-6 and abs(second.waited_s - 0.001) < 1e-6
    assert not talk.clock.overrun(second) and talk.clock.now() == second.deadline and talk.clock.timeouts == 0


def test_lockstep_runs_at_the_chosen_speed_while_nobody_answers() -> None:
    talk = Dialogue()
    talk.clock.start()
    begun = talk.hours.now
    for _ in range(101):
        talk.clock.wait()
    assert abs(talk.hours.now - begun - 1.0) < 1e-6 and not talk.asked  # 100 periods of 20 ms at twice real time


def test_lockstep_gives_up_waiting_until_the_decoder_is_heard_again() -> None:
    talk = Dialogue()
    talk.clock.start()
    talk.count, talk.takes = 1, 5.0
    assert talk.clock.wait().waited_s >= 1.0 and talk.clock.timeouts == 1
    assert talk.clock.wait().waited_s < 0.02 and talk.clock.timeouts == 1, "silent: paced, not waited for"
    talk.count, talk.takes = 2, 0.003
    talk.clock.wait()
    assert len(talk.asked) == 2 and talk.clock.timeouts == 1


def test_simulated_time_is_far_from_the_wall_clock_and_waits_for_nobody() -> None:
    hours = Hours()
    clock = SimulatedClock(0.02, lambda: hours.now)
    clock.start()
    ticks = [clock.wait() for _ in range(50)]
    assert hours.now == 100.0 and abs(ticks[-1].deadline - ticks[0].deadline - 0.98) < 1e-6
    assert ticks[0].deadline - hours.now > 24 * 3600
