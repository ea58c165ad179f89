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
    figure = Figure(figsize=(11, 8.6), layout="constrained")
    axes, about = figure.subplots(2, 2, sharex=True), found["about"]
    test, lines = about["test"], [name for name in LOOKS if name in found]
    for axis in axes.flat:
        band = axis.axvspan(*OPTIMUM_MS, color="#548235", alpha=0.18, lw=0)
        axis.grid(alpha=0.3)
    handles = [_line(axes, found[name], name) for name in lines]
    asked = f"{about['sudden_s']:g} s, held {about['sudden_dwell_s']:g} s"
    for axis, title, label in (
        (axes[0, 0], "Flowing reference, known 0.25 s ahead: answers", "right answers (%)"),
        (axes[0, 1], "Flowing reference: gestures", f"gestures reached (%), held {test['dwell_s']:g} s"),
        (axes[1, 0], "Sudden gestures", f"gestures reached (%), asked for {asked}"),
        (axes[1, 1], "Sudden gestures: time of those reached", "time to reach (s), median and quartiles"),
    ):
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylabel(label)
    for axis in axes.flat[1:]:
        axis.set_ylim(bottom=0)
    for axis in axes[1]:
        axis.set_xlabel("injected feedback delay (ms)")
    named = {AT_NONE: f"adapted at {about['adapted_at_ms']} ms", SHIPPED: about["shipped"]}
    optimum, linear = f"{OPTIMUM_MS[0]}-{OPTIMUM_MS[1]} ms", f"up to {LINEAR_TO_MS} ms (Farrell & Weir 2007)"
    published = f"below it users of prostheses do best ({optimum}), beyond they lose linearly {linear}"
    figure.legend(
        [*handles, band], [*(named.get(name, name) for name in lines), published],
        loc="outside lower center", ncols=len(lines) + 1, fontsize=8.5, frameon=False,
    )  # fmt: skip
    figure.suptitle(
        "Feedback that comes late: a participant adapted without delay, and one adapted at each delay.\n"
        f"Adapted: {about['learner']}, {about['steps'] / 1e6:g} M steps each, seed {about['seed']}, decoder frozen. Tried: no "
        f"exploration, {test['participants']} held-out references of {test['seconds']:g} s;\n{about['device']}. Bars: answers, "
        "95 % interval over references; gestures reached, 95 % interval of a proportion (Wilson).",
        fontsize=9,
    )  # fmt: skip
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()


def _line(axes: np.ndarray, rows: Rows, name: str) -> Any:
    """One participant's, or kind of participant's, points in all panels; returns the legend's handle."""
    colour, mark, line = LOOKS[name]
    aside = 2.0 * (list(LOOKS).index(name) - 1)  # ms, so that bars do not hide each other
    delay = aside + np.array([row["delay_ms"] for row in rows], float)
    style: dict[str, Any] = {"color": colour, "marker": mark, "linestyle": line, "markersize": 5, "capsize": 3}
    accuracy, half = (100 * np.array([row[key] for row in rows]) for key in ("accuracy", "accuracy_ci"))
    handle = axes[0, 0].errorbar(delay, accuracy, half, **style)
    _with_bars(axes[0, 1], delay, [_proportion(row["trials"]) for row in rows], style)
    _with_bars(axes[1, 0], delay, [_proportion(row["sudden_trials"]) for row in rows], style)
    _with_bars(axes[1, 1], delay, [row["sudden_quartiles_s"] for row in rows], style)
    return handle


def _with_bars(axis: Axes, delay: np.ndarray, values: list[Any], style: dict[str, Any]) -> None:
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
