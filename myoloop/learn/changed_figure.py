"""One page of panels from what learn.what_changed found: drive, synergies, motor units, EMG, movement, before and after."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from myoloop.body.names import FINGERS, FOREARM_MUSCLES, JOINTS, MUSCLES

COLOURS = {"before": "#8d99ae", "after": "#c55a11"}
SHORT = ("T", "I", "M", "R", "L")
JOINTS_SHOWN = (("wrist", JOINTS[:3]), *((name, JOINTS[3 + 4 * i : 7 + 4 * i]) for i, name in enumerate(FINGERS)))
"""Joints by what they belong to, in model order."""


def draw(found: dict[str, Any], names: tuple[str, str] = ("before", "after")) -> bytes:
    """PNG of the page.

    Args:
      found: from learn.what_changed.compare (or read back from its JSON file).
      names: what the two behaviours are called.
    """
    figure = Figure(figsize=(14, 22), layout="constrained")
    rows = figure.add_gridspec(7, 1, height_ratios=(1.0, 1.15, 1.15, 2.1, 1.9, 1.15, 1.35))
    _drive(figure.add_subplot(rows[0]), found)
    _tuning(figure, rows[1], found, names)
    _units(figure.add_subplot(rows[2]), found)
    _synergies(figure, rows[3], found)
    _map(figure, rows[4], found, names)
    _joints(figure.add_subplot(rows[5]), found)
    _movement(figure, rows[6], found, names)
    figure.suptitle(_title(found), fontsize=12)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=100)
    return image.getvalue()


def _title(found: dict[str, Any]) -> str:
    before, after = found["use"]["before"], found["use"]["after"]
    return (
        "What the participant changed to be understood by a frozen decoder "
        f"(grey: before, {100 * before['accuracy']:.1f} % right; orange: after, {100 * after['accuracy']:.1f} %).\n"
        "Held-out references, no exploration. Fingers: thumb, index, middle, ring, little."
    )


def _pair(axis: Axes, values: dict[str, list[float]], ticks: list[str]) -> None:
    """Bars before and after, side by side."""
    place = np.arange(len(ticks))
    for shift, (name, heights) in zip((-0.2, 0.2), values.items(), strict=True):
        axis.bar(place + shift, heights, 0.4, color=COLOURS[name], label=name)
    axis.set_xticks(place, ticks, rotation=90, fontsize=8)
    axis.margins(x=0.01)
    axis.grid(axis="y", alpha=0.3)


def _drive(axis: Axes, found: dict[str, Any]) -> None:
    mean = {name: list(found["excitation"][name]["mean"].values()) for name in COLOURS}
    _pair(axis, mean, list(MUSCLES))
    axis.axvline(len(FOREARM_MUSCLES) - 0.5, color="black", linewidth=0.8, linestyle=":")
    axis.set_ylabel("mean excitation (0 to 1)")
    axis.set_title(
        "Drive. Right of the dotted line: muscles inside the hand, which no electrode hears", loc="left", fontsize=10
    )
    axis.legend(frameon=False, fontsize=9)


def _tuning(figure: Figure, place: Any, found: dict[str, Any], names: tuple[str, str]) -> None:
    axes = figure.add_subfigure(place).subplots(2, 1, sharex=True)
    change = {n: np.array(list(found["excitation"][n]["flexed_minus_extended"].values())).T for n in COLOURS}
    top = max(float(np.abs(x).max()) for x in change.values())
    for axis, (key, values), name in zip(axes, change.items(), names, strict=True):
        seen = axis.imshow(values, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto")
        axis.set_yticks(range(5), SHORT, fontsize=8)
        axis.set_ylabel(name, color=COLOURS[key], fontweight="bold")
    axes[0].set_title(
        "What each finger asks of each muscle: excitation while asked flexed minus extended", loc="left", fontsize=10
    )
    axes[1].set_xticks(range(len(MUSCLES)), MUSCLES, rotation=90, fontsize=8)
    axes[0].figure.colorbar(seen, ax=list(axes), label="flexed - extended", pad=0.01)


def _units(axis: Axes, found: dict[str, Any]) -> None:
    most = 0.0
    for shift, name in ((-0.2, "before"), (0.2, "after")):
        muscles = found["motor_units"][name]["muscles"]
        boxes, at = [], []
        for i, entry in enumerate(muscles.values()):
            r = entry["rate_hz"]
            if r:
                boxes.append(
                    {"med": r["median"], "q1": r["p25"], "q3": r["p75"], "whislo": r["p5"], "whishi": r["p95"]}
                )
                at.append(i + shift)
                most = max(most, r["p95"])
        axis.bxp(
            boxes, at, widths=0.34, showfliers=False, patch_artist=True,
            boxprops={"facecolor": COLOURS[name], "linewidth": 0.6}, medianprops={"color": "black"},
        )  # fmt: skip
    for i, muscle in enumerate(FOREARM_MUSCLES):
        a, b = (found["motor_units"][n]["muscles"][muscle]["recruited"] for n in COLOURS)
        axis.text(i, most * 1.04, f"{a}\n{b}", ha="center", va="bottom", fontsize=7)
    axis.set_xticks(range(len(FOREARM_MUSCLES)), FOREARM_MUSCLES, rotation=90, fontsize=8)
    axis.set(ylim=(0, most * 1.25), xlim=(-0.6, len(FOREARM_MUSCLES) - 0.4), ylabel="discharge rate (Hz)")
    axis.grid(axis="y", alpha=0.3)
    axis.set_title(
        "Motor units while recruited: median, quartiles, 5th and 95th percentile of a muscle's units. Numbers: units recruited "
        "at least once, before over after", loc="left", fontsize=10,
    )  # fmt: skip


def _synergies(figure: Figure, place: Any, found: dict[str, Any]) -> None:
    curve, groups = figure.add_subfigure(place).subplots(1, 2, width_ratios=(1, 2.4))
    result = found["synergies"]
    for name, colour in COLOURS.items():
        accounted = 100 * np.array(result[name]["accounted"])
        counts = [f"{result[name][f'count_{part}'] or 'more'} for {part} %" for part in (90, 95)]
        label = f"{name}: {', '.join(counts)}"
        curve.plot(np.arange(1, len(accounted) + 1), accounted, "o-", color=colour, markersize=4, label=label)
    for level in (90, 95):
        curve.axhline(level, color="black", linewidth=0.7, linestyle=":")
    curve.set(xlabel="synergies (NMF)", ylabel="variance accounted for (%)", ylim=(None, 101))
    curve.legend(frameon=False, fontsize=8, loc="lower right")
    curve.set_title("Muscle synergies", loc="left", fontsize=10)
    shared = result["shared"]
    both = [np.array(shared[f"groups_{name}"]) for name in COLOURS]
    stacked = np.stack(both, axis=1).reshape(-1, both[0].shape[1])
    seen = groups.imshow(stacked, cmap="Greys", vmin=0, vmax=float(stacked.max()), aspect="auto")
    for k in range(1, shared["synergies"]):
        groups.axhline(2 * k - 0.5, color="#1f4e79", linewidth=0.8)
    places = 2 * np.arange(shared["synergies"]) + 0.5
    groups.set_yticks(places, [f"{x:.2f}" for x in shared["similarity"]], fontsize=7)
    groups.set_xticks(range(len(result["muscles"])), [MUSCLES[m] for m in result["muscles"]], rotation=90, fontsize=7)
    groups.set_ylabel("cosine of each pair")
    by_chance = shared["by_chance_95th_percentile"]
    groups.set_title(
        f"Pairs: upper line before, lower after; mean {shared['mean']:.2f}, by chance up to {by_chance:.2f}",
        loc="left",
        fontsize=10,
    )
    groups.figure.colorbar(seen, ax=groups, label="weight", pad=0.01)


def _map(figure: Figure, place: Any, found: dict[str, Any], names: tuple[str, str]) -> None:
    axes = figure.add_subfigure(place).subplots(1, 2, sharey=True)
    flexed = np.array([[(g >> f) & 1 for f in range(5)] for g in range(32)])
    order = np.lexsort((*(1 - flexed.T[::-1]), flexed.sum(axis=1)))
    maps = []
    for name in COLOURS:
        rows = found["emg"][name]["rms_uv_by_gesture"]
        channels = max(len(row) for row in rows if row)
        maps.append(np.array([row or [np.nan] * channels for row in rows], float)[order].T)
    low, top = min(float(np.nanmin(m)) for m in maps), max(float(np.nanmax(m)) for m in maps)
    ticks = ["".join(letter if on else "·" for letter, on in zip(SHORT, row, strict=True)) for row in flexed[order]]
    for axis, values, key, name in zip(axes, maps, COLOURS, names, strict=True):
        seen = axis.imshow(values, cmap="viridis", norm=LogNorm(low, top), aspect="auto")
        axis.set_xticks(range(32), ticks, rotation=90, fontsize=7, family="monospace")
        axis.set_yticks(range(values.shape[0]), [str(c + 1) for c in range(values.shape[0])], fontsize=8)
        fresh = 100 * found["emg"][key]["fresh_discriminant_accuracy"]
        axis.set_title(
            f"EMG, {name}: a linear discriminant fitted to it is {fresh:.1f} % right", loc="left", fontsize=10
        )
        axis.set_xlabel("gesture asked: fingers flexed")
    axes[0].set_ylabel("channel")
    axes[0].figure.colorbar(seen, ax=list(axes), label="RMS (microvolts)", pad=0.01)


def _joints(axis: Axes, found: dict[str, Any]) -> None:
    ticks = [joint for _, joints in JOINTS_SHOWN for joint in joints]
    errors = {n: [found["movement"][n]["joint_error_deg"][joint] for joint in ticks] for n in COLOURS}
    _pair(axis, errors, ticks)
    at = 0
    for name, joints in JOINTS_SHOWN:
        axis.text(at + (len(joints) - 1) / 2, axis.get_ylim()[1] * 0.99, name, ha="center", va="top", fontsize=9)
        at += len(joints)
        axis.axvline(at - 0.5, color="black", linewidth=0.6, linestyle=":")
    axis.set_ylim(top=axis.get_ylim()[1] * 1.08)
    axis.set_ylabel("joint error (deg)")
    axis.set_title("Movement: mean absolute error of each joint against the gesture asked for", loc="left", fontsize=10)


def _movement(figure: Figure, place: Any, found: dict[str, Any], names: tuple[str, str]) -> None:
    tips, wrong, *grids = figure.add_subfigure(place).subplots(1, 4, width_ratios=(1.1, 1.3, 1, 1))
    moved = found["movement"]
    _pair(tips, {n: list(moved[n]["tip_error_mm"].values()) for n in COLOURS}, list(FINGERS))
    tips.set(ylabel="fingertip off the gesture (mm)")
    tips.set_title("Fingertips", loc="left", fontsize=10)
    spots = np.arange(5)
    for shift, name in ((-0.2, "before"), (0.2, "after")):
        up, down = (
            100 * np.array(list(moved[name][key].values()))
            for key in ("flexed_though_extended_asked", "extended_though_flexed_asked")
        )
        wrong.bar(spots + shift, up, 0.36, color=COLOURS[name])
        wrong.bar(spots + shift, -down, 0.36, color=COLOURS[name], hatch="///", edgecolor="white", linewidth=0)
    wrong.axhline(0, color="black", linewidth=0.8)
    wrong.set_xticks(spots, FINGERS, rotation=90, fontsize=8)
    wrong.set_ylabel("% of settled steps")
    wrong.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    wrong.grid(axis="y", alpha=0.3)
    wrong.set_title(
        "Hand against gesture. Up: flexed though asked\nextended; down, hatched: the reverse", loc="left", fontsize=9
    )
    for axis, key, name in zip(grids, COLOURS, names, strict=True):
        values = np.array(moved[key]["coupling"])
        axis.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
        for i in range(5):
            for j in range(5):
                axis.text(
                    j,
                    i,
                    f"{values[i, j]:.2f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if abs(values[i, j]) > 0.6 else "black",
                )
        axis.set_xticks(range(5), SHORT)
        axis.set_yticks(range(5), SHORT)
        axis.set(xlabel="asked", ylabel="moves")
        axis.set_title(f"Flexion made per asked, {name}", loc="left", fontsize=9)
