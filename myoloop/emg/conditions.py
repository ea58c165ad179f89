"""Conditions of the person and of the recording, by name, each of a strength from 0 (healthy) to 1; they compose.

A condition of the motor units changes the person, offline:

    params = apply_conditions(build_emg(band), {"als": 0.6, "ageing": 1.0})

What comes and goes during a run is held in two small pytrees: `Circumstances` (the recording and the muscle fibres, for
synthesise) and `Disorder` (the drive, for `disordered`, before body and EMG alike, so that a tremor moves the hand too):

    circumstances, disorder = set_condition(band, circumstances, disorder, "parkinsonian_tremor", 0.8)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import sparse

from myoloop.body.names import FOREARM_MUSCLES, MUSCLES
from myoloop.emg.armband import Armband
from myoloop.emg.circumstances import Circumstances, completed
from myoloop.emg.condition_names import DRIVE, MOVING, PERSON, RUN_CONDITIONS, check_strength, stays
from myoloop.emg.noise import address, uniform
from myoloop.emg.params import EmgParams
from myoloop.emg.placement import Moves
from myoloop.emg.rate_laws import NEVER, TICKS
from myoloop.errors import MyoloopError, unknown_name

FLEXORS = ("FCR", "FCU", "PL", "PT", "PQ", "FDS5", "FDS4", "FDS3", "FDS2", "FDP5", "FDP4", "FDP3", "FDP2", "FPL")
"""Forearm muscles of the volar side; the other twelve are their antagonists."""

AGEING_LOSS = 0.4  # of the units (about 40 % fewer at 71 years: review of Piasecki et al. 2016)
AGEING_GROWTH = 0.5  # of the units that remain: enlarged by around 50 % (same)
ALS_LOSS = 0.7  # of the units at strength 1 (estimate)
ALS_ADOPTED = (
    0.7  # of lost units whose fibres a neighbour takes over (collateral sprouting keeps up to this loss; estimate)
)
ALS_MOST_ADOPTED = (
    5  # times its own fibres that a survivor can adopt (units grow to about this: Wohlfart 1957; estimate)
)
ALS_FASCICULATING = 0.1  # of the units that remain (estimate)
ALS_FASCICULATION_HZ = (0.1, 1.0)  # rate of one of them (estimate: irregular, seconds apart)
STROKE_RATE_LOSS = 0.4  # of the peak rate (lower, flatter: Gemperline et al. 1995; size: estimate)
STROKE_COMPRESSION = 0.5  # of the range of thresholds (compressed: Gemperline et al. 1995; size: estimate)
STROKE_CO_CONTRACTION = 0.4  # of the antagonists' mean excitation that a muscle gets as well (estimate)
PARKINSON_HZ = (4.0, 6.0)  # rest tremor (Deuschl et al. 1998, from memory; others give 3-8 Hz)
PARKINSON_DRIVE = 0.3  # excitation at the peak of a burst (estimate)
PARKINSON_CALM = 0.1  # mean excitation at which voluntary action has halved the rest tremor (estimate)
ESSENTIAL_HZ = (4.0, 12.0)  # action tremor (4-12 Hz: Vescio et al. 2019 and others)
ESSENTIAL_DEPTH = 0.8  # of the muscle's own excitation that swings (estimate)
MAINS_UV = 50.0  # microvolts RMS: the upper end of what surface recordings see (1-50)
ARTEFACT_UV = 500.0  # microvolts RMS before the filter: a cable that moves (estimate)
ECG_UV = 20.0  # R wave at a forearm pair (estimate: mV at the chest, tens of microvolts at one arm)


class Disorder(NamedTuple):
    """What is wrong with the drive, (B,) strengths 0..1 each."""

    parkinsonian_tremor: Array
    essential_tremor: Array
    co_contraction: Array


def no_disorder(batch: int) -> Disorder:
    """A healthy drive."""
    return Disorder(*[np.zeros(batch, np.float32) for _ in Disorder._fields])  # type: ignore[arg-type]


def disordered(disorder: Disorder, excitation: Array, key: Array, time: Array) -> Array:
    """The excitations that reach the muscles.

    Rest tremor: bursts of 4-6 Hz, flexors and extensors in turn, fading with voluntary action; action tremor: each
    muscle's own excitation swings; co-contraction: the antagonists come along.

    Args: excitation: (B, 39), 0..1. key: (B,) uint32, `EmgState.key`: everybody has a frequency of his own. time:
    seconds, () or (B,).

    Returns: (B, 39), within 0..1; exactly the excitation where all strengths are 0.
    """
    side = jnp.asarray(_SIDE)
    flexors, extensors = jnp.maximum(side, 0.0), jnp.maximum(-side, 0.0)
    effort = (excitation * jnp.abs(side)).sum(1, keepdims=True) / jnp.abs(side).sum()
    calm = 1.0 / (1.0 + effort / PARKINSON_CALM)
    swing = jnp.sin(2 * jnp.pi * _phase(PARKINSON_HZ, key, time, 30))[:, None]
    burst = jnp.maximum(swing * side, 0.0) * PARKINSON_DRIVE * calm
    action = jnp.sin(2 * jnp.pi * _phase(ESSENTIAL_HZ, key, time, 32))[:, None] * ESSENTIAL_DEPTH * jnp.abs(side)
    mean_flexor = (excitation * flexors).sum(1, keepdims=True) / flexors.sum()
    mean_extensor = (excitation * extensors).sum(1, keepdims=True) / extensors.sum()
    along = STROKE_CO_CONTRACTION * (flexors * mean_extensor + extensors * mean_flexor)
    out = excitation * (1.0 + jnp.asarray(disorder.essential_tremor)[:, None] * action)
    out = out + jnp.asarray(disorder.parkinsonian_tremor)[:, None] * burst
    out = out + jnp.asarray(disorder.co_contraction)[:, None] * along
    return jnp.clip(out, 0.0, 1.0)


def _phase(band_hz: tuple[float, float], key: Array, time: Array, place: int) -> Array:
    """Cycles, (B,): a frequency within the band, in 60ths of a hertz so that a minute holds whole cycles."""
    low, high = (round(60 * hz) for hz in band_hz)
    hz = (low + jnp.floor(uniform(address(key, jnp.int32(place))) * (high - low + 1))) / 60.0
    return (jnp.asarray(time, jnp.float32) % 60.0) * hz + uniform(address(key, jnp.int32(place + 1)))


_SIDE = np.array(
    [0.0 if m not in FOREARM_MUSCLES else 1.0 if m in FLEXORS else -1.0 for m in MUSCLES], np.float32
)  # +1 flexor, -1 extensor, 0 intrinsic


def apply_conditions(params: EmgParams, conditions: Mapping[str, float]) -> EmgParams:
    """One person (not stacked) with conditions of the motor units, in the order given.

    Raises MyoloopError: unknown name (did you mean), strength outside 0..1.
    """
    for name, strength in conditions.items():
        if name not in PERSON_CONDITIONS:
            raise unknown_name("condition of the motor units", name, PERSON_CONDITIONS)
        check_strength(name, strength)
        params = PERSON_CONDITIONS[name](params, float(strength))
    return params


def ageing(params: EmgParams, strength: float) -> EmgParams:
    """Fewer units, those that remain larger (sprouting)."""
    lost = _lost(params, AGEING_LOSS * strength, 101)
    size = np.where(lost, 0.0, 1.0 + AGEING_GROWTH * strength).astype(np.float32)
    return _without(_remade(params, lambda rows: rows * size[:, None]), lost)


def als(params: EmgParams, strength: float) -> EmgParams:
    """Units are lost; neighbours take over many of their fibres (giant MUAPs); some units fire on their own."""
    lost = _lost(params, ALS_LOSS * strength, 102)
    rng = np.random.default_rng([params.config.seed, 103])
    adopted = lost & (rng.uniform(size=lost.size) < ALS_ADOPTED)
    home = np.asarray(params.coefficients)
    like_all = home / np.maximum(np.linalg.norm(home, axis=1, keepdims=True), 1e-12)
    muscle, size = np.asarray(params.muscle), np.asarray(params.twitches.peak, np.float64)
    share = sparse.lil_array((lost.size, lost.size), dtype=np.float32)  # of the fibres of a unit that another takes
    for m in range(len(FOREARM_MUSCLES)):
        alive, gone = np.nonzero(~lost & (muscle == m))[0], np.nonzero(adopted & (muscle == m))[0]
        room = ALS_MOST_ADOPTED * size[alive]
        like = like_all[gone] @ like_all[alive].T  # units side by side look alike at the electrodes
        for row, of in zip(like, gone, strict=True):
            left = size[of]
            for n in np.argsort(-row):
                taken = min(left, room[n])
                if taken > 0:
                    share[alive[n], of] = taken / size[of]
                    room[n] -= taken
                    left -= taken
                if left <= 0:
                    break
    takes = share.tocsr()

    def adopt(old: np.ndarray) -> np.ndarray:
        return np.where(lost[:, None], np.float32(0.0), old) + takes @ old

    twitching = ~lost & (rng.uniform(size=lost.size) < ALS_FASCICULATING * strength)
    hz = rng.uniform(*ALS_FASCICULATION_HZ, lost.size)
    idle = np.where(twitching, np.round(hz * TICKS / params.band.internal_rate_hz), 0)
    params = _without(_remade(params, adopt), lost)
    return params.replace(pool=params.pool._replace(idle_ticks=jnp.asarray(idle, jnp.int32)))  # type: ignore


def stroke(params: EmgParams, strength: float) -> EmgParams:
    """Lower peak rates and thresholds pressed together; `co_contraction` is its part during the run."""
    pool = params.pool
    threshold, muscle = np.asarray(pool.threshold), np.asarray(params.muscle)
    first = np.array([threshold[muscle == m].min(initial=NEVER) for m in range(len(FOREARM_MUSCLES))])[muscle]
    pressed = np.round(first + (threshold - first) * (1.0 - STROKE_COMPRESSION * strength))
    keep = 1.0 - STROKE_RATE_LOSS * strength
    peak = np.maximum(np.round(np.asarray(pool.peak_ticks) * keep), np.asarray(pool.min_ticks))
    gain = np.round(np.asarray(pool.gain) * keep)
    columns = (np.where(threshold >= NEVER, NEVER, pressed), gain, pool.min_ticks, peak, pool.idle_ticks)
    return params.replace(pool=type(pool)(*[jnp.asarray(c, jnp.int32) for c in columns]))  # type: ignore


PERSON_CONDITIONS: dict[str, Callable[[EmgParams, float], EmgParams]] = {"ageing": ageing, "als": als, "stroke": stroke}
"""Conditions of the motor units: functions of (params, strength)."""

assert tuple(PERSON_CONDITIONS) == PERSON and Disorder._fields == DRIVE


def set_condition(
    band: Armband,
    circumstances: Circumstances,
    disorder: Disorder,
    name: str,
    strength: float,
    moves: Moves | None = None,
    who: np.ndarray | None = None,
) -> tuple[Circumstances, Disorder]:
    """Both with one run-time condition changed for everybody, or for the participants `who` (numbers).

    Args: strength: 0..1; of rotation and displacement, the part of the way that `moves` (EmgParams.moves) allows.

    Raises MyoloopError: unknown name (did you mean), strength outside 0..1, rotation or displacement of a band that stays.
    """
    if name in PERSON:
        raise MyoloopError(
            f"{name} belongs to the person and cannot change during a run: give it before, as `conditions` of the "
            "participant or to apply_conditions."
        )
    known = [*RUN_CONDITIONS, *(f"lost_contact:{label}" for label in band.channel_labels)]
    if name not in known:
        raise unknown_name("condition", name, known)
    check_strength(name, strength)
    batch = int(np.shape(circumstances.mains_uv)[0])
    circumstances = completed(circumstances, batch)

    chosen = np.arange(batch) if who is None else who

    def set_to(value: float, before: Array) -> np.ndarray:
        now = np.array(before, np.float32)
        now[chosen] = value
        return now

    if name in Disorder._fields:
        changed = set_to(strength, getattr(disorder, name))
        return circumstances, disorder._replace(**{name: changed})  # type: ignore[arg-type]
    if name.startswith("lost_contact:"):
        contact = np.array(circumstances.contact)
        contact[chosen, band.channel_labels.index(name.split(":", 1)[1])] = 1.0 - strength
        return circumstances._replace(contact=contact), disorder  # type: ignore[arg-type]
    if name in MOVING and moves is None:
        raise stays(name)
    moves = moves or Moves()
    field, most = {
        "fatigue": ("fatigue", 1.0),
        "mains_hum": ("mains_uv", MAINS_UV),
        "motion_artefact": ("artefact_uv", ARTEFACT_UV),
        "ecg": ("ecg_uv", ECG_UV),
        "rotation": ("rotation_deg", moves.turn_deg),
        "displacement": ("displacement_mm", moves.wrist_mm),
    }[name]
    changed = set_to(most * strength, getattr(circumstances, field))
    return circumstances._replace(**{field: changed}), disorder  # type: ignore[arg-type]


def _lost(params: EmgParams, part: float, place: int) -> np.ndarray:
    """(U,) which units are lost: at most all but one of each muscle. More strength adds to the same units."""
    muscle = np.asarray(params.muscle)
    alive = np.asarray(params.pool.threshold) < NEVER
    order = np.random.default_rng([params.config.seed, place]).uniform(size=muscle.size)
    lost = ~alive
    for m in range(len(FOREARM_MUSCLES)):
        own = np.nonzero(alive & (muscle == m))[0]
        count = min(round(part * own.size), own.size - 1)
        lost[own[np.argsort(order[own])[: max(count, 0)]]] = True
    return lost


def _remade(params: EmgParams, change: Callable[[np.ndarray], np.ndarray]) -> EmgParams:
    """The person with other MUAPs and twitches, which go with the fibres: `change` makes float32 rows (U, D) of
    others, wherever the armband is."""
    rows = change(np.asarray(params.coefficients, np.float32))
    peak = change(np.asarray(params.twitches.peak, np.float32)[:, None])[:, 0]
    params = params.replace(twitches=params.twitches._replace(peak=jnp.asarray(peak)))  # type: ignore
    if params.moved is None:
        return params.replace(coefficients=jnp.asarray(rows))  # type: ignore
    moved = np.empty(params.moved.shape, np.float16)
    for n, table in enumerate(np.asarray(params.moved).view(np.float16)):
        flat = change(table.reshape(len(table), -1).astype(np.float32))
        moved[n] = flat.reshape(table.shape).clip(-65504, 65504)
    return params.replace(coefficients=jnp.asarray(rows), moved=jnp.asarray(moved.view(np.uint16)))  # type: ignore


def _without(params: EmgParams, lost: np.ndarray) -> EmgParams:
    """The person in which lost units never discharge."""
    threshold = np.where(lost, NEVER, np.asarray(params.pool.threshold))
    idle = np.where(lost, 0, np.asarray(params.pool.idle_ticks))
    pool = params.pool._replace(threshold=jnp.asarray(threshold, jnp.int32), idle_ticks=jnp.asarray(idle, jnp.int32))
    return params.replace(pool=pool)  # type: ignore
