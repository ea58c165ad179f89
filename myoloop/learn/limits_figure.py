"""One picture of what training/limits.py measured: where the answers are wrong, and what could have been."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from myoloop.body.names import FINGERS

SHORT = ("T", "I", "M", "R", "L")
AFTER, OTHER, FREE = "#c55a11", "#8d99ae", "#1f4e79"


def draw(found: dict[str, Any]) -> bytes:
    """PNG of the page, from what training/limits.py found (or its JSON file read back)."""
    figure = Figure(figsize=(14, 13), layout="constrained")
    grid = figure.add_gridspec(3, 6, height_ratios=(1, 1, 1.05))
    _ladder(figure.add_subplot(grid[0, :4]), found)
    _around(figure.add_subplot(grid[0, 4:]), found["where"])
    _fingers(figure.add_subplot(grid[1, :2]), found["where"])
    _company(figure, grid[1, 2:], found["where"])
    _gestures(figure.add_subplot(grid[2, :3]), found["where"])
    _muted(figure.add_subplot(grid[2, 3:]), found["muted"])
    figure.suptitle(
        f"Where the participant that adapted is not understood: {100 * found['where']['accuracy']:.1f} % right on held-out "
        "references, no exploration", fontsize=12,
    )  # fmt: skip
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=100)
    return image.getvalue()


def _ladder(axis: Axes, found: dict[str, Any]) -> None:
    """Accuracies beside each other."""
    chance, free, use = found["chance"], found["free"], found["use"]
    rows = [
        ("before adaptation", use["before"], OTHER),
        ("adapted, without perceiving answers", use["open"], AFTER),
        ("adapted", use["closed"], AFTER),
        ("the same drive, noise averaged out", chance["denoised"], AFTER),
        *((f"free: {name}", arm["accuracy"], FREE) for name, arm in free.items()),
    ]
    place = np.arange(len(rows))[::-1]
    axis.barh(place, [100 * row[1] for row in rows], color=[row[2] for row in rows])
    for at, (_, value, _) in zip(place, rows, strict=True):
        axis.text(100 * value - 0.3, at, f"{100 * value:.1f}", ha="right", va="center", color="white", fontsize=9)
    axis.set_yticks(place, [row[0] for row in rows], fontsize=9)
    axis.set(xlim=(min(70.0, 100 * use["before"] - 5), 100), xlabel="right answers (%)")
    axis.set_title(
        "What was reached and what could be (free drive: no policy, the future known)", loc="left", fontsize=10
    )


def _around(axis: Axes, where: dict[str, Any]) -> None:
    curve = where["around_changes"]
    axis.plot(curve["time_s"], 100 * np.array(curve["accuracy"]), color=AFTER)
    axis.axhline(100 * where["accuracy"], color="black", linewidth=0.8, linestyle=":")
    axis.axvline(0, color="black", linewidth=0.8)
    axis.grid(alpha=0.3)
    axis.set(xlabel="time from the nearest change of the label (s)", ylabel="right answers (%)", xlim=(-1, 1))
    points = next(row for row in where["without_changes"] if row["margin_s"] == 0.1)["points"]
    axis.set_title(f"Around changes (without ±0.1 s: {points:+.1f})", loc="left", fontsize=10)


def _fingers(axis: Axes, where: dict[str, Any]) -> None:
    place = np.arange(5)
    for shift, key, colour, label in (
        (-0.25, "asked_extended", OTHER, "asked extended"),
        (0.0, "asked_flexed", AFTER, "asked flexed"),
        (0.25, "settled", FREE, "settled (0.4 s from any change)"),
    ):
        axis.bar(
            place + shift, [100 * where["error_per_finger"][f][key] for f in FINGERS], 0.24, color=colour, label=label
        )
    axis.set_xticks(place, FINGERS)
    axis.set_ylabel("wrong answers (%)")
    axis.set_ylim(top=axis.get_ylim()[1] * 1.35)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    axis.set_title("Errors of each finger", loc="left", fontsize=10)


def _company(figure: Figure, place: Any, where: dict[str, Any]) -> None:
    part = figure.add_subfigure(place)
    part.suptitle("In whose company a finger is answered wrong", fontsize=10)
    axes = part.subplots(1, 2, sharey=True)
    values = np.array(where["company_points"], float)
    top = float(np.nanmax(np.abs(values)))
    for state, (axis, name) in enumerate(zip(axes, ("extended", "flexed"), strict=True)):
        seen = axis.imshow(values[..., state], cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto")
        for i in range(5):
            for j in range(5):
                if i != j:
                    ink = "white" if abs(values[i, j, state]) > 0.6 * top else "black"
                    axis.text(j, i, f"{values[i, j, state]:+.0f}", ha="center", va="center", fontsize=9, color=ink)
        axis.set_xticks(range(5), SHORT)
        axis.set_yticks(range(5), SHORT)
        axis.set(xlabel="other finger flexed, not extended")
        axis.set_title(f"a finger asked {name}", loc="left", fontsize=10)
    axes[0].set_ylabel("finger answered wrong")
    axes[0].figure.colorbar(seen, ax=list(axes), pad=0.01, label="more errors (points)")


def _gestures(axis: Axes, where: dict[str, Any]) -> None:
    flexed = np.array([[(g >> f) & 1 for f in range(5)] for g in range(32)])
    order = np.lexsort((*(1 - flexed.T[::-1]), flexed.sum(axis=1)))
    rate = 100 * np.array([row or [np.nan] * 5 for row in where["error_by_gesture"]], float)[order].T
    seen = axis.imshow(rate, cmap="Oranges", vmin=0, aspect="auto")
    names = ["".join(s if on else "·" for s, on in zip(SHORT, row, strict=True)) for row in flexed[order]]
    axis.set_xticks(range(32), names, rotation=90, fontsize=7, family="monospace")
    axis.set_yticks(range(5), SHORT)
    axis.set(xlabel="gesture asked: fingers flexed", ylabel="finger answered wrong")
    half = where["half_of_the_errors_in"]
    axis.set_title(
        f"Wrong answers (%); half of all errors are in {half['cells']} of {half['of']} cells", loc="left", fontsize=10
    )
    axis.figure.colorbar(seen, ax=axis, pad=0.01)


def _muted(axis: Axes, muted: dict[str, Any]) -> None:
    names = list(muted["points"])
    values = np.array([muted["points"][name] for name in names])
    seen = axis.imshow(values.T, cmap="Purples", vmin=0, aspect="auto")
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axis.set_yticks(range(5), SHORT)
    axis.set(ylabel="finger answered wrong")
    axis.set_title("Points that a finger loses when a muscle is silenced", loc="left", fontsize=10)
    axis.figure.colorbar(seen, ax=axis, pad=0.01)
