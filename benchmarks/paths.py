"""Four ways for a decoder to be in the loop, beside each other: how right, how late, how much lost.

    python benchmarks/paths.py --out docs/results/paths.json        # make peers does this, after making the environments

LSL/ONNX is the decoder that ships, LSL/mne-lsl and LSL/ezmsg are toolboxes that speak LSL, Trigno/LibEMG/UDP is software
without LSL at an emulated amplifier. All are asked for the same gestures by the same prompts, on the same person. The toolboxes
calibrate first; nothing counts before a path's first prediction. Every number is from the report.json of its run folder.

What latency means: the LSL paths stamp each answer with the newest EMG sample behind it, so it is the age of that sample when
the answer is first used. UDP carries no such stamp: there it is a lower bound (docs/real-software.md). A path whose environment
is missing is left out, and said. The last line of the output is one JSON object.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table


@dataclass(frozen=True)
class Config:
    """What to run."""

    seconds: float = 60.0
    """seconds that each path answers, about: what is measured"""
    calibration: float = 75.0
    """seconds more for those that calibrate first"""
    person: int = 0
    """whose forearm"""
    only: tuple[str, ...] = ()
    """paths by name; default: all"""
    runs: Path = Path("runs/paths")
    """folder for the run folders"""
    out: Path | None = None
    """JSON file for the result; with --only, what it says of the other paths is kept"""


class Way(NamedTuple):
    """One path from EMG to prediction."""

    name: str
    experiment: str
    package: str
    """whose version is reported"""
    environment: str | None
    """folder of its environment; None: this one, and no calibration"""


WAYS = (
    Way("LSL/ONNX", "experiments/closed_loop.yaml", "onnxruntime", None),
    Way("LSL/mne-lsl", "experiments/mne_lsl.yaml", "mne-lsl", "examples/mne_lsl/.venv"),
    Way("LSL/ezmsg", "experiments/ezmsg.yaml", "ezmsg-lsl", "examples/ezmsg/.venv"),
    Way("Trigno/LibEMG/UDP", "experiments/libemg.yaml", "libemg", "examples/libemg/.venv"),
)
PROMPTED = "experiments/mne_lsl.yaml"
"""Whose prompts all paths follow."""


def session(way: Way, config: Config) -> dict[str, Any]:
    """One path, run and read out of its report."""
    row: dict[str, Any] = {"path": way.name, "experiment": way.experiment, "software": way.package}
    if way.environment and not Path(way.environment, "bin", "python").exists():
        return {**row, "left_out": f"{way.environment} is missing: make peers makes it"}
    reference = yaml.safe_load(Path(PROMPTED).read_text(encoding="utf-8"))["participant"]["reference"]
    seconds = config.seconds + (config.calibration if way.environment else 0.0)
    command = [
        sys.executable,
        "-m",
        "myoloop",
        "run",
        way.experiment,
        "--runs",
        str(config.runs),
        "--ros",
        "False",
        "--set",
        "record=false",
    ]
    command += ["--duration", str(seconds), "--set", f"participant.person={config.person}"]
    command += ["--set", f"participant.reference={json.dumps(reference)}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        return {**row, "left_out": f"myoloop run ended with code {done.returncode}: {' '.join(said[-2:])}"}
    run = (config.runs / "latest").resolve()
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    told, latency = report["task"]["gestures"], report["loop"]["feedback_latency_ms"]
    if told is None or latency is None:
        return {**row, "left_out": f"no prediction in {seconds:g} s: {last_words(run / 'logs')}"}
    return {
        **row,
        "version": version(way),
        "accuracy": report["task"]["accuracy"],
        **told,
        "median_ms": latency["median"],
        "p95_ms": latency["p95"],
        "p99_ms": latency["p99"],
        "answer_ms": (report["decoder"]["pace"] or {}).get("answer_ms"),
        "latency_is": "lower bound" if "/UDP" in way.name else "age of the newest EMG sample used",
        "samples_lost": lost(report),
        "samples_sent": report["emg"]["samples_sent"],
        "predictions": report["decoder"]["predictions"],
        "refused": report["decoder"]["refused"],
        "seconds": seconds,
        "messages": report["messages"],
        "load_average": round(os.getloadavg()[0], 1),
    }


def last_words(logs: Path) -> str:
    """What the parts of a session that could not run said last, or where to look."""
    lines = [
        log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        for log in sorted(logs.glob("*.log"))
    ]
    said = [words[0] for words in lines if words and words[0].startswith("myoloop: ")]
    return " ".join(said) or f"see {logs}"


def lost(report: dict[str, Any]) -> int | None:
    """EMG samples that got lost wherever this project can see it: the session's own listener, decoder and amplifier."""
    served = [device.get("samples_lost", 0) for device in report["devices"]]
    served += [
        kind["frames_dropped"] for device in report["devices"] for kind in device.values() if isinstance(kind, dict)
    ]
    counts = [report["emg"]["samples_lost"], report["decoder"].get("samples_lost"), *served]
    known = [count for count in counts if count is not None]
    return sum(known) if report["emg"]["samples_lost"] is not None else None


def version(way: Way) -> str:
    """Of the software, as its environment has it."""
    if way.environment is None:
        return importlib.metadata.version(way.package)
    asked = f"import importlib.metadata as m; print(m.version('{way.package}'))"
    command = [str(Path(way.environment, "bin", "python")), "-c", asked]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The new rows, and the old ones of paths that were not measured again, in the order of WAYS."""
    by_path = {row["path"]: row for row in [*old, *new]}
    return [by_path[way.name] for way in WAYS if way.name in by_path]


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """The one table."""
    table = Table(
        title="the same prompts, four paths",
        caption="balanced: mean over the gestures; steady: from 0.8 s after a prompt on",
    )
    for column in (
        "path",
        "version",
        "fingers %",
        "balanced %",
        "steady %",
        "latency ms: median",
        "p95",
        "p99",
        "lost",
    ):
        table.add_column(column, justify="left" if column in ("path", "version") else "right")
    for row in rows:
        if "left_out" in row:
            continue
        shares = [row["accuracy"], row["balanced_accuracy"], row["balanced_accuracy_steady"]]
        cells = ["-" if share is None else f"{100 * share:.1f}" for share in shares]
        sign = ">= " if row["latency_is"] == "lower bound" else ""
        cells += [f"{sign}{row[key]:.1f}" for key in ("median_ms", "p95_ms", "p99_ms")]
        table.add_row(row["path"], f"{row['software']} {row['version']}", *cells, str(row["samples_lost"]))
    console.print(table)
    for row in rows:
        if "left_out" in row:
            console.print(f"{row['path']} left out: {row['left_out']}", soft_wrap=True)


def main(config: Config) -> None:
    """Runs and prints."""
    names = [way.name for way in WAYS]
    if unknown := [name for name in config.only if name not in names]:
        raise SystemExit(f"--only {unknown[0]}: expected some of {', '.join(names)}")
    chosen = [way for way in WAYS if not config.only or way.name in config.only]
    rows = [session(way, config) for way in track(chosen, "paths", console=Console(stderr=True))]
    show(rows, Console(width=None if sys.stdout.isatty() else 140))
    result = {
        "rows": rows, "person": config.person,
        "load_average": [round(x, 1) for x in os.getloadavg()], "cores": os.cpu_count(),
    }  # fmt: skip
    if config.out:
        if config.only and config.out.exists():
            result["rows"] = merged(json.loads(config.out.read_text(encoding="utf-8"))["rows"], rows)
        config.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Config))
