"""Draws the forearm's cross-section: muscles of the anatomical table, layers, electrodes, and what each channel sees.

    python benchmarks/emg_cross_section.py                        # docs/emg-cross-section.png
    python benchmarks/emg_cross_section.py --armband myo8 --out myo8.png

Left: where the muscles of emg/anatomy.py lie at the armband's level, seen from the elbow towards the hand of a right
arm. Right: RMS of every channel when one muscle alone works at half of its excitation. Prints one JSON object as its
last line: the loudest channel of every muscle and its share of the channel's signal when all work alike.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg import motor_units
from myoloop.emg.anatomy import MUSCLE_TABLE
from myoloop.emg.armband import PRESETS, Armband, armband
from myoloop.emg.config import EmgConfig
from myoloop.emg.volume_conductor import compute_muaps, place_units

EXCITATION = 0.5
GROUPS = {
    "wrist extensors": ("ECRL", "ECRB", "ECU"),
    "wrist flexors, pronators": ("FCR", "FCU", "PL", "PT", "PQ"),
    "finger flexors": ("FDS5", "FDS4", "FDS3", "FDS2", "FDP5", "FDP4", "FDP3", "FDP2"),
    "finger extensors": ("EDC5", "EDC4", "EDC3", "EDC2", "EDM", "EIP"),
    "thumb": ("EPL", "EPB", "FPL", "APL"),
}
COLOURS = dict(zip(GROUPS, ("#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#666666"), strict=True))


def channel_rms(band: Armband, config: EmgConfig) -> np.ndarray:
    """(26, C) microvolts: expected RMS of each channel, before the amplifier, with one muscle at EXCITATION.

    Units discharge on their own, so powers add: sum over units of rate times the energy of the MUAP.
    """
    pool = motor_units.build_pool(config)
    waveform = compute_muaps(place_units(pool, config, band.radius_mm), band, config.conductor).waveform
    power = (waveform.astype(float) ** 2).sum(axis=2) / band.internal_rate_hz
    power *= motor_units.rates(pool, EXCITATION)[:, None]
    return np.sqrt(np.stack([power[pool.muscle == m].sum(axis=0) for m in range(len(FOREARM_MUSCLES))]))


def draw_section(axes: Axes, band: Armband, config: EmgConfig) -> None:
    """Layers, muscles and electrodes; mm, radial to the right and volar up."""
    conductor = config.conductor
    limb, muscle = conductor.limb_radius(band.radius_mm), conductor.muscle_radius(band.radius_mm)
    for radius, colour in ((limb, "#f2c9ac"), (limb - conductor.skin_mm, "#fbe9a9"), (muscle, "#f7dcdc")):
        axes.add_patch(plt.Circle((0, 0), radius, color=colour, zorder=0))
    if conductor.bone_mm > 0:
        axes.add_patch(plt.Circle((0, 0), conductor.bone_mm, color="white", ec="grey", zorder=1))
    rest = []
    order = sorted(MUSCLE_TABLE, key=lambda name: -MUSCLE_TABLE[name].depth_mm[1])
    for name in order:
        row = MUSCLE_TABLE[name]
        if not row.belly[0] <= band.level <= row.belly[1]:
            rest.append(name)
            continue
        low, high = (band.radius_mm - depth for depth in row.depth_mm)
        turn = np.deg2rad(np.linspace(row.angle_deg - row.half_width_deg, row.angle_deg + row.half_width_deg, 24))
        ring = np.concatenate([low * np.exp(1j * turn), high * np.exp(-1j * turn[::-1]).conj()])
        colour = next(COLOURS[group] for group, names in GROUPS.items() if name in names)
        axes.fill(ring.real, ring.imag, color=colour, alpha=0.55, ec="black", lw=0.6, zorder=2)
        middle = (low + high) / 2 * np.exp(1j * np.deg2rad(row.angle_deg))
        axes.text(middle.real, middle.imag, name, ha="center", va="center", fontsize=6.5, zorder=4)
    for label, turn in zip(band.channel_labels[: band.columns], np.deg2rad(band.angles_deg), strict=False):
        width = (band.electrode_mm[0] if band.electrode_shape == "circle" else band.electrode_mm[1]) / limb / 2
        arc = (limb + 0.6) * np.exp(1j * np.linspace(turn - width, turn + width, 8))
        axes.plot(arc.real, arc.imag, color="black", lw=4, solid_capstyle="butt", zorder=3)
        place = (limb + 4.5) * np.exp(1j * turn)
        axes.text(place.real, place.imag, label.removeprefix("EMG"), ha="center", va="center", fontsize=8)
    for label, x, y in (("radial", 1, 0), ("volar", 0, 1), ("ulnar", -1, 0), ("dorsal", 0, -1)):
        axes.text(
            (limb + 10) * x, (limb + 10) * y, label, ha="center", va="center", style="italic", rotation=90 * abs(x)
        )
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour, alpha=0.55, label=group) for group, colour in COLOURS.items()]
    axes.legend(handles=handles, fontsize=7, loc="lower left", frameon=False)
    axes.set(xlim=(-56, 56), ylim=(-56, 56), aspect="equal", xlabel="mm", ylabel="mm")
    axes.set_title(
        f"Forearm at level {band.level:g} (elbow 0, wrist 1) under {band.name}: skin {conductor.skin_mm:g} mm,\n"
        f"fat {conductor.fat_mm:g} mm. Not at this level: {', '.join(rest)}",
        fontsize=9,
    )


def draw_pattern(axes: Axes, band: Armband, rms: np.ndarray) -> None:
    """Which channel sees which muscle, each row on its own colour scale, with its loudest microvolts."""
    columns = rms.reshape(len(rms), band.rows, band.columns).max(axis=1)
    axes.imshow(columns / columns.max(axis=1, keepdims=True), aspect="auto", cmap="magma", vmin=0, vmax=1)
    axes.set_yticks(
        range(len(rms)), [f"{n}  {r.max():.0f}" for n, r in zip(FOREARM_MUSCLES, rms, strict=True)], fontsize=7
    )
    axes.set_xticks(range(band.columns), [str(i + 1) for i in range(band.columns)], fontsize=8)
    axes.set(xlabel="channel")
    axes.set_title(
        f"One muscle alone at excitation {EXCITATION:g}: RMS over the channels\n(bright: that muscle's largest; the number"
        " is its uV)",
        fontsize=9,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--armband", default="semg_rd16", choices=sorted(PRESETS), help="preset to draw")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "emg-cross-section.png")
    args = parser.parse_args()
    band, config = armband(args.armband), EmgConfig()
    rms = channel_rms(band, config)
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 6.8), width_ratios=(1.25, 1))
    draw_section(left, band, config)
    draw_pattern(right, band, rms)
    figure.tight_layout()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=110)
    loudest = rms.argmax(axis=1)
    own = rms[np.arange(len(rms)), loudest]
    share = own**2 / (rms**2).sum(axis=0)[loudest]
    muscles = {
        name: {"channel": int(c) + 1, "rms_uv": round(float(v), 1), "power_share": round(float(s), 3)}
        for name, c, v, s in zip(FOREARM_MUSCLES, loudest, own, share, strict=True)
    }
    print(json.dumps({"armband": band.name, "figure": str(args.out), "muscles": muscles}))


if __name__ == "__main__":
    main()
