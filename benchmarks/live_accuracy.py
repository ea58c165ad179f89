"""Is what was learned in the batch worth as much over LSL, in real time? The same policy, decoder and references in both.

    python benchmarks/live_accuracy.py --policy runs/phase2/policy.safetensors

Runs experiments/closed_loop.yaml live for --seconds on each of --references, and the same control steps in the batch, with the
decoder in JAX. The last line of standard output is one JSON object: `live` and `batch` (accuracy, mean over the references),
`gap_points` (batch minus live, percentage points) and `rows`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from myoloop.assets import POLICY, find_file
from myoloop.decoder.weights import load_decoder
from myoloop.emg.armband import armband
from myoloop.errors import MyoloopError
from myoloop.learn.closed_loop import UseConfig, use
from myoloop.participant import ParticipantConfig
from myoloop.task.reference import held_out_seed


@dataclass(frozen=True)
class Config:
    """What is compared."""

    policy: str = POLICY
    """file of the policy"""
    decoder: Path = Path("models/decoder_tcn")
    """folder with decoder.onnx (live) and decoder.safetensors (batch)"""
    references: tuple[int, ...] = (300, 301, 302)
    """numbers of held-out references, one run each"""
    seconds: float = 60.0
    """length of each live run, s"""


def main(config: Config) -> dict:
    """Live and batch, one reference after the other."""
    console = Console(stderr=True)
    decoder = load_decoder(find_file(config.decoder / "decoder.safetensors", kind="decoder"))
    who = ParticipantConfig(armband=armband("semg_rd16"), policy=config.policy)
    table, rows = Table("reference", "live", "batch", "latency", "overruns"), []
    for number in config.references:
        report = live(config, held_out_seed(number))
        test = UseConfig(participants=1, seconds=config.seconds, reference=number)
        batch = use(who, decoder, test).scores.accuracy
        latency, loop = report["loop"]["feedback_latency_ms"], report["loop"]
        rows.append(
            {
                "reference": held_out_seed(number),
                "live": report["task"]["accuracy"],
                "batch": round(batch, 4),
                "latency_ms": latency["median"] if latency else None,
                "overruns": loop["overruns"],
                "samples_lost": report["emg"]["samples_lost"],
            }
        )
        last = rows[-1]
        table.add_row(*(str(last[key]) for key in ("reference", "live", "batch", "latency_ms", "overruns")))
    console.print(table)
    means = {way: round(float(np.mean([row[way] for row in rows])), 4) for way in ("live", "batch")}
    return {**means, "gap_points": round(100 * (means["batch"] - means["live"]), 2), "rows": rows}


def live(config: Config, seed: int) -> dict:
    """The report of one live run."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "participant.policy": find_file(config.policy, kind="policy"),
            "participant.reference.seed": seed,
            "decoder.model": find_file(config.decoder / "decoder.onnx", kind="decoder"),
        }
        command = [sys.executable, "-m", "myoloop", "run", "experiments/closed_loop.yaml", "--runs", folder]
        command += ["--duration", str(config.seconds), "--ros", "False"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        done = subprocess.run(command, capture_output=True, text=True)
        reports = sorted(Path(folder).glob("*/report.json"))
        if done.returncode or not reports:
            raise MyoloopError(f"the live run failed ({done.returncode}): {done.stderr[-800:]}")
        return json.loads(reports[0].read_text())  # type: ignore[no-any-return]


if __name__ == "__main__":
    try:
        print(json.dumps(main(tyro.cli(Config, description=__doc__))))
    except MyoloopError as error:
        sys.exit(f"benchmarks/live_accuracy.py: {error}")
