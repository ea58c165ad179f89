"""Integrating the hand: what every engine is asked and answers, and the checks they share.

The engines are `mujoco` (body/mujoco_engine.py: C, on the CPU's cores), `mjx` and `warp` (body/mjx_engine.py: JAX and
MuJoCo Warp, on an accelerator). body/engines.py makes one by its name.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from myoloop.body.model import Hand
from myoloop.body.names import MUSCLES
from myoloop.errors import MyoloopError

MAX_PUSH_N = 200.0  # N: about twice a strong pinch (Mathiowetz 1985: tip pinch of men 80 N); more is a wrong unit
LIMIT_SLACK = 0.35  # rad: joint limits are soft, so a saved posture may lie a little outside them
PUSHED = 6
"""Places that can be pushed: five fingertips, thumb to little, then the palm."""


class BodyState(NamedTuple):
    """What the body feels like at one instant, first axis the participant (B): copies in float64 from the engines' host
    face, JAX arrays in float32 from the pure face of `mjx` and `warp`."""

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
    """(B,) bool: the physics became NaN or absurd since the reset. The engine then started the body afresh from its
    neutral posture; the state is finite, but the episode is worth nothing: reset it."""


class Posture(NamedTuple):
    """The part of a BodyState that costs nothing to read: no derived field. First axis the participant (B)."""

    qpos: np.ndarray
    """(B, 23) joint angles, rad."""
    qvel: np.ndarray
    """(B, 23) joint velocities, rad/s."""
    activation: np.ndarray
    """(B, 39) muscle activation, 0..1."""
    time: np.ndarray
    """(B,) seconds since the reset."""
    diverged: np.ndarray
    """(B,) bool: as in BodyState."""


Felt = TypeVar("Felt", BodyState, Posture)


def in_float32(body: Felt) -> Felt:
    """The same with numbers in float32, as the jitted halves of a step take them; flags stay flags."""
    return type(body)(*(np.asarray(x, np.float32) if np.asarray(x).dtype.kind == "f" else x for x in body))


class Engine(Protocol):
    """Who integrates the physics. Every engine gives the same fields for the same excitations (tolerance tested)."""

    participants: int
    control_dt: float

    def reset(self, qpos: np.ndarray | None = None, ids: np.ndarray | None = None) -> BodyState:
        """Put participants `ids` (default all) to rest at `qpos` (default neutral): no activation, no push, time 0."""

    def step(self, excitation: np.ndarray, activation: np.ndarray | None = None) -> BodyState:
        """Hold excitation (B, 39), 0..1, for one control step and return the state after it.

        `activation` (B, 39), 0..1 or NaN: where it is a number, that muscle's activation and excitation are set to it
        and stand still for the step; where it is NaN (and without it), the muscle's own dynamics apply.
        """

    def advance(self, excitation: np.ndarray, activation: np.ndarray | None = None) -> Posture:
        """As `step`, without computing the derived fields of the state after it: a fifth cheaper. For training."""

    def state(self) -> BodyState:
        """The state now, without stepping."""

    def posture(self) -> Posture:
        """The part of the state that needs no computing."""

    def push(self, force: np.ndarray, ids: np.ndarray | None = None) -> None:
        """Push on fingertips and palm from the next step on, until changed, until a reset at the latest.

        `force` is (6, 3) or (n, 6, 3) N in the world's axes for the n participants `ids` (default all): five
        fingertips, thumb to little, then the palm, at the common centre of mass of carpus and metacarpals. (5, 3) and
        (n, 5, 3) leave the palm alone. The point of attack follows the body once per control step; zeros end the push.
        """

    def save(self) -> np.ndarray:
        """(B, n): all that the future depends on."""

    def load(self, saved: np.ndarray) -> BodyState:
        """Go back to what `save` gave, bit for bit."""


def substeps(hand: Hand, participants: int, control_dt: float) -> int:
    """Physics steps in one control step.

    Raises:
      MyoloopError: no participants, or a control step that is not a whole number of physics steps.
    """
    physics_dt = hand.model.opt.timestep
    count = round(control_dt / physics_dt)
    if participants < 1:
        raise MyoloopError(f"participants is {participants}; expected at least 1.")
    if count < 1 or abs(count * physics_dt - control_dt) > 1e-9:
        raise MyoloopError(
            f"control_dt {control_dt} s is not a whole number of physics steps of {physics_dt} s; "
            "choose physics_dt in load_hand so that it divides control_dt."
        )
    return count


def chosen_participants(ids: np.ndarray | None, participants: int) -> np.ndarray:
    """Sorted participant numbers from None (all), numbers, or a (participants,) bool.

    Raises:
      MyoloopError: a number that is not a participant.
    """
    if ids is None:
        return np.arange(participants)
    found = np.asarray(ids)
    if found.dtype == bool and found.shape == (participants,):
        return np.flatnonzero(found)
    found = np.unique(found)
    whole = np.issubdtype(found.dtype, np.integer) or found.size == 0
    if not whole or (found.size and (found[0] < 0 or found[-1] >= participants)):
        last = participants - 1
        raise MyoloopError(f"participants {np.asarray(ids).tolist()}; expected whole numbers 0..{last}.")
    return found.astype(int)


def checked_excitation(excitation: np.ndarray, participants: int) -> np.ndarray:
    """Excitation as it came, when it is (participants, 39) within 0..1.

    Raises:
      MyoloopError: another shape, not finite, or out of 0..1.
    """
    excitation = np.asarray(excitation)
    _check_muscles("excitation", excitation, participants, (excitation >= 0.0) & (excitation <= 1.0))  # not NaN, too
    return excitation


def checked_activation(activation: np.ndarray | None, participants: int) -> np.ndarray | None:
    """Activation as it came, when it is (participants, 39) of 0..1 or NaN.

    Raises:
      MyoloopError: another shape, or out of 0..1.
    """
    if activation is None:
        return None
    activation = np.asarray(activation)
    fits = np.isnan(activation) | ((activation >= 0.0) & (activation <= 1.0))
    _check_muscles("activation", activation, participants, fits)
    return activation


def _check_muscles(what: str, values: np.ndarray, participants: int, fits: np.ndarray) -> None:
    expected = (participants, len(MUSCLES))
    if values.shape != expected:
        raise MyoloopError(f"{what} has shape {values.shape}; expected {expected}: participants, muscles.")
    if not fits.all():
        who, muscle = np.argwhere(~fits)[0]
        cure = "map or clip the policy's action first." if what == "excitation" else "or NaN for the muscle's own."
        raise MyoloopError(
            f"{what} of {MUSCLES[muscle]}, participant {who}, is {values[who, muscle]}; expected 0..1"
            + (": " if what == "excitation" else ", ")
            + cure
        )


def checked_push(force: np.ndarray, count: int) -> np.ndarray:
    """(6, 3) or (count, 6, 3) N from what `Engine.push` takes.

    Raises:
      MyoloopError: wrong shape, not finite, or more than 200 N.
    """
    force = np.asarray(force, float)
    if force.shape[-2:] not in ((5, 3), (PUSHED, 3)) or force.shape[:-2] not in ((), (count,)):
        raise MyoloopError(
            f"push has shape {force.shape}; expected (5, 3) or ({count}, 5, 3): fingers thumb to little, N; "
            f"or (6, 3) or ({count}, 6, 3) with the palm after them."
        )
    if not np.isfinite(force).all() or np.abs(force).max() > MAX_PUSH_N:
        raise MyoloopError(f"push holds {_worst(force)} N; expected finite values within +-{MAX_PUSH_N:g} N.")
    if force.shape[-2] == 5:
        force = np.concatenate([force, np.zeros_like(force[..., :1, :])], axis=-2)
    return force


def checked_posture(hand: Hand, qpos: np.ndarray, count: int) -> np.ndarray:
    """Joint angles (23,) or (count, 23) rad, float64.

    Raises:
      MyoloopError: wrong shape, NaN, or an angle more than 20 deg beyond its joint's range.
    """
    qpos = np.asarray(qpos, float)
    joints = hand.joints
    if qpos.shape not in ((len(joints),), (count, len(joints))):
        either = f"({len(joints)},) or ({count}, {len(joints)})"
        raise MyoloopError(f"qpos has shape {qpos.shape}; expected {either}: participants, joints.")
    low, high = hand.joint_range.T
    fits = (qpos >= low - LIMIT_SLACK) & (qpos <= high + LIMIT_SLACK)
    if not fits.all():
        who, joint = np.argwhere(~np.atleast_2d(fits))[0]
        value = np.atleast_2d(qpos)[who, joint]
        raise MyoloopError(
            f"qpos of {joints[joint]} is {value} rad; expected {low[joint]:.2f} to {high[joint]:.2f} rad."
        )
    return qpos


def checked_saved(saved: np.ndarray, participants: int, width: int) -> np.ndarray:
    """A saved body as `Engine.load` takes it.

    Raises:
      MyoloopError: it is not of this engine: other number of participants, another engine or another model.
    """
    saved = np.asarray(saved)
    expected = (participants, width)
    if saved.shape != expected or saved.dtype != np.float64:
        raise MyoloopError(
            f"saved body is {saved.dtype} {saved.shape}; expected float64 {expected}: "
            "load it with the same engine and model and as many participants as it was saved with."
        )
    return saved


def _worst(values: np.ndarray) -> float:
    """The value that is not finite, or else the largest."""
    flat = values.ravel()
    bad = flat[~np.isfinite(flat)]
    return float(bad[0] if bad.size else flat[np.abs(flat).argmax()])
