"""The MuJoCo engine: reproducible, restorable, and careful with its input."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from myoloop.body.engine import BodyState
from myoloop.body.model import load_hand
from myoloop.body.mujoco_engine import MujocoEngine
from myoloop.body.muscle import muscle_force, muscle_parameters
from myoloop.errors import MyoloopError

B = 3


@pytest.fixture(scope="module")
def hand():
    return load_hand()


def noise(steps: int, participants: int = B, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 0.5, (steps, participants, 39))


def assert_same(a: BodyState, b: BodyState) -> None:
    for name, x, y in zip(BodyState._fields, a, b, strict=True):
        assert np.array_equal(x, y), name


def test_same_excitations_same_numbers(hand):
    last = []
    for threads in (1, 2):
        engine = MujocoEngine(hand, B, threads=threads)
        for excitation in noise(30):
            body = engine.step(excitation)
        last.append(body)
    assert_same(*last)


def test_a_batch_of_three_equals_three_singles(hand):
    excitations = noise(30)
    batch = MujocoEngine(hand, B)
    for excitation in excitations:
        together = batch.step(excitation)
    for i in range(B):
        single = MujocoEngine(hand, 1)
        for excitation in excitations:
            alone = single.step(excitation[i : i + 1])
        assert_same(alone, BodyState(*(field[i : i + 1] for field in together)))


def test_load_goes_back_to_save_bit_for_bit(hand):
    engine = MujocoEngine(hand, B)
    excitations = noise(100)
    engine.push(np.full((5, 3), 0.1), ids=np.array([1]))
    for excitation in excitations[:50]:
        engine.step(excitation)
    saved, then = engine.save(), engine.state()
    first = [engine.step(excitation) for excitation in excitations[50:]]
    engine.push(np.zeros((5, 3)))
    assert_same(engine.load(saved), then)
    for excitation, before in zip(excitations[50:], first, strict=True):
        assert_same(engine.step(excitation), before)
    other = MujocoEngine(hand, B)
    other.load(saved)
    assert_same(other.step(excitations[50]), first[0])


def test_derived_fields_belong_to_the_state_after_the_step(hand):
    engine = MujocoEngine(hand, 1)
    for excitation in noise(20, 1):
        body = engine.step(excitation)
    data = mujoco.MjData(hand.model)
    data.qpos[:], data.qvel[:], data.act[:] = body.qpos[0], body.qvel[0], body.activation[0]
    mujoco.mj_forward(hand.model, data)
    np.testing.assert_allclose(body.length[0], data.actuator_length, atol=1e-14)
    np.testing.assert_allclose(body.velocity[0], data.actuator_velocity, atol=1e-14)
    np.testing.assert_allclose(body.force[0], -data.actuator_force, atol=1e-10)
    np.testing.assert_allclose(body.bias[0], data.qfrc_bias, atol=1e-14)
    np.testing.assert_allclose(-body.moment[0].T @ body.force[0], data.qfrc_actuator, atol=1e-10)
    np.testing.assert_allclose(body.moment[0] @ body.qvel[0], body.velocity[0], atol=1e-12)
    wrist = data.body(hand.wrist_body)
    tips = (data.site_xpos[hand.fingertip_sites] - wrist.xpos) @ wrist.xmat.reshape(3, 3)
    np.testing.assert_allclose(body.fingertips[0], tips, atol=1e-14)
    parts = muscle_force(muscle_parameters(hand.model), body.length, body.velocity)
    np.testing.assert_allclose(parts.gain * body.activation + parts.passive, body.force, atol=1e-2)


def test_fingertips_do_not_move_with_wrist_and_forearm(hand):
    engine = MujocoEngine(hand, 2)
    turned = np.zeros((2, 23))
    turned[1, :3] = 1.0, 0.2, 0.5
    body = engine.reset(turned)
    np.testing.assert_allclose(body.fingertips[0], body.fingertips[1], atol=1e-12)
    assert np.linalg.norm(body.fingertips[0], axis=-1).min() > 0.05  # m, from the carpus


def test_reset_concerns_the_chosen_participants_only(hand):
    engine = MujocoEngine(hand, B)
    for excitation in noise(10):
        before = engine.step(excitation)
    posture = np.zeros(23)
    posture[7] = 0.7
    after = engine.reset(posture, ids=np.array([1]))
    np.testing.assert_array_equal(after.qpos[1], posture)
    assert after.time[1] == 0 and not after.activation[1].any() and not after.qvel[1].any()
    for field_before, field_after in zip(before, after, strict=True):
        np.testing.assert_array_equal(field_before[[0, 2]], field_after[[0, 2]])


def test_states_are_copies(hand):
    engine = MujocoEngine(hand, 1)
    before = engine.state()
    kept = before.qpos.copy()
    engine.step(np.full((1, 39), 0.3))
    np.testing.assert_array_equal(before.qpos, kept)


def test_a_push_bends_the_finger_it_acts_on_until_it_ends(hand):
    engine = MujocoEngine(hand, 2)
    rest = np.zeros((2, 39))
    force = np.zeros((5, 3))
    tip, knuckle = 1, 7  # index finger
    posture = np.zeros(23)
    posture[[7, 9, 10]] = 0.5
    engine.reset(posture)
    up = np.zeros(3)
    # along the direction in which the fingertip moves when the knuckle bends
    bent = posture.copy()
    bent[knuckle] += 1e-4
    data = mujoco.MjData(hand.model)
    ends = []
    for qpos in (posture, bent):
        data.qpos[:] = qpos
        mujoco.mj_kinematics(hand.model, data)
        ends.append(data.site_xpos[hand.fingertip_sites[tip]].copy())
    up = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    force[tip] = 2.0 * up
    engine.push(force, ids=np.array([1]))
    for _ in range(5):
        body = engine.step(rest)
    moved = np.abs(body.qpos[1] - body.qpos[0])
    assert body.qpos[1, knuckle] - body.qpos[0, knuckle] > 0.1  # rad
    assert moved[19:].max() < 0.05  # the little finger hardly notices
    engine.push(np.zeros((5, 3)))
    speeds = [abs(engine.step(rest).qvel[1, knuckle]) for _ in range(20)]
    assert speeds[-1] < 0.2 * abs(body.qvel[1, knuckle])


@pytest.mark.parametrize("place", ["ring fingertip", "palm"])
def test_a_push_acts_as_its_force_times_the_jacobian_of_where_it_attacks(hand, place):
    posture = hand.joint_range.mean(axis=1)
    number, newtons = (5, (1.0, -2.0, 3.0)) if place == "palm" else (3, (0.3, -0.2, 0.4))
    force = np.zeros((6, 3))
    force[number] = newtons
    engine = MujocoEngine(hand, 2)
    engine.reset(posture)
    engine.push(force, ids=np.array([1]))
    body = engine.step(np.zeros((2, 39)))
    data = mujoco.MjData(hand.model)
    data.qpos[:] = posture
    mujoco.mj_forward(hand.model, data)
    jacobian = np.zeros((3, hand.model.nv))
    if place == "palm":
        mujoco.mj_jacBodyCom(hand.model, data, jacobian, None, hand.wrist_body)
    else:
        mujoco.mj_jacSite(hand.model, data, jacobian, None, hand.fingertip_sites[number])
    data.qfrc_applied[:] = jacobian.T @ force[number]  # the point of attack is found once per control step
    for _ in range(round(0.02 / hand.model.opt.timestep)):
        mujoco.mj_step(hand.model, data)
    effect, expected = body.qpos[1] - body.qpos[0], data.qpos - body.qpos[0]
    assert np.abs(expected).max() > 1e-3  # rad: something gives way
    np.testing.assert_allclose(effect, expected, atol=0.05 * np.abs(expected).max())


def test_an_activation_given_stands_still_and_the_others_follow_their_own_dynamics(hand):
    engine, plain = MujocoEngine(hand, 2), MujocoEngine(hand, 2)
    excitation = np.full((2, 39), 0.3)
    given = np.full((2, 39), np.nan)
    given[1, [4, 20]] = 0.7, 0.0
    body, free = engine.step(excitation, given), plain.step(excitation)
    np.testing.assert_array_equal(body.activation[1, [4, 20]], [0.7, 0.0])
    others = np.isnan(given)
    np.testing.assert_array_equal(body.activation[others], free.activation[others])
    assert engine.step(excitation).activation[1, 4] < 0.7  # and its own dynamics go on from there
    np.testing.assert_array_equal(body.qpos[0], free.qpos[0])


def test_advancing_without_derived_fields_goes_where_stepping_goes(hand):
    quick, whole = MujocoEngine(hand, B), MujocoEngine(hand, B)
    for excitation in noise(30):
        posture, body = quick.advance(excitation), whole.step(excitation)
    np.testing.assert_allclose(posture.qpos, body.qpos, atol=1e-6)  # the solver starts elsewhere
    saved = quick.save()
    seen = quick.state()
    np.testing.assert_array_equal(quick.save(), saved)  # looking leaves no trace
    np.testing.assert_array_equal(seen.qpos, posture.qpos)
    np.testing.assert_allclose(seen.length, body.length, atol=1e-7)
    np.testing.assert_array_equal(quick.posture().activation, seen.activation)
    then = quick.advance(excitation)
    quick.load(saved)
    for name, a, b in zip(then._fields, quick.advance(excitation), then, strict=True):
        assert np.array_equal(a, b), name


def test_divergence_is_flagged_and_reset_clears_it(hand, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warning to a log file there
    engine = MujocoEngine(hand, B)
    saved = engine.save()
    spoiled = saved.copy()
    spoiled[1, 5] = np.nan
    engine.load(spoiled)
    for _ in range(2):
        body = engine.step(np.zeros((B, 39)))
        np.testing.assert_array_equal(body.diverged, [False, True, False])
        assert all(np.isfinite(field).all() for field in body)
    assert not engine.reset(ids=np.array([1])).diverged.any()
    assert not engine.step(np.zeros((B, 39))).diverged.any()
    engine.load(spoiled)
    engine.step(np.zeros((B, 39)))
    assert not engine.load(saved).diverged.any()
    engine.load(spoiled)
    assert engine.step(np.zeros((B, 39))).diverged[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.step(np.zeros((B, 38))), r"excitation has shape \(3, 38\); expected \(3, 39\)"),
        (lambda e: e.step(np.full((B, 39), np.nan)), "excitation of ECRL, participant 0, is nan; expected 0..1"),
        (lambda e: e.step(np.full((B, 39), 1.5)), "is 1.5; expected 0..1: map or clip"),
        (lambda e: e.push(np.zeros((4, 3))), r"push has shape \(4, 3\); expected \(5, 3\)"),
        (lambda e: e.push(np.zeros((2, 6, 3))), r"push has shape \(2, 6, 3\); .* or \(3, 6, 3\) with the palm"),
        (lambda e: e.step(np.zeros((B, 39)), np.zeros(39)), r"activation has shape \(39,\); expected \(3, 39\)"),
        (
            lambda e: e.step(np.zeros((B, 39)), np.full((B, 39), 2.0)),
            "activation of ECRL, participant 0, is 2.0; expected",
        ),
        (lambda e: e.push(np.full((5, 3), 1e9)), r"push holds 1000000000.0 N; expected finite values within \+-200 N"),
        (lambda e: e.reset(np.zeros(22)), r"qpos has shape \(22,\); expected \(23,\) or \(3, 23\)"),
        (lambda e: e.reset(np.full(23, np.nan)), "qpos of pro_sup is nan rad; expected -1.57 to 1.57"),
        (lambda e: e.reset(np.full(23, 1.2)), "qpos of deviation is 1.2 rad; expected -0.17 to 0.44"),
        (lambda e: e.reset(ids=np.array([3])), r"participants \[3\]; expected whole numbers 0..2"),
        (lambda e: e.load(np.zeros((2, 10))), r"saved body is float64 \(2, 10\); expected float64 \(3, "),
    ],
)
def test_bad_input_is_refused_by_name(hand, call, message):
    with pytest.raises(MyoloopError, match=message):
        call(MujocoEngine(hand, B))


def test_a_control_step_that_physics_steps_do_not_divide_is_refused(hand):
    with pytest.raises(MyoloopError, match=r"control_dt 0\.018 s is not a whole number of physics steps of 0\.005 s"):
        MujocoEngine(hand, 1, control_dt=0.018)
    with pytest.raises(MyoloopError, match="participants is 0"):
        MujocoEngine(hand, 0)
