"""Prompted gestures: order, times, labels, and the way between them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from myoloop.errors import MyoloopError
from myoloop.experiment import load_experiment
from myoloop.live.person import reference_config
from myoloop.task.prompts import PromptsConfig, schedule
from myoloop.task.recorded import GRID_HZ
from myoloop.task.reference import EXTENDED, FLEXED, joint_angles, labels, make_reference

HAND = {"rest": (0, 0, 0, 0, 0), "fist": (1, 1, 1, 1, 1), "point": (1, 0, 1, 1, 1), "pinch": (1, 1, 0, 0, 0)}
CONFIG = PromptsConfig(HAND, repetitions=4, hold_s=3.0, rest_s=2.0, seed=5)


def test_every_block_asks_for_every_gesture_once_with_rest_before_each() -> None:
    prompts = schedule(CONFIG)
    assert Counter(name for name, _ in prompts) == {"rest": 12, "fist": 4, "point": 4, "pinch": 4}
    assert all(name == "rest" and s == 2.0 for name, s in prompts[::2])
    blocks = [tuple(name for name, _ in prompts[k + 1 : k + 6 : 2]) for k in range(0, 24, 6)]
    assert all(set(block) == {"fist", "point", "pinch"} for block in blocks) and len(set(blocks)) > 1
    assert schedule(CONFIG) == prompts != schedule(dataclasses.replace(CONFIG, seed=6))


def test_labels_are_those_of_the_prompt_at_its_time_and_again_after_the_last_block() -> None:
    reference = make_reference(CONFIG, participants=1)
    assert reference.length_s == pytest.approx(60.0)
    begin = 0.0
    for name, seconds in schedule(CONFIG):
        for t in (begin + 0.03, begin + seconds - 0.03, begin + seconds / 2 + reference.length_s):
            assert np.asarray(labels(reference, t))[0].tolist() == list(HAND[name]), (name, t)
        begin += seconds


def test_posture_is_reached_smoothly_and_held() -> None:
    reference = make_reference(CONFIG, participants=1)
    first = schedule(CONFIG)[1][0]
    wanted = np.where(np.array(HAND[first])[0], FLEXED[0], EXTENDED[0])
    assert np.asarray(joint_angles(reference, 3.5))[0, 0] == pytest.approx(wanted, abs=1e-3)
    speed = np.abs(np.diff(reference.played.qpos, axis=0)).max() * GRID_HZ
    assert speed < 1.2 * np.pi / 2 * np.abs(FLEXED - EXTENDED).max() / CONFIG.transition_s


def test_participants_are_at_different_places() -> None:
    reference = make_reference(CONFIG, participants=3)
    assert len(np.unique(np.asarray(reference.offset))) == 3 and reference.offset[0] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gestures": {"rest": (0,) * 5}}, "at least one gesture"),
        ({"gestures": HAND | {"half": (0.5,) * 5}}, "'half'"),
        ({"gestures": HAND | {"four": (1,) * 4}}, "'four'"),
        ({"hold_s": 0.5}, "hold_s is 0.5"),
        ({"rest_s": 0.3}, "rest_s 0.3"),
        ({"repetitions": 0}, "repetitions 0"),
    ],
)
def test_what_cannot_be_prompted_is_refused(change: dict, said: str) -> None:
    with pytest.raises(MyoloopError, match=said):
        make_reference(dataclasses.replace(CONFIG, **change), participants=1)


def test_experiment_file_prompts(tmp_path: Path) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text(
        "participant: {reference: {kind: prompts, gestures: {rest: [0,0,0,0,0], fist: [1,1,1,1,1]}, hold_s: 4}}"
    )
    config = reference_config(load_experiment(file).participant.reference)
    assert isinstance(config, PromptsConfig) and config.hold_s == 4.0 and list(config.gestures) == ["rest", "fist"]
    file.write_text("participant: {reference: {kind: prompts}}")
    with pytest.raises(MyoloopError, match="needs gestures"):
        load_experiment(file)
