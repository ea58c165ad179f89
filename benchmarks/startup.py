"""How long a participant takes to be ready, with nothing compiled yet and with what an earlier start has left.

    python benchmarks/startup.py --rounds 3 --out docs/results/startup.json

Starts it in a process of its own, each round once with an empty folder of compiled code and once more with the same folder
(machine.keep_compiled). The last line of standard output is one JSON object: `first` and `again` {wall_s, cpu_s} (medians) and
`ratio` of the wall times.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import track

START = """
import time
begun = time.monotonic()
from myoloop.experiment import load_experiment
from myoloop.live.participant import LiveParticipant
live = LiveParticipant(load_experiment({experiment!r}, {{"participant.id": {name!r}}}))
print(time.monotonic() - begun, time.process_time())
live.close()
"""


@dataclass(frozen=True)
class Config:
    """What to start."""

    experiment: str = "experiments/closed_loop.yaml"
    """experiment file"""
    rounds: int = 3
    """starts of each kind"""
    out: Path | None = None
    """JSON file for the result"""


def start(config: Config, compiled: str, name: str) -> dict[str, float]:
    """Wall and processor time until the participant is ready, s."""
    settings = {"JAX_COMPILATION_CACHE_DIR": compiled, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
    code = START.format(experiment=config.experiment, name=name)
    told = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ, **settings}
    )
    wall, cpu = map(float, told.stdout.split()[-2:])
    return {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2)}


def main(config: Config) -> None:
    """Starts, compares, prints."""
    starts: dict[str, list[dict[str, float]]] = {"first": [], "again": []}
    for number in track(range(config.rounds), "starting", console=Console(stderr=True)):
        with tempfile.TemporaryDirectory() as compiled:
            for kind in starts:
                starts[kind].append(start(config, compiled, f"startup{os.getpid()}{kind}{number}"))
    medians = {
        kind: {key: statistics.median(each[key] for each in found) for key in ("wall_s", "cpu_s")}
        for kind, found in starts.items()
    }
    ratio = round(medians["first"]["wall_s"] / medians["again"]["wall_s"], 2)
    result = {**medians, "ratio": ratio, "rounds": config.rounds, "load_average": os.getloadavg()[0]}
    if config.out:
        config.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
