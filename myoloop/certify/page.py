"""certify.html: one page that says what a machine carries, with the figures behind it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from matplotlib.figure import Figure

INK, GOOD, SOFT, BAD = "#1d2733", "#1f9d6b", "#8d99ae", "#d1495b"


def write_page(result: dict[str, Any], path: Path) -> None:
    """Args: result: the content of certify.json; path: of the page."""
    from myoloop.certify.procedure import rows_of  # which writes the page

    rows = rows_of(result)
    template = Path(__file__).parent.parent / "templates" / "certify.html"
    text = jinja2.Template(template.read_text(encoding="utf-8"), autoescape=True).render(
        r=result,
        rows=rows,
        links=_png(_links(rows)),
        grid=_png(_grid(result["grid"], result["limits"]["latency_p99_ms"])),
    )
    path.write_text(text, encoding="utf-8")


def _links(rows: list[tuple[str, str, dict[str, Any]]]) -> Figure:
    """Median to maximum of each link on a logarithmic axis."""
    figure = Figure(figsize=(9.5, 0.9 + 0.42 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for place, (_, _, values) in enumerate(rows):
        axis.plot([values["median"], values["max"]], [place, place], color=SOFT, lw=1.2, zorder=1)
        axis.plot([values["median"], values["p99"]], [place, place], color=GOOD, lw=6, solid_capstyle="butt", zorder=2)
        axis.plot(values["median"], place, "o", color=INK, ms=6, zorder=3)
        axis.plot(values["max"], place, "|", color=SOFT, ms=9)
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


def _png(figure: Figure) -> str:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    out = io.BytesIO()
    with matplotlib.rc_context({"font.size": 9}):
        figure.savefig(out, format="png", dpi=150)
    return base64.b64encode(out.getvalue()).decode()
