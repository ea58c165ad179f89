"""Streaming surface EMG: excitation in, a chunk of microvolts and the discharges out.

    params = build_emg(armband("semg_rd16"), EmgConfig(seed=1))
    state = init_emg(params, seeds=[7])
    out, state = synthesise(params, state, excitation, samples=40)      # out.chunk: (1, 40, 16) microvolts

Every random number is addressed by absolute time, every recursion is linear or in integers, so any cutting into chunks
gives the same discharges to the sample and the same signal to rounding. Per block of at most 40 internal samples the
discharges of all participants are gathered into one list; each adds its unit's row of coefficients (one per channel and
MUAP shape) at its sample; one matrix product with the shared shapes turns rows into potentials, whose overhang waits in
the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from myoloop.body.names import FOREARM_MUSCLES, MUSCLES
from myoloop.emg import filters, motor_units
from myoloop.emg.accumulate import add_rows
from myoloop.emg.armband import Armband
from myoloop.emg.circumstances import Circumstances, as_float32, completed, disturbance, no_circumstances
from myoloop.emg.motor_units import DRIVE_HOLD, PoolState
from myoloop.emg.noise import address
from myoloop.emg.params import FATIGUE_STRETCH, EmgParams, build_emg, stack_params, stretch_place
from myoloop.emg.placement import locate, ring, rows_between
from myoloop.emg.posture import slowing
from myoloop.errors import MyoloopError

__all__ = [
    "Circumstances",
    "Discharges",
    "EmgOutput",
    "EmgParams",
    "EmgState",
    "Spikes",
    "block_samples",
    "build_emg",
    "discharges",
    "healthy",
    "init_emg",
    "stack_params",
    "synthesise",
]


class EmgState(NamedTuple):
    """All that the next chunk needs, (B, ...): save it with numpy and the stream goes on bit for bit."""

    key: Array
    """(B,) uint32, from the participant's seed; constant."""
    sample: Array
    """(B,) int32, internal samples made so far."""
    pool: PoolState
    """(B, U) clocks of the units."""
    overhang: Array
    """(B, C, L-1) microvolts still to come from past discharges."""
    filter: Array
    """(B, C, n) state of the amplifier's band-pass."""


class Spikes(NamedTuple):
    """Discharges of a chunk, as they fall: see `discharges` for a plain list."""

    when: Array
    """(B, blocks, K, U) int8: sample of each unit's k-th discharge within its block, or -1. Every block but the last
    holds `block_samples(band)` internal samples."""
    start: Array
    """(B,) int32, absolute index of the chunk's first internal sample."""


class EmgOutput(NamedTuple):
    """One chunk."""

    chunk: Array
    """(B, samples, C) float32, microvolts at the electrode."""
    spikes: Spikes


class Discharges(NamedTuple):
    """A participant's discharges in a chunk, in order of time. (N,) numpy int arrays."""

    unit: np.ndarray
    """Index of the unit, 0..units-1."""
    muscle: np.ndarray
    """Index into FOREARM_MUSCLES (and MUSCLES)."""
    sample: np.ndarray
    """Absolute internal sample index; divide by band.internal_rate_hz for seconds since the start."""


def init_emg(params: EmgParams, seeds: int | Sequence[int] | np.ndarray | Array) -> EmgState:
    """A silent start for each seed; equal seeds of the same person give equal noise and discharges, alone and in a batch."""
    return _silent(params, jnp.atleast_1d(jnp.asarray(seeds, jnp.uint32)))


@jax.jit
def _silent(params: EmgParams, seeds: Array) -> EmgState:
    """`init_emg` in one piece: operation by operation each of them would be compiled."""
    key = address(params.seed, seeds)
    batch, channels = key.shape[0], params.band.channels
    return EmgState(
        key=key,
        sample=jnp.zeros(batch, jnp.int32),
        pool=motor_units.init_pool(key, params.number),
        overhang=jnp.zeros((batch, channels, params.overhang), jnp.float32),
        filter=jnp.zeros((batch, channels, filters.filter_states(params.band)), jnp.float32),
    )


def healthy(params: EmgParams, batch: int) -> Circumstances:
    """Good contact everywhere and nothing else."""
    return no_circumstances(batch, params.band.channels)


def synthesise(
    params: EmgParams,
    state: EmgState,
    excitation: np.ndarray | Array,
    samples: int,
    circumstances: Circumstances | None = None,
) -> tuple[EmgOutput, EmgState]:
    """The next `samples` device samples of every participant.

    Args:
      params: from build_emg, shared by all participants or stacked.
      state: from init_emg or the last call; not changed.
      excitation: (B, 39) or (B, 26), 0..1, held for the chunk. Intrinsic hand muscles (26..38) make no forearm EMG.
      samples: static; device samples, so `samples * band.decimation` internal ones.
      circumstances: default `healthy`.

    Raises MyoloopError for excitation outside 0..1, NaN or of the wrong shape. Called inside jit the values cannot be
    seen: they are clipped to 0..1 (NaN to 0) instead.
    """
    batch = state.key.shape[0]
    _check(params, excitation, batch, samples)
    if circumstances is None:
        circumstances = healthy(params, batch)
    circumstances = completed(circumstances, batch)
    return _synthesise(params, state, as_float32(excitation), circumstances, samples=int(samples))


def discharges(params: EmgParams, spikes: Spikes, participant: int = 0) -> Discharges:
    """The discharges of one participant as a list sorted by time (numpy, outside jit)."""
    when = np.asarray(spikes.when[participant])
    block, nth, unit = np.nonzero(when >= 0)
    sample = when[block, nth, unit].astype(np.int64) + block * block_samples(params.band)
    order = np.argsort(sample, kind="stable")
    muscles = np.asarray(params.muscle)
    return Discharges(unit[order], muscles[unit[order]], sample[order] + int(spikes.start[participant]))


def block_samples(band: Armband) -> int:
    """Internal samples of one block: whole device samples, at most DRIVE_HOLD internal ones."""
    return max(1, DRIVE_HOLD // band.decimation) * band.decimation


def _check(params: EmgParams, excitation: Any, batch: int, samples: int) -> None:
    if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 1:
        raise MyoloopError(f"EMG chunk of {samples!r} samples asked; expected a whole number, 1 or more.")
    shape = tuple(np.shape(excitation))
    if len(shape) != 2 or shape[0] != batch or shape[1] not in (len(MUSCLES), len(FOREARM_MUSCLES)):
        raise MyoloopError(
            f"excitation has shape {shape}; expected ({batch}, {len(MUSCLES)}) for all muscles of the hand, or "
            f"({batch}, {len(FOREARM_MUSCLES)}) for those of the forearm."
        )
    if isinstance(excitation, jax.core.Tracer):
        return
    values = np.asarray(excitation)
    bad = ~((values >= 0.0) & (values <= 1.0))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise MyoloopError(
            f"excitation of muscle {MUSCLES[column]} (participant {row}) is {values[row, column]}; expected 0 to 1. "
            f"{int(bad.sum())} of {values.size} values are outside or not numbers: clip the policy's output."
        )


@partial(jax.jit, static_argnames="samples")
def _synthesise(
    params: EmgParams, state: EmgState, excitation: Array, circumstances: Circumstances, samples: int
) -> tuple[EmgOutput, EmgState]:
    """Blocks of at most DRIVE_HOLD internal samples, scanned when there are many."""
    excitation = jnp.clip(jnp.nan_to_num(excitation[:, : len(FOREARM_MUSCLES)], nan=0.0), 0.0, 1.0)
    decimation = params.band.decimation
    per_block = block_samples(params.band) // decimation
    whole, rest = divmod(samples, per_block)
    start = state.sample
    chunks, whens = [], []

    def step(carry: EmgState, _: None) -> tuple[EmgState, tuple[Array, Array]]:
        chunk, when, carry = _block(params, carry, excitation, circumstances, per_block * decimation)
        return carry, (chunk, when)

    if whole == 1:
        state, (chunk, when) = step(state, None)
        chunks.append(chunk)
        whens.append(when[:, None])
    elif whole > 1:
        state, (chunk, when) = jax.lax.scan(step, state, None, length=whole)
        chunks.append(jnp.moveaxis(chunk, 0, 1).reshape(start.shape[0], whole * per_block, -1))
        whens.append(jnp.moveaxis(when, 0, 1))
    if rest:
        chunk, when, state = _block(params, state, excitation, circumstances, rest * decimation)
        chunks.append(chunk)
        whens.append(when[:, None])
    most = max(w.shape[2] for w in whens)
    whens = [jnp.pad(w, ((0, 0), (0, 0), (0, most - w.shape[2]), (0, 0)), constant_values=-1) for w in whens]
    return EmgOutput(jnp.concatenate(chunks, axis=1), Spikes(jnp.concatenate(whens, axis=1), start)), state


def _block(
    params: EmgParams,
    state: EmgState,
    excitation: Array,
    circumstances: Circumstances,
    samples: int,
) -> tuple[Array, Array, EmgState]:
    """One block: chunk (B, samples/decimation, C), discharges (B, K, U), the next state."""
    band, rate = params.band, params.band.internal_rate_hz
    when, pool = motor_units.discharge(
        params.pool, params.muscle, params.config, rate, state.pool, state.key, state.sample, excitation, samples
    )
    emg = _potentials(params, _rows(params, circumstances, when, samples), _stretch(circumstances, excitation), samples)
    emg = emg + jnp.pad(state.overhang, ((0, 0), (0, 0), (0, samples)))
    raw = emg[..., :samples] * circumstances.contact[..., None]
    raw = raw + disturbance(
        band, params.config.mains_hz, params.mains_gain, state.key, state.sample, circumstances, samples
    )
    block = filters.band_pass(band, samples)
    filtered, filter_state = filters.run_block(block, raw, state.filter)
    chunk = jnp.moveaxis(_quantise(band, filtered[..., :: band.decimation]), 1, 2)
    next_state = EmgState(state.key, state.sample + samples, pool, emg[..., samples:], filter_state)
    return chunk, when, next_state


def _rows(params: EmgParams, now: Circumstances, when: Array, samples: int) -> Array:
    """(B, samples, C*R): coefficients of the MUAPs that begin at each sample, where the armband now is."""
    batch, depth = when.shape[0], params.coefficients.shape[-1]
    table = params.coefficients.reshape(-1, depth)
    first = jnp.arange(batch, dtype=jnp.int32) * (params.units if params.stacked else 0)

    def at_rest() -> Array:
        return add_rows(when, lambda participant, unit: table[first[participant] + unit], depth, samples)

    if params.moves is None or params.moved is None:
        return at_rest()
    assert now.rotation_deg is not None and now.skin_turn_deg is not None
    assert now.displacement_mm is not None and now.muscle_shift_mm is not None
    around = ring(params.band, params.moves)
    rotation = now.rotation_deg + now.skin_turn_deg
    place = locate(
        params.moves, around, params.turn_step_deg, rotation, now.displacement_mm[:, None] - now.muscle_shift_mm
    )
    moving = rows_between(params.moved, params.coefficients, params.muscle, place, around.phases, params.band.channels)
    return jax.lax.cond(jnp.all(place.home), at_rest, lambda: add_rows(when, moving, depth, samples))


def _stretch(now: Circumstances, excitation: Array) -> Array:
    """(B,) how many times as long everybody's MUAPs last, for fatigue and the fibres' length: the mean of the muscles
    weighted by their excitation (one factor for all: MUAPs share their shapes)."""
    assert now.fatigue is not None and now.fibre_strain is not None
    fatigue = now.fatigue if now.fatigue.ndim == 2 else now.fatigue[:, None]
    tired = 1.0 + jnp.clip(fatigue, 0.0, 1.0) * (FATIGUE_STRETCH - 1.0)
    weight = excitation + 1e-9
    return 1.0 + (weight * (tired * slowing(now.fibre_strain) - 1.0)).sum(1) / weight.sum(1)


def _potentials(params: EmgParams, rows: Array, stretch: Array, samples: int) -> Array:
    """(B, C, samples + overhang) microvolts from the coefficient rows (B, samples, C*R)."""
    channels, rank = params.band.channels, params.rank
    batch = rows.shape[0]
    by_channel = jnp.moveaxis(rows.reshape(batch, samples, channels, rank), 2, 1)
    by_channel = by_channel.reshape(batch, channels, samples * rank)
    length = params.shapes.shape[-1] - DRIVE_HOLD + samples

    def rested() -> Array:
        emg = jnp.matmul(by_channel, params.shapes[..., : samples * rank, :length], precision="highest")
        return jnp.pad(emg, ((0, 0), (0, 0), (0, samples + params.overhang - length)))

    def tired() -> Array:
        return jnp.matmul(by_channel, _lengthened(params.stretched, stretch, samples), precision="highest")

    return jax.lax.cond(jnp.any(stretch != 1.0), tired, rested)


def _lengthened(stretched: Array, stretch: Array, samples: int) -> Array:
    """The shapes at each participant's stretch (B,), shifted to each sample: (B, samples*R, samples+L'-1).

    Slower conduction runs the same source past the same electrodes in a longer time, so it stretches every MUAP, and
    with it the shapes that all MUAPs are made of.
    """
    rank, length = stretched.shape[-2:]
    low, part = stretch_place(stretch)
    part = part[:, None, None]
    if stretched.ndim == 4:
        person = jnp.arange(stretch.shape[0])
        shapes = (1.0 - part) * stretched[person, low] + part * stretched[person, low + 1]
    else:
        shapes = (1.0 - part) * stretched[low] + part * stretched[low + 1]
    wide = samples + length - 1
    # One row of zeros between copies shifts each copy by one sample: reshape a (wide + 1)-periodic array.
    padded = jnp.pad(shapes, ((0, 0), (0, 0), (0, samples)))
    ramp = jnp.tile(padded, (1, 1, samples))[..., : samples * wide]
    shifted = ramp.reshape(-1, rank, samples, wide)
    return jnp.moveaxis(shifted, 2, 1).reshape(-1, samples * rank, wide)


def _quantise(band: Armband, microvolts: Array) -> Array:
    """Counts of the converter, clipped, back in microvolts."""
    if band.lsb_uv == 0:
        return microvolts
    top = 2.0 ** (band.bits - 1)
    return jnp.clip(jnp.round(microvolts / band.lsb_uv), -top, top - 1) * jnp.float32(band.lsb_uv)
