"""How fast each unit of a pool discharges at an excitation: two laws, chosen by name.

`fuglevand` (Fuglevand, Winter & Patla 1993): thresholds RTE_i = last * exp(ln RR (i/n - 1)), rate
min(peak_i, min + g (E - RTE_i)): every unit starts at the same low rate, the rates come close to each other at high E.

`deluca` (De Luca & Hostage 2010, "onion skin"): rate = D E + (C - A exp(-E/B)) RTE_i + E0. At any excitation an earlier unit
is faster than a later one, and late units start slowly.

Rates are whole ticks per sample: see motor_units.py.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

TICKS = 1 << 24
"""Clock ticks of one mean interval."""
EXCITATION_ONE = 1 << 14
"""Excitation 1 in the integer steps of the pool (6e-5 each; the first unit's threshold is 266 steps)."""
GAIN_BITS = 8
NEVER = 1 << 20
"""Threshold of a unit that no excitation recruits."""
_SHARE_BITS = 10  # thresholds enter the onion-skin law in steps of 2^-10

# De Luca & Hostage 2010, equation of their three muscles; constants quoted from memory of the paper.
ONION_A = 85.0  # Hz
ONION_B = 0.32  # of the maximal excitation
ONION_C = -23.0  # Hz
ONION_D = 6.93  # Hz
ONION_E = 20.9  # Hz
ONION_LEAST_HZ = 2.0  # no unit that is recruited is slower (late units at their threshold: 3 Hz by the equation)


class PoolParams(NamedTuple):
    """What the streaming step needs of a pool; (U,) int32 or, for different people side by side, (B, U)."""

    threshold: Array
    """Excitation of recruitment in steps of 1/EXCITATION_ONE."""
    gain: Array
    """Ticks per sample and excitation step above threshold, times 2^GAIN_BITS (law `fuglevand`)."""
    min_ticks: Array
    """Ticks per sample at recruitment (law `fuglevand`)."""
    peak_ticks: Array
    """Ticks per sample at the highest rate."""
    idle_ticks: Array
    """Ticks per sample below threshold: 0, but for units that discharge on their own (fasciculations)."""


class Speeds(NamedTuple):
    """(B, U) int32."""

    ticks: Array
    """Clock ticks per sample; `idle_ticks` below threshold."""
    over: Array
    """Excitation steps above threshold."""


def spread_to_units(values: Array, place: Array) -> Array:
    """(B, U) int32 from whole numbers (B, 26) below 2^24: each unit's muscle's value. place: (26, U) of 0 and 1."""
    return jnp.matmul(values.astype(jnp.float32), place, precision="highest").astype(jnp.int32)


def clock_speeds(law: str, rate_hz: float, pool: PoolParams, steps: Array, place: Array) -> Speeds:
    """Clock speed of each unit at the excitation steps (B, 26) of its muscle."""
    over = spread_to_units(steps, place) - pool.threshold
    if law == "fuglevand":
        ticks = pool.min_ticks + (over * pool.gain >> GAIN_BITS)
    else:
        level, slope = _onion_tables(rate_hz)
        share = jnp.minimum(pool.threshold >> (EXCITATION_ONE.bit_length() - 1 - _SHARE_BITS), 1 << _SHARE_BITS)
        fall = spread_to_units(jnp.asarray(slope)[steps], place)
        ticks = spread_to_units(jnp.asarray(level)[steps], place) - (share * fall >> _SHARE_BITS)
        ticks = jnp.maximum(ticks, round(ONION_LEAST_HZ * TICKS / rate_hz))
    return Speeds(jnp.where(over >= 0, jnp.minimum(pool.peak_ticks, ticks), pool.idle_ticks), over)


def pool_rates(
    law: str,
    excitation: float | np.ndarray,
    threshold: np.ndarray,
    gain: np.ndarray,
    min_rate: np.ndarray,
    peak_rate: np.ndarray,
) -> np.ndarray:
    """The laws in Hz, for units above their threshold."""
    if law == "fuglevand":
        return np.minimum(peak_rate, min_rate + gain * (excitation - threshold))
    level, slope = _onion_hz(np.asarray(excitation))
    return np.minimum(peak_rate, np.maximum(level - slope * threshold, ONION_LEAST_HZ))


def _onion_hz(excitation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rate of a unit of threshold 0, and how much it falls per threshold, Hz."""
    return ONION_D * excitation + ONION_E, ONION_A * np.exp(-excitation / ONION_B) - ONION_C


@lru_cache(maxsize=8)
def _onion_tables(rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """`_onion_hz` in ticks per sample at each step of excitation, (EXCITATION_ONE + 1,) int32."""
    level, slope = _onion_hz(np.arange(EXCITATION_ONE + 1) / EXCITATION_ONE)
    return tuple(np.round(x * TICKS / rate_hz).astype(np.int32) for x in (level, slope))  # type: ignore[return-value]
