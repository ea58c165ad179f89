"""certify.html: one page that says what a machine carries, with the figures behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from myoloop.pages import ASKED, BAD, GOOD, INK, as_png, render


def write_page(result: dict[str, Any], path: Path) -> None:
    """Args: result: the content of certify.json; path: of the page."""
    rows = rows_of(result)
    text = render(
        "certify.html",
        r=result,
        rows=rows,
        links=as_png(_links(rows)),
        grid=as_png(_grid(result["grid"], result["limits"]["latency_p99_ms"])),
    )
    path.write_text(text, encoding="utf-8")


def _links(rows: list[tuple[str, str, dict[str, Any]]]) -> Figure:
    """Median to maximum of each link on a logarithmic axis."""
    figure = Figure(figsize=(9.5, 0.9 + 0.42 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for place, (_, _, values) in enumerate(rows):
        axis.plot([values["median"], values["max"]], [place, place], color=ASKED, lw=1.2, zorder=1)
        axis.plot([values["median"], values["p99"]], [place, place], color=GOOD, lw=6, solid_capstyle="butt", zorder=2)
        axis.plot(values["median"], place, "o", color=INK, ms=6, zorder=3)
        axis.plot(values["max"], place, "|", color=ASKED, ms=9)
    axis.axvline(20, color=BAD, lw=1, ls="--")
    axis.text(20.6, -0.72, "a control step", color=BAD, fontsize=8)
    axis.set(yticks=range(len(rows)), yticklabels=[name for name, _, _ in rows], xscale="log", xlabel="time (ms)")
    axis.set_ylim(len(rows) - 0.5, -1.0)
    axis.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda x, _: f"{x:g}"))
    axis.grid(axis="x", color="#e3e8ee", lw=0.8)
    axis.set_axisbelow(True)
    return figure


def _grid(cells: list[dict[str, Any]], wanted_ms: float) -> Figure:
    """Feedback latency of each cell of the grid: median and 99th percentile."""
    shown = [cell for cell in cells if cell.get("feedback_latency_ms")]
    figure = Figure(figsize=(9.5, 1.1 + 0.42 * max(1, len(shown))), layout="constrained")
    axis = figure.subplots()
    for place, cell in enumerate(shown):
        latency, colour = cell["feedback_latency_ms"], GOOD if cell["carried"] else BAD
        axis.plot([latency["median"], latency["p99"]], [place, place], color=colour, lw=6, solid_capstyle="butt")
        axis.plot(latency["median"], place, "o", color=INK, ms=6)
        axis.text(latency["p99"] * 1.03, place, f"{latency['p99']:.0f}", va="center", fontsize=8, color=colour)
    names = [
        f"{c['channels']} ch, {c['rate_hz']:g} Hz, {c['participants']} participant{'s' * (c['participants'] > 1)}"
        for c in shown
    ]
    axis.axvline(wanted_ms, color=BAD, lw=1, ls="--")
    axis.text(wanted_ms * 1.02, -0.72, "p99 wanted", color=BAD, fontsize=8)
    axis.set(yticks=range(len(shown)), yticklabels=names, xlabel="feedback latency (ms)")
    most = max([wanted_ms, *(cell["feedback_latency_ms"]["p99"] for cell in shown)])
    axis.set_xlim(0, 1.15 * most)
    axis.set_ylim(len(shown) - 0.5, -1.0)
    axis.grid(axis="x", color="#e3e8ee", lw=0.8)
    axis.set_axisbelow(True)
    return figure


def rows_of(result: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Every link that was measured: its name, what it is, its numbers; in the order in which a chunk passes them."""
    ros = result["ros"].get("one_way_ms")
    alone = next((cell for cell in result["grid"] if cell["participants"] == 1 and cell.get("step_ms")), None)
    named = [
        ("clock", "lateness of a step with nothing to do", result["clock_ms"]),
        ("step start", "lateness of a step in a session", alone and alone["start_lateness_ms"]),
        ("step", "participant: policy, EMG, body, streams", alone and alone["step_ms"]),
        ("LSL one way", "a chunk of 16 x 40 to another process", result["lsl"]["one_way_ms"]),
        ("LSL round trip", "and an answer back", result["lsl"]["round_trip_ms"]),
        ("ROS 2 one way", "the same chunk as a message", ros),
        ("decoder", "the one that ships, a chunk every 20 ms", result["decoder_ms"]),
        ("feedback", "newest EMG sample to the step that uses its answer", alone and alone["feedback_latency_ms"]),
    ]
    return [(name, what, values) for name, what, values in named if values]
