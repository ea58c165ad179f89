"""Pictures and numbers of adaptation from run folders.

    python training/figures.py --runs "internal model=runs/phase2" "ppo=runs/phase2-ppo" --used runs/use.json --out docs/results

Writes adaptation.png and adaptation.json (`arms`: name -> steps, participant_hours, minutes, accuracy while exploring; and
without exploration, where --used names a policy of the same name, accuracy, effort and joint error from training/use.py).
"""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure

from myoloop.checkpoint import write_atomically
from myoloop.errors import MyoloopError

PANELS = (
    ("accuracy", "right answers (%)", 100.0),
    ("tip_error_mm", "fingertips off the gesture (mm)", 1.0),
    ("effort", "effort (mean squared excitation)", 1.0),
)
COLOURS = ("#1f4e79", "#c55a11", "#548235", "#7f6000", "#7030a0", "#404040")


@dataclass(frozen=True)
class FiguresRun:
    """What is drawn."""

    runs: tuple[str, ...]
    """name=folder of each run of training/phase2.py."""
    used: Path | None = None
    """JSON of training/use.py whose policies have the runs' names, and one named "before"."""
    out: Path = Path("docs/results")
    """Folder for adaptation.png and adaptation.json."""
    control_hz: float = 50.0
    """Control steps a second."""


def main(run: FiguresRun) -> dict[str, Any]:
    """Draws; returns what the JSON file holds."""
    used = json.loads(run.used.read_text()) if run.used else {}
    arms: dict[str, Any] = {}
    curves = {}
    for entry in run.runs:
        name, equals, folder = entry.partition("=")
        if not equals or not (Path(folder) / "curves.csv").is_file():
            raise MyoloopError(f"--runs {entry}: expected name=folder of a run that holds curves.csv.")
        config = json.loads((Path(folder) / "config.json").read_text())
        curves[name] = columns = read_curves(Path(folder) / "curves.csv")
        steps, last = int(columns["steps"][-1]), slice(-20, None)
        arms[name] = {
            "learner": config["learner"],
            "steps": steps,
            "participant_hours": round(steps / run.control_hz / 3600, 2),
            "minutes": round(float(columns["seconds"][-1]) / 60, 1),
            "seeds": [config["seed"]],
            "accuracy_exploring": round(float(columns["accuracy"][last].mean()), 4),
            **_deterministic(used.get(name)),
        }
    result = {"arms": arms, "before": _deterministic(used.get("before")), "about": used.get("about", {})}
    write_atomically(run.out / "adaptation.json", (json.dumps(result, indent=1) + "\n").encode())
    write_atomically(run.out / "adaptation.png", draw(curves, result, run.control_hz))
    return result


def read_curves(path: Path) -> dict[str, np.ndarray]:
    """Columns of a curves.csv."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def draw(curves: dict[str, dict[str, np.ndarray]], result: dict[str, Any], control_hz: float) -> bytes:
    """Three panels against participant hours; lines: while exploring, dots: without exploration."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for (name, columns), colour in zip(curves.items(), COLOURS, strict=False):
        hours = columns["steps"] / control_hz / 3600
        for axis, (field, _, scale) in zip(axes, PANELS, strict=True):
            width = min(9, len(hours))
            smooth = np.convolve(scale * columns[field], np.ones(width) / width, "valid")
            axis.plot(hours[width - 1 :], smooth, color=colour, linewidth=1.5, label=name)
        arm = result["arms"][name]
        for axis, key in zip(axes, ("accuracy", "keypoint_error_mm", "effort"), strict=True):
            if key in arm:
                factor = 100.0 if key == "accuracy" else 1.0
                axis.plot(hours[-1], factor * arm[key], "o", color=colour, markersize=7)
    for axis, (_, label, _), key in zip(axes, PANELS, ("accuracy", "keypoint_error_mm", "effort"), strict=True):
        axis.set_xlabel("participant time (hours)")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        if key in result["before"]:
            factor = 100.0 if key == "accuracy" else 1.0
            axis.axhline(factor * result["before"][key], color="black", linewidth=0.9, linestyle="--", label="before")
    axes[0].legend(loc="lower right", fontsize=8)
    top = axes[0].secondary_xaxis(
        "top", functions=(lambda h: h * control_hz * 3.6e-3, lambda m: m / control_hz / 3.6e-3)
    )
    top.set_xlabel("control steps (millions)")
    axes[2].set_ylim(bottom=0.0)
    axes[1].set_ylim(bottom=0.0)
    figure.suptitle(
        "Learning to use a frozen decoder. Lines: while exploring, pushed and loaded, running mean of 9 updates; dots: without "
        "\nexploration on held-out references; dashed: the policy before it met the decoder.",
        fontsize=9,
    )
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()


def _deterministic(found: dict[str, Any] | None) -> dict[str, Any]:
    if not found:
        return {}
    closed = found["closed"]
    names = ("accuracy", "accuracy_per_finger", "settled_accuracy", "effort", "joint_error_deg", "keypoint_error_mm")
    return {name: closed[name] for name in names} | (
        {"open_loop": found["open"]["accuracy"]} if "open" in found else {}
    )


if __name__ == "__main__":
    try:
        print(json.dumps(main(tyro.cli(FiguresRun, description=__doc__))))
    except MyoloopError as error:
        sys.exit(f"training/figures.py: {error}")
