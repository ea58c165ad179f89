"""Gestures told from five answers, and how often they were right."""

from __future__ import annotations

import numpy as np
import pytest

from myoloop.task.gestures import nearest_gesture, score_gestures

GESTURES = {"rest": (0, 0, 0, 0, 0), "fist": (1, 1, 1, 1, 1), "pinch": (1, 1, 0, 0, 0)}


def test_answer_is_the_gesture_it_is_nearest_to() -> None:
    answers = np.array([[0.2, 0.1, 0, 0.3, 0], [0.9, 0.8, 0.7, 0.9, 0.6], [0.7, 0.9, 0.3, 0.1, 0.4]])
    assert nearest_gesture(answers, GESTURES).tolist() == [0, 1, 2]


def test_every_gesture_weighs_the_same_however_long_it_was_asked_for() -> None:
    rest, fist = np.zeros((300, 5)), np.ones((100, 5))
    target = np.concatenate([rest, fist])
    answer = np.concatenate([rest, fist[:25], np.zeros((75, 5))])
    scores = score_gestures(target, answer, GESTURES, 0.02)
    assert scores.by_gesture == {"rest": 1.0, "fist": 0.25}
    assert scores.balanced_accuracy == pytest.approx(0.625)


def test_steps_soon_after_a_prompt_are_not_steady() -> None:
    target = np.concatenate([np.zeros((100, 5)), np.ones((100, 5))])
    late = np.concatenate([np.zeros((140, 5)), np.ones((60, 5))])  # 0.8 s late
    scores = score_gestures(target, late, GESTURES, 0.02)
    assert scores.balanced_accuracy_steady == 1.0 and scores.by_gesture["fist"] == pytest.approx(0.6)
    assert score_gestures(target[:30], late[:30], GESTURES, 0.02).balanced_accuracy_steady is None
