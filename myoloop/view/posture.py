"""From joint angles to where bones and tendons are, by MuJoCo's own kinematics."""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np

from myoloop.body.model import Hand


class Posture(NamedTuple):
    """One posture, in the world's frame."""

    positions: np.ndarray
    """(bodies, 3) of the bodies' origins, m"""
    quaternions: np.ndarray
    """(bodies, 4) of their axes: w, x, y, z"""
    tendons: np.ndarray
    """(segments, 2, 3) straight pieces of the tendons' paths, m; `Bones.muscle_of` says whose"""


class Bones:
    """Places the hand. Every posture has the same number of tendon segments: those that are not needed have length 0."""

    def __init__(self, hand: Hand):
        self.model, self.data = hand.model, mujoco.MjData(hand.model)
        most = hand.model.tendon_num * 2  # every wrap object gives at most two points
        muscle = np.zeros(hand.model.ntendon, int)
        muscle[hand.model.actuator_trnid[:, 0]] = np.arange(hand.model.nu)
        self._room = most
        self.muscle_of = np.repeat(muscle, most)
        """(segments,) index of the muscle that each segment belongs to"""

    def place(self, joints_deg: np.ndarray) -> Posture:
        """The posture of joint angles (23,), degrees."""
        model, data = self.model, self.data
        data.qpos[:] = np.radians(joints_deg)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_tendon(model, data)
        return Posture(data.xpos.copy(), data.xquat.copy(), self._paths())

    def _paths(self) -> np.ndarray:
        points, objects = self.data.wrap_xpos.reshape(-1, 3), self.data.wrap_obj.ravel()
        found = []
        for first, count, room in zip(self.data.ten_wrapadr, self.data.ten_wrapnum, self._room, strict=True):
            path, whose = points[first : first + count], objects[first : first + count]
            pieces = np.stack([path[:-1], path[1:]], axis=1)[(whose[:-1] != -2) & (whose[1:] != -2)]  # -2: a pulley
            spare = np.broadcast_to(path[-1], (room - len(pieces), 2, 3))
            found += [pieces, spare]
        return np.concatenate(found).astype(np.float32)
