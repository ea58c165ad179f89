"""Answers that do not say which EMG they are about, dated by counting."""

from __future__ import annotations

import numpy as np
import pytest

from myoloop.devices.answer_times import AnswerTimes


def run(times: AnswerTimes, steps: int, lag: int, rate: float = 1.0) -> list[float]:
    """Stamps less the true ones: chunks of 20 ms go out, `rate` x real time; answers every 50 ms of EMG, `lag` chunks late."""
    apart, answered = [], 0
    for step in range(1, steps + 1):
        now, newest = 0.02 * step / rate, 1000.0 + 0.02 * step
        times.emg(now)
        read = 0.02 * max(0, step - (lag if step > 100 else 0))  # the queue builds up after two seconds
        while 0.05 * (answered + 1) <= read + 1e-9:
            answered += 1
            apart.append(times.answer(now + 0.001, newest) - (1000.0 + 0.05 * answered))
    return apart


def test_answers_are_dated_by_their_number_however_late_they_come() -> None:
    apart = run(AnswerTimes(0.05), 1000, lag=40)
    assert np.max(np.abs(apart)) < 0.02 + 1e-6, "the first answer is dated within a chunk, all others like it"
    apart = run(AnswerTimes(0.0), 1000, lag=40)
    assert apart[-1] == pytest.approx(0.8, abs=0.04), "without an increment each seems to be about the newest EMG"


def test_no_answer_is_about_emg_that_has_not_gone_out() -> None:
    times = AnswerTimes(0.05)
    times.emg(0.0)
    assert [times.answer(0.01 * k, 1000.0) for k in range(4)] == [1000.0] * 4


def test_count_begins_anew_when_nothing_moved_for_a_while_or_software_was_silent() -> None:
    times = AnswerTimes(0.05)
    times.emg(0.0)
    times.answer(0.01, 1000.0)
    times.emg(0.02)
    assert times.answer(0.03, 1003.0) == pytest.approx(1000.05), "behind: counted"
    times.emg(0.30)  # nothing went out and nothing came for 0.27 s: all was answered
    assert times.answer(0.31, 1003.02) == 1003.02
    for k in range(300):
        times.emg(0.32 + 0.01 * k)
    assert times.answer(3.4, 1006.0) == 1006.0, "silent for 3 s"


def test_answers_that_were_not_looked_at_count_too() -> None:
    times = AnswerTimes(0.05)
    times.emg(0.0)
    times.answer(0.01, 1000.0)
    assert times.answer(0.02, 1003.0, missed=3) == pytest.approx(1000.2)
