"""Integrating the hand: one interface, and MuJoCo's C engine for one or many participants.

engine = MujocoEngine(load_hand(), participants=3)
body = engine.reset()
body = engine.step(excitation)  # (3, 39) in 0..1, held for one control step
"""

from __future__ import annotations

import os
from typing import NamedTuple, Protocol

import mujoco
import numpy as np
from mujoco import batch

from myoloop.body.model import Hand
from myoloop.body.names import MUSCLES
from myoloop.errors import MyoloopError

MAX_PUSH_N = 200.0  # N: about twice a strong pinch (Mathiowetz 1985: tip pinch of men 80 N); more is a wrong unit
LIMIT_SLACK = 0.35  # rad: joint limits are soft, so a saved posture may lie a little outside them
BAD_STATE = [int(getattr(mujoco.mjtWarning, f"mjWARN_{name}")) for name in ("BADQPOS", "BADQVEL", "BADQACC")]
NEW_STATE = int(mujoco.mjtStage.mjSTAGE_ACC)  # compute every derived field at the state after the step


class BodyState(NamedTuple):
    """What the body feels like at one instant: copies, float64, first axis the participant (B)."""

    qpos: np.ndarray
    """(B, 23) joint angles, rad."""
    qvel: np.ndarray
    """(B, 23) joint velocities, rad/s."""
    activation: np.ndarray
    """(B, 39) muscle activation, 0..1."""
    length: np.ndarray
    """(B, 39) musculotendon length, m."""
    velocity: np.ndarray
    """(B, 39) musculotendon velocity, m/s, positive when lengthening."""
    moment: np.ndarray
    """(B, 39, 23) d length / d angle, m. A muscle that pulls with force f turns joint j with -moment[j] f."""
    force: np.ndarray
    """(B, 39) tension, N, positive: the pull of the muscle (MuJoCo's actuator_force with the sign turned)."""
    bias: np.ndarray
    """(B, 23) torque, N m, that balances gravity, centrifugal and Coriolis forces; joint damping is not in it."""
    fingertips: np.ndarray
    """(B, 5, 3) thumb to little, m, in the frame of the carpus, which moves with the wrist."""
    time: np.ndarray
    """(B,) seconds since the reset."""
    diverged: np.ndarray
    """(B,) bool: the physics became NaN or absurd since the reset. MuJoCo then started the body afresh from its
    neutral posture; the state is finite, but the episode is worth nothing: reset it."""


class Engine(Protocol):
    """Who integrates the physics. Every engine gives the same fields for the same excitations (tolerance tested)."""

    participants: int
    control_dt: float

    def reset(self, qpos: np.ndarray | None = None, ids: np.ndarray | None = None) -> BodyState:
        """Put participants `ids` (default all) to rest at `qpos` (default neutral): no activation, no push, time 0."""

    def step(self, excitation: np.ndarray, activation: np.ndarray | None = None) -> BodyState:
        """Hold excitation (B, 39), 0..1, for one control step and return the state after it.

        activation: (B, 39), 0..1, given from outside (e.g. from motor-unit twitches) and held for the step instead of
        what the excitation would make of it; NaN where the muscle's own activation dynamics apply. None: all of them.
        """

    def state(self) -> BodyState:
        """The state now, without stepping."""

    def push(self, force: np.ndarray, ids: np.ndarray | None = None) -> None:
        """Push on the fingertips from the next step on, until changed: (5, 3) or (n, 5, 3) N in the world's axes."""

    def save(self) -> np.ndarray:
        """(B, n): all that the future depends on."""

    def load(self, saved: np.ndarray) -> BodyState:
        """Go back to what `save` gave, bit for bit."""


class MujocoEngine:
    """MuJoCo in C on `threads` threads (0: one per CPU, never more than participants)."""

    def __init__(self, hand: Hand, participants: int = 1, control_dt: float = 0.02, threads: int = 0):
        substeps = round(control_dt / hand.model.opt.timestep)
        if participants < 1:
            raise MyoloopError(f"participants is {participants}; expected at least 1.")
        if substeps < 1 or abs(substeps * hand.model.opt.timestep - control_dt) > 1e-9:
            raise MyoloopError(
                f"control_dt {control_dt} s is not a whole number of physics steps of {hand.model.opt.timestep} s; "
                "choose physics_dt in load_hand so that it divides control_dt."
            )
        self.hand = hand
        self.participants = participants
        self.control_dt = control_dt
        self._substeps = substeps
        threads = min(threads or os.cpu_count() or 1, participants)
        self._batch = batch.Batch(hand.model, nsim=participants, nthread=threads)
        # with the tips' centres of mass, where MuJoCo wants a force on a body
        names = "qpos qvel act ctrl time xfrc_applied actuator_length actuator_velocity actuator_moment"
        names += " actuator_force qfrc_bias site_xpos xipos xpos xmat"
        self._view = {name: self._batch.bind(name) for name in names.split()}
        self._push = np.zeros((participants, 5, 3))
        self._diverged = np.zeros(participants, bool)
        self._rows, self._columns = _moment_pattern(hand.model)
        self.reset()

    def reset(self, qpos: np.ndarray | None = None, ids: np.ndarray | None = None) -> BodyState:
        """See Engine.reset. qpos is (23,) or (n, 23) rad for the n participants reset.

        Raises:
          MyoloopError: wrong shape, NaN, or an angle more than 20 deg beyond its joint's range.
        """
        chosen = self._chosen(ids)
        self._batch.reset(chosen, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        if qpos is not None:
            self._view["qpos"][chosen] = self._checked_posture(qpos, len(chosen))
        self._push[chosen] = 0.0
        self._diverged[chosen] = False
        self._batch.forward(chosen, stage=NEW_STATE)
        return self.state()

    def step(self, excitation: np.ndarray, activation: np.ndarray | None = None) -> BodyState:
        """See Engine.step. Where activation is given, `act` and `ctrl` are set to it, so that it stands still.

        Raises:
          MyoloopError: excitation or activation has another shape or leaves 0..1, or excitation is NaN.
        """
        excitation = self._checked_excitation(excitation)
        given = None if activation is None else self._checked_activation(activation)
        self._view["ctrl"][:] = excitation
        if given is not None:
            held = ~np.isnan(given)
            self._view["ctrl"][held] = self._view["act"][held] = given[held]
        self._apply_push()
        self._batch.step(nstep=self._substeps, stage=NEW_STATE)
        self._diverged |= (self._batch.warning[:, BAD_STATE, 1] > 0).any(axis=1)
        return self.state()

    def state(self) -> BodyState:
        """See Engine.state."""
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

    def push(self, force: np.ndarray, ids: np.ndarray | None = None) -> None:
        """See Engine.push. The point of attack follows the fingertip; zeros end the push.

        Raises:
          MyoloopError: wrong shape, not finite, or more than 200 N.
        """
        chosen = self._chosen(ids)
        force = np.asarray(force, float)
        if force.shape not in ((5, 3), (len(chosen), 5, 3)):
            raise MyoloopError(
                f"push has shape {force.shape}; expected (5, 3) or ({len(chosen)}, 5, 3): fingers thumb to little, N."
            )
        if not np.isfinite(force).all() or np.abs(force).max() > MAX_PUSH_N:
            raise MyoloopError(f"push holds {_worst(force)} N; expected finite values within +-{MAX_PUSH_N:g} N.")
        self._push[chosen] = force

    def save(self) -> np.ndarray:
        """See Engine.save: MuJoCo's integration state, the pushes and the flags, float64."""
        flags = self._diverged[:, None].astype(float)
        return np.concatenate([self._batch.state, self._push.reshape(-1, 15), flags], axis=1)

    def load(self, saved: np.ndarray) -> BodyState:
        """See Engine.load.

        Raises:
          MyoloopError: `saved` is not of this engine: other number of participants or another model.
        """
        saved = np.asarray(saved)
        expected = (self.participants, self._batch.nstate + 16)
        if saved.shape != expected or saved.dtype != np.float64:
            raise MyoloopError(
                f"saved body is {saved.dtype} {saved.shape}; expected float64 {expected}: "
                "load it with the same model and as many participants as it was saved with."
            )
        self._batch.reset(stage=int(mujoco.mjtStage.mjSTAGE_NONE))  # forgets warnings, which are not in the state
        self._batch.state[:] = saved[:, :-16]
        self._push[:] = saved[:, -16:-1].reshape(-1, 5, 3)
        self._diverged[:] = saved[:, -1] != 0
        self._batch.forward(stage=NEW_STATE)
        self._batch.state[:] = saved[:, :-16]  # computing the fields has moved the solver's warm start
        return self.state()

    def _apply_push(self) -> None:
        bodies = self.hand.fingertip_bodies
        arm = self._view["site_xpos"][:, self.hand.fingertip_sites] - self._view["xipos"][:, bodies]
        self._view["xfrc_applied"][:, bodies] = np.concatenate([self._push, np.cross(arm, self._push)], axis=-1)

    def _dense_moment(self) -> np.ndarray:
        dense = np.zeros((self.participants, self.hand.model.nu, self.hand.model.nv))
        dense[:, self._rows, self._columns] = self._view["actuator_moment"]
        return dense

    def _chosen(self, ids: np.ndarray | None) -> np.ndarray:
        if ids is None:
            return np.arange(self.participants)
        found = np.asarray(ids)
        if found.dtype == bool and found.shape == (self.participants,):
            return np.flatnonzero(found)
        found = np.unique(found)
        whole = np.issubdtype(found.dtype, np.integer) or found.size == 0
        if not whole or (found.size and (found[0] < 0 or found[-1] >= self.participants)):
            last = self.participants - 1
            raise MyoloopError(f"participants {np.asarray(ids).tolist()}; expected whole numbers 0..{last}.")
        return found.astype(int)

    def _checked_excitation(self, excitation: np.ndarray) -> np.ndarray:
        excitation = np.asarray(excitation)
        expected = (self.participants, len(MUSCLES))
        if excitation.shape != expected:
            raise MyoloopError(f"excitation has shape {excitation.shape}; expected {expected}: participants, muscles.")
        if not ((excitation >= 0.0) & (excitation <= 1.0)).all():  # false for NaN, too
            who, muscle = np.argwhere(~((excitation >= 0.0) & (excitation <= 1.0)))[0]
            raise MyoloopError(
                f"excitation of {MUSCLES[muscle]}, participant {who}, is {excitation[who, muscle]}; "
                "expected 0..1: map or clip the policy's action first."
            )
        return excitation

    def _checked_activation(self, activation: np.ndarray) -> np.ndarray:
        activation = np.asarray(activation)
        expected = (self.participants, len(MUSCLES))
        if activation.shape != expected:
            raise MyoloopError(f"activation has shape {activation.shape}; expected {expected}: participants, muscles.")
        bad = (activation < 0.0) | (activation > 1.0)
        if bad.any():
            who, muscle = np.argwhere(bad)[0]
            raise MyoloopError(
                f"activation of {MUSCLES[muscle]}, participant {who}, is {activation[who, muscle]}; "
                "expected 0..1, or NaN for the muscle's own dynamics."
            )
        return activation

    def _checked_posture(self, qpos: np.ndarray, count: int) -> np.ndarray:
        qpos = np.asarray(qpos, float)
        joints = self.hand.joints
        if qpos.shape not in ((len(joints),), (count, len(joints))):
            either = f"({len(joints)},) or ({count}, {len(joints)})"
            raise MyoloopError(f"qpos has shape {qpos.shape}; expected {either}: participants, joints.")
        low, high = self.hand.joint_range.T
        fits = (qpos >= low - LIMIT_SLACK) & (qpos <= high + LIMIT_SLACK)
        if not fits.all():
            joint = int(np.argwhere(~np.atleast_2d(fits))[0, 1])
            value = np.atleast_2d(qpos)[np.argwhere(~np.atleast_2d(fits))[0, 0], joint]
            raise MyoloopError(
                f"qpos of {joints[joint]} is {value} rad; expected {low[joint]:.2f} to {high[joint]:.2f} rad."
            )
        return qpos


def _moment_pattern(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Muscle and joint of every entry of MuJoCo's sparse moment arms; the model alone decides them."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return np.repeat(np.arange(model.nu), data.moment_rownnz), data.moment_colind.copy()


def _worst(values: np.ndarray) -> float:
    """The value that is not finite, or else the largest."""
    flat = values.ravel()
    bad = flat[~np.isfinite(flat)]
    return float(bad[0] if bad.size else flat[np.abs(flat).argmax()])
