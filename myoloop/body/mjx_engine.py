"""The engines `mjx` and `warp` behind the host's interface: NumPy in, NumPy out, one compiled call a control step.

For sessions and small batches. Training calls the pure functions of `MjxEngine.physics` inside its own compiled step.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

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
)
from myoloop.body.mjx_physics import MjxPhysics, Physics
from myoloop.body.model import Hand


class MjxEngine:
    """See myoloop.body.engine.Engine. The first call of `reset`, `step` or `advance` compiles (half a minute)."""

    def __init__(self, hand: Hand, participants: int = 1, control_dt: float = 0.02, impl: str = "jax"):
        """As MjxPhysics.

        Raises:
          MyoloopError: see MjxPhysics.
        """
        self.physics = MjxPhysics(hand, participants, control_dt, impl)
        self.hand = hand
        self.participants = participants
        self.control_dt = control_dt
        self._advance = jax.jit(self.physics.advance)
        self._felt = jax.jit(self.physics.felt)
        self._placed = jax.jit(self.physics.placed)
        self._push = np.zeros((participants, PUSHED, 3), np.float32)
        self._nobody = np.full((participants, hand.model.nu), np.nan, np.float32)  # activations given
        self._physics: Physics = self.physics.start()

    def reset(self, qpos: np.ndarray | None = None, ids: np.ndarray | None = None) -> BodyState:
        """See Engine.reset.

        Raises:
          MyoloopError: wrong shape, NaN, or an angle more than 20 deg beyond its joint's range.
        """
        chosen = chosen_participants(ids, self.participants)
        where = np.zeros(self.participants, bool)
        where[chosen] = True
        posture = np.tile(np.asarray(self.hand.model.qpos0, np.float32), (self.participants, 1))
        if qpos is not None:
            posture[chosen] = checked_posture(self.hand, qpos, len(chosen))
        self._push[chosen] = 0.0
        self._physics = self._placed(self._physics, posture, where)
        return self.state()

    def step(self, excitation: np.ndarray, activation: np.ndarray | None = None) -> BodyState:
        """See Engine.step.

        Raises:
          MyoloopError: excitation or activation has another shape, is not finite (activation may be NaN), or leaves 0..1.
        """
        self._integrate(excitation, activation)
        return self.state()

    def advance(self, excitation: np.ndarray, activation: np.ndarray | None = None) -> Posture:
        """See Engine.advance.

        Raises:
          MyoloopError: as `step`.
        """
        self._integrate(excitation, activation)
        return self.posture()

    def state(self) -> BodyState:
        """See Engine.state."""
        return BodyState(*(_host(x) for x in self._felt(self._physics)))

    def posture(self) -> Posture:
        """See Engine.posture."""
        return Posture(*(_host(x) for x in self.physics.posture(self._physics)))

    def push(self, force: np.ndarray, ids: np.ndarray | None = None) -> None:
        """See Engine.push.

        Raises:
          MyoloopError: wrong shape, not finite, or more than 200 N.
        """
        chosen = chosen_participants(ids, self.participants)
        self._push[chosen] = checked_push(force, len(chosen))

    def save(self) -> np.ndarray:
        """See Engine.save: the fields of Physics side by side and the pushes, float64 (which holds float32 exactly)."""
        parts = [*jax.tree.leaves(self._physics), self._push]
        return np.concatenate([np.asarray(x, np.float64).reshape(self.participants, -1) for x in parts], axis=1)

    def load(self, saved: np.ndarray) -> BodyState:
        """See Engine.load.

        Raises:
          MyoloopError: `saved` is not of this engine: other number of participants, another engine or another model.
        """
        leaves, form = jax.tree.flatten(self._physics)
        widths = [x[0].size for x in leaves]
        saved = checked_saved(saved, self.participants, sum(widths) + 3 * PUSHED)
        *columns, push = np.split(saved, np.cumsum(widths), axis=1)
        restored = [jnp.asarray(x.reshape(old.shape), old.dtype) for x, old in zip(columns, leaves, strict=True)]
        self._physics = jax.tree.unflatten(form, restored)
        self._push = push.reshape(self._push.shape).astype(np.float32)
        return self.state()

    def _integrate(self, excitation: np.ndarray, activation: np.ndarray | None) -> None:
        excitation = checked_excitation(excitation, self.participants)
        given = checked_activation(activation, self.participants)
        given = self._nobody if given is None else np.asarray(given, np.float32)  # one program for both
        self._physics = self._advance(self._physics, np.asarray(excitation, np.float32), self._push, given)


def _host(x: ArrayLike) -> np.ndarray:
    found = np.asarray(x)
    return found.astype(np.float64) if found.dtype.kind == "f" else found.copy()
