"""LibEMG in the loop: calibrated on each of several people through the emulated Trigno, then driving the loop.

    python benchmarks/libemg_loop.py --people 3 --duration 150 --out docs/results/libemg.json

Needs LibEMG's environment (docs/real-software.md). Balanced accuracy, as the report has it (task/gestures.py): of all steps
from the first prediction on, and of the steady ones, from 0.8 s after a prompt on. The last line is one JSON object.
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
from rich.progress import track


@dataclass(frozen=True)
class Config:
    """What to run."""

    people: int = 3
    """how many, persons 0 and up"""
    duration: float = 150.0
    """seconds of each session, calibration included"""
    experiment: str = "experiments/libemg.yaml"
    """experiment file whose decoder is of kind udp"""
    out: Path | None = None
    """JSON file for the result"""


def session(config: Config, person: int, runs: Path) -> dict[str, Any]:
    """One person, calibrated and decoded."""
    command = [
        sys.executable,
        "-m",
        "myoloop",
        "run",
        config.experiment,
        "--runs",
        str(runs),
        "--ros",
        "False",
        "--set",
        "record=false",
    ]
    command += ["--duration", str(config.duration), "--set", f"participant.person={person}"]
    subprocess.run(command, check=True, capture_output=True)
    run = (runs / "latest").resolve()
    report = json.loads((run / "report.json").read_text())
    calibration = json.loads(Path("runs/libemg_calibration/summary.json").read_text())
    gestures = report["task"]["gestures"]
    return {
        "person": person,
        **gestures,
        "finger_accuracy": report["task"]["accuracy"],
        "kept_out_repetition": round(calibration["balanced_accuracy_last_repetition"], 4),
        "predictions": report["decoder"]["predictions"],
        "samples_lost": report["emg"]["samples_lost"],
        "frames_dropped": report["devices"][-1]["trigno"]["frames_dropped"],
        "feedback_latency_ms": report["loop"]["feedback_latency_ms"],
    }


def main(config: Config) -> None:
    """Runs and prints."""
    with tempfile.TemporaryDirectory() as runs:
        people = [session(config, k, Path(runs)) for k in track(range(config.people), "sessions")]
    mean, steady = (
        float(np.mean([one[key] for one in people])) for key in ("balanced_accuracy", "balanced_accuracy_steady")
    )
    result = {
        "experiment": config.experiment, "duration_s": config.duration, "mean_balanced_accuracy": round(mean, 4),
        "mean_balanced_accuracy_steady": round(steady, 4),
        "people": people,
        "load_average": [round(x, 1) for x in os.getloadavg()], "cores": os.cpu_count(),
    }  # fmt: skip
    if config.out:
        config.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Config))
