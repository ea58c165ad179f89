"""The closed loop with force from discharges: the body follows them, and everything can be saved."""

from __future__ import annotations

import time

import jax
import numpy as np
import pytest

from myoloop.body.model import load_hand
from myoloop.body.mujoco_engine import MujocoEngine
from myoloop.body.names import FOREARM_MUSCLES, MUSCLES
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment, load_experiment
from myoloop.live.participant import LiveParticipant
from myoloop.participant import ParticipantConfig, Participants
from myoloop.task.reference import ReferenceConfig, joint_angles


@pytest.fixture(scope="module")
def pair() -> Participants:
    config = ParticipantConfig(reference=ReferenceConfig(seed=5), force="twitch")
    return Participants(config, participants=2, threads=1)


def same(a: object, b: object) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_forearm_muscles_have_the_activation_that_their_discharges_give(pair: Participants) -> None:
    pair.reset([1, 2])
    fired = 0
    for _ in range(10):
        act, body = pair.act(), pair.move()
        assert act.activation is not None
        np.testing.assert_allclose(body.activation[:, : len(FOREARM_MUSCLES)], act.activation)
        fired += pair.discharges(act).unit.size
    own = body.activation[:, len(FOREARM_MUSCLES) :]
    assert fired > 100 and act.activation.max() > 0.02
    assert own.max() > 0.005 and not np.array_equal(own, act.excitation[:, len(FOREARM_MUSCLES) :])


def test_hand_follows_the_reference_with_force_from_discharges(pair: Participants) -> None:
    pair.reset([1, 2])
    error = []
    for _ in range(120):
        pair.act()
        body = pair.move()
        wanted = np.asarray(joint_angles(pair._reference, np.float32(pair.time)))
        error.append(np.degrees(np.abs(body.qpos - wanted)).mean())
    assert np.mean(error[40:]) < 22.0 and not body.diverged.any()


def test_saved_state_goes_on_bit_for_bit(pair: Participants) -> None:
    def roll() -> list[object]:
        return [(pair.act(), pair.move()) for _ in range(10)]

    pair.reset([1, 2])
    roll()
    saved = pair.save()
    first = roll()
    pair.restore(saved)
    assert same(first, roll())
    pair.reset([1, 2])
    fresh = pair.act()
    pair.reset([1, 2])
    assert same(fresh, pair.act())


def test_tremor_reaches_force_and_hand_through_the_discharges(pair: Participants) -> None:
    def at_4_to_6_hz() -> tuple[float, float]:
        pair.reset([1, 2])
        pair.set_target(np.zeros(5))
        force, speed = [], []
        for _ in range(140):
            force.append(pair.act().activation)
            speed.append(pair.move().qvel)
        power = [np.abs(np.fft.rfft(np.array(x)[40:], axis=0)) ** 2 for x in (force, speed)]  # 2 s: bins of 0.5 Hz
        return float(power[0][7:14].sum()), float(power[1][7:14].sum())

    calm = at_4_to_6_hz()
    pair.set_condition("parkinsonian_tremor", 1.0)
    shaken = at_4_to_6_hz()
    pair.set_condition("parkinsonian_tremor", 0.0)
    pair.follow_reference()
    assert shaken[0] > 4 * calm[0] and shaken[1] > 4 * calm[1], (calm, shaken)


def test_engine_holds_a_given_activation_and_leaves_the_others_their_dynamics() -> None:
    engine = MujocoEngine(load_hand(), participants=1)
    excitation = np.full((1, len(MUSCLES)), 0.5)
    given = np.full((1, len(MUSCLES)), np.nan)
    given[0, 3] = 0.8
    body = engine.step(excitation, given)
    assert body.activation[0, 3] == 0.8
    engine.reset()
    free = engine.step(excitation)
    assert np.array_equal(np.delete(body.activation, 3), np.delete(free.activation, 3)) and free.activation[0, 3] <= 0.5
    engine.reset()
    assert np.array_equal(engine.step(excitation, np.full_like(given, np.nan)).qpos, free.qpos)
    for value in (-0.1, 1.1, np.inf):
        given[0, 3] = value
        with pytest.raises(MyoloopError, match=rf"activation of {MUSCLES[3]}, participant 0"):
            engine.step(excitation, given)
    with pytest.raises(MyoloopError, match="activation has shape"):
        engine.step(excitation, given[:, :26])
    excitation[0, 3] = np.nan
    with pytest.raises(MyoloopError, match="excitation of"):
        engine.step(excitation, np.full_like(given, 0.5))


def test_force_is_chosen_in_the_experiment_file_and_other_names_are_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "experiment.yaml"
    file.write_text("participant: {force: twitch}\n")
    assert load_experiment(file).participant.force == "twitch"
    file.write_text("participant: {force: twich}\n")
    with pytest.raises(MyoloopError, match="Did you mean 'twitch'"):
        load_experiment(file)
    with pytest.raises(MyoloopError, match="Did you mean 'twitch'"):
        ParticipantConfig(force="twich")  # type: ignore[arg-type]


def test_live_participant_runs_on_force_from_discharges() -> None:
    experiment = Experiment.model_validate(
        {
            "duration_s": 1.0,
            "ros": False,
            "participant": {"id": "twitchtest", "wait_for_decoder_s": 0, "force": "twitch", "conditions": {"als": 0.5}},
        }
    )
    live, records = LiveParticipant(experiment), []
    try:
        live.subscribe(records.append)
        live.start()
        until = time.monotonic() + 120
        while live.running and time.monotonic() < until:
            time.sleep(0.05)
        assert live.finished and live.error is None and live.status()["diverged"] == 0
    finally:
        live.close()
    joints = np.array([record.joints_deg for record in records])
    assert np.isfinite(joints).all() and np.ptp(joints, axis=0).max() > 2.0
