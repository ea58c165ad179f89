"""The armband turned about and moved along the limb, also during a run: MUAPs are interpolated, not computed again.

A table holds the MUAPs' coefficients at places `SHIFT_STEP_MM` apart along the limb and, at each, at angles at most
`TURN_STEP_DEG` apart around it. Turning an armband by the distance of its channels brings the next channel's place, so
places around the limb serve several rotations: one rotation is a run of neighbouring places. Between the four nearest
placements coefficients are mixed bilinearly, for each muscle at its own displacement. At rest the exact coefficients are
read; a batch at rest does not look at the table at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from myoloop.emg.anatomy import FOREARM_LENGTH_MM
from myoloop.emg.armband import Armband
from myoloop.emg.conductor import Conductor
from myoloop.emg.muap_cylinder import watched
from myoloop.emg.store import stored
from myoloop.emg.units import Units
from myoloop.emg.volume_conductor import channel_key, muaps_at
from myoloop.errors import MyoloopError

TURN_STEP_DEG = 5.0  # at most: half-way between two, 2 % of the MUAPs are wrong (6 deg: 3 %)
SHIFT_STEP_MM = 2.5  # half-way between two, 2 % of the MUAPs are wrong (3 mm: 2.7 %, 4 mm: 4.8 %)
MOST_BYTES = 2**30
"""The largest table: more is refused."""

_RADIUS_MM = (
    42.0  # of the limb on which a grid's columns are counted as places, so that people of all sizes share a batch
)


@dataclass(frozen=True)
class Moves:
    """How far the armband may go from where it was put on."""

    turn_deg: float = 30.0
    """About the limb, either way, degrees."""
    elbow_mm: float = 10.0
    """Towards the elbow, mm (muscles that lengthen need it too: their sources move the other way)."""
    wrist_mm: float = 20.0
    """Towards the wrist, mm."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, most = getattr(self, field.name), 180.0 if field.name == "turn_deg" else 100.0
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= most:
                raise MyoloopError(f"Moves: {field.name} is {value!r}; expected 0 to {most:g}.")

    @property
    def home(self) -> int:
        """Which of the places along the limb is the band's own."""
        return math.ceil(self.elbow_mm / SHIFT_STEP_MM)

    @property
    def shifts_mm(self) -> tuple[float, ...]:
        """Places along the limb, mm towards the wrist."""
        count = max(self.home + math.ceil(self.wrist_mm / SHIFT_STEP_MM), 1)
        return tuple(SHIFT_STEP_MM * (n - self.home) for n in range(count + 1))


class Ring(NamedTuple):
    """Places around the limb: `columns + 2 margin` of them, `phases` times."""

    phases: int
    """Rotations between one channel's place and the next one's."""
    margin: int
    """Places before the first channel and after the last."""
    step_deg: float
    """Between two rotations."""


def ring(band: Armband, moves: Moves) -> Ring:
    """Places that the armband's channels reach when it turns."""
    common = math.degrees(band.column_spacing_mm / _RADIUS_MM) or 360.0 / band.columns
    own = math.degrees(band.column_spacing_mm / band.radius_mm) or 360.0 / band.columns
    phases = max(1, math.ceil(common / TURN_STEP_DEG - 1e-9))
    return Ring(phases, math.ceil(moves.turn_deg / common - 1e-9), own / phases)


def moved_table(units: Units, band: Armband, conductor: Conductor, moves: Moves, shapes: np.ndarray) -> np.ndarray:
    """Coefficients of the MUAP shapes (L, R) at every placement: (K, U, rows, places * R) float16 microvolts.

    K counts places along the limb times phases. Half precision: 0.05 % of a coefficient. Cached by content.

    Raises MyoloopError: a placement beyond elbow or wrist, or a table of more than MOST_BYTES.
    """
    phases, margin, step = ring(band, moves)
    places, rank = band.columns + 2 * margin, shapes.shape[1]
    shifts = moves.shifts_mm
    shape = (len(shifts), phases, units.velocity.size, band.rows, places, rank)
    if 2 * math.prod(shape) > MOST_BYTES:
        raise MyoloopError(
            f"A movable '{band.name}' needs {2e-6 * math.prod(shape):.0f} MB of MUAPs; the most is "
            f"{1e-6 * MOST_BYTES:.0f} MB. Lower units_scale in EmgConfig, or let it move less (Moves)."
        )
    for shift in (shifts[0], shifts[-1]):
        if not 0.0 <= band.level + shift / FOREARM_LENGTH_MM <= 1.0:
            raise MyoloopError(
                f"armband '{band.name}' at level {band.level:g} cannot move by {shift:g} mm: the forearm ends at "
                f"{0 if shift < 0 else FOREARM_LENGTH_MM:g} of {FOREARM_LENGTH_MM:g} mm. Let it move less (Moves)."
            )
    angles = band.first_angle_deg + step * (np.arange(phases)[:, None] + phases * (np.arange(places) - margin))

    def make() -> dict[str, np.ndarray]:
        table = np.empty(shape, np.float16)
        for n, shift in watched(list(enumerate(shifts)), "MUAPs of a movable armband"):
            wave = muaps_at(units, band, angles.ravel().tolist(), shift, conductor)
            length = min(wave.shape[2], shapes.shape[0])
            rows = wave[:, :, :length] @ shapes[:length]
            rows = rows.reshape(len(rows), band.rows, phases, places, rank)
            table[n] = np.moveaxis(rows, 2, 0).clip(-65504, 65504)
        return {"table": table.reshape(len(shifts) * phases, units.velocity.size, band.rows, -1)}

    key = (conductor, channel_key(band), band.level, band.rows, band.row_spacing_mm, moves, angles, shapes, *units)
    return stored("moved", (band.internal_rate_hz, *key), make)["table"]


class Placement(NamedTuple):
    """Between which placements everybody's muscles are seen."""

    phase: Array
    """(B, 2) int32, of the rotation before and the one behind."""
    column: Array
    """(B, 2) int32, place of channel 1 at these."""
    turned: Array
    """(B,) how far on from the one to the other, 0..1."""
    shift: Array
    """(B, M) int32, the place along the limb before."""
    shifted: Array
    """(B, M) how far on towards the next, 0..1."""
    home: Array
    """(B, M) bool: exactly where it was put on."""


def locate(moves: Moves, around: Ring, step_deg: Array, rotation_deg: Array, shift_mm: Array) -> Placement:
    """Placements around these rotations (B,), degrees towards volar, and displacements (B, M), mm towards the wrist; both
    are held to `moves`, NaN is 0. step_deg: () or (B,), of each person's own ring. Pure JAX."""
    phases, margin, _ = around
    rotation_deg, shift_mm = jnp.nan_to_num(rotation_deg), jnp.nan_to_num(shift_mm)
    turns = phases * margin
    place = jnp.clip(rotation_deg, -moves.turn_deg, moves.turn_deg) / step_deg
    place = jnp.clip(place, -turns, turns)
    low = jnp.clip(jnp.floor(place).astype(jnp.int32), -turns, turns - 1) if turns else jnp.zeros_like(place, jnp.int32)
    both = jnp.stack([low, low + (1 if turns else 0)], axis=-1)
    last = len(moves.shifts_mm) - 1
    along = jnp.clip(shift_mm, -moves.elbow_mm, moves.wrist_mm) / SHIFT_STEP_MM + moves.home
    before = jnp.clip(jnp.floor(along).astype(jnp.int32), 0, last - 1)
    return Placement(
        phase=both % phases,
        column=both // phases + margin,
        turned=place - low,
        shift=before,
        shifted=along - before,
        home=(rotation_deg[:, None] == 0.0) & (shift_mm == 0.0),
    )


def rows_between(
    table: Array, home: Array, muscle: Array, placement: Placement, phases: int, channels: int
) -> Callable[[Array, Array], Array]:
    """For add_rows: the rows of coefficients of units where the armband now is.

    Args: table (K, U, rows, places*R) or (B, K, ...) uint16, the bits of float16: XLA on a CPU would turn a whole table of
    float16 into float32 each time. home (U, C*R) or (B, U, C*R): exact rows at rest. muscle (U,).
    """
    stacked = home.ndim == 3
    knots, units = table.shape[-4], table.shape[-3]
    depth = home.shape[-1]
    rows, rank = table.shape[-2], depth // channels
    flat, exact = table.reshape(-1, *table.shape[-2:]), home.reshape(-1, depth)

    def read(row: Array, column: Array) -> Array:
        return jax.lax.dynamic_slice(flat, (row, jnp.int32(0), column), (1, rows, depth // rows))

    def rows_of(participant: Array, unit: Array) -> Array:
        own = muscle[unit]
        person = participant if stacked else jnp.zeros_like(participant)
        total: Array | float = 0.0
        for s in (0, 1):
            knot = placement.shift[participant, own] + s
            along = placement.shifted[participant, own]
            for t in (0, 1):
                around = placement.turned[participant]
                share = (along if s else 1.0 - along) * (around if t else 1.0 - around)
                row = ((person * knots) + knot * phases + placement.phase[participant, t]) * units + unit
                found = jax.vmap(read)(row, placement.column[participant, t] * rank)
                found = jax.lax.bitcast_convert_type(found.reshape(-1, depth), jnp.float16)
                total = total + share[:, None] * found.astype(jnp.float32)
        return jnp.where(placement.home[participant, own][:, None], exact[person * units + unit], total)

    return rows_of
