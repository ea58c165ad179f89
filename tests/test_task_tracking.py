"""The tracking task: what is paid, what pushes, what is perceived."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from myoloop.body.engine import Posture
from myoloop.body.model import load_hand
from myoloop.body.names import FINGERS, JOINTS, MUSCLES
from myoloop.body.reach import PARTS, muscle_reach
from myoloop.errors import MyoloopError
from myoloop.policy.observation import observation, observation_layout
from myoloop.task.perturbation import (
    PerturbationConfig,
    forces,
    fresh_perturbation,
    next_perturbation,
    no_perturbation,
)
from myoloop.task.tracking import (
    RewardConfig,
    TrackingConfig,
    asked_labels,
    make_tracking,
    pay,
    start,
    starting_posture,
    wanted_ahead,
)


@pytest.fixture(scope="module")
def task():
    return make_tracking(load_hand(), TrackingConfig(), 3)


def _wanted(task):
    return wanted_ahead(task, start(task, jax.random.key(0), 0.0))[0]


def test_perfect_tracking_without_effort_pays_all_kernels(task):
    wanted, r = _wanted(task), RewardConfig()
    silent = jnp.zeros((3, 39))
    reward, figures = pay(task, wanted, wanted, silent, silent)
    full = r.joint + r.joint_far + r.tip + r.tip_far + r.wrist + r.wrist_far
    np.testing.assert_allclose(reward.sum(axis=1), full, rtol=1e-6)
    assert float(jnp.max(jnp.stack(figures))) < 1e-3


@pytest.mark.parametrize("joint", [2, 3, 9], ids=["wrist", "thumb", "index"])
def test_a_larger_error_always_pays_less(task, joint):
    """Also far away, where one narrow kernel would be flat."""
    wanted, silent = _wanted(task), jnp.zeros((3, 39))
    errors = np.deg2rad([0, 5, 15, 30, 45, 60])
    paid = [pay(task, wanted, wanted.at[:, joint].add(e), silent, silent)[0][0].sum() for e in errors]
    assert (np.diff(paid) < -1e-3).all()


def test_effort_and_jerk_cost_what_the_configuration_says(task):
    wanted, r = _wanted(task), RewardConfig()
    silent, half = jnp.zeros((3, 39)), jnp.full((3, 39), 0.5)
    free = pay(task, wanted, wanted, silent, silent)[0].sum(axis=1)
    held, figures = pay(task, wanted, wanted, half, half)
    held = held.sum(axis=1)
    begun = pay(task, wanted, wanted, half, silent)[0].sum(axis=1)
    np.testing.assert_allclose(free - held, 0.25 * r.effort, rtol=1e-5)
    np.testing.assert_allclose(held - begun, 0.25 * r.smoothness, rtol=1e-5)
    np.testing.assert_allclose(figures.effort, 0.25)


def test_each_part_of_the_hand_is_paid_for_itself(task):
    """A finger that is off costs its own part, a muscle that pulls the parts that it reaches, in equal shares."""
    wanted, silent, r = _wanted(task), jnp.zeros((3, 39)), RewardConfig()
    free = pay(task, wanted, wanted, silent, silent)[0]
    off = pay(task, wanted, wanted.at[:, JOINTS.index("pm3_flexion")].add(0.5), silent, silent)[0]
    lost = np.asarray(free - off)
    assert (lost[:, PARTS.index("middle")] > 0.01).all()
    np.testing.assert_allclose(np.delete(lost, PARTS.index("middle"), axis=1), 0.0, atol=1e-6)
    pulled = silent.at[:, MUSCLES.index("FDP3")].set(1.0)
    cost = np.asarray(free - pay(task, wanted, wanted, pulled, pulled)[0])[0]
    expected = [r.effort / 39 / 2 if part in ("wrist", "middle") else 0.0 for part in PARTS]
    np.testing.assert_allclose(cost, expected, atol=1e-6)


def test_pushes_come_as_often_as_hard_and_as_long_as_configured():
    config = PerturbationConfig(pushes_per_s=1.0, push_n=3.0, push_s=(0.1, 0.3), loaded=0.5, load_n=4.0)
    step = jax.jit(lambda now, key: next_perturbation(config, now, key, 0.02))
    now, found = fresh_perturbation(config, 400, jax.random.key(0)), []
    loaded = np.linalg.norm(now.palm, axis=1)
    for number in range(500):  # 10 s
        now = step(now, jax.random.key(number))
        found.append(np.asarray(forces(now)))
    pushed = np.linalg.norm(np.stack(found)[:, :, :5], axis=-1)  # (500, 400, 5)
    assert 2.0 < pushed.max() <= 3.0 and (np.count_nonzero(pushed, axis=2) <= 1).all()
    on = pushed.max(axis=2) > 0
    begins = (on[1:] & ~on[:-1]).sum()
    assert begins == pytest.approx(400 * 10 / 1.2, rel=0.1)  # one a second while none is on; each lasts 0.2 s
    assert on[1:].sum() / begins * 0.02 == pytest.approx(0.2, rel=0.1)
    assert 0.4 < (loaded > 0).mean() < 0.6 and loaded.max() <= 4.0
    np.testing.assert_array_equal(found[-1][:, 5], now.palm)
    assert not np.asarray(forces(no_perturbation(2))).any()


def test_episodes_begin_near_the_reference_inside_the_joints_range(task):
    state = start(task, jax.random.key(3), 0.0)
    qpos = np.asarray(starting_posture(task, state))
    low, high = np.asarray(task.joint_range).T
    assert (qpos >= low).all() and (qpos <= high).all()
    away = np.abs(qpos - np.asarray(wanted_ahead(task, state)[0]))
    assert 0.02 < away[:, 3:].mean() < 0.6


def test_the_observation_has_its_layout_and_is_always_finite(task):
    wanted = wanted_ahead(task, start(task, jax.random.key(0), 0.0))
    layout = observation_layout(task.config.look_ahead_s)
    body = Posture(np.zeros((3, 23)), np.full((3, 23), np.nan), np.full((3, 39), np.inf), np.zeros(3), np.ones(3, bool))
    seen = observation(task.joint_range, body, wanted)
    assert seen.shape == (3, layout.size) and np.isfinite(np.asarray(seen)).all()
    last = layout.size - layout.sizes[-1]
    np.testing.assert_allclose(
        seen[:, last:], wanted[-1], atol=1e-6
    )  # the hand at 0: the difference is the posture itself


def test_impossible_tasks_and_held_out_seeds_are_refused():
    hand = load_hand()
    with pytest.raises(MyoloopError, match="episode of at least one control step"):
        make_tracking(hand, TrackingConfig(episode_s=0.001), 2)
    with pytest.raises(MyoloopError, match="held_out"):
        make_tracking(hand, TrackingConfig(reference_seed=1_000_000), 2)


def test_every_muscle_reaches_the_parts_that_anatomy_says():
    hand = load_hand()
    reach = muscle_reach(hand)
    found = {muscle: [PARTS[p] for p in np.flatnonzero(reach[:, index])] for index, muscle in enumerate(hand.muscles)}
    expected = {
        **{muscle: ["wrist"] for muscle in ("ECRL", "ECRB", "ECU", "FCR", "FCU", "PL", "PT", "PQ")},
        **{muscle: ["wrist", "thumb"] for muscle in ("EPL", "EPB", "FPL", "APL")},
        "OP": ["thumb"],
        **{muscle: ["wrist", "index"] for muscle in ("FDS2", "FDP2", "EDC2", "EIP")},
        **{muscle: ["wrist", "little"] for muscle in ("FDS5", "FDP5", "EDC5", "EDM")},
        **{f"{m}{n}": ["wrist", FINGERS[n - 1]] for m in ("FDS", "FDP", "EDC") for n in (3, 4)},
        **{f"{m}{n}": [FINGERS[n - 1]] for m in ("RI", "LU_RB", "UI_UB") for n in (2, 3, 4, 5)},
    }
    assert found == expected


def test_gestures_are_asked_for_instead_of_templates_when_given():
    """Each participant holds only gestures of the list; half of the time or so it rests."""
    gestures = ((0.0, 0, 0, 0, 0), (1.0, 1, 1, 1, 1), (1.0, 1, 0, 0, 0))
    task = make_tracking(load_hand(), TrackingConfig(gestures=gestures, discrete=(1.0, 1.0)), 4)
    state = start(task, jax.random.key(1), 0.0)
    asked = np.concatenate([asked_labels(task, state, 0.1 * k) for k in range(600)])
    assert {tuple(map(float, row)) for row in asked} == {tuple(map(float, g)) for g in gestures}
    assert 0.3 < np.mean(asked.sum(axis=1) == 0) < 0.5
    assert len(np.unique(state.time)) == 4
    hash(task.config)  # it is a static argument of compiled steps
