"""What adapting to a black box changed: each gesture before and after, on the original, and the way there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

BEFORE, AFTER, INK = "#c55a11", "#1f4e79", "#1d2733"


class Course(NamedTuple):
    """Right answers of the fingers while it learned."""

    minutes: Sequence[float]
    """Participant time with the original, or with its copy, min."""
    accuracy: Sequence[float | None]
    """0..1"""
    label: str


def plot_blackbox(result: dict[str, Any], course: Course | None) -> Figure:
    """One picture.

    Args:
      result: what training/adapt_blackbox.py says.
      course: how learning went, exploring; None: not known.
    """
    figure = Figure(figsize=(9.2 if course else 5.2, 4.2), layout="constrained")
    left, *rest = figure.subplots(1, 2 if course else 1, squeeze=False)[0]
    before, after = result["stages"]["before"], result["stages"]["after"]
    _bars(left, before, after, result)
    if course and rest:
        axes = rest[0]
        known = [(m, 100 * a) for m, a in zip(course.minutes, course.accuracy, strict=True) if a is not None]
        axes.plot(*zip(*known, strict=True), color=INK, lw=1.2, label=course.label)
        axes.axhline(100 * before["finger_accuracy"], color=BEFORE, lw=1.2, ls="--", label="before, frozen, original")
        axes.axhline(100 * after["finger_accuracy"], color=AFTER, lw=1.2, ls="--", label="after, frozen, original")
        axes.set(xlabel="participant time (min)", ylabel="right answers, mean of five fingers (%)")
        axes.set_title("learning", loc="left", fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    agreed = result["copy_agreement"]
    copied = (
        ""
        if agreed is None
        else f"\nAfterwards copy and original meant the same in {100 * agreed:.0f} % of the answers."
    )
    figure.suptitle(
        f"{result['decoder']}, adapted to {'by a copy' if result['way'] == 'copy' else 'online, in lockstep'}: measured on the "
        f"original, in real time, policy frozen, prompts not used before.\nSeed {result['seed']}, "
        f"{result['participant_s'] / 60:.0f} min of participant time with the original, {result['wall_s'] / 60:.0f} min in all "
        f"({result['device']}).{copied}",
        fontsize=9,
    )
    return figure


def _bars(axes: Any, before: dict[str, Any], after: dict[str, Any], result: dict[str, Any]) -> None:
    """Each gesture's right steps, and the mean of all."""
    if before["by_gesture"]:
        names = [*before["by_gesture"], "mean"]
        values = [
            [100 * stage["by_gesture"].get(name, 0.0) for name in names[:-1]] + [100 * stage["balanced_accuracy"]]
            for stage in (before, after)
        ]
        axes.set_ylabel("control steps in which the gesture was right (%)")
    else:
        names, values = ["fingers"], [[100 * result["accuracy_before"]], [100 * result["accuracy_after"]]]
        axes.set_ylabel("right answers (%)")
    place = np.arange(len(names))
    for shift, row, colour, label in ((-0.2, values[0], BEFORE, "before"), (0.2, values[1], AFTER, "after")):
        bars = axes.bar(place + shift, row, 0.38, color=colour, label=label)
        axes.bar_label(bars, fmt="%.0f", fontsize=7)
    axes.set_xticks(place, names, rotation=20)
    axes.set_ylim(0, 124)
    axes.set_yticks(range(0, 101, 20))
    axes.set_title("every control step counts, those of the movement too", loc="left", fontsize=10)
    axes.legend(fontsize=8, loc="upper right", ncols=2)
