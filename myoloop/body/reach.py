"""Which parts of the hand a muscle can turn: the joints it has a moment arm about."""

from __future__ import annotations

import mujoco
import numpy as np

from myoloop.body.model import Hand
from myoloop.body.names import FINGERS, JOINTS

PARTS = ("wrist", *FINGERS)
"""Parts of the hand: forearm rotation and wrist together, then the fingers."""
PART_OF_JOINT = (0,) * 3 + (1,) * 4 + (2,) * 4 + (3,) * 4 + (4,) * 4 + (5,) * 4
"""Index into PARTS for every one of JOINTS."""
LEAST_ARM = 1e-5
"""m: shorter moment arms count as none; those of MyoHand's muscles are 4 mm and more at their longest."""


def muscle_reach(hand: Hand) -> np.ndarray:
    """(6 parts, 39 muscles) bool: the muscle has a moment arm about a joint of that part in some posture.

    In MyoHand every muscle of a finger reaches that finger alone, and the extrinsic ones the wrist as well.
    """
    low, high = hand.joint_range[:, 0], hand.joint_range[:, 1]
    data, longest = mujoco.MjData(hand.model), np.zeros((len(hand.muscles), len(JOINTS)))
    dense = np.zeros((hand.model.nu, hand.model.nv))
    for share in (0.1, 0.5, 0.9):
        data.qpos[:] = low + share * (high - low)
        mujoco.mj_forward(hand.model, data)
        mujoco.mju_sparse2dense(dense, data.actuator_moment, data.moment_rownnz, data.moment_rowadr, data.moment_colind)
        longest = np.maximum(longest, np.abs(dense))
    part = np.array(PART_OF_JOINT)
    return np.stack([(longest[:, part == index] > LEAST_ARM).any(axis=1) for index in range(len(PARTS))])
