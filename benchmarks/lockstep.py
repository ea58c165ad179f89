"""How much faster than real time a session runs in lockstep with its decoder: the same session on both clocks, over LSL.

    python benchmarks/lockstep.py --seconds 60 --rounds 3 --out docs/results/lockstep.json

Runs the experiment with clock `realtime`, `lockstep` and `free`, each decoder and participant in a process of its own. The last
line of standard output is one JSON object: `factor` (lockstep: simulated over wall time, median of the rounds) and `rows`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

CLOCKS = ("realtime", "lockstep", "free")


@dataclass(frozen=True)
class Config:
    """What to run."""

    experiment: str = "experiments/closed_loop.yaml"
    """experiment file"""
    seconds: float = 60.0
    """participant time of each session, s"""
    rounds: int = 3
    """sessions with each of the simulated clocks; one in real time"""
    out: Path | None = None
    """JSON file for the result"""


def session(config: Config, clock: str) -> dict[str, Any]:
    """One session's figures."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "myoloop", "run", config.experiment, "--runs", runs, "--ros", "False"]
        command += ["--duration", str(config.seconds), "--set", f"clock={clock}"]
        subprocess.run(command, check=True, capture_output=True)
        report = json.loads((Path(runs) / "latest" / "report.json").read_text())
    loop, decoder = report["loop"], report["decoder"]
    return {
        "clock": clock,
        "factor": loop["factor"],
        "wall_s": loop["wall_s"],
        "accuracy": report["task"]["accuracy"],
        "feedback_latency_ms": loop["feedback_latency_ms"]["median"],
        "answer_ms": decoder["pace"]["answer_ms"],
        "timeouts": decoder["pace"]["timeouts"],
        "samples_lost": report["emg"]["samples_lost"],
    }


def main(config: Config) -> dict[str, Any]:
    """Runs and prints."""
    plan = ["realtime"] + ["lockstep", "free"] * config.rounds
    rows = [session(config, clock) for clock in track(plan, "sessions", console=Console(stderr=True))]
    table = Table("clock", "x real time", "accuracy", "feedback latency", "answer, median", "timeouts", "samples lost")
    for row in rows:
        answer = row["answer_ms"]
        table.add_row(
            row["clock"], f"{row['factor']:.2f}", f"{100 * row['accuracy']:.1f} %", f"{row['feedback_latency_ms']:.1f} ms",
            f"{answer['median']:.2f} ms" if answer else "-", str(row["timeouts"]), str(row["samples_lost"]),
        )  # fmt: skip
    Console(stderr=True).print(table)
    factors = {
        clock: round(float(np.median([r["factor"] for r in rows if r["clock"] == clock])), 2) for clock in CLOCKS
    }
    load = [round(x, 1) for x in os.getloadavg()]
    result = {"factor": factors["lockstep"], "factors": factors, "seconds": config.seconds, "cores": os.cpu_count()}
    result |= {"load_average": load, "rows": rows}
    if config.out:
        config.out.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Config, description=__doc__))))
