"""Runs of phase 2 beside each other: arms of a comparison, each of several seeds, their curves and their figures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from myoloop.errors import MyoloopError

FIGURES = ("accuracy", "settled_accuracy", "effort", "joint_error_deg", "keypoint_error_mm")
"""Of learn.closed_loop.Use, without exploration."""
PANELS = (
    ("accuracy", "accuracy", "right answers (%)", 100.0),
    ("tip_error_mm", "keypoint_error_mm", "fingertips off the gesture (mm)", 1.0),
    ("effort", "effort", "effort (mean squared excitation)", 1.0),
)
"""Column of curves.csv, figure without exploration, label, factor."""
COLOURS = ("#1f4e79", "#c55a11", "#548235", "#7030a0", "#7f6000", "#404040", "#c00000", "#2e9999")
SMOOTH = 9
"""Updates in a running mean."""


class Arm(NamedTuple):
    """One way to learn."""

    config: dict[str, Any]
    """Of the first run."""
    seeds: tuple[int, ...]
    curves: tuple[dict[str, np.ndarray], ...]
    """Columns of every run's curves.csv."""
    used: tuple[dict[str, Any], ...]
    """learn.closed_loop.Use.figures of every run's policy."""


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Configuration and curves of a run.

    Raises:
      MyoloopError: no run of training/phase2.py there.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        with (folder / "curves.csv").open() as file:
            rows = list(csv.DictReader(file))
        return config, {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    except (OSError, ValueError, IndexError) as error:
        raise MyoloopError(
            f"{folder}: expected a run of training/phase2.py with config.json and curves.csv: {error}."
        ) from error


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % confidence interval by Student's t; 0 for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, 0.0
    return mean, float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def summary(arm: Arm, device: str) -> dict[str, Any]:
    """What the JSON file says of an arm: means over seeds, and `_ci` half widths of 95 % intervals."""
    steps = min(int(curves["steps"][-1]) for curves in arm.curves)
    minutes = [float(curves["seconds"][-1]) / 60 for curves in arm.curves]
    exploring = [float(curves["accuracy"][-20:].mean()) for curves in arm.curves]
    result: dict[str, Any] = {
        "learner": arm.config["learner"],
        "steps": steps,
        "participant_hours": round(steps / arm.config["control_hz"] / 3600, 2),
        "minutes": round(float(np.median(minutes)), 1),  # a run that was held up counts its pauses
        "seeds": list(arm.seeds),
        "device": device,
        "accuracy_exploring": round(float(np.mean(exploring)), 4),
    }
    for name in FIGURES:
        values = [used[name] for used in arm.used]
        mean, half = interval(values)
        result |= {name: round(mean, 5), f"{name}_ci": round(half, 5), f"{name}_each": values}
    fingers = np.mean([used["accuracy_per_finger"] for used in arm.used], axis=0)
    return result | {"accuracy_per_finger": [round(float(x), 4) for x in fingers]}


def draw(arms: dict[str, Arm], before: dict[str, Any], title: str, logarithmic: bool = False) -> bytes:
    """Three panels against control steps and participant time; a line and a band: mean and 95 % interval over seeds while
    exploring; dots: every seed without exploration; dashed: `before`. PNG."""
    figure = Figure(figsize=(13, 4.9), layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for (name, arm), colour in zip(arms.items(), COLOURS * 3, strict=False):
        for axis, (column, key, _, factor) in zip(axes, PANELS, strict=True):
            steps, runs = smoothed(arm, column)
            mean, half = np.array([interval(at) for at in runs.T]).T
            axis.plot(steps / 1e6, factor * mean, color=colour, linewidth=1.5, label=f"{name} ({len(arm.seeds)})")
            axis.fill_between(
                steps / 1e6, factor * (mean - half), factor * (mean + half), color=colour, alpha=0.2, lw=0
            )
            for used in arm.used:
                axis.plot(steps[-1] / 1e6, factor * used[key], "o", color=colour, markersize=4.5, alpha=0.8)
    per_hour = next(iter(arms.values())).config["control_hz"] * 3.6e-3  # millions of steps in an hour
    for axis, (_, key, label, factor) in zip(axes, PANELS, strict=True):
        axis.axhline(factor * before[key], color="black", linewidth=0.9, linestyle="--", label="before")
        axis.set_xlabel("control steps (millions)")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        if logarithmic:
            axis.set_xscale("log")
        top = axis.secondary_xaxis("top", functions=(lambda m: m / per_hour, lambda h: h * per_hour))
        top.set_xlabel("participant time (hours)")
    for axis in axes[1:]:
        axis.set_ylim(bottom=0.0)
    axes[0].legend(loc="lower right", fontsize=8)
    figure.suptitle(
        f"{title}\nLines: while exploring, pushed and loaded, running mean of {SMOOTH} updates over seeds (their number in "
        "brackets), band: 95 % interval;\ndots: each seed without exploration on held-out references; dashed: the policy "
        "before it met the decoder.",
        fontsize=9,
    )
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()


def smoothed(arm: Arm, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps (n,) and running means (seeds, n) of a column, as far as every run goes."""
    length = min(len(curves["steps"]) for curves in arm.curves)
    width = min(SMOOTH, length)
    runs = [np.convolve(curves[column][:length], np.ones(width) / width, "valid") for curves in arm.curves]
    return arm.curves[0]["steps"][width - 1 : length], np.array(runs)
