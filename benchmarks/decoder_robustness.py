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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array

from myoloop.decoder.runtime import OnnxDecoder
from myoloop.decoder.weights import load_decoder
from myoloop.emg.anatomy import FOREARM_LENGTH_MM
from myoloop.emg.armband import Armband, armband
from myoloop.emg.conditions import Disorder, apply_conditions, disordered, no_disorder, set_condition
from myoloop.emg.config import EmgConfig
from myoloop.emg.synthesis import Circumstances, EmgParams, build_emg, healthy, init_emg, stack_params, synthesise
from myoloop.errors import MyoloopError
from myoloop.learn.collect import act_out
from myoloop.learn.supervised import run_offline
from myoloop.participant import ParticipantConfig, Participants
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

_BATCH = 24  # participants synthesised at once
_STEPS = 50  # control steps per call: a second


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


class Case(NamedTuple):
    """One way in which a recording differs."""

    group: str
    name: str
    value: float
    unit: str
    person: str
    """Key of the person and the armband's place."""
    disturb: Callable[[Circumstances, Disorder], tuple[Circumstances, Disorder]] | None = None
    """Changes what comes and goes during a run."""


class Run(NamedTuple):
    """What was recorded."""

    excitation: np.ndarray
    """(steps, recordings, 39)"""
    labels: np.ndarray
    """(recordings, steps, 5), of the end of each step"""


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


@dataclass
class Population:
    """Persons by key, each built when first asked for."""

    band: Armband
    config: EmgConfig
    made: dict[str, EmgParams] = field(default_factory=dict)

    def add(self, key: str, make: Callable[[], EmgParams]) -> str:
        """Key of this person."""
        if key not in self.made:
            self.made[key] = make()
        return key


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
        cases.append(Case("electrodes", "without contact", count, f"of {band.channels}", home, _without(band, count)))
    for name in OF_THE_PERSON:
        for strength in strengths:
            ill = partial(apply_conditions, people.made[home], {name: strength})
            key = people.add(f"{name} {strength:g}", ill) if strength else home
            cases.append(Case("person", name, strength, "strength", key))
    for group, names in (("drive", OF_THE_DRIVE), ("recording", OF_THE_RECORDING)):
        for name in names:
            cases += [Case(group, name, s, "strength", home, _condition(band, name, s)) for s in strengths]
    return cases


def _without(band: Armband, count: int) -> Callable[[Circumstances, Disorder], tuple[Circumstances, Disorder]]:
    """The first of `count` electrodes, spread evenly over the band, is channel 1."""
    off = (np.arange(min(count, band.channels)) * band.channels / max(count, 1)).astype(int)

    def disturb(circumstances: Circumstances, disorder: Disorder) -> tuple[Circumstances, Disorder]:
        contact = np.array(circumstances.contact)
        contact[:, off] = 0.0
        return circumstances._replace(contact=contact), disorder  # type: ignore[arg-type]

    return disturb


def _condition(
    band: Armband, name: str, strength: float
) -> Callable[[Circumstances, Disorder], tuple[Circumstances, Disorder]]:
    return lambda circumstances, disorder: set_condition(band, circumstances, disorder, name, strength)


def record(config: Config, band: Armband) -> tuple[Run, np.ndarray]:
    """What participants do on held-out references, and the seeds of their EMG."""
    reference = ReferenceConfig(kind="discrete", seed=held_out_seed(config.seed), split="held_out")
    participant = ParticipantConfig(armband=band, person=config.person, reference=reference)
    people = Participants(participant, participants=config.recordings)
    seeds = np.arange(config.recordings) + 7000
    steps = round(config.seconds * participant.control_hz)
    excitation, labels = act_out(people, seeds, steps, lambda act: act.excitation)
    return Run(np.stack(excitation), labels), seeds


def resynthesise(
    people: Population, cases: list[Case], run: Run, seeds: np.ndarray, control_hz: float = 50.0
) -> Iterator[tuple[int, int, np.ndarray]]:
    """(case, recording, EMG (samples, C) microvolts) of every case and recording."""
    keys = list(people.made)
    stacked = stack_params([people.made[key] for key in keys])
    arrays, muscle = jax.tree.map(np.asarray, stacked.replace(muscle=None)), stacked.muscle  # type: ignore[attr-defined]
    tasks = [(c, r) for c in range(len(cases)) for r in range(len(seeds))]
    samples = round(people.band.rate_hz / control_hz)
    for first in range(0, len(tasks), _BATCH):
        part = tasks[first : first + _BATCH]
        part += part[-1:] * (_BATCH - len(part))
        who = np.array([keys.index(cases[c].person) for c, _ in part])
        params = jax.tree.map(lambda leaf, who=who: jnp.asarray(leaf[who]), arrays).replace(muscle=muscle)
        each = np.array([r for _, r in part])
        now = _together([_disturbed(params, cases[c]) for c, _ in part])
        state, chunks = init_emg(params, seeds[each]), []
        for start in range(0, len(run.excitation), _STEPS):
            drive = run.excitation[start : start + _STEPS, each]
            times = (np.arange(start, start + len(drive)) / control_hz).astype(np.float32)
            chunk, state = _stretch(params, state, drive, times, now, samples=samples)
            chunks.append(np.asarray(chunk))
        emg = np.concatenate(chunks).transpose(1, 0, 2, 3)
        for n in range(min(len(tasks) - first, _BATCH)):
            yield part[n][0], part[n][1], emg[n].reshape(-1, people.band.channels)


def _disturbed(params: EmgParams, case: Case) -> tuple[Circumstances, Disorder]:
    """Of one participant."""
    calm = healthy(params, 1), no_disorder(1)
    return case.disturb(*calm) if case.disturb else calm


def _together(each: list[tuple[Circumstances, Disorder]]) -> tuple[Circumstances, Disorder]:
    return jax.tree.map(lambda *rows: np.concatenate([np.asarray(row) for row in rows]), *each)  # type: ignore


def _scan(  # type: ignore[no-untyped-def]
    params, state, drive: Array, times: Array, now: tuple[Circumstances, Disorder], samples: int
):
    """(steps, B, samples, C) and the state after them."""

    def step(state, each):  # type: ignore[no-untyped-def]
        excitation, time = each
        excitation = disordered(now[1], excitation, state.key, time)
        out, state = synthesise(params, state, excitation, samples, now[0])
        return state, out.chunk

    state, chunk = jax.lax.scan(step, state, (drive, times))
    return chunk, state


_stretch = jax.jit(_scan, static_argnames="samples")


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


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean over recordings and its 95 % confidence interval (Student's t), held to 0..1."""
    from scipy import stats

    mean = float(values.mean())
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return mean, max(mean - half, 0.0), min(mean + half, 1.0)


def measure(config: Config) -> tuple[list[Row], float]:
    """Every point of the figure, and the accuracy of chance."""
    band = armband(config.armband)
    people = Population(band, EmgConfig(seed=config.person))
    answer = decoder_of(config.decoder, band)
    run, seeds = record(config, band)
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
        if len(waiting) == _BATCH:
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
