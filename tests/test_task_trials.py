"""Trials as users of interfaces are judged, on sequences made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from myoloop.errors import MyoloopError
from myoloop.task.trials import TrialRules, find_trials, gesture_trials

DT = 0.02
RULES = TrialRules(dwell_s=0.1, limit_s=1.0)  # five steps


def gestures(*parts: tuple[str, int]) -> np.ndarray:
    """(steps, 5) labels: ("10000", 3) is a flexed thumb for three steps."""
    return np.concatenate([np.tile([int(c) for c in code], (steps, 1)) for code, steps in parts])


def test_trial_is_reached_when_all_five_answers_are_right_and_stay_right() -> None:
    asked = gestures(("00000", 10), ("11000", 20), ("00000", 10))
    answered = gestures(("00000", 12), ("10000", 2), ("11000", 3), ("10000", 1), ("11000", 12), ("00000", 10))
    (trial,), too_short = find_trials(asked, answered, DT, RULES)
    assert too_short == 0, "the first gesture and the one cut off by the end are no trials"
    assert trial.length_s == pytest.approx(0.4)
    assert trial.reached_s == pytest.approx(8 * DT), "three right steps before did not last for the dwell"
    assert (trial.least, trial.made) == (2, 4), "thumb and index had to change; the index did so three times"
    assert trial.hold == 1.0 and not trial.early


def test_four_right_fingers_reach_nothing() -> None:
    asked = gestures(("00000", 10), ("11111", 20), ("00000", 10))
    answered = gestures(("00000", 10), ("11110", 20), ("00000", 10))
    found = gesture_trials([(asked, answered)], DT, RULES)
    assert (found["count"], found["reached"], found["time_to_reach_s"], found["hold"]) == (1, 0.0, None, None)


def test_hold_is_the_part_of_the_rest_in_which_the_gesture_stays_right() -> None:
    asked = gestures(("00000", 10), ("10000", 20), ("00000", 10))
    answered = gestures(("00000", 10), ("10000", 10), ("10001", 3), ("10000", 7), ("00000", 10))
    (trial,), _ = find_trials(asked, answered, DT, RULES)
    assert trial.reached_s == 0.0 and trial.hold == pytest.approx(12 / 15)
    short = find_trials(
        gestures(("00000", 9), ("10000", 5), ("00000", 9)), gestures(("00000", 9), ("10000", 14)), DT, RULES
    )
    assert math.isnan(short.trials[0].hold), "nothing is left after the dwell"


def test_gestures_shorter_than_the_dwell_are_counted_apart() -> None:
    asked = gestures(("00000", 10), ("10000", 4), ("11000", 5), ("11100", 30))
    found = gesture_trials([(asked, asked)], DT, RULES)
    assert (found["count"], found["too_short"], found["reached"]) == (1, 1, 1.0)


def test_what_was_answered_before_it_was_asked_is_early() -> None:
    asked = gestures(("00000", 10), ("10000", 20), ("00000", 20), ("01000", 10))
    answered = gestures(("00000", 8), ("10000", 22), ("00000", 30))
    found = gesture_trials([(asked, answered)], DT, RULES)
    assert found["count"] == 2 and found["reached"] == 1.0 and found["early"] == 0.5
    assert found["path_efficiency"] == 1.0 and found["time_to_reach_s"]["max"] == 0.0


def test_after_the_time_limit_it_is_too_late() -> None:
    asked = gestures(("00000", 10), ("10000", 80))
    late = gestures(("00000", 56), ("10000", 34))  # right from 0.92 s on: a dwell of 0.1 s ends after the limit of 1 s
    just = gestures(("00000", 55), ("10000", 35))
    assert gesture_trials([(asked, late)], DT, RULES)["reached"] == 0.0
    assert gesture_trials([(asked, just)], DT, RULES)["time_to_reach_s"]["median"] == pytest.approx(0.9)


def test_recordings_do_not_run_into_each_other_and_lengths_are_told() -> None:
    one = gestures(("00000", 10), ("10000", 10), ("01000", 25), ("00100", 10))
    found = gesture_trials([(one, one), (one, 1 - one)], DT, RULES)
    assert found["count"] == 4 and found["reached"] == 0.5
    assert [(part["from_s"], part["count"], part["reached"]) for part in found["by_length"]] == [
        (0.1, 2, 0.5),
        (0.4, 2, 0.5),
    ]
    nothing = gesture_trials([(one[:5], one[:5])], DT, RULES)
    assert nothing["count"] == 0 and nothing["reached"] is None and nothing["path_efficiency"] is None


def test_impossible_rules_are_refused() -> None:
    with pytest.raises(MyoloopError, match="dwell of 2 s and a limit of 1 s"):
        TrialRules(2, 1)
    with pytest.raises(MyoloopError, match="dwell of 0"):
        TrialRules(0.0, 1.0)
