"""`myoloop certify`: look around, measure the links, run sessions, say what this machine carries, write JSON and a page."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from myoloop import __version__
from myoloop.certify import grid, measure
from myoloop.certify.page import rows_of, write_page
from myoloop.certify.surroundings import look_around
from myoloop.certify.verdict import describe, headline, words
from myoloop.live.board import make_run_dir
from myoloop.machine import processor

LINKS_S, QUICK_LINKS_S = 20.0, 5.0
"""Seconds that each link is measured."""
CELL_S, QUICK_CELL_S = 30.0, 8.0
"""Seconds that each session lasts."""
BATCH_S = 10.0
"""The same of many participants in one process."""
RESULT, PAGE = "certify.json", "certify.html"


def certify(out: Path, quick: bool = False, console: Console | None = None) -> dict[str, Any]:
    """Measures this machine and writes `certify.json` and `certify.html` into a folder.

    Args:
      out: the folder, made if needed.
      quick: a minute instead of ten: every link for 5 s, one session.
      console: where progress and figures go.

    Returns:
      the content of certify.json.

    Raises:
      MyoloopError: the folder cannot be written, or LSL does not work at all.
    """
    console = console or Console()
    folder = make_run_dir(out)
    seconds, cell_s = (QUICK_LINKS_S, QUICK_CELL_S) if quick else (LINKS_S, CELL_S)
    places = grid.QUICK if quick else grid.FULL
    steps = round(seconds / measure.PERIOD_S)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
        console=console,
    )
    with bar, tempfile.TemporaryDirectory(prefix="myoloop-certify-") as scratch:
        links = bar.add_task("links", total=3 * steps)

        def link(name: str, run: Callable[[Callable[[], None]], Any]) -> Any:
            bar.update(links, description=name)
            return run(lambda: bar.advance(links))

        result: dict[str, Any] = {
            "version": __version__, "date": time.strftime("%Y-%m-%d %H:%M"), "quick": quick, "device": processor(),
            "cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version(),
            "surroundings": [finding._asdict() for finding in look_around()],
            "clock_ms": link("the clock", lambda tick: measure.clock(seconds, tick)),
            "lsl": link("LSL", lambda tick: measure.lsl(seconds, tick)),
            "decoder_ms": link("the decoder", lambda tick: measure.decoder(seconds, tick=tick)),
        }  # fmt: skip
        bar.update(links, description="ROS 2")
        result["ros"] = measure.ros(seconds)
        bar.update(links, description="links")
        cells = bar.add_task("sessions", total=len(places))
        result["grid"] = []
        for place, done in grid.walk(places):
            bar.update(cells, description=describe(place._asdict()), completed=places.index(place))
            done.append(grid.measure_place(place, cell_s, Path(scratch)))
            result["grid"] = done
        result["batch"] = (
            None if quick else grid.measure_batch(BATCH_S, lambda text: bar.update(cells, description=text))
        )
        bar.update(cells, description="sessions", completed=len(places))
    if result["batch"]:
        result["batch"]["tries"] = {str(count): told for count, told in result["batch"]["tries"].items()}
    result |= {"headline": headline(result), "words": words(result), "limits": _limits()}
    (folder / RESULT).write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    write_page(result, folder / PAGE)
    show(result, console)
    console.print(f"certificate: {folder / PAGE}", soft_wrap=True)
    return result


def _limits() -> dict[str, float]:
    """What `carried` means."""
    return {"overrun_share": grid.MOST_LATE, "samples_lost": 0, "latency_p99_ms": grid.MOST_LATENCY_MS}


def show(result: dict[str, Any], console: Console) -> None:
    """The main figures and what they mean."""
    table = Table("link", "median ms", "p95", "p99", "max", "what")
    for name, what, values in rows_of(result):
        table.add_row(name, *(f"{values[key]:.2f}" for key in ("median", "p95", "p99", "max")), what)
    console.print(table)
    console.print(f"[bold]{result['headline']}[/bold]")
    for text in result["words"]["can"]:
        console.print(f"[green]can[/green]    {text}", soft_wrap=True)
    for text in result["words"]["cannot"]:
        console.print(f"[red]cannot[/red] {text}", soft_wrap=True)
    for text in result["words"]["because"]:
        console.print(f"slow   {text}", soft_wrap=True)
    if why := result["ros"].get("left_out"):
        console.print(f"ROS 2 was not measured: {why}", soft_wrap=True)
    for finding in result["surroundings"]:
        if finding["advice"]:
            console.print(f"advice {finding['name']}: {finding['found']}; {finding['advice']}", soft_wrap=True)
