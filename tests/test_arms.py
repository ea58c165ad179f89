"""Arms of a comparison: means over seeds with intervals, from run folders."""

import json

import numpy as np
import pytest

from myoloop.errors import MyoloopError
from myoloop.learn.arms import Arm, draw, interval, read_run, smoothed, summary


def _arm(accuracies):
    config = {"learner": "internal_model", "control_hz": 50.0}
    curves = tuple(
        {
            "steps": 1000.0 * np.arange(1, 31 + k),
            "seconds": np.arange(1.0, 31 + k),
            "accuracy": np.full(30 + k, a),
            "tip_error_mm": np.full(30 + k, 9.0),
            "effort": np.full(30 + k, 0.02),
        }
        for k, a in enumerate(accuracies)
    )
    used = tuple(
        {"accuracy": a + 0.05, "settled_accuracy": a, "effort": 0.02, "joint_error_deg": 8.0, "keypoint_error_mm": 9.0}
        | {"accuracy_per_finger": [a] * 5}
        for a in accuracies
    )
    return Arm(config, tuple(range(len(accuracies))), curves, used)


def test_an_interval_is_students():
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and half == pytest.approx(4.303 / np.sqrt(3), rel=1e-3)  # t(0.975, 2) = 4.303, deviation 1
    assert interval([0.7]) == (0.7, 0.0)


def test_a_summary_goes_as_far_as_every_seed():
    arm = _arm([0.8, 0.9])
    found = summary(arm, "a processor")
    assert found["steps"] == 30_000 and found["participant_hours"] == pytest.approx(30_000 / 180_000, abs=0.005)
    assert found["accuracy"] == pytest.approx(0.9) and found["accuracy_exploring"] == pytest.approx(0.85)
    assert found["accuracy_ci"] == pytest.approx(interval([0.85, 0.95])[1], abs=1e-4) and found["seeds"] == [0, 1]
    steps, runs = smoothed(arm, "accuracy")
    assert runs.shape == (2, 22) and steps[0] == 9_000 and steps[-1] == 30_000
    before = {"accuracy": 0.7, "keypoint_error_mm": 8.0, "effort": 0.03}
    assert draw({"one": arm}, before, "Title.", logarithmic=True).startswith(b"\x89PNG")


def test_a_folder_that_is_no_run_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"seed": 0}))
    with pytest.raises(MyoloopError, match="expected a run"):
        read_run(tmp_path)
    (tmp_path / "curves.csv").write_text("steps,accuracy\n")
    with pytest.raises(MyoloopError, match="expected a run"):
        read_run(tmp_path)
