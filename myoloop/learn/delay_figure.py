"""One picture of what training/delays.py measured: how well participants do against the delay of their feedback."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

AT_NONE, AT_THIS, SHIPPED = "adapted without delay", "adapted at this delay", "shipped"
"""The lines: a participant adapted at the first delay and tried at all, one adapted at each, the shipped one tried at all."""
LOOKS = {AT_NONE: ("#c55a11", "o", "-"), AT_THIS: ("#1f4e79", "s", "-"), SHIPPED: ("#8d99ae", "^", "--")}
OPTIMUM_MS, LINEAR_TO_MS = (100, 125), 300
"""Users of prostheses do best below a controller delay of 100 to 125 ms, and lose linearly up to 300 ms: Farrell & Weir 2007,
The optimal controller delay for myoelectric prostheses (IEEE Trans Neural Syst Rehabil Eng 15:111-118)."""

Rows = list[dict[str, Any]]


def slope(rows: Rows) -> dict[str, float | None]:
    """Straight lines through a line's figures, by least squares: what 100 ms of delay change."""
    delay = np.array([row["delay_ms"] for row in rows]) / 100.0
    times = [row["sudden_quartiles_s"] for row in rows]
    told = {
        "accuracy_points": [100 * row["accuracy"] for row in rows],
        "sudden_reached_points": [
            np.nan if row["sudden_reached"] is None else 100 * row["sudden_reached"] for row in rows
        ],
        "sudden_time_to_reach_s": [np.nan if each is None else each[1] for each in times],
    }
    found: dict[str, float | None] = {}
    for name, values in told.items():
        known = np.isfinite(values)
        fitted = np.polyfit(delay[known], np.array(values)[known], 1)[0] if known.sum() > 1 else np.nan
        found[f"{name}_per_100_ms"] = round(float(fitted), 3) if np.isfinite(fitted) else None
    return found


def draw(found: dict[str, Any]) -> bytes:
    """PNG of the page, from what training/delays.py found (or its JSON file read back)."""
    figure = Figure(figsize=(14, 5.4), layout="constrained")
    axes = figure.subplots(1, 3)
    about = found["about"]
    for axis in axes:
        band = axis.axvspan(*OPTIMUM_MS, color="#548235", alpha=0.18, lw=0)
        axis.set_xlabel("injected feedback delay (ms)")
        axis.grid(alpha=0.3)
    for name, (colour, mark, line) in LOOKS.items():
        if name in found:
            _line(axes, found[name], name, colour, mark, line)
    axes[0].set_ylabel("right answers (%)")
    axes[0].set_title("Reference, known 0.25 s ahead", loc="left", fontsize=10)
    axes[1].set_ylabel(f"gestures reached in {about['sudden_s']:g} s, held {about['sudden_dwell_s']:g} s (%)")
    axes[1].set_ylim(bottom=0)
    axes[1].set_title("Sudden gestures: reached", loc="left", fontsize=10)
    axes[2].set_ylabel("time to reach, median and quartiles (s)")
    axes[2].set_ylim(bottom=0)
    axes[2].set_title("Sudden gestures: time of those reached", loc="left", fontsize=10)
    handles, names = axes[0].get_legend_handles_labels()
    named = {AT_NONE: f"adapted at {about['adapted_at_ms']} ms", SHIPPED: "shipped (adapted at 0 ms, 1 M steps)"}
    published = (
        f"optimum of users of prostheses, {OPTIMUM_MS[0]}-{OPTIMUM_MS[1]} ms, then linear loss to {LINEAR_TO_MS} ms"
    )
    axes[0].legend(
        [*handles, band],
        [*(named.get(n, n) for n in names), published + "\n(Farrell & Weir 2007)"],
        loc="lower left",
        fontsize=7.5,
    )
    test = about["test"]
    figure.suptitle(
        "Feedback that comes late: participants adapted without delay, and at each delay, tried at every delay.\n"
        f"Adapted: {about['learner']}, {about['steps'] / 1e6:g} M steps each, seed {about['seed']}. Tried: no exploration, "
        f"{test['participants']} held-out references of {test['seconds']:g} s. Bars: left, 95 % interval over references; "
        f"middle, of a proportion (Wilson).\nDecoder frozen, 20 ms control steps; {about['device']}.",
        fontsize=9,
    )  # fmt: skip
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()


def _line(axes: np.ndarray, rows: Rows, name: str, colour: str, mark: str, line: str) -> None:
    delay = np.array([row["delay_ms"] for row in rows], float) + 2.0 * (list(LOOKS).index(name) - 1)
    style: dict[str, Any] = {
        "color": colour,
        "marker": mark,
        "linestyle": line,
        "markersize": 5,
        "capsize": 3,
        "label": name,
    }
    accuracy, half = (100 * np.array([row[key] for row in rows]) for key in ("accuracy", "accuracy_ci"))
    axes[0].errorbar(delay, accuracy, half, **style)
    reached = [row for row in rows if row["sudden_reached"] is not None]
    if reached:
        _with_bars(axes[1], delay, rows, [_proportion(row["sudden_trials"]) for row in rows], style)
    _with_bars(axes[2], delay, rows, [row["sudden_quartiles_s"] for row in rows], style)


def _with_bars(axis: Axes, delay: np.ndarray, rows: Rows, values: list[Any], style: dict[str, Any]) -> None:
    """Points with bars from low to high; those without a value are left out."""
    known = np.array([value is not None for value in values])
    if known.any():
        low, middle, high = np.array([value for value in values if value is not None]).T
        axis.errorbar(delay[known], middle, [middle - low, high - middle], **style)


def _proportion(trials: dict[str, Any]) -> tuple[float, float, float] | None:
    if not trials["count"]:
        return None
    test = stats.binomtest(round(trials["reached"] * trials["count"]), trials["count"])
    within = test.proportion_ci(method="wilson")
    return 100 * within.low, 100 * trials["reached"], 100 * within.high
