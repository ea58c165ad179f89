"""The task of phase 1: follow a reference with the fingers, keep the wrist still, at little effort, whatever pushes.

One task, one file: what the participant is asked, what it is paid for, and how an episode begins. All of it is pure JAX
on arrays whose first axis is the participant; the physics is somebody else's (body/), the muscles' drive the policy's.

    task = make_tracking(hand, TrackingConfig(), participants=256)
    state = start(task, key, progress=0.0)
    wanted = wanted_ahead(task, state)                             # what the policy is told, (looks, 256, 23) rad
    state, reward, figures = judge(task, state, body, excitation)  # after the body has moved for one control step

The reward comes by parts of the hand, PARTS, whose sum is what a step pays: so that a learner can credit a muscle with what
it can reach (learn/ppo.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from myoloop.body.engine import Posture
from myoloop.body.model import Hand
from myoloop.body.names import FINGERS, MUSCLES, WRIST_JOINTS
from myoloop.body.reach import PART_OF_JOINT, muscle_reach
from myoloop.errors import MyoloopError
from myoloop.task.kinematics import Kinematics, build_kinematics, fingertips
from myoloop.task.perturbation import (
    Perturbation,
    PerturbationConfig,
    forces,
    fresh_perturbation,
    next_perturbation,
)
from myoloop.task.prompts import PromptsConfig
from myoloop.task.reference import Playable, ReferenceConfig, joint_angles, labels, make_reference, posture

PROMPTED = 20
"""Blocks of prompted gestures until they begin again."""
FINGER_JOINTS = tuple(j for j, part in enumerate(PART_OF_JOINT) if part > 0)


@dataclass(frozen=True)
class RewardConfig:
    """What a control step pays: 1.95 for perfect tracking without effort.

    Every error is paid by two kernels exp(-(e/width)^2), one narrow and one wide, for each joint or fingertip by itself: one
    narrow kernel of the mean squared error stayed flat, and nothing was learned (measured).
    """

    joint: float = 0.5
    """Weight of the finger joints' narrow kernel: precision."""
    joint_rad: float = 0.25
    """rad: its width."""
    joint_far: float = 0.5
    """Weight of the finger joints' wide kernel: pulls from far away."""
    joint_far_rad: float = 1.0
    """rad: its width. The thumb's base was up to 1.3 rad off, where a kernel of 0.8 is flat."""
    tip: float = 0.25
    """Weight of the fingertips' narrow kernel: what the user of a hand sees, and what the published error is of."""
    tip_m: float = 0.012
    """m: its width, about the published error (9 mm)."""
    tip_far: float = 0.4
    """Weight of the fingertips' wide kernel. At 0.1, with joint_far 0.3, the thumb was left flexed: its extensors turn the
    wrist as well. Fingertips while exploring after 2.2 M steps: 13 mm; with 0.1 16 mm after 6 M (one seed each)."""
    tip_far_m: float = 0.08
    """m: its width; at 0.04 it would be flat where an unskilled fingertip is, 60 mm off."""
    wrist: float = 0.15
    """Weight of the narrow kernel of forearm and wrist: finger muscles cross the wrist and turn it."""
    wrist_rad: float = 0.25
    """rad: its width."""
    wrist_far: float = 0.15
    """Weight of the wide kernel of forearm and wrist. Without it, and with effort at 1.0, the wrist was given up at 37 deg."""
    wrist_far_rad: float = 0.8
    """rad: its width."""
    effort: float = 0.3
    """Cost of the mean squared excitation (39 muscles). Tracking takes 0.01 to 0.02 of it: enough to choose the cheapest of
    equal solutions, not enough to give up tracking. At 1.0, without a wide kernel for the wrist, effort fell to 0.003 with
    the joints 15 deg off."""
    smoothness: float = 0.3
    """Cost of the mean squared change of excitation from step to step: neural drive is band-limited, and a jerky one makes
    EMG that nobody has."""


@dataclass(frozen=True)
class TrackingConfig:
    """The task."""

    look_ahead_s: tuple[float, ...] = (0.02, 0.1, 0.25)
    """s: how far ahead the participant knows the reference. The nearest is the coming step; 0.25 s covers the muscle's rise
    (about 50 ms) and a transition (0.4 s) as it begins."""
    episode_s: float = 10.0
    """s: length of an episode; it ends with the rollout in which this is reached."""
    start_spread: float = 0.2
    """Standard deviation of the finger flexions (0..1) at the start of an episode about the reference's: it must find its
    way to the reference."""
    discrete: tuple[float, float] = (0.3, 0.8)
    """Part of the episodes with discrete references at the start and in the second half of the training: slow and
    continuous first, then sudden changes (Hodossy & Farina 2026)."""
    assignment: str = "projected"
    """How templates go to fingers, see ReferenceConfig: "projected" asks for half-flexed fingers as well."""
    reference_seed: int = 0
    """Seed of the training references; each participant has 300 s of its own, entered anywhere."""
    gestures: tuple[tuple[float, float, float, float, float], ...] = ()
    """Labels of the gestures that are asked for instead of templates, thumb to little, 1 = flexed; the first is the rest
    (task/prompts.py): for decoders that know these gestures only."""
    hold_s: float = 3.0
    """s for which such a gesture is held."""
    rest_s: float = 2.0
    """s of rest before each."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    perturbation: PerturbationConfig = field(default_factory=PerturbationConfig)


@struct.dataclass
class Tracking:
    """The task as arrays."""

    references: tuple[Playable, ...]
    """One for every kind of motion; an episode follows one of them."""
    kinematics: Kinematics
    joint_range: Array
    """(23, 2) rad."""
    reach: Array
    """(6 PARTS, 39 muscles) 1 where the muscle can turn a joint of the part, else 0."""
    config: TrackingConfig = struct.field(pytree_node=False)
    participants: int = struct.field(pytree_node=False)
    control_dt: float = struct.field(pytree_node=False)


class TrackingState(NamedTuple):
    """What changes from step to step, (B, ...)."""

    key: Array
    """One key for all."""
    time: Array
    """(B,) s on the reference's time line."""
    began: Array
    """(B,) s: time at which the episode began."""
    kind: Array
    """(B,) int32: which of the references is followed."""
    excitation: Array
    """(B, 39) of the last step."""
    perturbation: Perturbation


class Figures(NamedTuple):
    """What a step was like, (B,) each."""

    joint_error_deg: Array
    """Mean over the finger joints, degrees."""
    tip_error_mm: Array
    """Mean over the fingertips, in the frame of the carpus, millimetres."""
    effort: Array
    """Mean squared excitation of the 39 muscles."""


def make_tracking(hand: Hand, config: TrackingConfig, participants: int, control_dt: float = 0.02) -> Tracking:
    """Draws the training references and reads the hand's geometry.

    Raises:
      MyoloopError: look-ahead or episode that make no sense, or a reference seed that is held out.
    """
    if not config.look_ahead_s or min(config.look_ahead_s) < 0 or config.episode_s < control_dt:
        raise MyoloopError(
            f"look_ahead_s {config.look_ahead_s} and episode_s {config.episode_s}: expected times of at least 0 s and an "
            f"episode of at least one control step ({control_dt} s)."
        )
    return Tracking(
        references=_references(config, participants),
        kinematics=build_kinematics(hand),
        joint_range=jnp.asarray(hand.joint_range, jnp.float32),
        reach=jnp.asarray(muscle_reach(hand), jnp.float32),
        config=config,
        participants=participants,
        control_dt=control_dt,
    )


def _references(config: TrackingConfig, participants: int) -> tuple[Playable, ...]:
    templates = tuple(
        make_reference(ReferenceConfig(kind, config.assignment, config.reference_seed, "training"), participants)
        for kind in ("continuous", "discrete")
    )
    if not config.gestures:
        return templates
    named = {str(number): labels for number, labels in enumerate(config.gestures)}
    return (PromptsConfig(named, PROMPTED, config.hold_s, config.rest_s, config.reference_seed).make(participants),)


def start(task: Tracking, key: Array, progress: float | Array) -> TrackingState:
    """Everybody at the start of an episode, which for each is already partly over, so that not all begin anew together.

    Args:
      key: of JAX.
      progress: 0..1, how much of the training is over: it moves the curriculum.
    """
    b = task.participants
    state = TrackingState(
        key=key,
        time=jnp.zeros(b),
        began=jnp.zeros(b),
        kind=jnp.zeros(b, jnp.int32),
        excitation=jnp.zeros((b, len(MUSCLES))),
        perturbation=Perturbation(jnp.zeros((b, 5, 3)), jnp.zeros((b, 3)), jnp.zeros(b)),
    )
    state = restart(task, state, jnp.ones(b, bool), progress)
    spent = jax.random.uniform(jax.random.fold_in(key, 2), (b,), maxval=task.config.episode_s)
    return state._replace(began=state.time - spent)


def restart(task: Tracking, state: TrackingState, chosen: Array, progress: float | Array) -> TrackingState:
    """A new episode for the chosen ones, (B,) bool: another stretch of the reference, another kind, another load."""
    config, b = task.config, task.participants
    key, when, which, load = jax.random.split(state.key, 4)
    whole = task.references[0].length_s
    time = jax.random.uniform(when, (b,), maxval=whole)
    first, later = config.discrete
    part = first + (later - first) * jnp.clip(2.0 * jnp.asarray(progress), 0.0, 1.0)
    kind = (jax.random.uniform(which, (b,)) < part).astype(jnp.int32) % len(task.references)
    fresh = TrackingState(
        key=key,
        time=time,
        began=time,
        kind=kind,
        excitation=jnp.zeros_like(state.excitation),
        perturbation=fresh_perturbation(config.perturbation, b, load),
    )
    return choose(chosen, fresh._replace(key=key), state)._replace(key=key)


def starting_posture(task: Tracking, state: TrackingState) -> Array:
    """(B, 23) rad where an episode that begins now finds the hand: near the reference, not on it."""
    noise = jax.random.normal(jax.random.fold_in(state.key, 1), (task.participants, len(FINGERS)))
    away = task.config.start_spread * (posture(noise) - posture(jnp.zeros_like(noise)))
    return jnp.clip(wanted_posture(task, state, 0.0) + away, task.joint_range[:, 0], task.joint_range[:, 1])


def finished(task: Tracking, state: TrackingState) -> Array:
    """(B,) bool: the episode is over."""
    return state.time - state.began >= task.config.episode_s - 1e-4


def wanted_posture(task: Tracking, state: TrackingState, ahead: float) -> Array:
    """(B, 23) rad asked for `ahead` s from now."""
    kinds = jnp.stack([joint_angles(reference, state.time + ahead) for reference in task.references])
    return jnp.take_along_axis(kinds, state.kind[None, :, None], axis=0)[0]


def wanted_ahead(task: Tracking, state: TrackingState) -> Array:
    """(looks, B, 23) rad: the postures asked for at the look-ahead times, for the observation."""
    return jnp.stack([wanted_posture(task, state, ahead) for ahead in task.config.look_ahead_s])


def asked_labels(task: Tracking, state: TrackingState, ahead: float) -> Array:
    """(B, 5) labels asked for `ahead` s from now."""
    return _of_kind(state, [labels(reference, state.time + ahead) for reference in task.references])


def asked_flexion(task: Tracking, state: TrackingState, ahead: float) -> Array:
    """(B, 5) flexions, 0..1, asked for `ahead` s from now."""
    return _of_kind(state, [reference.flexion(state.time + ahead) for reference in task.references])


def _of_kind(state: TrackingState, each: list[Array]) -> Array:
    """(B, 5) of every participant's own kind of reference."""
    return jnp.take_along_axis(jnp.stack(each), state.kind[None, :, None], axis=0)[0]


def push(state: TrackingState) -> Array:
    """(B, 6, 3) N that push on fingertips and palm in the coming step."""
    return forces(state.perturbation)


def judge(
    task: Tracking, state: TrackingState, body: Posture, excitation: Array
) -> tuple[TrackingState, Array, Figures]:
    """After the body has moved with `excitation` (B, 39) for a control step: the next state, reward (B, 6 PARTS), figures.

    A participant whose physics diverged is paid nothing and counted with no error.
    """
    key, draw = jax.random.split(state.key)
    later = state._replace(
        key=key,
        time=state.time + task.control_dt,
        excitation=excitation,
        perturbation=next_perturbation(task.config.perturbation, state.perturbation, draw, task.control_dt),
    )
    wanted = wanted_posture(task, later, 0.0)
    reward, figures = pay(task, wanted, jnp.asarray(body.qpos, jnp.float32), excitation, state.excitation)
    lost = jnp.asarray(body.diverged) | ~jnp.isfinite(reward).all(axis=1)
    figures = Figures(*(jnp.where(lost, 0.0, value) for value in figures))
    return later, jnp.where(lost[:, None], 0.0, reward), figures


def pay(task: Tracking, wanted: Array, qpos: Array, excitation: Array, before: Array) -> tuple[Array, Figures]:
    """Reward (B, 6 PARTS) and figures of a step that ended at `qpos` where `wanted` was asked, both (B, 23) rad.

    What a muscle costs is divided evenly among the parts it reaches.
    """
    r = task.config.reward
    error = qpos - wanted
    fingers = error[:, np.array(FINGER_JOINTS)].reshape(-1, len(FINGERS), 4)
    wrist = error[:, None, np.array(WRIST_JOINTS)]
    tip = jnp.linalg.norm(fingertips(task.kinematics, qpos) - fingertips(task.kinematics, wanted), axis=-1)
    of_fingers = (
        r.joint * _kernel(fingers, r.joint_rad)
        + r.joint_far * _kernel(fingers, r.joint_far_rad)
        + r.tip * _kernel(tip[..., None], r.tip_m)
        + r.tip_far * _kernel(tip[..., None], r.tip_far_m)
    ) / len(FINGERS)
    of_wrist = r.wrist * _kernel(wrist, r.wrist_rad) + r.wrist_far * _kernel(wrist, r.wrist_far_rad)
    cost = r.effort * excitation**2 + r.smoothness * (excitation - before) ** 2
    share = task.reach / jnp.maximum(jnp.sum(task.reach, axis=0), 1.0)
    reward = jnp.concatenate([of_wrist, of_fingers], axis=1) - cost @ share.T / len(MUSCLES)
    figures = Figures(
        joint_error_deg=jnp.rad2deg(jnp.mean(jnp.abs(fingers), axis=(1, 2))),
        tip_error_mm=1e3 * jnp.mean(tip, axis=1),
        effort=jnp.mean(excitation**2, axis=1),
    )
    return reward, figures


def choose(chosen: Array, yes: TrackingState, no: TrackingState) -> TrackingState:
    """Per participant: `yes` where chosen (B,), else `no`; the key is `no`'s."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    picked = jax.tree.map(pick, yes._replace(key=no.time), no._replace(key=no.time))
    return picked._replace(key=no.key)


def _kernel(error: Array, width: float) -> Array:
    """(...,) mean of exp(-(error/width)^2) over the last axis."""
    return jnp.mean(jnp.exp(-((error / width) ** 2)), axis=-1)
