"""Torques by activation: those that MuJoCo finds."""

import mujoco
import numpy as np
import pytest

from myoloop.body.leverage import leverage
from myoloop.body.model import load_hand
from myoloop.body.names import JOINTS, MUSCLES
from myoloop.learn.through_forward import unit_leverage
from myoloop.task.reference import EXTENDED, FLEXED


@pytest.mark.parametrize("posture", [EXTENDED, FLEXED], ids=["extended", "flexed"])
def test_leverage_is_what_the_physics_turns_the_joints_by(posture):
    hand = load_hand()
    found = leverage(hand, posture[None])[0]
    data = mujoco.MjData(hand.model)
    torques = []
    for activation in np.concatenate([np.zeros((1, 39)), np.eye(39)]):
        mujoco.mj_resetData(hand.model, data)
        data.qpos[:] = posture
        data.act[:] = activation
        mujoco.mj_forward(hand.model, data)
        torques.append(data.qfrc_actuator.copy())
    expected = (np.array(torques[1:]) - torques[0]).T
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    flexion = JOINTS.index("mcp2_flexion")
    assert found[flexion, MUSCLES.index("FDS2")] > 0 > found[flexion, MUSCLES.index("EDC2")]


def test_unit_leverage_gives_every_joint_the_same_say():
    unit = np.asarray(unit_leverage(leverage(load_hand(), np.stack([EXTENDED, FLEXED]))))
    np.testing.assert_allclose(np.linalg.norm(unit, axis=2), 1.0, rtol=1e-5)
