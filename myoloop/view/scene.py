"""The hand in the browser: bones by mjviser, fingertips and tendons coloured, the posture asked for as a ghost."""

from __future__ import annotations

import mujoco
import numpy as np
import viser
from mjviser import ViserMujocoScene
from mjviser.conversions import merge_geoms

from myoloop.body.model import load_hand
from myoloop.view.colours import BONE, EXTENDED, GHOST, muscle_colours, tip_colours
from myoloop.view.posture import Bones, Posture

CENTRE = np.array([-0.195, -0.50, 1.505])
"""What the camera looks at: the middle of the hand, m."""
EYE = CENTRE + np.array([-0.44, -0.08, 0.15])
"""Where it is: before the palm, on the thumb's side."""
UP = (0.0, -1.0, 0.0)
"""Up on the screen: along the forearm, which lies level in the model, to the fingers."""
HERE = np.zeros((1, 3), np.float32), np.array([[1, 0, 0, 0]], np.float32)
"""Position and quaternion of what has not been placed yet."""
HIDDEN = 5
"""A geom group that mjviser does not show."""
TENDON_M = 0.0022
"""Thickness of a tendon on the screen."""


class HandScene:
    """The handles of everything in 3D; all browsers see the same."""

    def __init__(self, server: viser.ViserServer):
        hand = load_hand(visual=True)
        model = hand.model
        meshes = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
        self._bodies = [b for b in range(1, model.nbody) if np.any(meshes & (model.geom_bodyid == b))]
        model.geom_rgba[meshes, :3] = np.array(BONE) / 255
        model.geom_group[~meshes] = HIDDEN
        model.site_group[:] = HIDDEN
        tips = np.isin(model.geom_bodyid, hand.fingertip_bodies) & meshes
        parts = {
            b: merge_geoms(model, np.flatnonzero(meshes & (model.geom_bodyid == b)).tolist()) for b in self._bodies
        }
        model.geom_group[tips] = HIDDEN  # drawn here, in the decoder's colours
        self.bones, self._wanted = Bones(hand), Bones(hand)
        self._server, self._tips = server, hand.fingertip_bodies
        scene = server.scene
        scene.set_up_direction(UP)
        scene.world_axes.visible = False
        server.initial_camera.position, server.initial_camera.look_at = EYE, CENTRE
        server.initial_camera.fov = np.radians(38)
        self._hand = ViserMujocoScene(server, model, num_envs=1)
        self._hand.camera_tracking_enabled = False
        scene.configure_fog(1.0, 2.0, enabled=False)
        # batched, though each is one: browsers draw changes of these and of mjviser's handles, and of no others, together
        self._tip_handles = [
            scene.add_batched_meshes_simple(
                f"/tips/{k}", parts[b].vertices, parts[b].faces, HERE[1], HERE[0], batched_colors=EXTENDED, lod="off"
            )
            for k, b in enumerate(self._tips)
        ]
        self._ghost_handles = {
            b: scene.add_batched_meshes_simple(
                f"/ghost/{b}", parts[b].vertices, parts[b].faces, HERE[1], HERE[0], batched_colors=GHOST, lod="off",
                opacity=0.28, cast_shadow=False, receive_shadow=False,
            )
            for b in self._bodies
        }  # fmt: skip
        paths = self.bones.place(np.zeros(model.nq)).tendons
        grey = np.broadcast_to(muscle_colours(np.zeros(1)), (len(paths), 2, 3))
        self._tendons = scene.add_line_segments("/tendons", paths, np.array(grey), thickness=TENDON_M)

    def show(
        self, joints_deg: np.ndarray, wanted_deg: np.ndarray | None, excitation: np.ndarray, prediction: np.ndarray
    ) -> Posture:
        """Draws one instant.

        Args:
          joints_deg: (23,) angles of the hand, degrees.
          wanted_deg: (23,) of the ghost; None: hidden.
          excitation: (39,) 0..1.
          prediction: (5,) probability of flexed.
        """
        with self._server.atomic():
            posture = self.bones.place(joints_deg)
            self._hand.update_from_mjdata(self.bones.data)
            for handle, body, colour in zip(self._tip_handles, self._tips, tip_colours(prediction), strict=True):
                _place(handle, posture, body)
                handle.batched_colors = colour
            self._tendons.points = posture.tendons
            colours = muscle_colours(excitation)[self.bones.muscle_of]
            self._tendons.colors = np.repeat(colours[:, None], 2, axis=1)
            self._show_ghost(wanted_deg)
        self._server.flush()
        return posture

    def _show_ghost(self, wanted_deg: np.ndarray | None) -> None:
        wanted = None if wanted_deg is None else self._wanted.place(wanted_deg)
        for body, handle in self._ghost_handles.items():
            if handle.visible != (wanted is not None):
                handle.visible = wanted is not None
            if wanted is not None:
                _place(handle, wanted, body)


def _place(handle: viser.BatchedMeshHandle, posture: Posture, body: int) -> None:
    handle.batched_positions = posture.positions[body : body + 1].astype(np.float32)
    handle.batched_wxyzs = posture.quaternions[body : body + 1].astype(np.float32)
