"""Balanced accuracy over prompted gestures, against numbers worked by hand."""

from __future__ import annotations

import numpy as np

from myoloop.task.gestures import gesture_accuracy

GESTURES = {"rest": (0, 0, 0, 0, 0), "fist": (1, 1, 1, 1, 1), "point": (1, 0, 1, 1, 1)}
REST, FIST, POINT = (np.array(labels, float) for labels in GESTURES.values())
DT = 0.1


def test_gestures_that_are_asked_for_longer_count_no_more() -> None:
    target = np.array([REST] * 30 + [FIST] * 10)
    found = gesture_accuracy(target, np.tile(REST, (40, 1)), GESTURES, DT)
    assert found is not None
    assert found.balanced == 0.5, "not 0.75, which is the share of steps"
    assert found.by_gesture == {"rest": 1.0, "fist": 0.0}, "what was never asked for is not judged"


def test_answer_is_the_gesture_whose_labels_are_nearest() -> None:
    answer = np.array([0.9, 0.4, 0.8, 0.7, 0.6])  # the index finger tells point from fist
    found = gesture_accuracy(POINT[None], answer[None], GESTURES, DT)
    assert found is not None and found.balanced == 1.0
    answer[1] = 0.6
    found = gesture_accuracy(POINT[None], answer[None], GESTURES, DT)
    assert found is not None and found.balanced == 0.0


def test_steady_steps_begin_0_8_s_after_each_prompt() -> None:
    target = np.array([REST] * 20 + [FIST] * 20)
    late = np.concatenate([np.tile(FIST, (8, 1)), target[8:20], np.tile(REST, (8, 1)), target[28:]])
    found = gesture_accuracy(target, late, GESTURES, DT)
    assert found is not None and found.steady == 1.0 and found.balanced == 0.6
    late[28] = REST  # the first steady step of the fist
    found = gesture_accuracy(target, late, GESTURES, DT)
    assert found is not None and np.isclose(found.steady, (1 + 11 / 12) / 2)


def test_too_short_for_a_steady_step_is_said_and_nothing_prompted_is_nothing() -> None:
    found = gesture_accuracy(REST[None], REST[None], GESTURES, DT)
    assert found is not None and found.steady is None
    assert gesture_accuracy(REST[None], REST[None], {}, DT) is None
    assert gesture_accuracy(np.zeros((0, 5)), np.zeros((0, 5)), GESTURES, DT) is None
