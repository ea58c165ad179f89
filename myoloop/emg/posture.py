"""What the posture does to the sources under the electrodes: forearm rotation, and muscles that change their length.

The body's lengths and forearm angle give three things for `Circumstances`, zero at the neutral posture:
- pronation turns skin and armband over the muscles: the skin follows the hand, the proximal muscles follow less;
- a muscle that shortens draws its belly towards its origin at the elbow;
- a fibre that lengthens becomes thinner at constant volume and conducts more slowly, so its MUAP lasts longer; one that
  shortens becomes faster.

All are damped: they grow in proportion first and never pass their bounds, however far the body goes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg.anatomy import MUSCLE_TABLE

SKIN_SHARE = (
    0.5  # part of the local rotation by which the skin passes the muscles (estimate; Okajima et al. 2019 see it)
)
MOST_TURN_DEG = 15.0  # 11 mm of arc (estimate)
FASCICLE_SHARE = 0.55  # of the musculotendon's length change (tibialis anterior 0.55, Herbert et al. 2002)
BELLY_SHARE = 0.5  # of the fascicles' change by which the belly's middle moves: its origin stays (geometry)
MOST_SHIFT_MM = 8.0  # estimate
MOST_STRAIN = 0.3  # either way (sarcomeres of forearm muscles work at 2.2-3.6 um: about +-25 %; Lieber et al. 1994)
SLOPE_VELOCITY = 0.05  # m/s per um of fibre diameter, v = 0.05 d + 0.95 (Nandedkar & Stalberg 1983)
VELOCITY = 4.0  # m/s, of a mean fibre
LENGTH_POWER = 0.5 * (VELOCITY - 0.95) / VELOCITY
"""v falls with the 0.38th power of the length: d with its square root (constant volume), and v with d as above, where
d dv/dd / v = 0.05 d / v = (v - 0.95) / v. Direction: Trontelj 1993, Kossev et al. 1992, Arendt-Nielsen et al. 1992 (slower
when stretched; from memory), Dumitru & King 1999 (MUAPs last longer when stretched; from memory)."""

_FIBRE_MM = np.array([MUSCLE_TABLE[name].fibre_mm for name in FOREARM_MUSCLES], np.float32)


class Posture(NamedTuple):
    """Fields of Circumstances of the same names."""

    skin_turn_deg: Array
    """(B,)"""
    muscle_shift_mm: Array
    """(B, 26)"""
    fibre_strain: Array
    """(B, 26)"""


def posture(pronation: Array, length: Array, neutral_length: Array, level: float | Array) -> Posture:
    """What the body's posture does under the armband. Pure JAX.

    Args:
      pronation: (B,) rad from the neutral forearm, positive towards pronation.
      length: (B, 26 or 39) m, musculotendon; neutral_length: the same at the neutral posture, (26 or 39,).
      level: of the armband, 0 elbow to 1 wrist: the forearm's twist grows along it. () or (B,).
    """
    count = len(FOREARM_MUSCLES)
    turn = jnp.rad2deg(pronation) * level * SKIN_SHARE
    fascicle_mm = FASCICLE_SHARE * 1000.0 * (length[..., :count] - neutral_length[..., :count])
    return Posture(
        skin_turn_deg=_damped(turn, MOST_TURN_DEG),
        muscle_shift_mm=_damped(BELLY_SHARE * fascicle_mm, MOST_SHIFT_MM),
        fibre_strain=_damped(fascicle_mm / _FIBRE_MM, MOST_STRAIN),
    )


def slowing(strain: Array) -> Array:
    """How many times as long the MUAP of a fibre lasts that is longer by `strain`: velocity at rest over velocity now."""
    return jnp.power(1.0 + strain, LENGTH_POWER)


def _damped(value: Array, most: float) -> Array:
    """`value` where it is small, never beyond +-most."""
    return most * jnp.tanh(value / most)
