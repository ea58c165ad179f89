"""Decoders beside each other: every kind trained on one person, and one on many people, each from several training seeds; then
tested on the same person, on new people, with the armband turned, and under conditions of the recording.

    python training/dataset.py --out data/people --people 40 --recordings 2 --test-people 0 --test-recordings 0 --seconds 20
    python training/decoder_table.py --dataset data/people --run runs/decoder_table

What is trained is kept in the run folder, so that it can be stopped and started again. Excitations of held-out references are
recorded once, and the EMG of every case is synthesised from them (learn/resynthesis.py). Each seed has training references, or
people, of its own. Writes a figure and a JSON file; the last line of standard output is the same JSON.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from myoloop import checkpoint
from myoloop.decoder import networks
from myoloop.decoder.weights import DecoderWeights, load_decoder, save_decoder
from myoloop.emg.armband import Armband, armband
from myoloop.emg.config import EmgConfig
from myoloop.emg.people import build_person, sample_people
from myoloop.emg.synthesis import build_emg
from myoloop.errors import MyoloopError
from myoloop.learn.dataset import FromDisk, load_dataset, splits
from myoloop.learn.decoder_sets import RecordingConfig, recorded
from myoloop.learn.personal import personalised
from myoloop.learn.resynthesis import Case, Population, condition, interval, record_drive, resynthesise, without
from myoloop.learn.supervised import Recordings, Source, TrainingConfig, run_offline, train
from myoloop.task.reference import HELD_OUT_FROM, ReferenceConfig, held_out_seed

MANY = "tcn, many people"
FITTED = "tcn, many people, last layer fitted to {:g} s of the person"
CASES = ("same person", "new person", "armband turned", "fatigue", "lost channel")


@dataclass(frozen=True)
class TableConfig:
    """What is compared, and how long."""

    run: Path
    """Folder for what is trained."""
    dataset: Path
    """Dataset of many people who wear `semg_rd16`; nothing is tested on its recordings."""
    kinds: tuple[str, ...] = networks.KINDS
    """Kinds trained on one person."""
    seeds: int = 3
    """Training seeds; the confidence intervals are over them."""
    updates: int = 250
    """Updates of each training."""
    discrete: int = 10
    """Minutes of discrete references of the one person, for each seed."""
    continuous: int = 4
    """Minutes of continuous ones."""
    share: float = 0.8
    """Part of the dataset's people that each seed learns from."""
    people: int = 6
    """New people."""
    turn_deg: float = 15.0
    """How far the armband is turned, both ways."""
    recordings: int = 6
    """Held-out references of each test."""
    seconds: float = 20.0
    """Length of each, s."""
    own_s: float = 60.0
    """Recording of the person with the armband as worn, to which the last layer of the decoder of many is fitted, s."""
    out: Path = Path("docs/results/decoders")
    """Figure and JSON, without the ending."""


def main(config: TableConfig) -> dict:
    """Train what is missing, test, draw."""
    console, band = Console(stderr=True), armband("semg_rd16")
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=config.seeds * (len(config.kinds) + 1))
        trained: dict[str, list[DecoderWeights]] = {}
        for name, seed, make in trainings(config, band):
            bar.update(task, description=f"training: {name}, seed {seed}")
            file = config.run / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}.safetensors"
            if not file.exists():
                make(file)
            trained.setdefault(name, []).append(load_decoder(file))
            bar.advance(task)
        bar.update(task, description="testing")
        found = test(config, band, trained)
    result = summary(config, found)
    checkpoint.write_atomically(config.out.with_suffix(".json"), (json.dumps(result, indent=1) + "\n").encode())
    plot(config.out.with_suffix(".png"), result)
    return result


def trainings(config: TableConfig, band: Armband) -> list[tuple[str, int, Callable[[Path], None]]]:
    """(name, seed, what trains it and writes its file)."""
    found: list[tuple[str, int, Callable[[Path], None]]] = []
    for seed in range(config.seeds):
        own: dict[int, tuple[Source, Recordings]] = {}

        def of_one(seed: int = seed, own: dict = own) -> tuple[Source, Recordings]:
            if seed not in own:  # recorded once for all kinds
                recording = RecordingConfig(
                    discrete=config.discrete,
                    continuous=config.continuous,
                    validation=3,
                    test=0,
                    reference_seed=1000 + 10 * seed,
                )
                sets = recorded(recording, "flexed", lambda name, done: None)
                own[seed] = (sets.training, sets.validation)
            return own[seed]

        found += [(kind, seed, partial(fit, config, band, kind, seed, of_one)) for kind in config.kinds]
        found.append((MANY, seed, partial(fit, config, band, "tcn", seed, partial(of_many, config, seed))))
    return found


def of_many(config: TableConfig, seed: int) -> tuple[Source, Recordings]:
    """The recordings of a part of the dataset's people, and those of its people of validation."""
    data = splits(load_dataset(config.dataset))
    people = sorted(data.training.people)
    count = max(1, round(config.share * len(people)))
    chosen = np.random.default_rng([seed, 9301]).choice(people, count, replace=False)
    return FromDisk(data.training.select(people=chosen.tolist())), data.validation.load()


def fit(
    config: TableConfig, band: Armband, kind: str, seed: int, data: Callable[[], tuple[Source, Recordings]], file: Path
) -> None:
    """Train one decoder and write it."""
    network = networks.make_config(kind, channels=band.channels, rate_hz=band.rate_hz)
    trained = train(network, TrainingConfig(updates=config.updates, seed=seed), *data())
    save_decoder(file, network, trained.params, band.channel_labels, f"{kind} seed {seed}")


def cases_of(config: TableConfig, band: Armband, people: Population) -> list[Case]:
    """Everybody and everything to test on; `group` is one of CASES."""
    home = people.add("home", partial(build_emg, band, people.config))
    cases = [Case("same person", "", 0.0, "", home)]
    for number, person in enumerate(sample_people(HELD_OUT_FROM, config.people, band)):
        key = people.add(f"new {number}", partial(build_person, person))
        cases.append(Case("new person", str(number), 0.0, "", key))
    for degrees in (config.turn_deg, -config.turn_deg):
        worn = dataclasses.replace(band, first_angle_deg=band.first_angle_deg + degrees)
        key = people.add(f"turned {degrees:g}", partial(build_emg, worn, people.config))
        cases.append(Case("armband turned", f"{degrees:g}", degrees, "degrees", key))
    cases.append(Case("fatigue", "", 1.0, "strength", home, condition(band, "fatigue", 1.0)))
    for first in (0, 4, 8, 12):
        cases.append(Case("lost channel", band.channel_labels[first], 1.0, "", home, without(band, 1, first)))
    return cases


def test(
    config: TableConfig, band: Armband, trained: dict[str, list[DecoderWeights]]
) -> dict[str, dict[str, list[float]]]:
    """decoder -> case -> accuracy of each seed, mean over recordings and over the cases of that name."""
    people = Population(band, EmgConfig())
    cases = cases_of(config, band, people)
    held_out = ReferenceConfig(kind="discrete", seed=held_out_seed(210), split="held_out")
    emg, labels = synthesised(people, cases, band, held_out, config.recordings, config.seconds)
    to_fit = [Case("own", key, 0.0, "", key) for key in people.made]
    known = ReferenceConfig(kind="discrete", seed=5000, split="training")
    own, own_labels = synthesised(
        people, to_fit, band, known, max(1, round(config.own_s / config.seconds)), config.seconds
    )
    fitted_name = FITTED.format(config.own_s)
    found: dict[str, dict[str, list[float]]] = {name: {case: [] for case in CASES} for name in (*trained, fitted_name)}
    for name, seeds in trained.items():
        for weights in seeds:
            fitted = {}
            if name == MANY:
                fitted = {
                    case.person: personalised(weights.config, weights.params, Recordings(heard, own_labels))
                    for case, heard in zip(to_fit, own, strict=True)
                }
            for way, params_of in ((name, {}), (fitted_name, fitted)):
                right: dict[str, list[float]] = {case: [] for case in CASES}
                if way == fitted_name and not fitted:
                    continue
                for case, heard in zip(cases, emg, strict=True):
                    odds = run_offline(weights.config, params_of.get(case.person, weights.params), heard)
                    right[case.group].append(float(((odds > 0) == (labels > 0.5)).mean()))
                for case_name in CASES:
                    found[way][case_name].append(float(np.mean(right[case_name])))
    return found


def synthesised(
    people: Population, cases: list[Case], band: Armband, reference: ReferenceConfig, recordings: int, seconds: float
) -> tuple[list[np.ndarray], np.ndarray]:
    """EMG (recordings, samples, channels) of every case, and their labels (recordings, steps, 5)."""
    run, seeds = record_drive(band, recordings, seconds, reference)
    emg = [np.empty((recordings, round(seconds * band.rate_hz), band.channels), np.float32) for _ in cases]
    for case, recording, signal in resynthesise(people, cases, run, seeds):
        emg[case][recording] = signal
    return emg, run.labels


def summary(config: TableConfig, found: dict[str, dict[str, list[float]]]) -> dict:
    """What the JSON file holds: `rows` (decoder, case, accuracy, low, high: 95 % over seeds, and each seed's)."""
    rows = []
    for name, by_case in found.items():
        for case, values in by_case.items():
            mean, low, high = interval(np.array(values)) if len(values) > 1 else (values[0], values[0], values[0])
            figures = {"accuracy": round(mean, 4), "low": round(low, 4), "high": round(high, 4)}
            rows.append({"decoder": name, "case": case, **figures, "seeds": [round(value, 4) for value in values]})
    about = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return {"chance": 0.5, "rows": rows, "config": about}


def plot(file: Path, result: dict) -> None:
    """A group of bars a case, a bar a decoder, with intervals and every seed as a dot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["decoder"] for row in result["rows"]))
    colors = dict(zip(names, ("tab:blue", "tab:purple", "tab:gray", "tab:orange", "tab:red"), strict=False))
    figure = Figure(figsize=(10, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    width = 0.8 / len(names)
    for n, name in enumerate(names):
        rows = {row["case"]: row for row in result["rows"] if row["decoder"] == name}
        x = np.arange(len(CASES)) + (n - (len(names) - 1) / 2) * width
        mean, low, high = (100 * np.array([rows[case][key] for case in CASES]) for key in ("accuracy", "low", "high"))
        axis.bar(x, mean, width * 0.92, color=colors.get(name), alpha=0.75, label=name)
        axis.errorbar(x, mean, yerr=[mean - low, high - mean], fmt="none", ecolor="black", elinewidth=1, capsize=2)
        for place, case in zip(x, CASES, strict=True):
            axis.plot([place] * len(rows[case]["seeds"]), 100 * np.array(rows[case]["seeds"]), ".", color="black", ms=3)
    axis.axhline(50, color="black", ls=":", lw=0.8)
    axis.set_xlim(-0.7, len(CASES) - 0.5)
    axis.text(-0.68, 50.4, "chance", fontsize=8)
    turn = result["config"]["turn_deg"]
    shown = [f"armband turned\nby {turn:g} degrees" if case == "armband turned" else case for case in CASES]
    axis.set_xticks(np.arange(len(CASES)), shown)
    axis.set(ylabel="accuracy, mean over fingers (%)", ylim=(45, 100))
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=8, ncols=2, loc="upper right", title="decoder, trained on one person unless it says many")
    figure.supxlabel(
        f"Frames of held-out discrete references answered right by people who do not adapt. Bars: mean over "
        f"{result['config']['seeds']} training seeds,\nwith its 95 % confidence interval; dots: each seed.",
        fontsize=8,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    try:
        print(json.dumps(main(tyro.cli(TableConfig, description=__doc__))))
    except MyoloopError as error:
        sys.exit(f"training/decoder_table.py: {error}")
    except KeyboardInterrupt:
        sys.exit("training/decoder_table.py: stopped; what is trained is kept, start again to go on.")
