"""The reference is what Hodossy & Farina describe, varied without end, and never shared between splits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from myoloop.body.model import load_hand
from myoloop.body.names import FLEXION_JOINTS
from myoloop.errors import MyoloopError
from myoloop.task.reference import (
    CYCLE_S,
    FREQUENCIES,
    ReferenceConfig,
    flexion,
    held_out_seed,
    hold,
    joint_angles,
    labels,
    make_reference,
    motion,
    posture,
    release,
    split_of,
)

RATE = 100.0  # Hz of the test's own sampling


def sample(kind: str, seconds: float, start: float = 0.0, participants: int = 4, **config):
    ref = make_reference(ReferenceConfig(kind=kind, **config), participants)
    t = start + np.arange(int(seconds * RATE)) / RATE
    return t, jax.vmap(lambda when: motion(ref, when))(jnp.asarray(t, jnp.float32)), ref


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_every_cycle_holds_each_frequency_once(kind):
    ref = make_reference(ReferenceConfig(kind=kind, seed=2), participants=1)
    start = CYCLE_S - float(ref.offset[0])  # the first whole cycle
    for cycle in range(3):
        t = start + cycle * CYCLE_S + np.arange(1000) / RATE
        wave = np.asarray(jax.vmap(lambda when: flexion(ref, when))(jnp.asarray(t, jnp.float32)))[:, 0]
        power = np.abs(np.fft.rfft(wave - wave.mean(axis=0), axis=0)) ** 2
        peaks = np.fft.rfftfreq(1000, 1 / RATE)[power.argmax(axis=0)]
        np.testing.assert_allclose(np.sort(peaks), FREQUENCIES, atol=1e-6)


def test_the_assignment_changes_from_cycle_to_cycle_and_from_participant_to_participant():
    ref = make_reference(ReferenceConfig(seed=0), participants=6)
    orders = np.asarray(ref.frequency)
    assert len({tuple(row) for row in orders[0].round(2)}) > 15  # of 30 cycles; 120 orders are possible
    assert len({tuple(np.asarray(row).ravel().round(2)) for row in orders}) == 6


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    kind=st.sampled_from(["continuous", "discrete"]),
    assignment=st.sampled_from(["permuted", "projected"]),
)
def test_flexion_stays_within_0_and_1_and_never_jumps(seed, kind, assignment):
    _, m, _ = sample(kind, 25.0, seed=seed, assignment=assignment, participants=2)
    bend = np.asarray(m.flexion)
    assert bend.min() >= -1e-6 and bend.max() <= 1 + 1e-6
    fastest = np.pi / 2 / 0.4 if kind == "discrete" else np.pi * 0.5  # 1/s: raised cosine of 0.4 s; sine of 0.5 Hz
    assert np.abs(np.diff(bend, axis=0)).max() <= 1.02 * fastest / RATE


def test_discrete_flexion_and_labels_agree():
    _, m, _ = sample("discrete", 60.0, seed=4)
    bend, target = np.asarray(m.flexion), np.asarray(m.labels)
    clear = np.abs(bend - 0.5) > 0.02
    np.testing.assert_array_equal((bend > 0.5)[clear], (target > 0.5)[clear])
    assert set(np.unique(target)) == {0.0, 1.0}
    settled = np.isclose(bend, 0.0, atol=1e-5) | np.isclose(bend, 1.0, atol=1e-5)
    assert settled.mean() > 0.7  # held most of the time
    assert 0.4 < target.mean() < 0.6


def test_discrete_and_continuous_references_with_the_same_phase_have_the_same_labels():
    continuous = make_reference(ReferenceConfig(kind="continuous", seed=3), participants=3)
    square = make_reference(ReferenceConfig(kind="discrete", seed=3), participants=3)
    square = square.replace(
        frequency=continuous.frequency, phase=continuous.phase, weight=continuous.weight, offset=continuous.offset
    )
    t = jnp.arange(2000) / RATE + 0.0031
    one, other = (np.asarray(jax.vmap(lambda when, r=ref: labels(r, when))(t)) for ref in (continuous, square))
    assert (one == other).mean() > 0.999


def test_velocity_is_the_derivative_of_the_angles():
    for kind in ("continuous", "discrete"):
        _, m, _ = sample(kind, 12.0, seed=9)
        slope = (m.qpos[2:] - m.qpos[:-2]) * RATE / 2
        scale = np.abs(np.asarray(m.qvel)).max()
        assert np.percentile(np.abs(slope - m.qvel[1:-1]), 99) < 0.02 * scale


def test_same_seed_same_reference():
    a, b = (sample("discrete", 5.0, seed=11)[1] for _ in range(2))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_participants_motion_does_not_depend_on_how_many_there_are():
    few, many = (sample("continuous", 5.0, seed=1, participants=n)[1] for n in (2, 5))
    np.testing.assert_array_equal(few.flexion, many.flexion[:, :2])


def test_each_participant_may_have_a_time_of_its_own():
    ref = make_reference(ReferenceConfig(seed=1), participants=2)
    together = joint_angles(ref, jnp.array([1.0, 7.5]))
    np.testing.assert_array_equal(together[0], joint_angles(ref, 1.0)[0])
    np.testing.assert_array_equal(together[1], joint_angles(ref, 7.5)[1])


def test_held_out_seeds_are_never_training_seeds():
    held_out = [held_out_seed(i) for i in range(100)]
    assert {split_of(seed) for seed in held_out} == {"held_out"}
    assert {split_of(seed) for seed in range(0, 1_000_000, 9_999)} == {"training"}
    with pytest.raises(MyoloopError, match="seed 1000003 is held_out, but split is 'training'"):
        make_reference(ReferenceConfig(seed=held_out_seed(3), split="training"))
    with pytest.raises(MyoloopError, match="seed 7 is training, but split is 'held_out'"):
        make_reference(ReferenceConfig(seed=7, split="held_out"))
    trained = make_reference(ReferenceConfig(seed=0, split="training"), 50)
    tested = make_reference(ReferenceConfig(seed=held_out_seed(0), split="held_out"), 50)
    assert not np.isin(np.asarray(tested.offset), np.asarray(trained.offset)).any()


def test_postures_lie_within_the_joint_limits_and_each_finger_moves_alone():
    low, high = load_hand().joint_range.T
    for bend in (np.zeros(5), np.ones(5), *np.eye(5)):
        angles = np.asarray(posture(bend))
        assert ((angles > low) & (angles < high)).all()
    rest = np.asarray(posture(np.zeros(5)))
    for finger, joints in enumerate(FLEXION_JOINTS):
        moved = np.flatnonzero(np.asarray(posture(np.eye(5)[finger])) != rest)
        assert set(moved) - {4} == set(joints), "and the thumb, which also swings out (joint 4)"
    assert posture(np.zeros((7, 5))).shape == (7, 23)


def test_hold_moves_smoothly_to_the_target_and_release_back():
    ref = make_reference(ReferenceConfig(seed=6), participants=2)
    asked = np.array([1, 0, 1, 0, 1.0])
    held = hold(ref, 3.0, asked, who=np.array([True, False]))
    np.testing.assert_allclose(flexion(held, 3.0), flexion(ref, 3.0), atol=1e-6)
    np.testing.assert_allclose(flexion(held, 3.5)[0], asked, atol=1e-6)
    np.testing.assert_array_equal(labels(held, 3.01)[0], asked)
    np.testing.assert_array_equal(flexion(held, 9.0)[1], flexion(ref, 9.0)[1])
    freed = release(held, 10.0)
    np.testing.assert_allclose(flexion(freed, 10.0), flexion(held, 10.0), atol=1e-6)
    np.testing.assert_allclose(flexion(freed, 10.5), flexion(ref, 10.5), atol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(kind="discreet"), "unknown reference kind 'discreet'. Did you mean 'discrete'?"),
        (dict(assignment="permute"), "unknown reference assignment 'permute'. Did you mean 'permuted'?"),
        (dict(split="heldout"), "unknown reference split 'heldout'. Did you mean 'held_out'?"),
        (dict(seed=-1), "a seed of at least 0"),
        (dict(transition_s=0.0), "transition_s is 0.0 s; expected more than 0"),
    ],
)
def test_bad_settings_are_refused_by_name(config, message):
    with pytest.raises(MyoloopError, match=message.replace("?", r"\?")):
        make_reference(ReferenceConfig(**config))


@pytest.mark.parametrize("target", [[1, 0, 1], [0, 0, 0, 0, 2], [0, 0, 0, 0, float("nan")]])
def test_a_bad_target_is_refused(target):
    with pytest.raises(MyoloopError, match="expected 5 flexions between 0"):
        hold(make_reference(ReferenceConfig()), 0.0, target)
