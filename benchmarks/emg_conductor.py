"""The volume conductor against published experiments, and what its numbers hang on. Used by emg_realism.py.

All of it follows from MUAPs alone: no discharges, so no chance. Energies add up over units, as those of independent
discharges do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import signal

from myoloop.emg.anatomy import FOREARM_LENGTH_MM, MUSCLE_TABLE
from myoloop.emg.armband import Armband, armband
from myoloop.emg.conductor import STANDARD_COVER_MM, Conductor
from myoloop.emg.config import EmgConfig
from myoloop.emg.motor_units import build_pool, rates
from myoloop.emg.units import Units, place_units
from myoloop.emg.volume_conductor import compute_muaps, muaps_at

LEVEL = 0.5  # of the limb's length: where the band of a model limb sits
BICEPS_FIBRE_MM = 120.0  # from memory; forearm muscles: 23-76 mm


class Row(NamedTuple):
    """One target."""

    target: str
    value: float
    low: float
    high: float
    source: str


def fibres(
    height: np.ndarray, angle: np.ndarray, end_plate: np.ndarray | float = -30.0, half_mm: float = 60.0
) -> Units:
    """Units of one fibre each, `height` mm from the limb's axis; end plates relative to the band."""
    height, angle, end_plate = np.broadcast_arrays(np.atleast_1d(height), angle, end_plate)
    column = np.ones((height.size, 1))
    return Units(
        x=(height * np.cos(angle))[:, None],
        y=(height * np.sin(angle))[:, None],
        end_plate=(LEVEL * FOREARM_LENGTH_MM + end_plate)[:, None] * column,
        proximal=half_mm * column,
        distal=half_mm * column,
        velocity=4.0 * np.ones(height.size),
        fibres=np.full(height.size, 100.0),
    )


def channel(**fields: object) -> Armband:
    """One bipolar channel on a model limb."""
    return armband("semg_rd16", channels=1, level=LEVEL, **fields)


def energy(units: Units, band: Armband, conductor: Conductor, angles_deg: Sequence[float] = (0.0,)) -> np.ndarray:
    """(units, angles): sum of squares of every MUAP."""
    return np.square(muaps_at(units, band, angles_deg, 0.0, conductor).astype(float)).sum(axis=2)


def upper_arm(top_mm: float = 1.75, bottom_mm: float = 14.0, half_mm: float = 60.0) -> Units:
    """An active muscle of +-20 degrees whose fibres lie that far under the surface of the muscle (radius 47 mm)."""
    heights = np.arange(47.0 - bottom_mm, 47.0 - top_mm + 0.1)
    height, angle = np.meshgrid(heights, np.deg2rad(np.arange(-19.0, 20.0, 2.0)))
    return fibres(height.ravel(), angle.ravel(), half_mm=half_mm)


def fat_change(units: Units, fat_mm: Sequence[float] = (3.0, 9.0, 18.0), **tissue: float) -> list[float]:
    """RMS over the middle of the muscle with this much fat, % of change against none."""
    band = channel(radius_mm=47.0 + STANDARD_COVER_MM)
    rms = [np.sqrt(energy(units, band, Conductor(fat_mm=fat, **tissue)).sum()) for fat in (0.0, *fat_mm)]  # type: ignore
    return [float(100 * (value / rms[0] - 1)) for value in rms[1:]]


def reach_deg(units: Units, fat_mm: float) -> float:
    """Degrees beside the muscle's edge where RMS falls below 5 % of that over its middle; 90: nowhere."""
    beside = np.arange(20.0, 110.0, 2.0)
    band = channel(radius_mm=47.0 + STANDARD_COVER_MM)
    rms = np.sqrt(energy(units, band, Conductor(fat_mm=fat_mm), (0.0, *beside)).sum(axis=0))
    below = rms[1:] < 0.05 * rms[0]
    return float(beside[np.argmax(below)] - 20.0) if below.any() else 90.0


def kuiken_rows() -> list[Row]:
    """An upper arm as theirs. Bounds: published values +-15 points and +-5 degrees."""
    units = upper_arm()
    rows = [
        Row(
            f"upper arm: RMS change by {fat:g} mm of fat (%)",
            value,
            want - 15,
            min(want + 15, 0.0),
            "Kuiken et al. 2003",
        )
        for fat, value, want in zip((3.0, 9.0, 18.0), fat_change(units), (-31.3, -80.2, -90.0), strict=True)
    ]
    for fat, want in ((0.0, 14.0), (3.0, 17.0), (9.0, 34.0), (18.0, 47.0)):
        target = f"upper arm: 5 % of RMS reached beside the muscle, {fat:g} mm of fat (degrees)"
        rows.append(Row(target, reach_deg(units, fat), want - 5, want + 5, "Kuiken et al. 2003"))
    return rows


def fibres_all_over() -> Units:
    """600 fibres of 60 mm evenly all over the muscle of a forearm."""
    rng = np.random.default_rng(1)
    height = np.maximum(37.4 * np.sqrt(rng.uniform(0, 1, 600)), 9.0)  # outside any bone of the table
    return fibres(height, rng.uniform(-np.pi, np.pi, 600), rng.uniform(-60, 60, 600), half_mm=30.0)


def held_within(radius_mm: float, montage: str, conductor: Conductor) -> float:
    """Part of a channel's energy that comes from fibres this near to the electrodes."""
    units = fibres_all_over()
    share = energy(units, channel(montage=montage), conductor)[:, 0]
    near = np.hypot(units.x[:, 0] - channel().radius_mm, units.y[:, 0]) < radius_mm
    return float(share[near].sum() / share.sum())


def pick_up_rows() -> list[Row]:
    """At least 90 % of the energy from within 15-25 mm, for both montages and both skins."""
    source = "pick-up of 15-25 mm (author not traced)"
    return [
        Row(f"energy from within 25 mm, {montage}, skin {skin:g} S/m (part)",
            held_within(25.0, montage, Conductor(skin=skin)), 0.9, 1.0, source)
        for montage in ("bipolar", "monopolar") for skin in (4.9e-4, 1.0)
    ]  # fmt: skip


class Spectrum(NamedTuple):
    """Of all muscles of the forearm at half of their excitation, median over channels."""

    mean_hz: float
    median_hz: float
    rms: float
    """Arbitrary unit."""


def forearm(band: Armband | None = None, config: EmgConfig | None = None, fibre_mm: float = 0.0) -> Spectrum:
    """Spectrum of the MUAPs of a person, each counted at its unit's rate, after the amplifier's filter.

    Args: fibre_mm: length of all fibres; 0: their own.
    """
    band, config = band or armband("semg_rd16"), config or EmgConfig()
    pool = build_pool(config)
    units = place_units(pool, config, band.radius_mm)
    if fibre_mm:
        own = np.array([muscle.fibre_mm for muscle in MUSCLE_TABLE.values()])[pool.muscle][:, None]
        units = units._replace(proximal=units.proximal * fibre_mm / own, distal=units.distal * fibre_mm / own)
    waves, weight = compute_muaps(units, band, config.conductor).waveform, np.asarray(rates(pool, 0.5), float)
    hertz = np.fft.rfftfreq(4096, 1.0 / band.internal_rate_hz)
    power = np.zeros((band.channels, hertz.size))
    for first in range(0, len(waves), 256):
        part = slice(first, first + 256)
        power += (weight[part, None, None] * np.abs(np.fft.rfft(waves[part], 4096, axis=2)) ** 2).sum(axis=0)
    edges = signal.butter(band.order, [band.low_hz, band.high_hz], "bandpass", fs=band.internal_rate_hz, output="sos")
    power *= np.abs(signal.sosfreqz(edges, hertz, fs=band.internal_rate_hz)[1]) ** 2
    share = np.cumsum(power, axis=1) / power.sum(axis=1, keepdims=True)
    mean = (hertz * power).sum(axis=1) / power.sum(axis=1)
    middle = hertz[(share >= 0.5).argmax(axis=1)]
    return Spectrum(float(np.median(mean)), float(np.median(middle)), float(np.median(np.sqrt(power.sum(axis=1)))))


def frequency_rows() -> list[Row]:
    """The forearm with its own fibres and with the biceps', for which most spectra are published."""
    long = forearm(fibre_mm=BICEPS_FIBRE_MM)
    four = "Krivickas et al. 1998: 85 +- 18 (triceps) to 116 +- 20 Hz (tibialis anterior)"
    return [
        Row("median frequency at 50 % (Hz), own fibres", forearm().median_hz, 67, 136, four),
        Row(f"median frequency at 50 % (Hz), fibres of {BICEPS_FIBRE_MM:g} mm", long.median_hz, 72, 108,
            "Krivickas et al. 1998: biceps 90 +- 18 Hz"),
        Row(f"mean power frequency at 50 % (Hz), fibres of {BICEPS_FIBRE_MM:g} mm", long.mean_hz, 95, 135,
            "biceps, 50 % MVC, 115 +- 20 Hz (author not traced)"),
    ]  # fmt: skip


def reasons() -> dict[str, str]:
    """Why rows lie outside: each reason tested, with its number; by how the row's target begins."""
    depths = {top: fat_change(upper_arm(top, top + 8.0), (9.0,))[0] for top in (1.0, 4.0, 7.0)}
    deep = ", ".join(f"{change:.0f} % {top:g} mm" for top, change in depths.items())
    band = armband("semg_rd16")
    longer = forearm(fibre_mm=BICEPS_FIBRE_MM)
    long = longer.mean_hz
    slow = forearm(config=EmgConfig(velocity_mean=3.7)).mean_hz
    narrow = forearm(dataclasses.replace(band, high_hz=450.0)).mean_hz
    fatter = forearm(config=EmgConfig(conductor=Conductor(fat_mm=6.0))).mean_hz
    wider, nearer = (forearm(dataclasses.replace(band, spacing_mm=mm)).mean_hz for mm in (30.0, 10.0))
    endless = reach_deg(upper_arm(half_mm=200.0), 18.0)
    wet = held_within(45.0, "monopolar", Conductor(skin=1.0))
    return {
        "median frequency at 50 % (Hz)": "The range is the usual one of all muscles together. Short fibres again: with "
        f"fibres of {BICEPS_FIBRE_MM:g} mm ours is {longer.median_hz:.0f} Hz. The range of four limb muscles (below) holds it.",
        "mean power frequency at 50 % (Hz), own": "The published value is of biceps, and its long fibres explain it: with "
        f"fibres of {BICEPS_FIBRE_MM:g} mm in place of the forearm's 23-76 mm ours is {long:.0f} Hz, because ends and end "
        f"plates are then farther from the electrodes. Less so: conduction at 3.7 in place of 4.0 m/s gives {slow:.0f}, an "
        f"upper edge of 450 Hz {narrow:.0f}, 6 mm of fat {fatter:.0f}, electrodes 30 or 10 mm apart {wider:.0f} or "
        f"{nearer:.0f} Hz.",
        "forearm: RMS change by": "Fat takes most from what lies right under it. In the upper arm 9 mm of fat change RMS "
        f"by {deep} under the muscle's surface; EDC lies 4 to 11 mm under it. In an upper arm like theirs ours is inside "
        "(above).",
        "upper arm: 5 % of RMS reached beside the muscle, 18": "The ends of the fibres: with fibres of 400 mm, whose ends "
        f"are out of reach, it is {endless:.0f} degrees.",
        "energy from within 25 mm, monopolar, skin 1": "A skin that conducts well carries far potentials to a single "
        f"electrode, whose reference is far away: 45 mm hold {100 * wet:.0f} %. Two electrodes subtract them.",
    }


def sensitivity() -> str:
    """Markdown table: what a tissue changes."""
    kinds: list[tuple[str, dict[str, float]]] = [
        ("default", {}),
        ("skin 0.01 S/m", {"skin": 0.01}),
        ("skin 0.1 S/m", {"skin": 0.1}),
        ("skin 1.0 S/m", {"skin": 1.0}),
        ("fat 0.02 S/m", {"fat": 0.02}),
        ("fat 0.08 S/m", {"fat": 0.08}),
        ("muscle across 0.06 S/m", {"muscle_radial": 0.06}),
        ("muscle across 0.135 S/m", {"muscle_radial": 0.135}),
        ("muscle along 0.25 S/m", {"muscle_axial": 0.25}),
        ("muscle along 0.6 S/m", {"muscle_axial": 0.6}),
        ("muscle 0.13 across, 0.56 along (Kangasmaa et al. 2025)", {"muscle_radial": 0.13, "muscle_axial": 0.56}),
        ("bone of 8 mm radius", {"bone_mm": 8.0}),
    ]
    lines = [
        "| tissue | RMS | median frequency | within 25 mm, bipolar / monopolar | 9 mm of fat, upper arm |",
        "|---|---|---|---|---|",
    ]
    base = 0.0
    for name, tissue in kinds:
        conductor = Conductor(**tissue)  # type: ignore[arg-type]
        found = forearm(config=EmgConfig(conductor=conductor))
        base = base or found.rms
        two, one = (100 * held_within(25.0, montage, conductor) for montage in ("bipolar", "monopolar"))
        fat = fat_change(upper_arm(), (9.0,), **tissue)[0]
        cells = (
            f"{100 * (found.rms / base - 1):+.0f} %",
            f"{found.median_hz:.0f} Hz",
            f"{two:.0f} / {one:.0f} %",
            f"{fat:.0f} %",
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    for row in kuiken_rows() + pick_up_rows() + frequency_rows():
        print(f"{row.target:70s} {row.value:8.3g} {row.low:g} to {row.high:g}")
    for start, why in reasons().items():
        print(f"{start}: {why}")
    print(sensitivity())
