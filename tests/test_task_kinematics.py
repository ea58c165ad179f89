"""Forward kinematics in JAX against MuJoCo's."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from myoloop.body.model import Hand, load_hand
from myoloop.body.mujoco_engine import MujocoEngine
from myoloop.errors import MyoloopError
from myoloop.task.kinematics import Kinematics, build_kinematics, fingertips

COUNT = 256


@pytest.fixture(scope="module")
def hand() -> Hand:
    return load_hand()


@pytest.fixture(scope="module")
def kin(hand: Hand) -> Kinematics:
    return build_kinematics(hand)


@pytest.fixture(scope="module")
def postures(hand: Hand) -> np.ndarray:
    """(COUNT, 23) rad, all over the joints' ranges; wrist and forearm, too."""
    low, high = hand.joint_range.T
    return np.random.default_rng(0).uniform(low, high, (COUNT, 23))


def test_fingertips_are_where_mujoco_has_them(hand: Hand, kin: Kinematics, postures: np.ndarray) -> None:
    expected = MujocoEngine(hand, participants=COUNT).reset(qpos=postures).fingertips
    found = np.asarray(jax.jit(fingertips)(kin, postures))
    assert np.ptp(expected, axis=0).min() > 0.01  # the postures do move every tip along every axis
    assert np.abs(found - expected).max() < 1e-6  # m


def test_any_leading_axes_are_a_batch(kin: Kinematics, postures: np.ndarray) -> None:
    flat = fingertips(kin, postures[:24])
    assert flat.shape == (24, 5, 3)
    np.testing.assert_allclose(
        fingertips(kin, postures[:24].reshape(2, 3, 4, 23)), flat.reshape(2, 3, 4, 5, 3), atol=1e-7
    )
    np.testing.assert_allclose(fingertips(kin, postures[0]), flat[0], atol=1e-7)


def test_derivative_is_mujocos_jacobian(hand: Hand, kin: Kinematics, postures: np.ndarray) -> None:
    data = mujoco.MjData(hand.model)
    data.qpos[:] = postures[0]
    mujoco.mj_kinematics(hand.model, data)
    mujoco.mj_comPos(hand.model, data)
    found = np.asarray(jax.jacfwd(lambda q: fingertips(kin, q))(jnp.asarray(postures[0], jnp.float32)))
    axes = data.xmat[hand.wrist_body].reshape(3, 3)
    assert not found[..., :3].any()  # the wrist carries the frame
    for finger, site in enumerate(hand.fingertip_sites):
        expected = np.zeros((3, 23))
        mujoco.mj_jacSite(hand.model, data, expected, None, site)
        np.testing.assert_allclose(found[finger, :, 3:], (axes.T @ expected)[:, 3:], atol=1e-6)


def test_fingers_hang_on_the_carpus_or_are_refused(hand: Hand) -> None:
    elsewhere = dataclasses.replace(hand, wrist_body=hand.model.body("midph2_r").id)
    with pytest.raises(MyoloopError, match="thumb finger does not hang on body 'midph2_r'"):
        build_kinematics(elsewhere)


def test_sliding_joint_is_refused_by_name(hand: Hand) -> None:
    model = hand.model.__copy__()
    model.jnt_type[hand.joints.index("pm3_flexion")] = mujoco.mjtJoint.mjJNT_SLIDE
    with pytest.raises(MyoloopError, match=r"joint 'pm3_flexion_r' of the middle finger is of type slide"):
        build_kinematics(dataclasses.replace(hand, model=model))
