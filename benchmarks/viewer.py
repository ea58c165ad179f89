"""What the page in the browser costs the participant: its control steps in sessions with and without a viewer, in turn.

The last line of the output is one JSON object.

    python benchmarks/viewer.py --seconds 60 --rounds 3 --out docs/results/viewer.json

`viewer`: the page is served, and a client takes all that a browser would get: what serving costs. `chromium`: a real browser on
the same machine, which draws by software where there is no GPU, and then takes more than everything else together.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import tyro
import viser
import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from websockets.sync.client import connect

from myoloop.assets import find_file
from myoloop.streams.rowlog import read_rows

WARM_S = 3.0
"""The beginning of each session is left out."""
FLAGS = ["--headless", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@dataclass(frozen=True)
class Config:
    """What to measure."""

    experiment: Path = Path("experiments/closed_loop.yaml")
    """what runs"""
    seconds: float = 60.0
    """length of each session"""
    rounds: int = 3
    """how often each way is run, in turn"""
    chromium: bool = False
    """also with a real browser on this machine"""
    ros: bool = False
    """as ROS 2 nodes"""
    out: Path | None = None
    """JSON file for the result"""


def drain(url: str) -> None:
    """Takes all that a browser would get, until the server ends. Runs in a process of its own."""
    os.nice(10)
    address = url.replace("http", "ws", 1)
    with connect(address, subprotocols=[f"viser-v{viser.__version__}"], max_size=None, compression=None) as socket:  # type: ignore[list-item]
        camera = {
            "type": "ViewerCameraMessage", "wxyz": [1, 0, 0, 0], "position": [0, 0, 1], "fov": 0.7, "near": 0.01,
            "far": 100.0, "image_height": 900, "image_width": 580, "look_at": [0, 0, 0], "up_direction": [0, 0, 1],
        }  # fmt: skip
        socket.send(msgspec.msgpack.encode(camera))
        for _ in socket:
            pass


def session(way: str, config: Config, folder: Path) -> dict[str, Any]:
    """One session; its steps' ms, and what the viewer did."""
    experiment = yaml.safe_load(find_file(config.experiment).read_text())
    experiment |= {"duration_s": config.seconds, "ros": config.ros, "record": False, "view": {"port": 0}}
    experiment["decoder"]["model"] = str(find_file(experiment["decoder"]["model"]))
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment))
    view = [] if way == "none" else ["--view"]
    command = [sys.executable, "-m", "myoloop", "run", str(file), "--runs", str(folder / "runs"), *view]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    browser = None
    try:
        if view:
            url = wait_for(folder, run)["url"]
            shown = ["chromium", *FLAGS, f"--user-data-dir={folder}/chromium", "--window-size=1400,900",
                     "--remote-debugging-port=0", url]  # fmt: skip
            mine = [sys.executable, __file__, "--drain", url]
            with (folder / "client.log").open("wb") as said:
                browser = subprocess.Popen(shown if way == "chromium" else mine, stdout=said, stderr=said)
        if run.wait(config.seconds + 240):
            raise SystemExit(f"a session ended with code {run.returncode}; its log is in {folder}")
    finally:
        for process in (browser, run):
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(20)
    latest = folder / "runs" / "latest"
    rows = read_rows(latest / "steps")
    rows = rows[rows["time"] > rows["time"][0] + WARM_S]
    report = json.loads((latest / "report.json").read_text())
    seen = json.loads((latest / "viewer.status.json").read_text()) if view else {}
    if view and not seen["frames"]:
        raise SystemExit(f"no browser was served: {(folder / 'client.log').read_text()[-500:]}")
    return {"step_ms": rows["step_ms"], "lost": report["emg"]["samples_lost"], "overruns": report["loop"]["overruns"],
            "frames": seen.get("frames", 0), "viewer_cpu_s": seen.get("cpu_s", 0.0)}  # fmt: skip


def wait_for(folder: Path, run: subprocess.Popen) -> dict[str, Any]:
    """The viewer's status, when the page is there."""
    status = folder / "runs" / "latest" / "viewer.status.json"
    until = time.monotonic() + 120
    while not status.exists():
        if time.monotonic() > until or run.poll() is not None:
            raise SystemExit(f"no viewer came up; its log is in {folder}")
        time.sleep(0.2)
    return dict(json.loads(status.read_text()))


def figures(found: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Of all sessions of one way together."""
    steps = np.concatenate([one["step_ms"] for one in found])
    median, p95, p99 = np.percentile(steps, (50, 95, 99))
    return {
        "step_ms": {"median": round(float(median), 3), "p95": round(float(p95), 3), "p99": round(float(p99), 3),
                    "max": round(float(steps.max()), 3)},
        "steps": len(steps),
        "overruns": sum(one["overruns"] for one in found),
        "samples_lost": sum(one["lost"] for one in found),
        "pictures_per_s": round(sum(one["frames"] for one in found) / (seconds * len(found)), 1),
        "viewer_cpu_share": round(sum(one["viewer_cpu_s"] for one in found) / (seconds * len(found)), 3),
    }  # fmt: skip


def main(config: Config) -> None:
    """Measures and prints."""
    console = Console()
    ways = ["none", "viewer"]
    if config.chromium:
        if shutil.which("chromium") is None:
            raise SystemExit("chromium is not installed here: run without --chromium")
        ways.append("chromium")
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("sessions", total=config.rounds * len(ways))
        for turn in range(config.rounds):
            for way in ways if turn % 2 == 0 else reversed(ways):
                bar.update(task, description=f"session {turn + 1}, {way}")
                with tempfile.TemporaryDirectory() as folder:
                    found[way].append(session(way, config, Path(folder)))
                bar.advance(task)
    measured = {way: figures(ones, config.seconds) for way, ones in found.items()}
    base = measured["none"]["step_ms"]
    ratios = {
        way: {key: round(measured[way]["step_ms"][key] / base[key], 3) for key in ("median", "p99")} for way in ways[1:]
    }
    table = Table("", "step median (ms)", "p99", "ratio of p99", "overruns", "lost", "pictures/s", "viewer's CPU")
    for way, one in measured.items():
        ratio = f"{ratios[way]['p99']:.2f}" if way in ratios else ""
        table.add_row(
            way, f"{one['step_ms']['median']:.2f}", f"{one['step_ms']['p99']:.2f}", ratio, str(one["overruns"]),
            str(one["samples_lost"]), f"{one['pictures_per_s']:g}", f"{100 * one['viewer_cpu_share']:.0f} %",
        )  # fmt: skip
    console.print(table)
    result = {
        "step_p99_ratio": ratios["viewer"]["p99"], "ratios": ratios, "ways": measured, "seconds": config.seconds,
        "rounds": config.rounds, "ros": config.ros, "machine": platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(), "load_average": [round(x, 1) for x in os.getloadavg()],
    }  # fmt: skip
    if config.out:
        config.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--drain"]:
        drain(sys.argv[2])
    else:
        main(tyro.cli(Config, description=__doc__))
