"""How well a participant follows references it has never seen, and how it takes a push.

The same references, pushes and measures for a learned policy, the baseline controller, and a hand that stays in the mean
posture of the reference: an error is only small beside theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from myoloop.body.engine import in_float32
from myoloop.body.model import Hand
from myoloop.body.mujoco_engine import MujocoEngine
from myoloop.body.names import MUSCLES
from myoloop.policy import learned
from myoloop.policy.baseline import BaselineConfig, baseline_excitation, make_baseline
from myoloop.policy.learned import LearnedPolicy
from myoloop.task.kinematics import build_kinematics, fingertips
from myoloop.task.reference import (
    Playable,
    ReferenceConfig,
    held_out_seed,
    hold,
    joint_angles,
    make_reference,
    motion,
)
from myoloop.task.tracking import FINGER_JOINTS

NEVER_S = 2.0
"""s after a push: what has not recovered by then counts as this."""


@dataclass(frozen=True)
class EvaluationConfig:
    """What is asked."""

    participants: int = 16
    """Held-out references of each of the four kinds."""
    seconds: float = 20.0
    """Length of each, s; the first second, in which the hand comes from rest, does not count."""
    reference: int = 0
    """Number of the first held-out reference seed."""
    pushes: int = 100
    """Pushes, each on another participant that holds a gesture."""
    push_n: float = 10.0
    """N: every push is this hard, in a random direction; three times what is trained with (task/perturbation.py), for 3 N move
    a fingertip by some millimetres only."""
    push_s: float = 0.1
    """s: length of a push."""
    control_hz: float = 50.0
    """Control steps a second."""


class Tracked(NamedTuple):
    """How references were followed: means over participants and time."""

    joint_error_deg: float
    """Mean absolute error of the 20 finger joints, degrees."""
    keypoint_error_mm: float
    """Mean distance of the five fingertips from where the reference has them, in the frame of the carpus, millimetres."""
    wrist_error_deg: float
    """Mean absolute error of forearm rotation and wrist, degrees."""
    effort: float
    """Mean squared excitation of the 39 muscles."""
    per_joint_deg: tuple[float, ...]
    """(20,) finger joints in model order."""
    per_finger_mm: tuple[float, ...]
    """(5,) thumb to little."""


class Recovered(NamedTuple):
    """How pushes were taken."""

    median_s: float
    """s from the end of the push until the pushed finger's error is below the limit and stays so for 0.1 s."""
    p90_s: float
    never: int
    """Pushes after which it was not within 2 s; they count as 2 s."""
    peak_mm: float
    """Median over the pushes of the fingertip's largest distance from where it was before."""


class Controller(NamedTuple):
    """Whoever drives the muscles: start(B) -> memory; excite(memory, body, reference, t) -> excitation, memory."""

    start: Callable[[int], Any]
    excite: Callable[[Any, Any, Playable, Any], tuple[Array, Any]]


KINDS = tuple((kind, how) for kind in ("discrete", "continuous") for how in ("permuted", "projected"))


def policy_controller(policy: LearnedPolicy) -> Controller:
    """A learned policy without exploration."""

    @jax.jit
    def excite(policy, memory, body, reference, t):  # type: ignore[no-untyped-def]
        wanted = jnp.stack([joint_angles(reference, t + s) for s in policy.look_ahead_s])
        return learned.excitation(policy, body, wanted, memory)

    return Controller(policy.start, lambda *now: excite(policy, *now))


def baseline_controller(hand: Hand, control_dt: float, config: BaselineConfig | None = None) -> Controller:
    """The controller without learning."""
    made = make_baseline(hand, config or BaselineConfig())

    @jax.jit
    def excite(memory, body, reference, t):  # type: ignore[no-untyped-def]
        coming = motion(reference, t + control_dt)
        return baseline_excitation(made, body, coming.qpos, coming.qvel), memory

    return Controller(lambda participants: (), excite)


def follow(
    controller: Controller, hand: Hand, config: EvaluationConfig, on_second: Callable[[float], None] = lambda s: None
) -> dict[str, Tracked]:
    """Tracking of every kind of held-out reference, and "all"."""
    found = {}
    for number, (kind, assignment) in enumerate(KINDS):
        seed = held_out_seed(config.reference + number)
        reference = make_reference(ReferenceConfig(kind, assignment, seed, "held_out"), config.participants)
        found[f"{kind} {assignment}"] = _follow(controller, hand, reference, config, on_second)
    parts = list(found.values())
    found["all"] = Tracked(*(_mean([part[i] for part in parts]) for i in range(len(Tracked._fields))))
    return found


def mean_posture(hand: Hand, config: EvaluationConfig) -> dict[str, Tracked]:
    """The errors of a hand that stays in the mean posture of each reference; no muscles, so no effort."""
    kinematics = build_kinematics(hand)
    found = {}
    for number, (kind, assignment) in enumerate(KINDS):
        seed = held_out_seed(config.reference + number)
        reference = make_reference(ReferenceConfig(kind, assignment, seed, "held_out"), config.participants)
        times = np.arange(1.0, config.seconds, 1.0 / config.control_hz)
        wanted = np.stack([np.asarray(joint_angles(reference, t)) for t in times])
        stays = np.broadcast_to(wanted.mean(axis=0), wanted.shape)
        found[f"{kind} {assignment}"] = _measure(kinematics, stays, wanted, np.zeros((1, 1, len(MUSCLES))))
    parts = list(found.values())
    found["all"] = Tracked(*(_mean([part[i] for part in parts]) for i in range(len(Tracked._fields))))
    return found


def take_pushes(controller: Controller, hand: Hand, config: EvaluationConfig, normal_mm: float) -> Recovered:
    """Everybody holds a random gesture; after two seconds one fingertip each is pushed.

    The limit is 1.5 x the larger of `normal_mm`, the controller's usual keypoint error, and the finger's own error before the
    push.
    """
    dt, b = 1.0 / config.control_hz, config.pushes
    rng = np.random.default_rng(held_out_seed(config.reference))
    reference = make_reference(ReferenceConfig(seed=held_out_seed(config.reference), split="held_out"), b)
    reference = hold(reference, -1.0, rng.integers(0, 2, (b, 5)).astype(float))
    finger = rng.integers(0, 5, b)
    direction = rng.normal(size=(b, 3))
    force = np.zeros((b, 6, 3))
    force[np.arange(b), finger] = config.push_n * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    before, during, after = round(2.0 / dt), round(config.push_s / dt), round(NEVER_S / dt)
    kinematics = build_kinematics(hand)
    engine = MujocoEngine(hand, b, control_dt=dt)
    body, memory, tips = engine.reset(), controller.start(b), []
    for step in range(before + during + after):
        if step in (before, before + during):
            engine.push(force if step == before else 0 * force)
        drive, memory = controller.excite(memory, in_float32(body), reference, np.float32(step * dt))
        body = engine.step(np.clip(np.asarray(drive), 0.0, 1.0))
        tips.append(body.fingertips[np.arange(b), finger])
    tip = np.stack(tips)
    goal = np.asarray(fingertips(kinematics, joint_angles(reference, 0.0)))[np.arange(b), finger]
    error = 1e3 * np.linalg.norm(tip - goal, axis=-1)
    steady = error[before - round(0.5 / dt) : before].mean(axis=0)
    seconds, never = recovery(error[before + during :], 1.5 * np.maximum(normal_mm, steady), dt)
    moved = 1e3 * np.linalg.norm(tip[before:] - tip[before - 1], axis=-1).max(axis=0)
    return Recovered(
        float(np.median(seconds)), float(np.percentile(seconds, 90)), int(never.sum()), float(np.median(moved))
    )


def recovery(error: np.ndarray, limit: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """When errors (T, B) come below the limit (B,) and stay there for 0.1 s: seconds (B,), NEVER_S where they do not, and
    where they do not (B,)."""
    fine, held = error <= limit, round(0.1 / dt)
    stays = np.stack([fine[i : len(fine) - held + i] for i in range(held)]).all(axis=0)
    never = np.logical_not(stays.any(axis=0))
    return np.where(never, NEVER_S, stays.argmax(axis=0) * dt), never


def _follow(
    controller: Controller,
    hand: Hand,
    reference: Playable,
    config: EvaluationConfig,
    on_second: Callable[[float], None],
) -> Tracked:
    dt = 1.0 / config.control_hz
    engine = MujocoEngine(hand, config.participants, control_dt=dt)
    body, memory = engine.reset(), controller.start(config.participants)
    reached, drives = [], []
    for step in range(round(config.seconds / dt)):
        drive, memory = controller.excite(memory, in_float32(body), reference, np.float32(step * dt))
        drives.append(np.clip(np.asarray(drive), 0.0, 1.0))
        body = engine.step(drives[-1])
        reached.append(body.qpos)
        if (step + 1) % round(config.control_hz) == 0:
            on_second(1.0)
    skip = round(1.0 / dt)
    wanted = np.stack([np.asarray(joint_angles(reference, (k + 1) * dt)) for k in range(skip, len(reached))])
    return _measure(build_kinematics(hand), np.stack(reached[skip:]), wanted, np.stack(drives[skip:]))


def _measure(kinematics: Any, qpos: np.ndarray, wanted: np.ndarray, drive: np.ndarray) -> Tracked:
    error = np.degrees(np.abs(qpos - wanted))
    tips = fingertips(kinematics, jnp.asarray(qpos, jnp.float32)) - fingertips(kinematics, jnp.asarray(wanted))
    tip = 1e3 * np.linalg.norm(np.asarray(tips), axis=-1)
    fingers = error[..., list(FINGER_JOINTS)]
    wrist = np.delete(error, FINGER_JOINTS, axis=-1)
    return Tracked(
        float(fingers.mean()),
        float(tip.mean()),
        float(wrist.mean()),
        float((drive**2).mean()),
        tuple(float(x) for x in fingers.mean(axis=(0, 1))),
        tuple(float(x) for x in tip.mean(axis=(0, 1))),
    )


def _mean(values: list[Any]) -> Any:
    found = np.mean(np.array(values), axis=0)
    return tuple(float(x) for x in found) if found.ndim else float(found)
