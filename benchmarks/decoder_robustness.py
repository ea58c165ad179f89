"""How a decoder holds when the recording differs from the one it was trained on: accuracy against armband rotation and
displacement, fat, lost electrodes, and the strength of conditions.

Participants follow held-out references; the excitations of their muscles are recorded once. Then the EMG is synthesised
again from the same excitations, with the same seeds, for every case, so that cases differ in nothing but what they change.
The loop stays open: a tremor or a co-contraction does not move the hand here, and nobody adapts to the decoder.

Writes a figure; the last line is one JSON object with `rows` (group, case, value, unit, accuracy, low, high), `chance` (always
the label asked for more often) and, per curve, whether accuracy falls all the way (`falls`).

    python benchmarks/decoder_robustness.py --decoder models/decoder_tcn
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from myoloop.decoder.runtime import OnnxDecoder
from myoloop.decoder.weights import load_decoder
from myoloop.emg.anatomy import FOREARM_LENGTH_MM
from myoloop.emg.armband import Armband, armband
from myoloop.emg.conditions import apply_conditions
from myoloop.emg.config import EmgConfig
from myoloop.emg.synthesis import build_emg
from myoloop.errors import MyoloopError
from myoloop.learn.resynthesis import (
    BATCH,
    Case,
    Population,
    condition,
    interval,
    record_drive,
    resynthesise,
    without,
)
from myoloop.learn.supervised import run_offline
from myoloop.task.reference import ReferenceConfig, held_out_seed

REPO = Path(__file__).resolve().parent.parent

ROTATIONS_DEG = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0)
SHIFTS_MM = (0.0, 5.0, 10.0, 15.0, 20.0)
FAT_MM = (0.0, 2.0, 4.0, 6.0, 8.0)
LOST = (0, 1, 2, 4, 8)
STRENGTHS = (0.0, 0.25, 0.5, 1.0)
QUICK_STRENGTHS = (0.0, 1.0)
OF_THE_PERSON = ("ageing", "als", "stroke")
OF_THE_DRIVE = ("parkinsonian_tremor", "essential_tremor", "co_contraction")
OF_THE_RECORDING = ("fatigue", "mains_hum", "motion_artefact", "ecg")


@dataclass(frozen=True)
class Config:
    """Which decoder, on whom, how much."""

    decoder: Path = REPO / "models" / "decoder_tcn"
    """a folder with decoder.onnx (and decoder.safetensors, which is faster), or an ONNX file of any maker"""
    armband: str = "semg_rd16"
    """preset that the decoder reads"""
    person: int = 0
    """seed of the anatomy; shipped decoders are trained on person 0"""
    recordings: int = 6
    """held-out references, each with noise and discharges of its own; the confidence intervals are over them"""
    seconds: float = 20.0
    """length of each"""
    seed: int = 200
    """number of the first held-out reference"""
    out: Path = REPO / "docs" / "decoder-robustness.png"
    """the figure"""
    quick: bool = False
    """three recordings of eight seconds, fewer cases and a thinner figure: to try it"""


class Row(NamedTuple):
    """One point of the figure."""

    group: str
    case: str
    value: float
    unit: str
    accuracy: float
    low: float
    high: float
    """Confidence interval of the mean over recordings, 95 %."""


def reference_of(config: Config) -> ReferenceConfig:
    """What everybody is asked for."""
    return ReferenceConfig(kind="discrete", seed=held_out_seed(config.seed), split="held_out")


def cases_for(people: Population, quick: bool) -> list[Case]:
    """All points of the figure; the first is the recording as the decoder knows it."""
    band, config = people.band, people.config
    strengths = QUICK_STRENGTHS if quick else STRENGTHS
    home = people.add("home", partial(build_emg, band, config))
    cases = []
    for name, sign in (("towards volar", 1.0),) if quick else (("towards volar", 1.0), ("towards dorsal", -1.0)):
        for degrees in (0.0, 15.0, 30.0) if quick else ROTATIONS_DEG:
            turned = dataclasses.replace(band, first_angle_deg=band.first_angle_deg + sign * degrees)
            key = people.add(f"{name} {degrees:g}", partial(build_emg, turned, config)) if degrees else home
            cases.append(Case("rotation", name, degrees, "degrees", key))
    for shift in (0.0, 20.0) if quick else SHIFTS_MM:
        moved = dataclasses.replace(band, level=band.level + shift / FOREARM_LENGTH_MM)
        key = people.add(f"moved {shift:g}", partial(build_emg, moved, config)) if shift else home
        cases.append(Case("displacement", "towards the wrist", shift, "mm", key))
    for fat in (0.0, 8.0) if quick else FAT_MM:
        limb = dataclasses.replace(config.conductor, fat_mm=config.conductor.fat_mm + fat)
        fatter = dataclasses.replace(config, conductor=limb)
        key = people.add(f"fat {fat:g}", partial(build_emg, band, fatter)) if fat else home
        cases.append(Case("fat", "more than the person's", fat, "mm", key))
    for count in LOST[:: 2 if quick else 1]:
        cases.append(Case("electrodes", "without contact", count, f"of {band.channels}", home, without(band, count)))
    for name in OF_THE_PERSON:
        for strength in strengths:
            ill = partial(apply_conditions, people.made[home], {name: strength})
            key = people.add(f"{name} {strength:g}", ill) if strength else home
            cases.append(Case("person", name, strength, "strength", key))
    for group, names in (("drive", OF_THE_DRIVE), ("recording", OF_THE_RECORDING)):
        for name in names:
            cases += [Case(group, name, s, "strength", home, condition(band, name, s)) for s in strengths]
    return cases


def decoder_of(path: Path, band: Armband) -> Callable[[np.ndarray], np.ndarray]:
    """Answers (recordings, frames, 5) as log-odds or probability - 0.5: above 0 is flexed."""
    folder = path if path.is_dir() else path.parent
    weights = folder / "decoder.safetensors"
    if path.is_dir() and weights.exists():
        found = load_decoder(weights)
        _fits(found.config.channels, found.config.rate_hz, band, weights)
        return lambda emg: run_offline(found.config, found.params, emg)
    decoder = OnnxDecoder(path / "decoder.onnx" if path.is_dir() else path)
    _fits(decoder.channels, decoder.rate_hz, band, decoder.path)

    def answers(emg: np.ndarray) -> np.ndarray:
        every = []
        for one in emg:
            decoder.reset()
            every.append(_held(decoder.push(one), len(one), round(band.rate_hz / 50.0)))
        return np.stack(every) - 0.5

    return answers


def _fits(channels: int, rate_hz: float, band: Armband, path: Path) -> None:
    if channels != band.channels or rate_hz != band.rate_hz:
        raise MyoloopError(
            f"{path} reads {channels} channels at {rate_hz:g} Hz; armband '{band.name}' has {band.channels} at "
            f"{band.rate_hz:g} Hz. Choose the armband it was made for (--armband)."
        )


def _held(predictions: list[tuple[int, np.ndarray]], samples: int, frame: int) -> np.ndarray:
    """(frames, 5): the newest prediction at the end of every frame; 0.5 before the first."""
    out = np.full((samples // frame, 5), 0.5)
    for used, prediction in predictions:
        out[max(math.ceil(used / frame) - 1, 0) :] = prediction
    return out


def measure(config: Config) -> tuple[list[Row], float]:
    """Every point of the figure, and the accuracy of chance."""
    band = armband(config.armband)
    people = Population(band, EmgConfig(seed=config.person))
    answer = decoder_of(config.decoder, band)
    run, seeds = record_drive(band, config.recordings, config.seconds, reference_of(config), config.person)
    cases = cases_for(people, config.quick)
    right = np.full((len(cases), config.recordings), np.nan)
    waiting: list[tuple[int, int, np.ndarray]] = []

    def decode() -> None:
        odds = answer(np.stack([emg for _, _, emg in waiting]))
        for (case, recording, _), found in zip(waiting, odds, strict=True):
            right[case, recording] = ((found > 0) == (run.labels[recording] > 0.5)).mean()
        waiting.clear()

    for item in resynthesise(people, cases, run, seeds):
        waiting.append(item)
        if len(waiting) == BATCH:
            decode()
    if waiting:
        decode()
    rows = [
        Row(case.group, case.name, case.value, case.unit, *interval(values))
        for case, values in zip(cases, right, strict=True)
    ]
    flexed = run.labels.mean(axis=(0, 1))
    return rows, float(np.maximum(flexed, 1.0 - flexed).mean())


def falls(rows: list[Row]) -> dict[str, bool]:
    """For every curve: no step up that its confidence intervals do not cover, and the end below the start."""
    found = {}
    for group, name in dict.fromkeys((row.group, row.case) for row in rows):
        curve = [row for row in rows if (row.group, row.case) == (group, name)]
        never_up = all(after.low <= before.high for before, after in itertools.pairwise(curve))
        found[f"{group}: {name}"] = never_up and curve[-1].accuracy < curve[0].accuracy
    return found


PANELS = {
    "rotation": "armband turned (degrees)",
    "displacement": "armband moved towards the wrist (mm)",
    "fat": "fat beyond the person's own (mm)",
    "electrodes": "electrodes without contact",
    "person": "strength (motor units)",
    "drive": "strength (drive)",
    "recording": "strength (fibres and recording)",
}


CAPTION = (
    "Line: mean over held-out references;\nband: its 95 % confidence interval.\n\n"
    "Same excitations and seeds in every\ncase; the loop is open."
)


def plot(rows: list[Row], chance: float, title: str, file: Path) -> None:
    """One panel a group."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, every = plt.subplots(2, 4, figsize=(13, 6), sharey=True)
    for axes, (group, label) in zip(every.flat, PANELS.items(), strict=False):
        own = [row for row in rows if row.group == group]
        for name in dict.fromkeys(row.case for row in own):
            curve = [row for row in own if row.case == name]
            x = [row.value for row in curve]
            (line,) = axes.plot(x, [100 * row.accuracy for row in curve], "o-", ms=3, label=name.replace("_", " "))
            low, high = ([100 * getattr(row, end) for row in curve] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, lw=0)
        axes.axhline(100 * chance, color="grey", ls=":", lw=1)
        axes.set(xlabel=label, ylim=(40, 101))
        axes.legend(fontsize=7, loc="lower left")
    for axes in every[:, 0]:
        axes.set_ylabel("accuracy over fingers (%)")
    every[0, 0].text(0, 100 * chance + 1, "chance", color="grey", fontsize=8)
    every[1, 3].axis("off")
    every[1, 3].text(0, 0.9, f"{title}\n\n{CAPTION}", va="top", fontsize=9, transform=every[1, 3].transAxes)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def main(config: Config) -> None:
    if config.quick:
        config = dataclasses.replace(config, recordings=3, seconds=8.0)
    rows, chance = measure(config)
    title = f"{config.decoder.name} with {config.armband}, person {config.person}"
    plot(rows, chance, title, config.out)
    for row in rows:
        print(f"{row.group:13s} {row.case:24s} {row.value:6g} {row.unit:10s} {100 * row.accuracy:5.1f} %")
    table = [row._asdict() | {k: round(getattr(row, k), 4) for k in ("accuracy", "low", "high")} for row in rows]
    print(json.dumps({"decoder": config.decoder.name, "chance": round(chance, 4), "rows": table, "falls": falls(rows)}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
