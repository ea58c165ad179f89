"""Motor-unit pools: excitation in, discharges out, streaming and exact under any chunking.

Recruitment and rate coding follow Fuglevand, Winter & Patla 1993: thresholds RTE_i = last * exp(ln RR (i/n - 1)), rate
min(peak_i, min + g (E - RTE_i)). A unit is a clock that runs at its rate and discharges when it reaches z, drawn anew
each time from a bounded normal(1, CoV). Clocks count ticks (one interval = 2^24): sums of integers do not depend on
where a chunk ends, so the discharges are the same to the sample for every chunk length. The common drive of a muscle
(De Luca & Erim 1994: below 5 Hz) is a smooth random curve addressed by the absolute time,
held for DRIVE_HOLD samples. All is integer arithmetic from the excitation on, so no compiler, batch size or device can
round one discharge away.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg.anatomy import MUSCLE_TABLE
from myoloop.emg.config import EmgConfig
from myoloop.emg.noise import NORMAL_LIMIT, SUM_SD, address, normal_sum, uniform

TICKS = 1 << 24
"""Clock ticks of one mean interval."""
EXCITATION_ONE = 1 << 14
"""Excitation 1 in the integer steps of the pool (6e-5 each; the first unit's threshold is 266 steps)."""
_GAIN_BITS = 8
_WEIGHT_BITS = 10
DRIVE_HOLD = 40
"""Internal samples for which the common drive is held: 20 ms at 2 kHz, short against its 5 Hz band."""
KNOT_BLOCKS = 4
"""Drive blocks per spline knot: 80 ms between knots of a cubic B-spline pass 2.8 Hz at -3 dB and stop 12.5 Hz."""


class Pool(NamedTuple):
    """The units of all forearm muscles, muscle by muscle, each from the smallest to the largest. Arrays of (U,)."""

    muscle: np.ndarray
    """Index into FOREARM_MUSCLES, int32."""
    threshold: np.ndarray
    """Excitation of recruitment, 0..1."""
    gain: np.ndarray
    """Hz per unit of excitation above threshold."""
    min_rate: np.ndarray
    """Hz at recruitment."""
    peak_rate: np.ndarray
    """Highest rate, Hz."""
    fibres: np.ndarray
    """Number of muscle fibres."""
    rank: np.ndarray
    """Place in the recruitment order of the muscle, 0 (first) to 1 (last)."""


class PoolParams(NamedTuple):
    """What the streaming step needs of a pool; (U,) int32 or, for different people side by side, (B, U)."""

    threshold: Array
    """Excitation of recruitment in steps of 1/EXCITATION_ONE."""
    gain: Array
    """Ticks per sample and excitation step above threshold, times 2^_GAIN_BITS."""
    min_ticks: Array
    """Ticks per sample at recruitment."""
    peak_ticks: Array
    """Ticks per sample at the highest rate."""


class PoolState(NamedTuple):
    """Clocks of the units: ticks to the next discharge, and how many discharges have been. (B, U) int32."""

    ticks_left: Array
    fired: Array


def build_pool(config: EmgConfig) -> Pool:
    """The pools of the 26 forearm muscles. Deterministic: the seed enters with the unit's place, not here."""
    rows: list[tuple[np.ndarray, ...]] = []
    for index, name in enumerate(FOREARM_MUSCLES):
        muscle = MUSCLE_TABLE[name]
        n = max(2, round(muscle.unit_count() * config.units_scale))
        rank = np.arange(1, n + 1) / n
        threshold = config.last_recruited * np.exp(math.log(config.recruitment_range) * (rank - 1.0))
        peak = config.peak_rate_first_hz + (config.peak_rate_last_hz - config.peak_rate_first_hz) * rank
        # Fuglevand's maximal excitation: the last unit reaches its peak rate at E = 1. One gain for all units.
        gain = np.full(n, (config.peak_rate_last_hz - config.min_rate_hz) / (1.0 - config.last_recruited))
        size = np.exp(math.log(config.size_range) * rank)
        fibres = muscle.fibre_count() * size / size.sum()
        minimum = np.full(n, config.min_rate_hz)
        rows.append((np.full(n, index), threshold, gain, minimum, peak, fibres, (np.arange(n) + 0.5) / n))
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    return Pool(columns[0].astype(np.int32), *columns[1:])


def pool_params(pool: Pool, rate_hz: float) -> PoolParams:
    """The pool in ticks per sample of `rate_hz`."""
    per_hz = TICKS / rate_hz
    gain = np.round(pool.gain * per_hz / EXCITATION_ONE * 2**_GAIN_BITS)
    threshold = np.maximum(1, np.round(pool.threshold * EXCITATION_ONE))
    columns = (threshold, gain, np.round(pool.min_rate * per_hz), np.round(pool.peak_rate * per_hz))
    return PoolParams(*[jnp.asarray(column, jnp.int32) for column in columns])


def rates(pool: Pool, excitation: float | np.ndarray) -> np.ndarray:
    """Mean discharge rates in Hz, (U,), at the excitation of each unit's muscle (number or (U,)); 0 below threshold."""
    rate = np.minimum(pool.peak_rate, pool.min_rate + pool.gain * (excitation - pool.threshold))
    return np.where(excitation >= pool.threshold, rate, 0.0)


def shortest_interval(config: EmgConfig) -> int:
    """Ticks below which no interval is drawn: three standard deviations, and never less than the refractory time."""
    refractory = config.refractory_ms / 1000.0 * config.peak_rate_first_hz
    return math.ceil(TICKS * max(1.0 - 3.0 * config.isi_cov, refractory))


def most_discharges(config: EmgConfig, samples: int, rate_hz: float) -> int:
    """The number of discharges that one unit cannot exceed in a block: 1 + how many shortest intervals fit in it."""
    ticks = samples * (math.floor(TICKS * config.peak_rate_first_hz / rate_hz) + 1)
    return 1 + (ticks - 1) // shortest_interval(config)


def init_pool(key: Array, units: int) -> PoolState:
    """Clocks at random phases. key: (B,) uint32."""
    unit = jnp.arange(units, dtype=jnp.int32)
    phase = uniform(address(key[:, None], jnp.int32(1), unit[None, :]))
    return PoolState(1 + (phase * TICKS).astype(jnp.int32), jnp.zeros((key.shape[0], units), jnp.int32))


def discharge(
    pool: PoolParams,
    muscle: Array,
    config: EmgConfig,
    rate_hz: float,
    state: PoolState,
    key: Array,
    start: Array,
    excitation: Array,
    samples: int,
) -> tuple[Array, PoolState]:
    """Runs the clocks over one block of at most DRIVE_HOLD samples.

    Args:
      pool, muscle: the units; muscle is (U,), or (B, U) for different people.
      key: (B,) uint32, the participant's key. start: (B,) int32, absolute index of the block's first sample.
      excitation: (B, 26), 0..1, held for the block.

    Returns:
      when: (K, B, U) int8, sample of the k-th discharge of each unit within the block, or -1; and the next state.
    """
    if samples > DRIVE_HOLD:
        raise ValueError(f"a block holds at most {DRIVE_HOLD} samples, not {samples}")
    steps = jnp.round(excitation * EXCITATION_ONE).astype(jnp.int32)
    drive_block = start // DRIVE_HOLD
    first = jnp.minimum(samples, DRIVE_HOLD - start % DRIVE_HOLD)[:, None]  # samples before the drive changes
    step1 = _ticks_per_sample(pool, _of_units(_shaken(config, steps, key, drive_block), muscle))
    step2 = _ticks_per_sample(pool, _of_units(_shaken(config, steps, key, drive_block + 1), muscle))
    ticks1 = first * step1
    ticks = ticks1 + (samples - first) * step2

    unit = jnp.arange(muscle.shape[-1], dtype=jnp.int32)[None, :]
    base = address(address(key, jnp.int32(2))[:, None], unit)
    spread = jnp.float32(config.isi_cov * TICKS / SUM_SD)
    shortest = shortest_interval(config)

    def once(clock: PoolState, _: None) -> tuple[PoolState, Array]:
        due, fired = clock
        fires = due <= ticks
        early = due <= ticks1
        sample = _ceil_div(jnp.where(early, due, due - ticks1), jnp.where(early, step1, step2))
        sample = sample + jnp.where(early, 0, first) - 1
        z = TICKS + jnp.round(normal_sum(address(base, fired)).astype(jnp.float32) * spread).astype(jnp.int32)
        after = PoolState(due + jnp.where(fires, jnp.maximum(z, shortest), 0), fired + fires)
        return after, jnp.where(fires, sample, -1).astype(jnp.int8)

    # A scan, not a Python loop and a stack: measured somewhat faster with XLA on CPU.
    passes = most_discharges(config, samples, rate_hz)
    clock, when = jax.lax.scan(once, state, None, length=passes)
    return when, PoolState(clock.ticks_left - ticks, clock.fired)


def common_drive(key: Array, block: Array, muscles: int) -> Array:
    """(B, muscles) int32, mean 0, standard deviation SUM_SD: drive that a muscle's units share in drive block (B,)."""
    weights = jnp.asarray(_spline_weights())[block % KNOT_BLOCKS]
    knot = (block // KNOT_BLOCKS)[:, None, None] + jnp.arange(4, dtype=jnp.int32)[None, None, :]
    muscle = jnp.arange(muscles, dtype=jnp.int32)[None, :, None]
    knots = normal_sum(address(key[:, None, None], jnp.int32(3), muscle, knot))
    return jnp.sum(weights[:, None, :] * knots, axis=-1) >> _WEIGHT_BITS


def _shaken(config: EmgConfig, steps: Array, key: Array, block: Array) -> Array:
    """Excitation steps (B, M) with the common drive of the block, E (1 + CoV drive), kept in 0..1."""
    factor = common_drive(key, block, steps.shape[1]) * round(config.common_drive_cov * 2**28 / SUM_SD) >> 14
    return jnp.clip(steps + (steps * factor >> 14), 0, EXCITATION_ONE)


def _of_units(values: Array, muscle: Array) -> Array:
    """(B, U) from (B, M): each unit's muscle's value."""
    if muscle.ndim == 1:
        return values[:, muscle]
    return jnp.take_along_axis(values, muscle, axis=1)


def _ticks_per_sample(pool: PoolParams, steps: Array) -> Array:
    """Clock speed of each unit (B, U) at the excitation steps of its muscle (B, U); 0 below threshold."""
    over = steps - pool.threshold
    ticks = jnp.minimum(pool.peak_ticks, pool.min_ticks + (over * pool.gain >> _GAIN_BITS))
    return jnp.where(over >= 0, ticks, 0)


def _ceil_div(a: Array, b: Array) -> Array:
    """ceil(a / b) where it is within a block, by float32 and repair: integer division has no vector instruction.

    Beyond the block the result is some sample of the block: the caller does not use it.
    """
    b = jnp.maximum(b, 1)
    near = (a.astype(jnp.float32) / b.astype(jnp.float32)).astype(jnp.int32)
    near = jnp.clip(near - 1, 0, DRIVE_HOLD)
    for _ in range(2):  # the quotient is right to 40 * 2^-22: near is at most 2 too low, never too high
        near = near + (near * b < a)
    return near


def _spline_weights() -> np.ndarray:
    """(KNOT_BLOCKS, 4) int32: uniform cubic B-spline at the middle of each drive block, of norm 2^_WEIGHT_BITS."""
    u = (np.arange(KNOT_BLOCKS)[:, None] + 0.5) / KNOT_BLOCKS
    weights = np.concatenate([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], axis=1)
    return np.round(weights / np.linalg.norm(weights, axis=1, keepdims=True) * 2**_WEIGHT_BITS).astype(np.int32)


assert NORMAL_LIMIT > 3.0  # shortest_interval cuts the draws at three standard deviations
