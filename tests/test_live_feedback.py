"""Holding predictions: fresh, stale, lost, back."""

from __future__ import annotations

import numpy as np

from myoloop.live.feedback import AnswerTimes, FeedbackHold
from myoloop.streams.predictions import Prediction


def prediction(number: int, time: float) -> Prediction:
    return Prediction(np.full(5, 0.9, np.float32), time, time + 0.001, number)


def test_no_prediction_yet_is_undecided_and_stale() -> None:
    feedback = FeedbackHold(0.2, lambda _: None).step(None, 10.0)
    assert feedback.stale and np.all(feedback.values == 0.5) and np.isnan(feedback.age_s)


def test_latency_is_reported_by_the_first_step_that_uses_a_prediction_only() -> None:
    hold = FeedbackHold(0.2, lambda _: None)
    first, again = hold.step(prediction(1, 10.0), 10.02), hold.step(prediction(1, 10.0), 10.04)
    assert abs(first.latency_ms - 20.0) < 1e-6 and np.isnan(again.latency_ms)
    assert abs(again.age_s - 0.04) < 1e-9


def test_held_prediction_turns_stale_after_the_limit() -> None:
    hold = FeedbackHold(0.2, lambda _: None)
    assert not hold.step(prediction(1, 10.0), 10.19).stale
    late = hold.step(prediction(1, 10.0), 10.21)
    assert late.stale and np.allclose(late.values, 0.9), "a stale prediction is held, not dropped"
    assert hold.stale_steps == 1


def test_loss_and_return_are_said_once_each() -> None:
    events: list[str] = []
    hold = FeedbackHold(0.2, events.append)
    hold.step(prediction(1, 10.0), 10.02)
    for k in range(300):
        hold.step(prediction(1, 10.0), 10.02 + 0.02 * k)
    assert events == ["decoder lost"]
    for k in range(5):
        hold.step(prediction(2 + k, 16.0 + 0.02 * k), 16.02 + 0.02 * k)
    assert events == ["decoder lost", "decoder back"]


def test_an_answers_time_is_from_its_emg_going_out_to_its_arrival() -> None:
    times, hold = AnswerTimes(50.0), FeedbackHold(0.2, lambda _: None)
    early = hold.step(prediction(1, 9.5)._replace(received=100.0), 9.52)
    assert np.isnan(times.ms(early)), "nothing was sent yet"
    for k in range(5):
        times.sent(10.0 + 0.02 * k, 100.0 + 0.003 * k)  # faster than real time
    own = hold.step(prediction(2, 10.04)._replace(received=100.008), 10.06)
    assert abs(times.ms(own) - 2.0) < 1e-6
    between = hold.step(prediction(3, 10.05)._replace(received=100.010), 10.08)
    assert abs(times.ms(between) - 1.0) < 1e-6, "its newest sample went out with the next chunk"
    assert np.isnan(times.ms(hold.step(prediction(3, 10.05), 10.1))), "only once"
    assert np.isnan(times.ms(hold.step(prediction(4, 9.0)._replace(received=100.2), 10.12))), "of EMG before the first"
