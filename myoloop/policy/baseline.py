"""The baseline controller: joint angles wanted -> excitations of the 39 muscles, without any learning.

Two steps, in joint and in muscle space:
1. a PD law asks for joint torques, with gravity and joint damping known in advance (computed-torque control, Craig
   1989, without the inertia term, which is small beside the hand's damping), and presses a finger on at the end;
2. a static optimisation finds activations in [tone, 1] that give these torques with the muscles' present gains and
   passive forces at least effort (static optimisation as in Crowninshield & Brand 1981, with squares of activation).

It is the yardstick for learned policies, and makes the EMG that the first decoder is trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from myoloop.body.engine import BodyState
from myoloop.body.model import Hand
from myoloop.body.muscle import MuscleParameters, muscle_force, muscle_parameters
from myoloop.body.names import FLEXION_JOINTS, FOREARM_MUSCLES, WRIST_JOINTS
from myoloop.errors import MyoloopError

FLEXORS = (("FPL",), ("FDS2", "FDP2"), ("FDS3", "FDP3"), ("FDS4", "FDP4"), ("FDS5", "FDP5"))
EXTENSORS = (("EPL", "EPB"), ("EDC2", "EIP"), ("EDC3",), ("EDC4",), ("EDC5", "EDM"))
MINOR_JOINTS = (4, 8, 10, 12, 14, 16, 18, 20, 22)  # abductions, and the last joints of the four fingers


@dataclass(frozen=True)
class BaselineConfig:
    """Gains and habits of the baseline controller."""

    finger_stiffness: float = 0.8
    """N m/rad at every finger joint."""
    finger_damping: float = 0.02
    """N m s/rad at every finger joint, on top of the joint's own."""
    largest_error: float = 0.35
    """rad: a joint further off than this is called for no harder, so that a late finger does not cramp."""
    wrist_stiffness: float = 12.0
    """N m/rad at wrist and forearm."""
    wrist_damping: float = 0.3
    """N m s/rad at wrist and forearm, on top of the joint's own."""
    flexor_press: float = 0.18
    """Activation of a finger's long flexors that goes into pressing on when the finger is asked to be fully flexed.
    People asked for a firm gesture clench it or straighten it out; without it an arrived finger needs next to nothing
    and its muscles fall silent."""
    extensor_press: float = 0.3
    """The same of a finger's long extensors when it is asked to be fully extended. They are weaker."""
    tone: float = 0.01
    """Least activation of any muscle: no muscle of an awake hand is quite silent."""
    intrinsic_effort: float = 3.0
    """Effort of the hand's own muscles relative to the forearm's. Above 1 the forearm does the fingers' work: what an
    armband can see."""
    finger_torque_error: float = 0.25
    """N m of error at a finger joint that weigh as much as one muscle's full activation. Smaller follows more closely
    with wilder excitations: some joint torques are out of the muscles' reach, whatever the effort."""
    wrist_torque_error: float = 0.5
    """The same at wrist and forearm, N m."""
    minor_weight: float = 0.25
    """Weight of torque errors at the last joints and at abduction, relative to the other finger joints. Only one
    flexor reaches the last joint and it crosses all the others, so no hand controls it alone."""
    iterations: int = 60
    """Steps of the static optimisation."""

    def __post_init__(self) -> None:
        positive = "finger_stiffness wrist_stiffness largest_error intrinsic_effort iterations"
        for name in f"{positive} finger_torque_error wrist_torque_error minor_weight".split():
            if not getattr(self, name) > 0:
                raise MyoloopError(f"baseline {name} is {getattr(self, name)}; expected more than 0.")
        for name in ("flexor_press", "extensor_press"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise MyoloopError(f"baseline {name} is {getattr(self, name)}; expected 0 to 1, an activation.")
        if not 0.0 <= self.tone < 0.5:
            raise MyoloopError(f"baseline tone is {self.tone}; expected at least 0 and below 0.5.")


@struct.dataclass
class Baseline:
    """The controller's constants for one hand."""

    muscles: MuscleParameters
    stiffness: jax.Array
    """(23,) N m/rad."""
    damping: jax.Array
    """(23,) N m s/rad that the controller adds."""
    joint_damping: jax.Array
    """(23,) N m s/rad of the joints themselves."""
    press: jax.Array
    """(2, 5, 39) activations that press a finger on: [flexed, extended], thumb to little."""
    pressed: jax.Array
    """(23,) 1 at the flexion joints that the press acts on, else 0."""
    bend: jax.Array
    """(5, 23) turns joint angles from the middle of their ranges into a finger's flexion, -1 extended to 1 flexed."""
    middle: jax.Array
    """(23,) rad: the middle of each joint's range."""
    torque_weight: jax.Array
    """(23,) 1/(N m)^2."""
    effort: jax.Array
    """(39,) weight of squared activation."""
    tone: jax.Array
    """() least activation."""
    reach: jax.Array
    """() rad."""
    iterations: int = struct.field(pytree_node=False)


def make_baseline(hand: Hand, config: BaselineConfig | None = None) -> Baseline:
    """Fit the controller's constants to a hand."""
    c = config or BaselineConfig()
    joints, wrist = len(hand.joints), list(WRIST_JOINTS)

    def per_joint(finger: float, at_wrist: float) -> jax.Array:
        values = np.full(joints, finger)
        values[wrist] = at_wrist
        return jnp.asarray(values, jnp.float32)

    press = np.zeros((2, 5, len(hand.muscles)))
    for finger, (flexors, extensors) in enumerate(zip(FLEXORS, EXTENSORS, strict=True)):
        press[0, finger, [hand.muscles.index(name) for name in flexors]] = c.flexor_press
        press[1, finger, [hand.muscles.index(name) for name in extensors]] = c.extensor_press
    bend = np.zeros((5, joints))
    for finger, across in enumerate(FLEXION_JOINTS):
        half = 0.5 * (hand.joint_range[list(across), 1] - hand.joint_range[list(across), 0])
        bend[finger, list(across)] = (-1.0 if finger == 0 else 1.0) / (len(across) * half)  # thumb: flexion is negative
    pressed = (bend != 0).any(axis=0)
    effort = np.where([name in FOREARM_MUSCLES for name in hand.muscles], 1.0, c.intrinsic_effort)
    weight = np.full(joints, c.finger_torque_error**-2)
    weight[list(MINOR_JOINTS)] *= c.minor_weight
    weight[wrist] = c.wrist_torque_error**-2
    return Baseline(
        muscles=muscle_parameters(hand.model),
        stiffness=per_joint(c.finger_stiffness, c.wrist_stiffness),
        damping=per_joint(c.finger_damping, c.wrist_damping),
        joint_damping=jnp.asarray(hand.model.dof_damping, jnp.float32),
        press=jnp.asarray(press, jnp.float32),
        pressed=jnp.asarray(pressed, jnp.float32),
        bend=jnp.asarray(bend, jnp.float32),
        middle=jnp.asarray(hand.joint_range.mean(axis=1), jnp.float32),
        torque_weight=jnp.asarray(weight, jnp.float32),
        effort=jnp.asarray(effort, jnp.float32),
        tone=jnp.float32(c.tone),
        reach=jnp.float32(c.largest_error),
        iterations=c.iterations,
    )


@jax.jit
def baseline_excitation(ctl: Baseline, body: BodyState, qpos_wanted: jax.Array, qvel_wanted: jax.Array) -> jax.Array:
    """Excitations (B, 39) in 0..1 that move the joints towards qpos_wanted (B, 23) rad at qvel_wanted (B, 23) rad/s.

    The activations wanted are the excitations: activation follows within one or two control steps. Running ahead of it
    was tried and made excitations rougher but the hand no quicker.
    """
    body = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), body)
    torque = jax.vmap(wanted_torque, in_axes=(None, 0, 0, 0))(ctl, body, qpos_wanted, qvel_wanted)
    return jax.vmap(distribute, in_axes=(None, 0, 0, 0))(ctl, body, torque, qvel_wanted)


def wanted_torque(ctl: Baseline, body: Any, qpos_wanted: jax.Array, qvel_wanted: jax.Array) -> jax.Array:
    """(23,) N m that the muscles of one participant are asked for; `body` is a BodyState of JAX arrays without B.

    The press is asked for as the torque that the pressing muscles would give at the fingers' flexion joints, because
    that is a torque they can give; what they do to the wrist is not asked for and so is balanced by others.
    A finger that went further than asked, in the direction asked, is not called back: its joint limit ends the press.
    """
    flexion = ctl.bend @ (qpos_wanted - ctl.middle)
    onward = flexion @ jnp.sign(ctl.bend)  # (23,) how far, and which way, the joint is asked to go from its middle
    error = qpos_wanted - body.qpos
    error = jnp.where(error * onward < 0.0, error * (1.0 - jnp.minimum(jnp.abs(onward), 1.0)), error)
    error = jnp.clip(error, -ctl.reach, ctl.reach)
    spring = ctl.stiffness * error + ctl.damping * (qvel_wanted - body.qvel)
    effort = jnp.clip(flexion, 0.0, 1.0) @ ctl.press[0] + jnp.clip(-flexion, 0.0, 1.0) @ ctl.press[1]
    gain = muscle_force(ctl.muscles, body.length, jnp.zeros_like(body.velocity)).gain
    press = -ctl.pressed * (body.moment.T @ (gain * effort))
    return spring + press + body.bias + ctl.joint_damping * qvel_wanted


def distribute(ctl: Baseline, body: Any, torque: jax.Array, qvel_wanted: jax.Array) -> jax.Array:
    """(39,) activations within [tone, 1] of one participant that give `torque` (23,) N m at least effort.

        min_a  1/2 (A a - b)' W (A a - b) + 1/2 sum effort a^2,   A = -moment' gain,   b = torque + moment' passive

    by the accelerated projected gradient method (Beck & Teboulle 2009) with restarts (O'Donoghue & Candes 2015),
    each muscle in units in which its own curvature is 1, from the present activation, which is near the answer.
    """
    # Force at the velocity wanted, not at the present one: making up for the latter would cancel the damping that the
    # force-velocity relation gives for free, and excitations chatter.
    force = muscle_force(ctl.muscles, body.length, body.moment @ qvel_wanted)
    reach = -body.moment.T * force.gain  # (23, 39) torque per unit of activation
    missing = torque + body.moment.T @ force.passive
    hessian = reach.T @ (ctl.torque_weight[:, None] * reach) + jnp.diag(ctl.effort)
    unit = 1.0 / jnp.sqrt(jnp.diag(hessian))
    hessian = hessian * unit[:, None] * unit[None, :]
    linear = reach.T @ (ctl.torque_weight * missing) * unit
    low, high = ctl.tone / unit, 1.0 / unit
    steepest = jnp.sqrt(jnp.sum(hessian**2))  # Frobenius norm: never below the largest eigenvalue

    def iterate(state, _):
        x, ahead, age = state
        step = jnp.clip(ahead - (hessian @ ahead - linear) / steepest, low, high)
        age = jnp.where(jnp.vdot(ahead - step, step - x) > 0, 1.0, age)  # going uphill: forget the momentum
        older = 0.5 * (1.0 + jnp.sqrt(1.0 + 4.0 * age**2))
        return (step, step + (age - 1.0) / older * (step - x), older), None

    start = jnp.clip(body.activation, ctl.tone, 1.0) / unit
    (scaled, _, _), _ = jax.lax.scan(iterate, (start, start, jnp.float32(1.0)), length=ctl.iterations)
    return jnp.clip(scaled * unit, ctl.tone, 1.0)
