"""One person wearing one armband, as arrays: built offline, stacked to put different people side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg import motor_units
from myoloop.emg.armband import Armband
from myoloop.emg.config import EmgConfig
from myoloop.emg.lowrank import decompose, stretch, toeplitz
from myoloop.emg.motor_units import DRIVE_HOLD
from myoloop.emg.placement import Moves, moved_table, ring
from myoloop.emg.rate_laws import NEVER, PoolParams
from myoloop.emg.twitches import Twitches, build_twitches
from myoloop.emg.volume_conductor import compute_muaps, place_units
from myoloop.errors import MyoloopError

MAINS_SPREAD = 0.5  # channels pick up mains differently, by this part up or down (unequal impedances; estimate)
FATIGUE_STRETCH = 115.0 / 60.0  # MUAPs last so much longer when the mean frequency has fallen from 115 to 60 Hz
STRETCH_STEP = (FATIGUE_STRETCH - 1.0) / 22  # shapes between two are interpolated
REST_STRETCH = 4  # which of the stretches is 1: those before it are for fibres that have shortened
STRETCHES = tuple((1.0 + STRETCH_STEP * (np.arange(27) - REST_STRETCH)).tolist())
_PLACEMENT = ("radius_mm", "level", "first_angle_deg")  # fields of Armband in which people of a batch may differ
_SHARED = (
    "law",
    "isi_cov",
    "isi_cov_onset",
    "refractory_ms",
    "doublet_probability",
    "common_drive_cov",
    "mains_hz",
    "peak_rate_first_hz",
)  # fields of EmgConfig in which they may not: the step reads them


@flax.struct.dataclass
class EmgParams:
    """One person wearing one armband. Arrays may carry a leading axis B: several people (`stack_params`)."""

    pool: PoolParams
    """Recruitment and rates, (U,) each."""
    coefficients: Array
    """(U, C*R) microvolts: how much of each MUAP shape a unit shows on each channel."""
    shapes: Array
    """(DRIVE_HOLD*R, DRIVE_HOLD+L-1): the shapes, shifted to each sample of a block."""
    stretched: Array
    """(F, R, L'): the shapes as they are when they last STRETCHES times as long."""
    mains_gain: Array
    """(C,) pick-up of mains hum, about 1."""
    muscle: Array
    """(U,) int32, index of each unit's muscle in FOREARM_MUSCLES; the same for all people of a batch."""
    number: Array
    """(U,) int32, each unit's place among the person's own: by it its randomness is drawn, alone and in a batch alike."""
    seed: Array
    """() uint32, the person's: `config.seed`."""
    twitches: Twitches
    """Twitches of the units, and the force of the healthy pool (force.py)."""
    lowrank_error: Array
    """(), RMS error of the shared shapes over the RMS of the signal."""
    moved: Array | None
    """(K, U, rows, places*R): coefficients where a movable armband may be, the bits of float16 (placement.py); None: it
    stays."""
    turn_step_deg: Array
    """() degrees between the rotations of `moved`."""
    band: Armband = flax.struct.field(pytree_node=False)
    config: EmgConfig = flax.struct.field(pytree_node=False)
    muap_delay: int = flax.struct.field(pytree_node=False)
    """Internal samples between a discharge and the first effect of its MUAP (anti-alias filter)."""
    moves: Moves | None = flax.struct.field(pytree_node=False, default=None)
    """How far the armband may move during a run; None: it stays."""

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
        """Samples by which a MUAP may outlast the sample of its discharge."""
        return int(self.stretched.shape[-1]) - 1

    @property
    def stacked(self) -> bool:
        """Different people side by side."""
        return bool(self.coefficients.ndim == 3)


def build_emg(band: Armband, config: EmgConfig | None = None, moves: Moves | None = None) -> EmgParams:
    """Builds one person's units and their MUAPs at the armband: offline, a few seconds.

    Args: moves: how far `Circumstances` may turn and move the armband during a run; None: it stays where it is. `Moves()`
    takes half a minute the first time, 0.1 GB for 16 channels, and more work per discharge while it is off its place.
    """
    config = config or EmgConfig()
    pool = motor_units.build_pool(config)
    units = place_units(pool, config, band.radius_mm)
    muaps = compute_muaps(units, band, config.conductor)
    low = decompose(muaps.waveform, config.lowrank_error)
    moved = moved_table(units, band, config.conductor, moves, low.shapes) if moves else None
    gain = 1.0 + MAINS_SPREAD * np.random.default_rng([config.seed, 50]).uniform(-1, 1, band.channels)
    return EmgParams(
        pool=motor_units.pool_params(pool, band.internal_rate_hz),
        coefficients=jnp.asarray(low.coefficients),
        shapes=jnp.asarray(toeplitz(low.shapes, DRIVE_HOLD)),
        stretched=jnp.asarray(stretch(low.shapes, STRETCHES, muaps.delay)),
        mains_gain=jnp.asarray(gain, jnp.float32),
        band=band,
        config=config,
        muscle=jnp.asarray(pool.muscle, jnp.int32),
        number=jnp.arange(len(pool.muscle), dtype=jnp.int32),
        seed=jnp.uint32(config.seed & 0xFFFFFFFF),
        twitches=jax.tree.map(jnp.asarray, build_twitches(pool, config)),
        lowrank_error=jnp.float32(low.error),
        moved=None if moved is None else jnp.asarray(moved.view(np.uint16)),
        turn_step_deg=jnp.float32(ring(band, moves).step_deg if moves else 0.0),
        muap_delay=muaps.delay,
        moves=moves,
    )


def stretch_place(stretch: Array) -> tuple[Array, Array]:
    """Index into STRETCHES of the one before `stretch` and how far it is on towards the next; held to their range."""
    place = jnp.clip((stretch - 1.0) / STRETCH_STEP + REST_STRETCH, 0.0, len(STRETCHES) - 1.0)
    low = jnp.minimum(place.astype(jnp.int32), len(STRETCHES) - 2)
    return low, place - low


def stack_params(people: Sequence[EmgParams]) -> EmgParams:
    """Different people side by side in one batch: same armband model, own units.

    Where they differ in the number of units of a muscle, the smaller pools are filled up with units that never discharge.
    """
    first = people[0]
    for other in people[1:]:
        same_device = dataclasses.replace(other.band, **{n: getattr(first.band, n) for n in _PLACEMENT}) == first.band
        if not same_device or other.muap_delay != first.muap_delay:
            raise MyoloopError(
                "People of one batch need the same armband model; these differ in more than its placement."
            )
        if other.moves != first.moves:
            raise MyoloopError("People of one batch need armbands that move alike: build all with the same `moves`.")
        differ = [n for n in _SHARED if getattr(other.config, n) != getattr(first.config, n)]
        if differ:
            raise MyoloopError(f"People of one batch need the same {', '.join(differ)} in EmgConfig; these differ.")
    counts = np.max([np.bincount(np.asarray(p.muscle), minlength=len(FOREARM_MUSCLES)) for p in people], axis=0)
    rank = max(p.rank for p in people)
    length = max(int(p.shapes.shape[-1]) for p in people)
    longest = max(int(p.stretched.shape[-1]) for p in people)
    same = [_widen(p, counts, rank, length, longest) for p in people]
    same = [p.replace(config=first.config, band=first.band) for p in same]  # type: ignore[attr-defined]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *same)
    return stacked.replace(muscle=same[0].muscle)  # type: ignore[no-any-return]


def _widen(params: EmgParams, counts: np.ndarray, rank: int, length: int, longest: int) -> EmgParams:
    """The same person with silent units, zero shapes and zero samples added, so that different people stack."""
    have, muscle = params.rank, np.asarray(params.muscle)
    order = np.concatenate([_padded(np.nonzero(muscle == m)[0], n) for m, n in enumerate(counts)])
    real = order >= 0

    def wider(rows: np.ndarray) -> np.ndarray:
        """(..., U, N*R) with the units in order and R widened to `rank`."""
        rows = rows[..., order, :] * real[:, None].astype(rows.dtype)
        rows = rows.reshape(*rows.shape[:-1], -1, have)
        return np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, rank - have)]).reshape(*rows.shape[:-2], -1)

    moved = None
    if params.moved is not None:  # rows of channels are stacked like channels
        table = np.asarray(params.moved)
        flat = wider(table.reshape(*table.shape[:2], -1))
        moved = jnp.asarray(flat.reshape(*flat.shape[:2], table.shape[2], -1))
    columns = [np.where(real, np.asarray(column)[order], 0) for column in params.pool]
    columns[0] = np.where(real, columns[0], NEVER)
    peak, time_s = (np.asarray(x)[order] for x in params.twitches[:2])
    twitches = Twitches(jnp.asarray(peak * real), jnp.asarray(time_s), params.twitches.curve)
    shifted = np.asarray(params.shapes).reshape(DRIVE_HOLD, have, -1)
    shifted = np.pad(shifted, ((0, 0), (0, rank - have), (0, length - shifted.shape[-1])))
    stretched = np.asarray(params.stretched)
    stretched = np.pad(stretched, ((0, 0), (0, rank - have), (0, longest - stretched.shape[-1])))
    return params.replace(  # type: ignore[attr-defined,no-any-return]
        pool=PoolParams(*[jnp.asarray(column, jnp.int32) for column in columns]),
        coefficients=jnp.asarray(wider(np.asarray(params.coefficients))),
        moved=moved,
        shapes=jnp.asarray(shifted.reshape(DRIVE_HOLD * rank, -1)),
        stretched=jnp.asarray(stretched),
        muscle=jnp.asarray(np.repeat(np.arange(counts.size), counts), jnp.int32),
        number=jnp.asarray(np.where(real, np.asarray(params.number)[order], -1), jnp.int32),
        twitches=twitches,
    )


def _padded(units: np.ndarray, count: int) -> np.ndarray:
    """Unit indices filled up to `count` with -1."""
    return np.pad(units, (0, count - units.size), constant_values=-1)
