"""What excitation does to the joints: torques at standard postures, linear in the activation of the muscles."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from myoloop.body.model import Hand
from myoloop.body.mujoco_engine import MujocoEngine
from myoloop.body.muscle import muscle_force, muscle_parameters


def leverage(hand: Hand, postures: np.ndarray) -> np.ndarray:
    """(P, 23, 39) N m of torque on every joint per unit of every muscle's activation, isometric.

    Args:
      postures: (P, 23) rad.
    """
    body = MujocoEngine(hand, len(postures)).reset(postures)
    still = jnp.zeros_like(body.length)
    active = muscle_force(muscle_parameters(hand.model), jnp.asarray(body.length), still).gain
    return -np.swapaxes(np.asarray(body.moment), 1, 2) * np.asarray(active)[:, None, :]
