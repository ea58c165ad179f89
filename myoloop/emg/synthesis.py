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

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from myoloop.body.names import FOREARM_MUSCLES, MUSCLES
from myoloop.emg import filters, motor_units
from myoloop.emg.accumulate import add_rows
from myoloop.emg.armband import Armband
from myoloop.emg.config import EmgConfig
from myoloop.emg.lowrank import decompose, toeplitz
from myoloop.emg.motor_units import DRIVE_HOLD, PoolParams, PoolState
from myoloop.emg.noise import address, normal, uniform
from myoloop.emg.volume_conductor import compute_muaps, place_units
from myoloop.errors import MyoloopError

OPEN_NOISE = 10.0  # noise of a channel without contact over that of a good one (estimate: the input floats)
OPEN_MAINS_UV = 50.0  # hum that a channel without contact picks up, uV RMS (upper end of the usual 1-50 uV; estimate)
MAINS_SPREAD = 0.5  # channels pick up mains differently, by this part up or down (unequal impedances; estimate)


@flax.struct.dataclass
class EmgParams:
    """One person wearing one armband. Arrays may carry a leading axis B: several people (`stack_params`)."""

    pool: PoolParams
    """Recruitment and rates, (U,) each."""
    coefficients: Array
    """(U, C*R) microvolts: how much of each MUAP shape a unit shows on each channel."""
    shapes: Array
    """(DRIVE_HOLD*R, DRIVE_HOLD+L-1): the shapes, shifted to each sample of a block."""
    mains_gain: Array
    """(C,) pick-up of mains hum, about 1."""
    muscle: Array
    """(U,) int32, index of each unit's muscle in FOREARM_MUSCLES."""
    lowrank_error: Array
    """(), RMS error of the shared shapes over the RMS of the signal."""
    band: Armband = flax.struct.field(pytree_node=False)
    config: EmgConfig = flax.struct.field(pytree_node=False)
    muap_delay: int = flax.struct.field(pytree_node=False)
    """Internal samples between a discharge and the first effect of its MUAP (anti-alias filter)."""

    @property
    def units(self) -> int:
        """Number of motor units."""
        return int(self.muscle.shape[-1])

    @property
    def rank(self) -> int:
        """Number of MUAP shapes."""
        return int(self.coefficients.shape[-1]) // self.band.channels

    @property
    def overhang(self) -> int:
        """Samples by which a MUAP outlasts the sample of its discharge."""
        return int(self.shapes.shape[-1]) - DRIVE_HOLD


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


class Circumstances(NamedTuple):
    """What happens to the recording, held for the chunk."""

    mains_uv: Array
    """(B,) mains hum before the amplifier's filter, microvolts RMS."""
    contact: Array
    """(B, C) 1: good contact, 0: electrode off the skin (no EMG, noise and hum)."""


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


def build_emg(band: Armband, config: EmgConfig | None = None) -> EmgParams:
    """Builds one person's units and their MUAPs at the armband: offline, a few seconds."""
    config = config or EmgConfig()
    pool = motor_units.build_pool(config)
    muaps = compute_muaps(place_units(pool, config, band.radius_mm), band)
    low = decompose(muaps.waveform, config.lowrank_error)
    gain = 1.0 + MAINS_SPREAD * np.random.default_rng([config.seed, 50]).uniform(-1, 1, band.channels)
    return EmgParams(
        pool=motor_units.pool_params(pool, band.internal_rate_hz),
        coefficients=jnp.asarray(low.coefficients),
        shapes=jnp.asarray(toeplitz(low.shapes, DRIVE_HOLD)),
        mains_gain=jnp.asarray(gain, jnp.float32),
        band=band,
        config=config,
        muscle=jnp.asarray(pool.muscle, jnp.int32),
        lowrank_error=jnp.float32(low.error),
        muap_delay=muaps.delay,
    )


def init_emg(params: EmgParams, seeds: int | Sequence[int] | np.ndarray | Array) -> EmgState:
    """A silent start for each seed; equal seeds give equal noise and discharges."""
    key = address(jnp.uint32(params.config.seed & 0xFFFFFFFF), jnp.atleast_1d(jnp.asarray(seeds, jnp.uint32)))
    batch, channels = key.shape[0], params.band.channels
    return EmgState(
        key=key,
        sample=jnp.zeros(batch, jnp.int32),
        pool=motor_units.init_pool(key, params.units),
        overhang=jnp.zeros((batch, channels, params.overhang), jnp.float32),
        filter=jnp.zeros((batch, channels, filters.filter_states(params.band)), jnp.float32),
    )


def healthy(params: EmgParams, batch: int) -> Circumstances:
    """Good contact everywhere and no mains hum."""
    return Circumstances(jnp.zeros(batch, jnp.float32), jnp.ones((batch, params.band.channels), jnp.float32))


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
    return _synthesise(params, state, jnp.asarray(excitation, jnp.float32), circumstances, samples=int(samples))


def discharges(params: EmgParams, spikes: Spikes, participant: int = 0) -> Discharges:
    """The discharges of one participant as a list sorted by time (numpy, outside jit)."""
    when = np.asarray(spikes.when[participant])
    block, nth, unit = np.nonzero(when >= 0)
    sample = when[block, nth, unit].astype(np.int64) + block * block_samples(params.band)
    order = np.argsort(sample, kind="stable")
    muscles = np.asarray(params.muscle if params.muscle.ndim == 1 else params.muscle[participant])
    return Discharges(unit[order], muscles[unit[order]], sample[order] + int(spikes.start[participant]))


def block_samples(band: Armband) -> int:
    """Internal samples of one block: whole device samples, at most DRIVE_HOLD internal ones."""
    return max(1, DRIVE_HOLD // band.decimation) * band.decimation


def stack_params(people: Sequence[EmgParams]) -> EmgParams:
    """Different people side by side in one batch: same armband model, same number of units in each muscle."""
    first = people[0]
    for other in people[1:]:
        if other.units != first.units or other.band != first.band:
            raise MyoloopError("People of one batch need the same armband and the same number of motor units.")
        if dataclasses.replace(other.config, seed=first.config.seed) != first.config:
            raise MyoloopError("People of one batch need the same EmgConfig but for the seed; these differ.")
    rank = max(p.rank for p in people)
    length = max(p.overhang for p in people)
    same = [_widen(p, rank, length) for p in people]
    same = [p.replace(config=first.config) for p in same]  # type: ignore[attr-defined]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *same)  # type: ignore[no-any-return]


def _widen(params: EmgParams, rank: int, overhang: int) -> EmgParams:
    """The same person with zero shapes and zero samples added, so that arrays of different people stack."""
    channels, have = params.band.channels, params.rank
    rows = np.asarray(params.coefficients).reshape(params.units, channels, have)
    wide = np.pad(rows, ((0, 0), (0, 0), (0, rank - have))).reshape(params.units, channels * rank)
    shifted = np.asarray(params.shapes).reshape(DRIVE_HOLD, have, -1)
    shifted = np.pad(shifted, ((0, 0), (0, rank - have), (0, overhang - params.overhang)))
    return params.replace(  # type: ignore[attr-defined,no-any-return]
        coefficients=jnp.asarray(wide), shapes=jnp.asarray(shifted.reshape(DRIVE_HOLD * rank, -1))
    )


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
    rows = add_rows(when, params.coefficients, samples)
    emg = _potentials(params, rows, samples)
    emg = emg + jnp.pad(state.overhang, ((0, 0), (0, 0), (0, samples)))
    raw = emg[..., :samples] * circumstances.contact[..., None]
    raw = raw + _disturbance(params, state, circumstances, samples)
    block = filters.band_pass(band, samples)
    filtered, filter_state = filters.run_block(block, raw, state.filter)
    chunk = jnp.moveaxis(_quantise(band, filtered[..., :: band.decimation]), 1, 2)
    next_state = EmgState(state.key, state.sample + samples, pool, emg[..., samples:], filter_state)
    return chunk, jnp.moveaxis(when, 0, 1), next_state


def _potentials(params: EmgParams, rows: Array, samples: int) -> Array:
    """(B, C, samples + overhang) microvolts from the coefficient rows (B, samples, C*R)."""
    channels, rank = params.band.channels, params.rank
    batch = rows.shape[0]
    shapes = params.shapes[..., : samples * rank, : samples + params.overhang]
    by_channel = jnp.moveaxis(rows.reshape(batch, samples, channels, rank), 2, 1)
    by_channel = by_channel.reshape(batch, channels, samples * rank)
    return jnp.matmul(by_channel, shapes, precision="highest")


def _disturbance(params: EmgParams, state: EmgState, circumstances: Circumstances, samples: int) -> Array:
    """Noise floor and mains hum before the amplifier's filter, (B, C, samples) microvolts."""
    band = params.band
    sample = state.sample[:, None, None] + jnp.arange(samples, dtype=jnp.int32)
    channel = jnp.arange(band.channels, dtype=jnp.int32)[None, :, None]
    key = state.key[:, None, None]
    loose = 1.0 - circumstances.contact[..., None]
    floor = band.noise_uv / filters.noise_gain(band) * (1.0 + (OPEN_NOISE - 1.0) * loose)
    noise = normal(address(key, jnp.int32(4), channel, sample)) * floor
    strength = circumstances.mains_uv[:, None, None] + OPEN_MAINS_UV * loose
    hum = jax.lax.cond(
        jnp.any(strength > 0),
        lambda: _hum(params, state, samples) * strength * params.mains_gain[..., :, None],
        lambda: jnp.zeros_like(noise),
    )
    return noise + hum


def _hum(params: EmgParams, state: EmgState, samples: int) -> Array:
    """Mains hum of RMS 1, (B, 1, samples)."""
    rate = params.band.internal_rate_hz
    sample = state.sample[:, None, None] + jnp.arange(samples, dtype=jnp.int32)
    # Whole periods fit in 10 s: the argument stays small, so float32 keeps the phase for days.
    phase = params.config.mains_hz * (sample % round(rate * 10)).astype(jnp.float32) / rate
    start = uniform(address(state.key[:, None, None], jnp.int32(5)))
    return jnp.sin(2 * jnp.pi * (phase % 1.0 + start)) * jnp.sqrt(2.0)


def _quantise(band: Armband, microvolts: Array) -> Array:
    """Counts of the converter, clipped, back in microvolts."""
    if band.lsb_uv == 0:
        return microvolts
    top = 2.0 ** (band.bits - 1)
    return jnp.clip(jnp.round(microvolts / band.lsb_uv), -top, top - 1) * jnp.float32(band.lsb_uv)
