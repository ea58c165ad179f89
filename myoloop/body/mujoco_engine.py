"""MuJoCo's C engine for one or many participants on the CPU's cores.

engine = MujocoEngine(load_hand(), participants=3)
body = engine.reset()
body = engine.step(excitation)  # (3, 39) in 0..1, held for one control step
"""

from __future__ import annotations

import os

import mujoco
import numpy as np
from mujoco import batch

from myoloop.body.engine import (
    PUSHED,
    BodyState,
    Posture,
    checked_activation,
    checked_excitation,
    checked_posture,
    checked_push,
    checked_saved,
    chosen_participants,
    substeps,
)
from myoloop.body.model import Hand

BAD_STATE = [int(getattr(mujoco.mjtWarning, f"mjWARN_{name}")) for name in ("BADQPOS", "BADQVEL", "BADQACC")]
NOTHING = int(mujoco.mjtStage.mjSTAGE_NONE)
NEW_STATE = int(mujoco.mjtStage.mjSTAGE_ACC)  # compute every derived field at the state after the step
KEPT = 3 * PUSHED + 1  # numbers saved after MuJoCo's own state: the pushes and the flag


class MujocoEngine:
    """MuJoCo in C on `threads` threads (0: one per CPU, never more than participants).

    The batch keeps one MjData per participant (0.1 to 0.3 MB), so that a control step begins with what the last one
    computed at its end: one evaluation of the tendons' paths less, of five.
    """

    def __init__(self, hand: Hand, participants: int = 1, control_dt: float = 0.02, threads: int = 0):
        self._substeps = substeps(hand, participants, control_dt)
        self.hand = hand
        self.participants = participants
        self.control_dt = control_dt
        threads = min(threads or os.cpu_count() or 1, participants)
        self._batch = batch.Batch(hand.model, nsim=participants, nthread=threads, persistent=True)
        # with the tips' centres of mass, where MuJoCo wants a force on a body
        names = "qpos qvel act ctrl time xfrc_applied actuator_length actuator_velocity actuator_moment"
        names += " actuator_force qfrc_bias site_xpos xipos xpos xmat"
        self._view = {name: self._batch.bind(name) for name in names.split()}
        self._push = np.zeros((participants, PUSHED, 3))
        self._diverged = np.zeros(participants, bool)
        self._current = False  # whether the derived fields are those of the present state
        self._rows, self._columns = _moment_pattern(hand.model)
        self.reset()

    def reset(self, qpos: np.ndarray | None = None, ids: np.ndarray | None = None) -> BodyState:
        """See Engine.reset. qpos is (23,) or (n, 23) rad for the n participants reset.

        Raises:
          MyoloopError: wrong shape, NaN, or an angle more than 20 deg beyond its joint's range.
        """
        chosen = chosen_participants(ids, self.participants)
        self._batch.reset(chosen, stage=NOTHING)
        if qpos is not None:
            self._view["qpos"][chosen] = checked_posture(self.hand, qpos, len(chosen))
        self._push[chosen] = 0.0
        self._diverged[chosen] = False
        if self._current:
            self._batch.forward(chosen, stage=NEW_STATE)
        return self.state()

    def step(self, excitation: np.ndarray, activation: np.ndarray | None = None) -> BodyState:
        """See Engine.step.

        Raises:
          MyoloopError: excitation or activation has another shape, is not finite (activation may be NaN), or leaves 0..1.
        """
        self._integrate(excitation, activation, NEW_STATE)
        return self.state()

    def advance(self, excitation: np.ndarray, activation: np.ndarray | None = None) -> Posture:
        """See Engine.advance. A push acts where the fingertips were one physics step before.

        Raises:
          MyoloopError: as `step`.
        """
        self._integrate(excitation, activation, NOTHING)
        return self.posture()

    def _integrate(self, excitation: np.ndarray, activation: np.ndarray | None, stage: int) -> None:
        excitation = checked_excitation(excitation, self.participants)
        activation = checked_activation(activation, self.participants)
        self._view["ctrl"][:] = excitation
        if activation is not None:
            given = ~np.isnan(activation)
            self._view["ctrl"][given] = activation[given]
            self._view["act"][given] = activation[given]
        self._apply_push()
        self._batch.step(nstep=self._substeps, stage=stage)
        self._current = stage == NEW_STATE
        self._diverged |= (self._batch.warning[:, BAD_STATE, 1] > 0).any(axis=1)

    def state(self) -> BodyState:
        """See Engine.state."""
        self._bring_up_to_date()
        view = self._view
        wrist = self.hand.wrist_body
        axes = view["xmat"].reshape(self.participants, -1, 3, 3)[:, wrist]
        tips = view["site_xpos"][:, self.hand.fingertip_sites] - view["xpos"][:, None, wrist]
        return BodyState(
            qpos=view["qpos"].copy(),
            qvel=view["qvel"].copy(),
            activation=view["act"].copy(),
            length=view["actuator_length"].copy(),
            velocity=view["actuator_velocity"].copy(),
            moment=self._dense_moment(),
            force=-view["actuator_force"],
            bias=view["qfrc_bias"].copy(),
            fingertips=tips @ axes,  # rows times the rotation's columns: into the carpus's axes
            time=view["time"].copy(),
            diverged=self._diverged.copy(),
        )

    def posture(self) -> Posture:
        """See Engine.posture."""
        view = self._view
        return Posture(
            qpos=view["qpos"].copy(),
            qvel=view["qvel"].copy(),
            activation=view["act"].copy(),
            time=view["time"].copy(),
            diverged=self._diverged.copy(),
        )

    def push(self, force: np.ndarray, ids: np.ndarray | None = None) -> None:
        """See Engine.push.

        Raises:
          MyoloopError: wrong shape, not finite, or more than 200 N.
        """
        chosen = chosen_participants(ids, self.participants)
        self._push[chosen] = checked_push(force, len(chosen))

    def save(self) -> np.ndarray:
        """See Engine.save: MuJoCo's integration state, the pushes and the flags, float64."""
        flags = self._diverged[:, None].astype(float)
        return np.concatenate([self._batch.state, self._push.reshape(self.participants, -1), flags], axis=1)

    def load(self, saved: np.ndarray) -> BodyState:
        """See Engine.load.

        Raises:
          MyoloopError: `saved` is not of this engine: other number of participants or another model.
        """
        saved = checked_saved(saved, self.participants, self._batch.nstate + KEPT)
        self._batch.reset(stage=NOTHING)  # forgets warnings, which are not in the state
        self._batch.state[:] = saved[:, :-KEPT]
        self._push[:] = saved[:, -KEPT:-1].reshape(self._push.shape)
        self._diverged[:] = saved[:, -1] != 0
        self._current = False
        return self.state()

    def _bring_up_to_date(self) -> None:
        """Derived fields at the present state, without a trace in the future."""
        if not self._current:
            kept = self._batch.state.copy()
            self._batch.forward(stage=NEW_STATE)
            self._batch.state[:] = kept  # computing the fields has moved the solver's warm start
            self._current = True

    def _apply_push(self) -> None:
        bodies, tips = self.hand.fingertip_bodies, self._push[:, :-1]
        arm = self._view["site_xpos"][:, self.hand.fingertip_sites] - self._view["xipos"][:, bodies]
        self._view["xfrc_applied"][:, bodies] = np.concatenate([tips, np.cross(arm, tips)], axis=-1)
        self._view["xfrc_applied"][:, self.hand.wrist_body, :3] = self._push[:, -1]

    def _dense_moment(self) -> np.ndarray:
        dense = np.zeros((self.participants, self.hand.model.nu, self.hand.model.nv))
        dense[:, self._rows, self._columns] = self._view["actuator_moment"]
        return dense


def _moment_pattern(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Muscle and joint of every entry of MuJoCo's sparse moment arms; the model alone decides them."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return np.repeat(np.arange(model.nu), data.moment_rownnz), data.moment_colind.copy()
