"""What a participant perceives before it decides: proprioception, and where its fingers are wanted.

Training, live sessions and evaluation call the same function; the layout goes into every policy's file.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from myoloop.body.engine import Posture
from myoloop.body.names import JOINTS, MUSCLES

QUICK = 10.0  # rad/s: joint velocities are given in units of a quick finger's


class Layout(NamedTuple):
    """What stands where in an observation."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        return sum(self.sizes)

    def describe(self) -> list[list]:
        """[[name, size], ...]: what a checkpoint records."""
        return [[name, size] for name, size in zip(self.names, self.sizes, strict=True)]


def observation_layout(look_ahead_s: tuple[float, ...]) -> Layout:
    """Names and sizes of the parts: joint angles in -1..1 of their range, velocities in units of 10 rad/s, activations, and
    the difference (rad) to every posture that is asked for at the look-ahead times."""
    ahead = [f"joint_error_{round(1e3 * s)}ms" for s in look_ahead_s]
    names = ("joint_angle", "joint_velocity", "activation", *ahead)
    return Layout(names, (len(JOINTS), len(JOINTS), len(MUSCLES), *[len(JOINTS)] * len(ahead)))


def observation(joint_range: Array, body: Posture, wanted: Array) -> Array:
    """(B, layout size), finite whatever the body does.

    Args:
      joint_range: (23, 2) rad.
      body: posture now, (B, ...); a BodyState will do.
      wanted: (looks, B, 23) rad, the postures asked for at the look-ahead times.
    """
    low, high = joint_range[:, 0], joint_range[:, 1]
    qpos = jnp.asarray(body.qpos, jnp.float32)
    angle = (2.0 * qpos - low - high) / (high - low)
    velocity = jnp.clip(jnp.asarray(body.qvel, jnp.float32) / QUICK, -3.0, 3.0)
    parts = [angle, velocity, jnp.asarray(body.activation, jnp.float32), *(wanted - qpos)]
    return jnp.nan_to_num(jnp.concatenate(parts, axis=-1), nan=0.0, posinf=0.0, neginf=0.0)
