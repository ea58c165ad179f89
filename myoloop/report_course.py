"""The course of a session: accuracy, movement and effort in windows, what changed meanwhile, and how a learner came along."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from myoloop.body.names import JOINTS
from myoloop.pages import BAD, GOOD, INK

WINDOW_S = 10.0
"""Length of a window."""
MOST = 60
"""Windows in a report: a longer session has longer ones."""
POINTS = 300
"""Points of a learner's curve in a report."""
FINGER_JOINTS = [n for n, joint in enumerate(JOINTS) if joint not in ("pro_sup", "deviation", "flexion")]


def course(rows: np.ndarray | None, control_hz: float) -> dict[str, Any] | None:
    """Windows of the step log, or None if there are fewer than two."""
    if rows is None:
        return None
    window = round(WINDOW_S * control_hz * max(1, np.ceil(len(rows) / (MOST * WINDOW_S * control_hz))))
    count = len(rows) // window
    if count < 2:
        return None
    parts = [rows[n * window : (n + 1) * window] for n in range(count)]
    return {
        "window_s": window / control_hz,
        "accuracy": [_accuracy(part) for part in parts],
        "joint_error_deg": [
            round(float(np.abs(part["joints_deg"] - part["wanted_deg"])[:, FINGER_JOINTS].mean()), 2) for part in parts
        ],
        "effort": [round(float(np.mean(part["excitation"] ** 2)), 5) for part in parts],
    }


def _accuracy(rows: np.ndarray) -> float | None:
    heard = np.isfinite(rows["prediction_age_s"])
    if not heard.any():
        return None
    right = (rows["prediction"] > 0.5) == (rows["target"] > 0.5)
    return round(float(right[heard].mean()), 4)


def changes(events: list[tuple[float, str]], begin: float) -> list[dict[str, Any]]:
    """What was changed during the session, by schedule or by request: from events `condition NAME STRENGTH`."""
    found = []
    for time, text in events:
        if text.startswith("condition "):
            _, name, strength = text.split(" ")
            found.append({"time_s": round(time - begin, 2), "condition": name, "strength": float(strength)})
    return found


def learning(run_dir: Path, config: dict[str, Any], status: dict[str, Any]) -> dict[str, Any] | None:
    """How learning went, from learning.csv and the participant's last status; None if nobody learned."""
    settings, told = config["participant"].get("adapt"), status.get("learner")
    if not settings:
        return None
    lines = _lines(run_dir / "learning.csv")
    last = lines[-1] if lines else {}
    every = max(1, -(-len(lines) // POINTS))
    took = [line["compute_s"] for line in lines]
    told = told or {}
    return {
        "learner": settings["learner"],
        "lost": told.get("phase") == "lost",
        "swaps": told.get("swaps", 0),
        "swap_ms": told.get("swap_ms"),
        "steps_dropped": told.get("dropped", 0),
        **{name: int(last.get(name, 0)) for name in ("stretches", "paired", "unheard", "forgotten")},
        "compute_s": {"median": float(np.median(took)), "max": max(took)} if took else None,
        "curve": {name: [line[name] for line in lines[::every]] for name in ("time_s", "model_loss", "wanted_loss")},
    }


def _lines(path: Path) -> list[dict[str, float]]:
    """Whole, finite lines of the table; a process that was killed may have left half a line."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            raw = list(csv.DictReader(file))
    except OSError:
        return []
    found = []
    for line in raw:
        try:
            values = {name: float(value) for name, value in line.items()}
        except (TypeError, ValueError):
            continue
        if np.isfinite(list(values.values())).all():
            found.append(values)
    return found


def picture(report: dict[str, Any]) -> Figure:
    """Windows over time, one row a quantity; lines where something changed; the learner's loss below."""
    windows, learner = report["course"], report["adaptation"]
    shown = [("accuracy (%)", windows["accuracy"], 100.0)] if any(x is not None for x in windows["accuracy"]) else []
    shown += [("joint error (deg)", windows["joint_error_deg"], 1.0), ("effort", windows["effort"], 1.0)]
    curve = learner["curve"] if learner and learner["curve"]["time_s"] else None
    heights = [2.0 if label.startswith("accuracy") else 1.0 for label, *_ in shown] + ([1.2] if curve else [])
    figure = Figure(figsize=(11, 0.9 + 1.05 * sum(heights)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    length = windows["window_s"]
    time = length * (np.arange(len(windows["effort"])) + 0.5)
    for axis, (label, values, unit) in zip(axes, shown, strict=False):
        numbers = unit * np.array([np.nan if x is None else x for x in values])
        axis.plot(time, numbers, color=GOOD if label.startswith("accuracy") else INK, marker="o", ms=3, lw=1.3)
        axis.set_ylabel(label)
    if shown[0][0].startswith("accuracy"):
        low = float(np.nanmin([100 * x for x in windows["accuracy"] if x is not None]))
        axes[0].set_ylim(min(50.0, low - 3.0), 101.0)
    for axis in axes[len(shown) - 2 : len(shown)]:
        axis.set_ylim(bottom=0.0)
    if curve:
        axes[-1].plot(
            curve["time_s"], curve["model_loss"], color=INK, lw=1.0, label="model against the decoder's answers"
        )
        axes[-1].plot(curve["time_s"], curve["wanted_loss"], color=GOOD, lw=1.0, label="labels, as the model expects")
        axes[-1].set_ylabel("loss (nats)")
        axes[-1].set_ylim(bottom=0.0)
        axes[-1].legend(loc="upper right", ncols=2, frameon=False, fontsize=8)
    axes[-1].set_xlabel("session time (s)")
    axes[-1].set_xlim(0.0, length * len(time))
    for n, change in enumerate(report["changes"]):
        for axis in axes:
            axis.axvline(change["time_s"], color=BAD, lw=1.0, ls="--")
        place = (change["time_s"], 0.97 - 0.1 * (n % 3))
        axes[0].annotate(
            f" {change['condition']} {change['strength']:g}", place, xycoords=("data", "axes fraction"), color=BAD,
            fontsize=8, va="top", rotation=0,
        )  # fmt: skip
    return figure
