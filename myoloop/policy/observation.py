"""What a participant perceives before it decides: proprioception, where its fingers are wanted, and what it is told besides.

The user of an interface is told more than the learner of gestures: the labels asked of its fingers (`target`) or how far they
are to be flexed (`flexion`), and what the decoder answers (`prediction`). These are its cues: a policy's file says which.

Training, live sessions and evaluation call the same function; the layout goes into every policy's file.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from myoloop.body.engine import Posture
from myoloop.body.names import FINGERS, JOINTS, MUSCLES
from myoloop.errors import unknown_name

QUICK = 10.0  # rad/s: joint velocities are given in units of a quick finger's
CUES = ("target", "flexion", "prediction")
"""What a participant may be told besides: labels, or flexions, asked for at the look-ahead times, the decoder's last answer."""


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


def observation_layout(look_ahead_s: tuple[float, ...], cues: tuple[str, ...] = ()) -> Layout:
    """Names and sizes of the parts: joint angles in -1..1 of their range, velocities in units of 10 rad/s, activations, the
    difference (rad) to every posture that is asked for at the look-ahead times, and the cues, -1..1.

    Raises:
      MyoloopError: a cue that is not among CUES.
    """
    for cue in cues:
        if cue not in CUES:
            raise unknown_name("cue", cue, CUES)
    times = [f"{round(1e3 * s)}ms" for s in look_ahead_s]
    parts = [("joint_angle", len(JOINTS)), ("joint_velocity", len(JOINTS)), ("activation", len(MUSCLES))]
    parts += [(f"joint_error_{time}", len(JOINTS)) for time in times]
    parts += [(f"{cue}_{time}", len(FINGERS)) for cue in CUES[:2] if cue in cues for time in times]
    parts += [("prediction", len(FINGERS))] if "prediction" in cues else []
    names, sizes = zip(*parts, strict=True)
    return Layout(names, sizes)


def told(cues: tuple[str, ...], targets: Array, flexions: Array, prediction: Array) -> Array:
    """(B, n) cues of a step, -1 (extended) to 1 (flexed).

    Args:
      cues: which of CUES.
      targets: (looks, B, 5) labels asked for at the look-ahead times.
      flexions: (looks, B, 5) flexions, 0..1, asked for at the look-ahead times.
      prediction: (B, 5) the decoder's newest answer; 0.5 while there is none.
    """
    parts = [*targets] if "target" in cues else []
    parts += [*flexions] if "flexion" in cues else []
    parts += [prediction] if "prediction" in cues else []
    return 2.0 * jnp.concatenate([jnp.zeros((prediction.shape[0], 0)), *parts], axis=-1) - 1.0


def observation(joint_range: Array, body: Posture, wanted: Array, cues: Array | None = None) -> Array:
    """(B, layout size), finite whatever the body does.

    Args:
      joint_range: (23, 2) rad.
      body: posture now, (B, ...); a BodyState will do.
      wanted: (looks, B, 23) rad, the postures asked for at the look-ahead times.
      cues: (B, n) from `told`; None: none.
    """
    low, high = joint_range[:, 0], joint_range[:, 1]
    qpos = jnp.asarray(body.qpos, jnp.float32)
    angle = (2.0 * qpos - low - high) / (high - low)
    velocity = jnp.clip(jnp.asarray(body.qvel, jnp.float32) / QUICK, -3.0, 3.0)
    parts = [angle, velocity, jnp.asarray(body.activation, jnp.float32), *(wanted - qpos)]
    parts += [] if cues is None else [cues]
    return jnp.nan_to_num(jnp.concatenate(parts, axis=-1), nan=0.0, posinf=0.0, neginf=0.0)
