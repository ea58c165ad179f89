"""Motor-unit pools: excitation in, discharges out, streaming and exact under any chunking.

Two laws of recruitment and rate coding (see rate_laws.py). A unit is a clock that runs at its rate and discharges when it
reaches z, drawn anew each time from a bounded normal(1, CoV): noise of its own, beside the common drive of its muscle
(De Luca & Erim 1994: below 5 Hz), a smooth random curve addressed by the absolute time, held for DRIVE_HOLD samples.
Units that a fast rise of excitation recruits may start with a doublet. Clocks count ticks (one interval = 2^24): sums of
integers do not depend on where a chunk ends, so the discharges are the same to the sample for every chunk length. All is
integer arithmetic from the excitation on, so no compiler, batch size or device can round one discharge away.
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
from myoloop.emg.noise import SUM_SD, address, mix, normal_sum, uniform
from myoloop.emg.rate_laws import (
    EXCITATION_ONE,
    GAIN_BITS,
    TICKS,
    PoolParams,
    clock_speeds,
    pool_rates,
    spread_to_units,
)

_WEIGHT_BITS = 10
_BYTES_SD = (4 * (256.0**2 - 1) / 12) ** 0.5  # of the sum of the four bytes of a random word
_BYTES_MEAN = 510
_WEYL = 0x9E3779BA  # even: the lowest bit of a unit's word is left to say that its last interval was a doublet
_ONSET_SHIFT = 2  # the trace of excitation follows by 1/4 a drive block: time constant 70 ms
ONSET_RISE = 0.1  # excitation above its trace that makes an onset fast (estimate: 0 to 40 % in 0.1 s does)
DOUBLET_MS = (2.0, 5.0)  # interval of a doublet at fast onsets (Van Cutsem et al. 1998)
ONSET_SPAN = 0.1  # excitation above threshold over which the ISI CoV falls (Moritz et al. 2005: within 10 % MVC)
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


class PoolState(NamedTuple):
    """Clocks of the units."""

    ticks_left: Array
    """(B, U) int32, ticks to the next discharge."""
    word: Array
    """(B, U) uint32, address of the unit's next draw; its lowest bit: the last interval was a doublet."""
    trace: Array
    """(B, 26) int32, excitation steps of each muscle, followed with ~70 ms: what a fast onset rises above."""


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
    gain = np.round(pool.gain * per_hz / EXCITATION_ONE * 2**GAIN_BITS)
    threshold = np.maximum(1, np.round(pool.threshold * EXCITATION_ONE))
    columns = (threshold, gain, np.round(pool.min_rate * per_hz), np.round(pool.peak_rate * per_hz), 0 * threshold)
    return PoolParams(*[jnp.asarray(column, jnp.int32) for column in columns])


def rates(pool: Pool, excitation: float | np.ndarray, law: str = "fuglevand") -> np.ndarray:
    """Mean discharge rates in Hz, (U,), at the excitation of each unit's muscle (number or (U,)); 0 below threshold."""
    rate = pool_rates(law, excitation, pool.threshold, pool.gain, pool.min_rate, pool.peak_rate)
    return np.where(excitation >= pool.threshold, rate, 0.0)


def shortest_interval(config: EmgConfig) -> int:
    """Ticks below which no interval is drawn: three standard deviations, and never less than the refractory time.
    Doublets are shorter."""
    refractory = config.refractory_ms / 1000.0 * config.peak_rate_first_hz
    return math.ceil(TICKS * max(1.0 - 3.0 * max(config.isi_cov, config.isi_cov_onset), refractory))


def most_discharges(config: EmgConfig, samples: int, rate_hz: float) -> int:
    """The number of discharges that one unit cannot exceed in a block: 1 + how many shortest intervals fit in it, and
    one doublet (the interval after a doublet is never below the mean)."""
    ticks = samples * (math.floor(TICKS * config.peak_rate_first_hz / rate_hz) + 1)
    return 1 + (ticks - 1) // shortest_interval(config) + (config.doublet_probability > 0)


def init_pool(key: Array, unit: Array) -> PoolState:
    """Clocks at random phases. key: (B,) uint32; unit: (U,) or (B, U) int32, the numbers by which chance is drawn."""
    unit = jnp.broadcast_to(unit, (key.shape[0], unit.shape[-1]))
    phase = uniform(address(key[:, None], jnp.int32(1), unit))
    word = address(address(key, jnp.int32(2))[:, None], unit) & jnp.uint32(0xFFFFFFFE)
    trace = jnp.zeros((key.shape[0], len(FOREARM_MUSCLES)), jnp.int32)
    return PoolState(1 + (phase * TICKS).astype(jnp.int32), word, trace)


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
      pool, muscle: the units; muscle is (U,), the same for all participants.
      key: (B,) uint32, the participant's key. start: (B,) int32, absolute index of the block's first sample.
      excitation: (B, 26), 0..1, held for the block.

    Returns:
      when: (B, K, U) int8, sample of the k-th discharge of each unit within the block, or -1; and the next state.
    """
    if samples > DRIVE_HOLD:
        raise ValueError(f"a block holds at most {DRIVE_HOLD} samples, not {samples}")
    steps = jnp.round(excitation * EXCITATION_ONE).astype(jnp.int32)
    drive_block = start // DRIVE_HOLD
    to_end = DRIVE_HOLD - start % DRIVE_HOLD
    first = jnp.minimum(samples, to_end)[:, None]  # samples before the drive changes
    place = _places(muscle)
    traces = state.trace, state.trace + ((steps - state.trace) >> _ONSET_SHIFT)  # before and after the drive changes
    doublets = config.doublet_probability > 0
    shortest = shortest_interval(config)

    def drive(later: int) -> tuple[Array, Array, Array | None]:
        """Clock ticks per sample, excitation steps above threshold, and whether new in a fast onset, (B, U)."""
        speed = clock_speeds(config.law, rate_hz, pool, _shaken(config, steps, key, drive_block + later), place)
        new = spread_to_units(_onset(steps, traces[later]), place) < pool.threshold if doublets else None
        return speed.ticks, speed.over, new

    def run(changes: bool) -> tuple[Array, Array, Array]:
        """All passes; `changes`: the drive changes within the block of some participant."""
        step1, over1, new1 = drive(0)
        step2, over2, new2 = drive(1) if changes else (step1, over1, new1)
        ticks1 = first * step1
        ticks = ticks1 + (samples - first) * step2 if changes else ticks1

        def once(due: Array, word: Array) -> tuple[Array, Array, Array]:
            fires = due <= ticks
            early = due <= ticks1

            def now(before: Array, after: Array) -> Array:
                return jnp.where(early, before, after) if changes else before

            speed = now(step1, step2)
            sample = _ceil_div(now(due, due - ticks1), speed) - 1
            sample = sample + jnp.where(early, 0, first) if changes else sample
            draw = mix(word)
            z = jnp.maximum(TICKS + _byte_sum(draw) * _interval_spread(config, now(over1, over2)), shortest)
            after = word + jnp.uint32(_WEYL)
            if doublets:
                assert new1 is not None and new2 is not None
                was = (word & 1) == 1
                lot = draw * jnp.uint32(0x85EBCA6B)  # odd: another order of the same words
                is_doublet = now(new1, new2) & ~was & (lot < round(config.doublet_probability * (2**32 - 1)))
                gap = _doublet_samples(rate_hz, draw)
                z = jnp.where(is_doublet, jnp.minimum(gap * speed, shortest), jnp.where(was, jnp.maximum(z, TICKS), z))
                after = (after & jnp.uint32(0xFFFFFFFE)) | is_doublet
            return (
                jnp.where(fires, sample, -1).astype(jnp.int8),
                due + jnp.where(fires, z, 0),
                jnp.where(fires, after, word),
            )

        due, word = state.ticks_left, state.word
        when = []
        for _ in range(most_discharges(config, samples, rate_hz)):
            found, due, word = once(due, word)
            when.append(found)
        return jnp.stack(when, axis=1), due - ticks, word

    # Most blocks lie within one hold of the drive: half of the work.
    when, left, word = jax.lax.cond(jnp.all(first == samples), lambda: run(False), lambda: run(True))
    trace = jnp.where((samples >= to_end)[:, None], traces[1], traces[0])
    return when, PoolState(left, word, trace)


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


def _places(muscle: Array) -> Array:
    """(26, U) float32, 1 where a unit belongs to a muscle: spreading values by a product is exact (integers below 2^24)
    and many times faster on CPU than a gather, which has no vector instruction."""
    return (muscle[None, :] == jnp.arange(len(FOREARM_MUSCLES))[:, None]).astype(jnp.float32)


def _onset(steps: Array, trace: Array) -> Array:
    """(B, 26) steps above which units are new in a fast onset; the highest number where the onset is not fast."""
    fast = steps - trace > round(ONSET_RISE * EXCITATION_ONE)
    return jnp.where(fast, trace, 2 * EXCITATION_ONE)


def _byte_sum(word: Array) -> Array:
    """int32 draw, mean 0, standard deviation _BYTES_SD, near normal, within 3.45 standard deviations."""
    byte = jnp.uint32(255)
    total = (word & byte) + ((word >> 8) & byte) + ((word >> 16) & byte) + (word >> 24)
    return total.astype(jnp.int32) - _BYTES_MEAN


def _interval_spread(config: EmgConfig, over: Array) -> Array | int:
    """Ticks per unit of `_byte_sum`: the ISI CoV, falling from its value at recruitment over ONSET_SPAN of excitation."""
    base = round(config.isi_cov * TICKS / _BYTES_SD)
    if config.isi_cov_onset <= config.isi_cov:
        return base
    span = round(ONSET_SPAN * EXCITATION_ONE)
    slope = round((config.isi_cov_onset - config.isi_cov) * TICKS / _BYTES_SD / span * 256)
    return base + (jnp.clip(span - over, 0, span) * slope >> 8)


def _doublet_samples(rate_hz: float, draw: Array) -> Array:
    """Samples between the discharges of a doublet, evenly within DOUBLET_MS."""
    low, high = (max(1, round(ms * rate_hz / 1000.0)) for ms in DOUBLET_MS)
    return low + ((draw & jnp.uint32(0xFFFF)) * jnp.uint32(high - low + 1) >> 16).astype(jnp.int32)


def _ceil_div(a: Array, b: Array) -> Array:
    """ceil(a / b) where it is within a block, by float32 and repair: integer division has no vector instruction.

    Beyond the block the result is some number of samples: the caller does not use it.
    """
    b = jnp.maximum(b, 1)
    # The quotient, up to 40, is right to 1e-5: a little more than it, its whole part is ceil or ceil - 1.
    near = (a.astype(jnp.float32) / b.astype(jnp.float32) + 2e-5).astype(jnp.int32)
    near = jnp.clip(near, 0, DRIVE_HOLD)
    return near + (near * b < a)


def _spline_weights() -> np.ndarray:
    """(KNOT_BLOCKS, 4) int32: uniform cubic B-spline at the middle of each drive block, of norm 2^_WEIGHT_BITS."""
    u = (np.arange(KNOT_BLOCKS)[:, None] + 0.5) / KNOT_BLOCKS
    weights = np.concatenate([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], axis=1)
    return np.round(weights / np.linalg.norm(weights, axis=1, keepdims=True) * 2**_WEIGHT_BITS).astype(np.int32)
