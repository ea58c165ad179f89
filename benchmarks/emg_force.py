"""Is the force as steady as people's, and does the EMG grow with it as theirs? Isometric, one muscle, held excitation.

Each muscle is held at a row of excitations, alone; discharges make twitches, twitches make force. The coefficient of
variation (CoV) of force is measured as Moritz et al. 2005 did, in seconds freed of their linear trend, and shown
against the person's own largest force (% MVC). Writes docs/emg-force.png; the last line is one JSON object with `rows`
(target, value, low, high, source, inside), `inside` and `cov_percent` (condition -> level -> CoV).

    python benchmarks/emg_force.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import tyro
from scipy import signal

from myoloop.body.names import FOREARM_MUSCLES, MUSCLES
from myoloop.emg.armband import armband
from myoloop.emg.conditions import Disorder, apply_conditions, disordered, no_disorder
from myoloop.emg.config import EmgConfig
from myoloop.emg.force import build_force, init_force, twitch_force
from myoloop.emg.synthesis import EmgParams, build_emg, init_emg, synthesise

REPO = Path(__file__).resolve().parent.parent
EXCITATIONS = (0.03, 0.045, 0.06, 0.08, 0.11, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
LEVELS = (2.0, 5.0, 10.0, 15.0, 30.0, 50.0, 80.0)
"""% of the largest force at which the CoV is reported."""
MORITZ = {2.0: 4.9, 15.0: 1.4}
"""CoV of force of a hand muscle, % at % MVC (first dorsal interosseus, Moritz et al. 2005); 1.2 to 1.9 above 15 %."""
STEP_S = 0.02


@dataclass(frozen=True)
class Config:
    """What to hold, how long, where to draw."""

    muscles: tuple[str, ...] = ("ECRL", "FCU", "EDC3")
    """forearm muscles, the first one for the table"""
    seconds: float = 16.0
    """length of each hold"""
    out: Path = REPO / "docs"
    """folder of emg-force.png"""
    units_scale: float = 1.0
    """part of the motor units that are kept (for a quick look; fewer units are less steady)"""


class Row(NamedTuple):
    """One target."""

    target: str
    value: float
    low: float
    high: float
    source: str


class Holds(NamedTuple):
    """Holds of one muscle at rising excitation."""

    force: np.ndarray
    """(E,) mean force, part of the healthy muscle's largest."""
    cov: np.ndarray
    """(E,) CoV of force, %."""
    rms: np.ndarray
    """(E,) RMS of the EMG at the channel where it is largest, microvolts."""


def hold(
    params: EmgParams,
    muscles: Sequence[str],
    seconds: float = 16.0,
    disorder: Disorder | None = None,
    excitations: Sequence[float] = EXCITATIONS,
) -> dict[str, Holds]:
    """Every muscle alone at every excitation, side by side in one batch; the first second is left out."""
    batch = len(muscles) * len(excitations)
    muscle = np.repeat([FOREARM_MUSCLES.index(name) for name in muscles], len(excitations))
    alone = np.zeros((batch, len(MUSCLES)), np.float32)
    alone[np.arange(batch), muscle] = np.tile(excitations, len(muscles))
    drive = jnp.asarray(alone)
    force_params = build_force(params, linearised=False)
    state, twitching = init_emg(params, [1] * batch), init_force(force_params, batch)  # one person, one tremor
    samples = round(STEP_S * params.band.rate_hz)
    disorder = no_disorder(batch) if disorder is None else disorder
    forces, power = [], np.zeros((batch, params.band.channels))
    steps, first = round(seconds / STEP_S), round(1.0 / STEP_S)
    for step in range(first + steps):
        shaken = disordered(disorder, drive, state.key, jnp.float32(step * STEP_S))
        out, state = synthesise(params, state, shaken, samples)
        now, twitching = twitch_force(force_params, twitching, out.spikes, samples)
        if step >= first:
            forces.append(np.asarray(now)[np.arange(batch), muscle])
            power += np.square(np.asarray(out.chunk)).mean(axis=1) / steps
    force = np.stack(forces)
    spread = np.sqrt(power).max(axis=1)
    columns: tuple[np.ndarray, ...] = force.mean(axis=0), coefficient_of_variation(force), spread
    return {name: Holds(*(c.reshape(len(muscles), -1)[m] for c in columns)) for m, name in enumerate(muscles)}


def coefficient_of_variation(force: np.ndarray) -> np.ndarray:
    """(T, B) forces every STEP_S to (B,) %: in seconds, each without its linear trend (Moritz et al. 2005)."""
    second = round(1.0 / STEP_S)
    seconds = force[: len(force) // second * second].reshape(-1, second, force.shape[1])
    mean = np.maximum(force.mean(axis=0), 1e-12)
    return 100.0 * signal.detrend(seconds, axis=1).std(axis=1).mean(axis=0) / mean


def at_levels(holds: Holds, levels: Sequence[float] = LEVELS) -> np.ndarray:
    """CoV in % at levels in % of this person's own largest force."""
    return np.interp(np.log(levels), np.log(np.maximum(100.0 * holds.force / holds.force[-1], 1e-6)), holds.cov)


def emg_force_row(params: EmgParams, muscles: Sequence[str] = Config.muscles, seconds: float = 8.0) -> Row:
    """Convexity of the EMG-force curve, for the realism table: RMS at half of the largest force over RMS at it."""
    return emg_force(hold(params, muscles, seconds))


def emg_force(holds: dict[str, Holds]) -> Row:
    """The same from holds: median of the muscles."""
    half = [float(np.interp(0.5, h.force / h.force[-1], h.rms) / h.rms[-1]) for h in holds.values()]
    source = "near linear to convex: Lawrence & De Luca 1983, Solomonow et al. 1990; bounds estimated"
    target = f"RMS at 50 % over 100 % of force, median of {', '.join(holds)} (0.5: linear)"
    return Row(target, float(np.median(half)), 0.3, 0.6, source)


def rows_of(all_healthy: dict[str, Holds], old: Holds, ill: Holds, name: str) -> list[Row]:
    """The table; old and ill: of the muscle `name`."""
    healthy = all_healthy[name]
    cov = dict(zip(LEVELS, at_levels(healthy), strict=True))
    aged = dict(zip(LEVELS, at_levels(old), strict=True))
    moritz = "Moritz et al. 2005"
    above = f"1.2-1.9: {moritz}; 1.7: Taylor et al. 2003; 2.5: Tracy et al. 2005"
    return [
        Row(f"CoV of force of {name} at 2 % MVC (%)", cov[2.0], 3.0, 7.0, f"4.9: {moritz}; bounds estimated"),
        Row(f"CoV of force of {name} at 15 % MVC (%)", cov[15.0], 1.2, 2.5, f"1.4 and {above}"),
        Row(f"CoV of force of {name} at 30 % MVC (%)", cov[30.0], 1.2, 2.5, above),
        Row(f"CoV of force of {name} at 80 % MVC (%)", cov[80.0], 1.2, 2.5, above),
        Row("CoV of force at 2 % over that at 15 % MVC", cov[2.0] / cov[15.0], 1.5, 5.0,
            f"3.5: {moritz}; bounds estimated"),
        Row("ageing: CoV of force at 2 % MVC over healthy", aged[2.0] / cov[2.0], 1.05, 2.5,
            "greater at the lowest forces: Tracy et al. 2005, Galganski et al. 1993; bounds estimated"),
        Row("ageing: CoV of force at 30 % MVC over healthy", aged[30.0] / cov[30.0], 0.8, 1.4,
            "alike at higher forces: Tracy et al. 2005; bounds estimated"),
        Row("ageing: largest force over healthy", float(old.force[-1] / healthy.force[-1]), 0.6, 1.0,
            "60-100 % in the eighth decade (from memory)"),
        Row("als: largest force over healthy", float(ill.force[-1] / healthy.force[-1]), 0.2, 0.9,
            "weakness; bounds estimated"),
        emg_force(all_healthy),
    ]  # fmt: skip


def plot(config: Config, healthy: dict[str, Holds], others: dict[str, Holds], file: Path) -> None:
    """Steadiness by muscle, steadiness by condition, and EMG against force."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2))
    for name, holds in healthy.items():
        axes[0].plot(LEVELS, at_levels(holds), "o-", label=name)
    axes[0].plot(list(MORITZ), list(MORITZ.values()), "k*", markersize=11, label="people (hand muscle)")
    axes[0].fill_between([15, 95], 1.2, 1.9, color="0.8", label="people, 15-95 %")
    axes[0].set_title("Force is least steady when it is weak", fontsize=10)
    first = config.muscles[0]
    axes[1].plot(LEVELS, at_levels(healthy[first]), "o-", label="healthy")
    for condition, holds in others.items():
        axes[1].plot(LEVELS, at_levels(holds), "o-", label=condition)
    axes[1].set_title(f"Lost units and tremor shake it ({first}, strength 1)", fontsize=10)
    axes[1].set_yscale("log")
    axes[1].set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    for axis in axes[:2]:
        axis.set_xscale("log")
        axis.set_xticks(LEVELS, [f"{level:g}" for level in LEVELS])
        axis.minorticks_off()
        axis.set(xlabel="force (% of the person's own largest)", ylabel="CoV of force (%)")
    axes[0].set_ylim(0)
    for name, holds in healthy.items():
        axes[2].plot(100 * holds.force / holds.force[-1], 100 * holds.rms / holds.rms[-1], "o-", label=name)
    axes[2].plot([0, 100], [0, 100], "k:", label="linear")
    axes[2].set(xlabel="force (% of the largest)", ylabel="RMS of the EMG (% of the largest)")
    axes[2].set_title("EMG grows with force", fontsize=10)
    for axis in axes:
        axis.legend(fontsize=8)
    caption = (
        "Each muscle alone, isometric, at a steady excitation; people: first dorsal interosseus, Moritz et al. 2005."
    )
    figure.text(0.01, 0.01, caption, fontsize=8)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(file, dpi=110)


def main(config: Config) -> None:
    params = build_emg(armband("semg_rd16"), EmgConfig(units_scale=config.units_scale))
    first = config.muscles[:1]
    healthy = hold(params, config.muscles, config.seconds)
    batch = len(EXCITATIONS)
    shaking = no_disorder(batch)._replace(essential_tremor=jnp.ones(batch))
    others = {
        "ageing": hold(apply_conditions(params, {"ageing": 1.0}), first, config.seconds),
        "als": hold(apply_conditions(params, {"als": 1.0}), first, config.seconds),
        "essential tremor": hold(params, first, config.seconds, shaking),
    }
    one = {condition: holds[first[0]] for condition, holds in others.items()}
    rows = rows_of(healthy, one["ageing"], one["als"], first[0])
    config.out.mkdir(parents=True, exist_ok=True)
    plot(config, healthy, one, config.out / "emg-force.png")
    inside = [bool(row.low <= row.value <= row.high) for row in rows]
    for row, good in zip(rows, inside, strict=True):
        print(
            f"{row.target:62} {row.value:8.3g}  {row.low:g} to {row.high:g}  {'' if good else 'OUTSIDE'}  {row.source}"
        )
    table = [
        row._asdict() | {"value": round(row.value, 4), "inside": good} for row, good in zip(rows, inside, strict=True)
    ]
    cov = {
        condition: dict(zip([f"{level:g}" for level in LEVELS], np.round(at_levels(holds), 2).tolist(), strict=True))
        for condition, holds in {"healthy": healthy[first[0]], **one}.items()
    }
    print(json.dumps({"rows": table, "inside": f"{sum(inside)} of {len(inside)}", "cov_percent": cov}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
