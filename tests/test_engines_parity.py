"""The engines `mjx` and `warp` against `mujoco`: the same body from the same numbers.

One program of each engine is compiled for the whole file, and its answers are kept.
"""

from __future__ import annotations

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from myoloop.body import mjx_physics
from myoloop.body.engine import BodyState
from myoloop.body.engines import check_memory, make_engine
from myoloop.body.mjx_engine import MjxEngine
from myoloop.body.model import Hand, load_hand
from myoloop.body.mujoco_engine import MujocoEngine
from myoloop.errors import MyoloopError

pytestmark = pytest.mark.timeout(1200)  # on a busy machine the two programs take minutes to compile

B = 3
STEPS = 50  # 1 s
TOLERANCES = {
    "qpos": 2e-3,  # rad: 0.1 deg. float32 against float64, and a solver that stops after 4 iterations
    "qvel": 5e-2,  # rad/s
    "activation": 1e-6,
    "length": 5e-5,  # m
    "velocity": 2e-3,  # m/s
    "moment": 2e-4,  # m
    "force": 0.5,  # N, of up to 400
    "bias": 1e-3,  # N m
    "fingertips": 2e-4,  # m
    "time": 1e-5,  # s
    "diverged": 0,
}
"""Largest difference from `mujoco` after up to 1 s of the same excitations and pushes."""


def impl(name: str) -> pytest.param:
    missing = name == "warp" and importlib.util.find_spec("warp") is None
    return pytest.param(
        name, marks=pytest.mark.skipif(missing, reason="warp-lang is an extra: pip install 'myoloop[warp]'")
    )


@pytest.fixture(scope="module")
def hand() -> Hand:
    return load_hand()


@pytest.fixture(scope="module", params=[impl("jax"), impl("warp")])
def engine(hand, request) -> MjxEngine:
    """Compiled once; every test begins with a reset."""
    return MjxEngine(hand, B, impl=request.param)


def excitations() -> np.ndarray:
    """(steps, B, 39): quick changes of everything, as while a policy explores."""
    rng = np.random.default_rng(0)
    return np.repeat(rng.uniform(0, 0.8, (STEPS // 5, B, 39)) ** 2, 5, axis=0)


def pushes() -> np.ndarray:
    """(steps, B, 6, 3) N: participant 1 is pushed for 100 ms on fingertips and palm."""
    force = np.zeros((STEPS, B, 6, 3))
    force[20:25, 1] = np.random.default_rng(1).normal(0, 2, (6, 3))
    return force


def assert_near(a: BodyState, b: BodyState, tolerances: dict[str, float]) -> None:
    for name, x, y in zip(BodyState._fields, a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerances[name], err_msg=name)


def test_the_same_excitations_and_pushes_bring_the_body_to_the_same_place(hand, engine):
    reference = MujocoEngine(hand, B, threads=1)
    posture = hand.joint_range.mean(axis=1)
    engine.reset(posture)
    reference.reset(posture)
    furthest = np.zeros(23)
    for step, (excitation, force) in enumerate(zip(excitations(), pushes(), strict=True)):
        for each in (engine, reference):
            each.push(force)
        if step % 10 == 9:
            assert_near(engine.step(excitation), reference.step(excitation), TOLERANCES)
        else:
            engine.advance(excitation)
            furthest = np.maximum(furthest, np.abs(reference.advance(excitation).qpos - posture).max(axis=0))
    assert np.median(furthest) > 0.3  # rad: the hand has moved


def test_every_field_is_that_of_the_state_itself(hand, engine):
    rng = np.random.default_rng(2)
    posture = rng.uniform(*hand.joint_range.T, (B, 23))
    reference = MujocoEngine(hand, B, threads=1)
    reference.reset(posture)
    engine.reset(posture)
    excitation = rng.uniform(0, 1, (B, 39))
    reference.step(excitation)
    body = engine.step(excitation)
    reference._view["qpos"][:], reference._view["qvel"][:] = body.qpos, body.qvel  # the very same state
    reference._view["act"][:] = body.activation
    reference._current = False
    tight = {"length": 1e-6, "velocity": 1e-5, "moment": 3e-6, "force": 0.02, "bias": 2e-6, "fingertips": 1e-6}
    assert_near(body, reference.state(), {**TOLERANCES, **tight, "qpos": 0, "qvel": 0, "activation": 0})


def test_placing_some_leaves_the_others_alone(hand, engine):
    physics = engine.physics
    engine.reset()
    engine.advance(excitations()[0])
    before = engine._physics
    posture = jnp.asarray(np.tile(hand.joint_range.mean(axis=1), (B, 1)), jnp.float32)
    after = physics.placed(before, posture, np.array([False, True, False]))
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a[::2], b[::2])
    np.testing.assert_array_equal(after.qpos[1], posture[1])
    assert not after.qvel[1].any() and not after.activation[1].any() and after.time[1] == 0


def test_a_body_whose_physics_breaks_is_put_to_rest_and_flagged_and_the_others_notice_nothing(hand, engine):
    engine.reset()
    for excitation in excitations()[:3]:
        engine.advance(excitation)
    sound = engine._physics
    engine._physics = sound.replace(qvel=sound.qvel.at[1, 4].set(jnp.nan))
    broken = engine.step(excitations()[5])
    engine._physics = sound
    whole = engine.step(excitations()[5])
    np.testing.assert_array_equal(broken.diverged, [False, True, False])
    for name, a, b in zip(BodyState._fields, broken, whole, strict=True):
        assert np.isfinite(a).all(), name
        np.testing.assert_array_equal(a[::2], b[::2], err_msg=name)
    np.testing.assert_array_equal(broken.qpos[1], hand.model.qpos0)
    assert not engine.reset(ids=np.array([1])).diverged.any()


def test_load_goes_back_to_save_bit_for_bit(engine):
    engine.reset()
    engine.push(np.full((6, 3), 0.5), ids=np.array([2]))
    for excitation in excitations()[:3]:
        engine.advance(excitation)
    saved = engine.save()
    first = [engine.advance(excitation) for excitation in excitations()[5:9]]
    engine.push(np.zeros((6, 3)))
    np.testing.assert_array_equal(engine.load(saved).qpos, engine.posture().qpos)
    for excitation, before in zip(excitations()[5:9], first, strict=True):
        for a, b in zip(engine.advance(excitation), before, strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_activation_given_stands_still_and_the_others_follow_their_own_dynamics(hand, engine):
    engine.reset()
    reference = MujocoEngine(hand, B, threads=1)
    given = np.full((B, 39), np.nan)
    given[1, [4, 20]] = 0.7, 0.0
    body, expected = (each.step(np.full((B, 39), 0.3), given) for each in (engine, reference))
    np.testing.assert_allclose(body.activation, expected.activation, atol=1e-6)
    np.testing.assert_allclose(body.activation[1, [4, 20]], [0.7, 0.0], atol=1e-7)
    np.testing.assert_allclose(body.qpos, expected.qpos, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.step(np.zeros((B, 38))), r"excitation has shape \(3, 38\)"),
        (lambda e: e.step(np.full((B, 39), np.nan)), "excitation of ECRL, participant 0, is nan"),
        (lambda e: e.push(np.zeros((4, 3))), r"push has shape \(4, 3\)"),
        (lambda e: e.push(np.full((6, 3), 201.0)), "push holds 201.0 N"),
        (lambda e: e.reset(np.full(23, 1.2)), "qpos of deviation is 1.2 rad"),
        (lambda e: e.load(np.zeros((B, 10))), "same engine and model"),
    ],
)
def test_bad_input_is_refused_by_name(engine, call, message):
    with pytest.raises(MyoloopError, match=message):
        call(engine)


def test_an_unknown_engine_is_refused_by_name(hand):
    with pytest.raises(MyoloopError, match=r"unknown engine 'wrap'\. Did you mean 'warp'"):
        make_engine("wrap", hand)


def test_an_engine_that_is_not_installed_says_what_installs_it(hand, monkeypatch):
    def absent(module: str) -> None:
        raise ImportError(f"No module named '{module}'")

    monkeypatch.setattr(mjx_physics.importlib, "import_module", absent)
    for name in ("mjx", "warp"):
        with pytest.raises(MyoloopError, match=rf"engine '{name}' needs .* pip install 'myoloop\[warp\]'"):
            make_engine(name, hand)


def test_more_participants_than_memory_are_refused_before_they_are_made(hand):
    with pytest.raises(MyoloopError, match=r"100000 participants on engine 'warp' .* 1\.0 GB are free: choose at most"):
        check_memory("warp", 100_000, available=10**9)
    with pytest.raises(MyoloopError, match=r"10000000000 participants on engine 'mujoco' need about"):
        make_engine("mujoco", hand, participants=10**10)
    check_memory("mujoco", 256, available=10**9)
