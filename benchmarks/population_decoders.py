"""Decoders on the same people: experiments/population.yaml for each, and how their accuracies are spread.

    python benchmarks/population_decoders.py --models models/decoder_tcn/decoder.onnx models/decoder_multiuser/decoder.onnx

Nobody adapts: the policy is phase 1's. Writes a figure and a JSON file; the last line of standard output is the same JSON.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from myoloop import checkpoint
from myoloop.errors import MyoloopError
from myoloop.experiment import load_experiment, save_experiment
from myoloop.live.population import LivePopulation
from myoloop.machine import processor
from myoloop.report import NO_WITNESS, write_report


@dataclass(frozen=True)
class Config:
    """What is compared."""

    models: tuple[str, ...] = ("models/decoder_tcn/decoder.onnx", "models/decoder_multiuser/decoder.onnx")
    """ONNX files for the experiment's armband."""
    participants: int = 24
    """People, the same for each decoder."""
    seconds: float = 60.0
    """Length of each one's session, s."""
    seed: int = 1_000_000
    """Of the people."""
    experiment: str = "experiments/population.yaml"
    """What is run."""
    out: Path = Path("docs/results/population")
    """Figure and JSON, without the ending."""


def main(config: Config) -> dict[str, Any]:
    """Run each, draw, write."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
    found: dict[str, Any] = {}
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=len(config.models) * config.seconds)
        for place, model in enumerate(config.models):
            name = Path(model).parent.name if Path(model).stem == "decoder" else Path(model).stem
            found[name] = scored(
                config,
                model,
                lambda told, name=name: bar.update(task, description=f"{name}: {told}"),
                lambda seconds, place=place: bar.update(task, completed=place * config.seconds + seconds),
            )
    about = {"participants": config.participants, "seconds": config.seconds, "seed": config.seed, "device": processor()}
    result = {"config": about, "decoders": found}
    checkpoint.write_atomically(config.out.with_suffix(".json"), (json.dumps(result, indent=1) + "\n").encode())
    plot(config.out.with_suffix(".png"), result)
    return result


def scored(config: Config, model: str, say: Any, on_second: Any) -> dict[str, Any]:
    """The section `population` of one decoder's report, without everybody's traits twice, and the wall time."""
    changes = {"decoder.model": model, "duration_s": config.seconds, "population.seed": config.seed}
    experiment = load_experiment(config.experiment, changes | {"population.participants": config.participants})
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder)
        say("building the people")
        live = LivePopulation(experiment, run_dir)
        built = time.perf_counter()
        live.start()
        say("running")
        while live.running:
            on_second(live.status()["time_s"])
            time.sleep(0.2)
        live.close()
        if live.error:
            raise MyoloopError(f"{model}: {live.error}")
        took = time.perf_counter() - built
        save_experiment(experiment, run_dir / "config.yaml")
        report = write_report(run_dir, NO_WITNESS, (np.zeros((0, 0)), np.zeros(0)), Console(quiet=True))
    pace = {"build_s": round(built - begin, 1), "run_s": round(took, 1), "step_ms": report["loop"]["step_ms"]}
    return report["population"] | pace


def plot(file: Path, result: dict[str, Any]) -> None:
    """Everybody's accuracy with each decoder, joined by person; and each finger's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    decoders = result["decoders"]
    names, colors = list(decoders), ("tab:blue", "tab:red", "tab:green", "tab:purple")
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.6], sharey=True)
    by_person = np.array([[100 * each["accuracy"] for each in decoders[name]["people"]] for name in names])
    place = np.arange(len(names))
    left.plot(place, by_person, color="0.75", lw=0.7, zorder=1)
    left.boxplot(by_person.T, positions=place, widths=0.32, showfliers=False, medianprops={"color": "black"})
    rng = np.random.default_rng(0)
    fingers = list(decoders[names[0]]["fingers"])
    for n, name in enumerate(names):
        color = colors[n % len(colors)]
        left.plot(np.full(by_person.shape[1], n), by_person[n], "o", color=color, ms=4, zorder=3)
        lowest = int(by_person[n].argmin())
        told = decoders[name]["people"][lowest]["id"]
        left.annotate(told, (n, by_person[n, lowest]), (9, -2), textcoords="offset points", fontsize=8, va="top")
        for f, finger in enumerate(fingers):
            values = 100 * np.array([each["accuracy_per_finger"][finger] for each in decoders[name]["people"]])
            x = f + (n - (len(names) - 1) / 2) * 0.28
            drawn = right.boxplot(
                values, positions=[x], widths=0.22, showfliers=False, medianprops={"color": "black"}, patch_artist=True
            )
            drawn["boxes"][0].set(facecolor=color, alpha=0.35)
            jitter = rng.uniform(-0.05, 0.05, len(values))
            right.plot(x + jitter, values, ".", color=color, ms=4, label=name if f == 0 else None)
    left.set_xticks(place, names, fontsize=8)
    left.set(xlim=(-0.5, len(names) - 0.5), ylabel="accuracy (% of finger answers)")
    right.set_xticks(np.arange(len(fingers)), fingers)
    right.legend(fontsize=8, loc="upper right", ncols=2)
    for axis in (left, right):
        axis.axhline(50, color="black", ls=":", lw=0.8)
        axis.grid(axis="y", alpha=0.3)
    right.text(len(fingers) - 0.6, 50.6, "chance", fontsize=8, ha="right")
    low = min(float(axis.get_ylim()[0]) for axis in (left, right))
    left.set_ylim(min(low, 47.0), left.get_ylim()[1] + 3.0)  # room for the legend
    about = result["config"]
    figure.supxlabel(
        f"{about['participants']} people drawn by seed {about['seed']}, whom no decoder has met and who do not adapt, all "
        f"asked the same for {about['seconds']:g} s.\nLeft: a dot a person, grey lines join the same person; boxes: quartiles. "
        "Right: the same by finger.",
        fontsize=8,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    logging.getLogger("myoloop").setLevel(logging.ERROR)
    try:
        print(json.dumps(main(tyro.cli(Config, description=__doc__))))
    except MyoloopError as error:
        sys.exit(f"benchmarks/population_decoders.py: {error}")
