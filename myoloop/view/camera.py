"""Draws the hand off-screen: bones, coloured fingertips and tendons, and the posture asked for as a shadow behind it."""

from __future__ import annotations

import mujoco
import numpy as np

from myoloop.body.model import Hand
from myoloop.view.colours import BONE, GHOST, muscle_colours, tip_colours

CENTRE = (-0.197, -0.5, 1.494)
"""Middle of the hand, metres: it hardly moves."""
TENDON_M = 0.0009
"""Half the thickness of a tendon."""


class Camera:
    """Pictures of postures, fingers up, on white."""

    def __init__(self, hand: Hand, size: int, tendons: bool = False):
        """
        Args:
          hand: loaded with `visual=True`; its colours are changed.
          size: pixels of a square of which the picture is the middle part, see `shape`.
          tendons: whether they are drawn.
        """
        self.model, self.data = hand.model, mujoco.MjData(hand.model)
        self.model.vis.global_.offwidth = self.model.vis.global_.offheight = size
        self.model.vis.headlight.ambient[:] = 0.4
        self.model.vis.headlight.diffuse[:] = 0.55
        self.model.vis.quality.offsamples = 8
        self.model.geom_rgba[:, :3] = np.array(BONE) / 255
        self.model.geom_matid[:] = -1
        self.model.tendon_width[:] = TENDON_M
        self._tendon_of = hand.model.actuator_trnid[:, 0]
        meshes = hand.model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
        self._tips = [np.flatnonzero(meshes & (hand.model.geom_bodyid == body)) for body in hand.fingertip_bodies]
        self.view = mujoco.MjvCamera()
        self.view.lookat[:] = CENTRE
        # before the palm, a little above
        self.view.distance, self.view.azimuth, self.view.elevation = 0.36, 195.0, -25.0
        self.option = mujoco.MjvOption()
        self._tendons = tendons
        self.option.sitegroup[:] = 0
        self.renderer = mujoco.Renderer(self.model, size, size)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a picture."""
        rows, columns = self._part()
        return rows.stop - rows.start, columns.stop - columns.start

    def __call__(
        self,
        qpos: np.ndarray,
        wanted: np.ndarray | None = None,
        prediction: np.ndarray | None = None,
        excitation: np.ndarray | None = None,
    ) -> np.ndarray:
        """(rows, columns, 3) uint8 picture.

        Args:
          qpos: (23,) posture, rad.
          wanted: (23,) posture asked for, rad; None: no shadow.
          prediction: (5,) probability of flexed, which colours the tips; None: as bones.
          excitation: (39,) which colours the tendons, if they are drawn.
        """
        if prediction is not None:
            for geoms, colour in zip(self._tips, tip_colours(prediction), strict=True):
                self.model.geom_rgba[geoms, :3] = colour / 255
        if excitation is not None:
            self.model.tendon_rgba[self._tendon_of, :3] = muscle_colours(excitation) / 255
        image, drawn = self._render(qpos, self._tendons)
        paper = np.full_like(image, 255)
        if wanted is not None:
            ghost, shadow = self._render(wanted, tendons=False)
            light = ghost.mean(axis=2, keepdims=True) / 255.0  # keeps the shapes of the bones
            paper = np.where(shadow, np.array(GHOST) * (0.5 + 0.5 * light) + 255 * 0.25 * (1 - light), paper)
        return np.where(drawn, image, paper).clip(0, 255).astype(np.uint8)

    def _part(self) -> tuple[slice, slice]:
        size = self.renderer.height
        return slice(round(0.06 * size), round(0.85 * size)), slice(round(0.2 * size), round(0.9 * size))

    def _render(self, qpos: np.ndarray, tendons: bool) -> tuple[np.ndarray, np.ndarray]:
        """The picture, and where the hand is in it (rows, columns, 1)."""
        self.option.flags[mujoco.mjtVisFlag.mjVIS_TENDON] = tendons
        self.data.qpos[:] = qpos
        mujoco.mj_forward(self.model, self.data)
        self.renderer.update_scene(self.data, self.view, self.option)
        self.renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        image = np.rot90(self.renderer.render(), -1)[self._part()]
        return image, image.sum(axis=2, keepdims=True) > 3
