"""MUAPs at an armband's electrodes, through the volume conductor that the settings name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from myoloop.emg.anatomy import FOREARM_LENGTH_MM
from myoloop.emg.armband import MONTAGES, Armband
from myoloop.emg.conductor import Conductor
from myoloop.emg.cylinder import Field, tabulate
from myoloop.emg.half_space import half_space_muaps
from myoloop.emg.muap_cylinder import cylinder_muaps
from myoloop.emg.source import FIR_HALF
from myoloop.emg.store import stored
from myoloop.emg.units import Units, place_units
from myoloop.errors import MyoloopError

__all__ = ["Muaps", "Units", "compute_muaps", "muaps_at", "place_units"]


class Muaps(NamedTuple):
    """Potentials of every unit at every channel, or at every place of the ring (row by row)."""

    waveform: np.ndarray
    """(U, C, L) float32, microvolts, at the internal rate, from the discharge on; delayed by `delay` samples."""
    delay: int
    """Samples that the anti-alias filter adds before the end plate's first effect."""


def compute_muaps(units: Units, band: Armband, conductor: Conductor | None = None) -> Muaps:
    """MUAPs of all units at all channels of the armband: a few seconds for 3,700 units and 16 channels, cached."""
    return _muaps(units, band, conductor or Conductor(), band.angles_deg[: band.columns])


def muaps_at(
    units: Units, band: Armband, angles_deg: Sequence[float], shift_mm: float, conductor: Conductor
) -> np.ndarray:
    """MUAPs with channels at other angles and the band moved towards the wrist: (U, rows * angles, L), row by row, not cached.

    Raises MyoloopError for a place beyond elbow or wrist, or a fibre outside the limb's muscle.
    """
    _check(units, band, conductor)
    level = band.level + shift_mm / FOREARM_LENGTH_MM
    return _waveform(units, dataclasses.replace(band, level=level), conductor, tuple(angles_deg), watched=False)


def field_of(units: Units, band: Armband, conductor: Conductor) -> Field:
    """The layered cylinder's field for these fibres and this armband, from the cache when it was made before."""
    radius = conductor.limb_radius(band.radius_mm)
    height = np.hypot(units.x, units.y)
    rows = _rows_mm(band)
    near = float((units.end_plate - units.proximal).min()) - rows[-1]
    far = float((units.end_plate + units.distal).max()) - rows[0]
    # Rounded, so that different people of one build share a table.
    reach = 25.0 * math.ceil((max(-near, far) + 5.0) / 25.0)
    shallow = max(0.5, math.floor(2 * (radius - float(height.max()))) / 2)
    deep = math.ceil(radius - float(height.min()))
    key = (conductor, channel_key(band), shallow, deep, reach)
    made = stored("field", key, lambda: tabulate(band, conductor, shallow, deep, reach)._asdict())
    return Field(made["depths"], made["angular"], made["along"], float(made["z0"]), float(made["radius"]))


def electrode_positions(
    band: Armband, radius_mm: float, angles_deg: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (C, M, 3) mm (x, y, along the forearm) and weights (C, M) of the electrodes at every row and angle."""
    angles = np.deg2rad(np.asarray(angles_deg))
    montage = MONTAGES[band.montage]
    places = np.array([place * band.spacing_mm for place, _ in montage])
    positions = np.zeros((band.rows, angles.size, len(montage), 3))
    positions[..., 0] = radius_mm * np.cos(angles)[None, :, None]
    positions[..., 1] = radius_mm * np.sin(angles)[None, :, None]
    positions[..., 2] = np.array(_rows_mm(band))[:, None, None] + places
    count = band.rows * angles.size
    return positions.reshape(count, len(montage), 3), np.tile([weight for _, weight in montage], (count, 1))


def _rows_mm(band: Armband) -> list[float]:
    """Place of each row along the forearm, from the elbow."""
    middle = (band.rows - 1) / 2
    return [band.level * FOREARM_LENGTH_MM + (row - middle) * band.row_spacing_mm for row in range(band.rows)]


def _muaps(units: Units, band: Armband, conductor: Conductor, angles_deg: tuple[float, ...]) -> Muaps:
    _check(units, band, conductor)

    def make() -> dict[str, np.ndarray]:
        return {"waveform": _waveform(units, band, conductor, angles_deg)}

    if conductor.kind == "half_space":
        waveform = make()["waveform"]
    else:
        key = (conductor, channel_key(band), _rows_mm(band), angles_deg, band.internal_rate_hz, *units)
        waveform = stored("muaps", key, make)["waveform"]
    peak = np.abs(waveform).max(axis=(0, 1))
    used = int(np.nonzero(peak > 1e-4 * peak.max())[0][-1]) + 1
    return Muaps(np.ascontiguousarray(waveform[:, :, :used]), FIR_HALF)


def _waveform(
    units: Units, band: Armband, conductor: Conductor, angles_deg: tuple[float, ...], watched: bool = True
) -> np.ndarray:
    """MUAPs (U, rows * angles, L), to the end of the longest fibre."""
    rate = band.internal_rate_hz
    if conductor.kind == "half_space":
        electrodes = electrode_positions(band, conductor.limb_radius(band.radius_mm), angles_deg)
        return half_space_muaps(units, *electrodes, conductor, rate)
    return cylinder_muaps(units, field_of(units, band, conductor), angles_deg, _rows_mm(band), rate, watched)


def channel_key(band: Armband) -> tuple[object, ...]:
    """All that a channel's field depends on."""
    return (band.montage, band.spacing_mm, band.electrode_mm, band.electrode_shape, band.radius_mm)


def _check(units: Units, band: Armband, conductor: Conductor) -> None:
    """Every fibre lies in the muscle of the limb."""
    height = np.hypot(units.x, units.y)
    outer, inner = conductor.muscle_radius(band.radius_mm), conductor.bone_mm
    for found, wrong in ((height.max(), height.max() > outer), (height.min(), height.min() < inner)):
        if wrong:
            raise MyoloopError(
                f"A muscle fibre lies {found:.1f} mm from the axis of the limb; its muscle reaches from {inner:g} to "
                f"{outer:.1f} mm (radius {band.radius_mm:g} mm less standard skin and fat; bone {conductor.bone_mm:g} "
                "mm). Change radius_mm of the armband or bone_mm of the conductor."
            )
