"""How many participants hold real time on this machine: with 16 channels at 2 kHz and a decoder each.

    python benchmarks/population.py --out docs/results/population_realtime.json

Each number is tried as a session of its own: all published over LSL with their decoders in a second process ("lsl"), and
without streams, the model answering in the same process ("inside"). A number holds if 99 % of the steps are shorter than the
20 ms between them and at most 1 % overran. Engine `mjx` is tried with one participant. The last line of standard output is one
JSON object.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from myoloop import checkpoint
from myoloop.capacity import MODEL, Measured, find_most, measure
from myoloop.errors import MyoloopError
from myoloop.machine import processor


@dataclass(frozen=True)
class Config:
    """What to try."""

    seconds: float = 20.0
    """Length of each session, s."""
    most: int = 24
    """Largest number of participants tried."""
    ways: tuple[str, ...] = ("lsl", "inside")
    """How the decoder is reached."""
    engines: tuple[str, ...] = ("mjx",)
    """Engines tried with one participant besides `mujoco`."""
    model: str = MODEL
    """The decoder."""
    out: Path | None = None
    """JSON file."""


def main(config: Config) -> dict[str, Any]:
    """Try, print, write."""
    console = Console(stderr=True)
    found: dict[str, Any] = {}
    tried: list[Measured] = []
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("")

        def run(participants: int, engine: str, way: str) -> Measured:
            bar.update(task, description=f"{participants} participants, {engine}, {way}")
            one = measure(participants, config.seconds, engine, way == "inside", config.model)
            tried.append(one)
            console.print(
                f"{participants:3d} {engine} {way}: step median {one.step_ms_p50} ms, p99 {one.step_ms_p99} ms, "
                f"{100 * one.overrun_share:.2f} % overran: {'holds' if one.holds else 'does not hold'}"
            )
            return one

        for way in config.ways:
            count, failed = find_most(lambda n, way=way: run(n, "mujoco", way).holds, config.most)
            found[f"participants_{way}"] = count
            found[f"does_not_hold_{way}"] = failed
        for engine in config.engines:
            found[f"{engine}_holds"] = run(1, engine, config.ways[0]).holds
    result = {
        **found,
        "tried": [one._asdict() | {"holds": one.holds} for one in tried],
        "seconds": config.seconds,
        "channels": 16,
        "rate_hz": 2000,
        "device": processor(),
        "cores": len(os.sched_getaffinity(0)),
    }
    table = Table(
        "participants", "engine", "decoder", "median (ms)", "p95", "p99", "overran", "latency p99 (ms)", "holds"
    )
    for one in sorted(tried, key=lambda one: (one.engine, one.where, one.participants)):
        table.add_row(
            str(one.participants), one.engine, one.where, f"{one.step_ms_p50}", f"{one.step_ms_p95}", f"{one.step_ms_p99}",
            f"{100 * one.overrun_share:.2f} %", f"{one.latency_ms_p99}", "yes" if one.holds else "no",
        )  # fmt: skip
    console.print(table)
    if config.out:
        checkpoint.write_atomically(config.out, (json.dumps(result, indent=1) + "\n").encode())
    return result


if __name__ == "__main__":
    logging.getLogger("myoloop").setLevel(logging.ERROR)
    try:
        print(json.dumps(main(tyro.cli(Config, description=__doc__))))
    except MyoloopError as error:
        sys.exit(f"benchmarks/population.py: {error}")
