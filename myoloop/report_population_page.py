"""report.html of a population: how the participants' accuracies are spread, what goes with them, and the worst one."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from myoloop.body.names import FINGERS
from myoloop.pages import ASKED, BAD, GOOD, INK, MUTED, as_png, render
from myoloop.report_population import LEVEL, Crowd, trait

SHOWN_S = 20.0
"""s of the worst participant's session that are drawn: the last ones."""
MOST_NAMED = 40
"""Participants up to which each has a name on the axis and a row in the table; of more, the ends."""


def population_page(report: dict[str, Any], crowd: Crowd, config: str) -> str:
    """The HTML text; `config`: the resolved experiment, YAML."""
    found = report["population"]
    people = sorted(found["people"], key=lambda each: each["accuracy"] or 0.0)
    half = MOST_NAMED // 2
    return render(
        "population.html",
        report=report,
        population=found,
        people=people if len(people) <= MOST_NAMED else people[:half] + people[-half:],
        spread=as_png(spread_picture(found)) if found["judged"] else None,
        reasons=as_png(reasons_picture(found)) if found["related"] else None,
        worst=as_png(worst_picture(found, crowd, report["loop"]["control_hz"])) if found["worst"] else None,
        config=config,
    )


def spread_picture(found: dict[str, Any]) -> Figure:
    """Everybody's accuracy in order, and each finger's over everybody."""
    people = sorted(
        (each for each in found["people"] if each["accuracy"] is not None), key=lambda each: each["accuracy"]
    )
    accuracy = 100 * np.array([each["accuracy"] for each in people])
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2.2, 1])
    place = np.arange(len(people))
    of_all = found["accuracy"]
    left.axhspan(100 * of_all["q1"], 100 * of_all["q3"], color=MUTED, alpha=0.45, lw=0)
    left.axhline(100 * of_all["median"], color=INK, lw=1)
    left.plot(place, accuracy, "o", color=GOOD, ms=6 if len(people) <= MOST_NAMED else 2)
    left.plot(0, accuracy[0], "o", color=BAD, ms=7)
    left.annotate(
        people[0]["id"], (0, accuracy[0]), (6, -4), textcoords="offset points", color=BAD, fontsize=9, va="top"
    )
    told = f"median {100 * of_all['median']:.1f}"
    left.text(0.01, 100 * of_all["median"], told, fontsize=8, va="bottom", transform=left.get_yaxis_transform())
    if len(people) <= MOST_NAMED:
        left.set_xticks(place, [each["id"] for each in people], rotation=90, fontsize=8)
    left.set(xlabel="participants, in order", ylabel="accuracy (% of finger answers)")
    shares = [100 * np.array([each["accuracy_per_finger"][name] for each in people]) for name in FINGERS]
    pale = {"color": ASKED}
    right.boxplot(
        shares,
        widths=0.5,
        showfliers=False,
        medianprops={"color": INK},
        boxprops=pale,
        whiskerprops=pale,
        capprops=pale,
    )
    rng = np.random.default_rng(0)
    for n, values in enumerate(shares):
        right.plot(n + 1 + rng.uniform(-0.12, 0.12, len(values)), values, ".", color=GOOD, ms=5, alpha=0.7)
        right.plot(n + 1, values[0], "o", color=BAD, ms=6)
    right.set_xticks(np.arange(len(FINGERS)) + 1, FINGERS)
    right.set_xlabel("finger")
    for axis in (left, right):
        low, high = axis.get_ylim()
        half = max(6.0, (high - low) / 2.0)  # so that small differences do not look large
        axis.set_ylim((low + high) / 2.0 - half, (low + high) / 2.0 + half)
        if axis.get_ylim()[0] < 51.0:
            axis.axhline(50, color=BAD, lw=1, ls="--")
            axis.text(0.99, 50.4, "chance", color=BAD, fontsize=8, ha="right", transform=axis.get_yaxis_transform())
        axis.grid(axis="y", alpha=0.25)
    return figure


def reasons_picture(found: dict[str, Any], most: int = 12) -> Figure:
    """How traits go with accuracy, and the one that does most, person by person."""
    relations = found["related"][:most]
    people = [each for each in found["people"] if each["accuracy"] is not None]
    figure = Figure(figsize=(11, 1.6 + 0.24 * len(relations)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    for n, each in enumerate(relations):
        sure = each["p_corrected"] < LEVEL
        left.barh(-n, each["rho"], 0.7, color=GOOD if sure else MUTED)
        told = f"p {each['p_corrected']:.2g}"
        left.text(1.04, -n, told, va="center", ha="left", fontsize=8, color=INK if sure else ASKED, clip_on=False)
    left.set_yticks([-n for n in range(len(relations))], [each["label"] for each in relations], fontsize=8)
    left.axvline(0, color=INK, lw=0.8)
    left.set(xlim=(-1, 1), xlabel="rank correlation with accuracy (right: p after correction)")
    first = relations[0]
    values = [trait(each, first["trait"]) for each in people]
    accuracy = [100 * each["accuracy"] for each in people]
    right.plot(values, accuracy, "o", color=GOOD, ms=6)
    lowest = int(np.argmin(accuracy))
    right.plot(values[lowest], accuracy[lowest], "o", color=BAD, ms=7)
    right.annotate(
        people[lowest]["id"], (values[lowest], accuracy[lowest]), (6, 0), textcoords="offset points", color=BAD, fontsize=9,
        va="center",
    )  # fmt: skip
    right.set(xlabel=first["label"], ylabel="accuracy (%)")
    right.margins(x=0.12)
    right.grid(alpha=0.25)
    return figure


def worst_picture(found: dict[str, Any], crowd: Crowd, control_hz: float) -> Figure:
    """The end of the worst participant's session: asked, answered."""
    worst = found["worst"]["id"]
    number = next(n for n, each in enumerate(crowd.people) if each["id"] == worst)
    keep = round(SHOWN_S * control_hz)
    target, prediction = crowd.target[number][-keep:], crowd.prediction[number][-keep:]
    time = (crowd.target.shape[1] - len(target) + np.arange(len(target))) / control_hz
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    axes = figure.subplots(len(FINGERS), 1, sharex=True)
    for n, (axis, finger) in enumerate(zip(axes, FINGERS, strict=True)):
        axis.fill_between(time, 0, target[:, n], step="mid", color=MUTED, lw=0, label="asked: flexed")
        axis.plot(time, prediction[:, n], color=BAD, lw=1.1, label="prediction")
        axis.axhline(0.5, color=INK, lw=0.4)
        axis.set(ylim=(-0.05, 1.05), yticks=[0, 1], yticklabels=["ext", "flex"])
        axis.set_ylabel(finger, rotation=0, ha="right", va="center")
        axis.margins(x=0)
    axes[-1].set_xlabel("session time (s)")
    axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=8)
    return figure


def print_population(report: dict[str, Any], console: Console) -> None:
    """The main figures as a small table, then why the worst is worst."""
    found, loop = report["population"], report["loop"]
    table = Table(show_header=False, box=None, title=f"{report['name']}: {found['participants']} participants")
    for name, called in (("accuracy", "accuracy"), ("balanced_accuracy", "balanced"), ("reached", "gestures reached")):
        if of_all := found[name]:
            low, q1, median, q3, high = (100 * of_all[key] for key in ("min", "q1", "median", "q3", "max"))
            table.add_row(
                called, f"median {median:.1f} %, quartiles {q1:.1f} to {q3:.1f}, worst {low:.1f}, best {high:.1f}"
            )
    if found["fingers"]:
        fingers = ", ".join(f"{finger} {100 * of_all['median']:.0f}" for finger, of_all in found["fingers"].items())
        table.add_row("fingers, median", fingers)
    if step := loop["step_ms"]:
        pace = f", {loop['factor']:g} x real time" if loop["clock"] != "realtime" and loop["factor"] else ""
        table.add_row("step of all", f"median {step['median']} ms, p99 {step['p99']} ms{pace}")
    console.print(table)
    for line in found["worst"]["words"] if found["worst"] else ():
        console.print(f"- {line}", highlight=False)
