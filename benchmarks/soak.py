"""A long session, watched from outside: does it lose samples, does it run late, does anything grow?

    python benchmarks/soak.py 30 --out docs/results/soak.json --picture docs/results/soak.png

A recorded session (`myoloop run`, plain processes; with --view also its viewer, with a browser or without) of so many
minutes. Every few seconds memory (USS), threads and file descriptors of all its processes are read; what comes before
the warm-up's end does not count. The rest is from the session's own report and step log. The last line of the output
is one JSON object; the exit code is 0 if it holds what is wanted of half an hour on two cores: no sample lost, at
most 1 % of the steps late, memory growth at most 1 %, as many threads and files at the end as after the warm-up,
feedback latency p99 at most 45 ms.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import psutil
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from myoloop.machine import processor
from myoloop.streams.rowlog import read_rows
from myoloop.vitals import Vitals, grown, look

COLOURS = {
    "participant": "#1f9d6b",
    "decoder": "#2a6fdb",
    "recorder": "#d1495b",
    "viewer": "#e09f3e",
    "session": "#5c6b7d",
}
MOST = {"samples_lost": 0, "overrun_share": 0.01, "memory_growth": 0.01, "latency_p99_ms": 45.0}
SMALL_MB = 1.0
"""MB that a process may grow by, however small it is: allocators round."""
SMALL_FILES = 1
"""File descriptors, the same: a status that is being read or written."""


@dataclass(frozen=True)
class Config:
    """How long, and of what."""

    minutes: Annotated[float, tyro.conf.Positional] = 30.0
    """of the session"""
    experiment: Path = Path("experiments/closed_loop.yaml")
    """what to run"""
    view: bool = False
    """with the browser viewer"""
    browser: bool = False
    """and a headless Chromium that looks at it"""
    warm_up_s: float = 180.0
    """seconds after the start of the steps that do not count for growth; at most a fifth of the session"""
    every_s: float = 5.0
    """between two looks"""
    runs: Path = Path("runs/soak")
    """folder for the run folder"""
    out: Path | None = None
    """JSON file for the result"""
    picture: Path | None = None
    """PNG of the courses"""


def part_of(process: psutil.Process) -> str | None:
    """Which part of a session a process is; None if it is none."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return None
    if "myoloop.live.learner" in words:
        return "learner"
    after = words[words.index("myoloop") + 1 :] if "myoloop" in words else []
    return {"run": "session"}.get(after[0], after[0]) if after else None


def watch(command: list[str], config: Config) -> tuple[dict[str, list[Vitals]], list[float], int]:
    """Runs the session; the course of each of its processes (by part and number of its life), load averages, its exit code."""
    courses: dict[str, list[Vitals]] = defaultdict(list)
    names: dict[int, str] = {}
    load: list[float] = []
    session = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    top, browser, begun = psutil.Process(session.pid), None, 0.0
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar, tempfile.TemporaryDirectory() as profile:
        task = bar.add_task("starting", total=60 * config.minutes)
        while session.poll() is None:
            status = status_of(config.runs)
            running = status.get("phase") == "running"
            if running and not begun:
                begun = time.monotonic() - status["time_s"]
                browser = open_browser(config, profile) if config.browser else None
            if begun and not running:
                break  # what happens while a session ends is another matter
            if begun:
                now = time.monotonic() - begun
                for process in [top, *top.children(recursive=True)]:
                    part = names.get(process.pid) or part_of(process)
                    if part and process.pid not in names:
                        lives = sum(name.split(" ")[0] == part for name in names.values())
                        names[process.pid] = f"{part} {lives + 1}" if lives else part
                    if part and (seen := look(process, now)):
                        courses[names[process.pid]].append(seen)
                load.append(os.getloadavg()[0])
                bar.update(task, completed=now, description="running")
            time.sleep(config.every_s if begun else 0.5)
        if browser is not None:
            browser.terminate()
        bar.update(task, description="ending")
        code = session.wait()
    return courses, load, code


def open_browser(config: Config, profile: str) -> subprocess.Popen[bytes]:
    """A client of the viewer's page, which draws in the time that is left over."""
    address = json.loads((config.runs / "latest" / "viewer.status.json").read_text(encoding="utf-8"))["url"]
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        f"--user-data-dir={profile}",
        "--use-gl=angle",
        "--use-angle=swiftshader",
    ]
    command += ["--enable-unsafe-swiftshader", "--remote-debugging-port=0", address]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    # without a graphics card it computes its pictures, on as many cores as there are; Linux with autogroups only
    with contextlib.suppress(OSError):
        Path(f"/proc/{browser.pid}/autogroup").write_text("19")
    return browser


def status_of(runs: Path) -> dict[str, Any]:
    """The participant's status."""
    try:
        return json.loads((runs / "latest" / "participant.status.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return {}


def per_minute(rows: np.ndarray) -> dict[str, list[float]]:
    """Median and 99th percentile of the feedback latency and of the step, ms, of each minute."""
    minute = ((rows["time"] - rows["time"][0]) // 60).astype(int)
    told: dict[str, list[float]] = {
        name: [] for name in ("minute", "latency_median", "latency_p99", "step_median", "step_p99")
    }
    for number in np.unique(minute):
        some = rows[minute == number]
        latency = some["feedback_latency_ms"][np.isfinite(some["feedback_latency_ms"])]
        if len(latency) < 100:
            continue
        told["minute"].append(float(number) + 0.5)
        for name, values in (("latency", latency), ("step", some["step_ms"])):
            told[f"{name}_median"].append(round(float(np.median(values)), 3))
            told[f"{name}_p99"].append(round(float(np.percentile(values, 99)), 3))
    return told


def judge(result: dict[str, Any]) -> list[str]:
    """What is not as wanted, in words; empty if all is."""
    wrong = [] if result["failure"] is None else [str(result["failure"])]
    if result["samples_lost"] != 0 or result["recorded_lost"]:
        wrong.append(f"samples lost: {result['samples_lost']} on the way, {result['recorded_lost']} in the recording")
    if result["overrun_share"] > MOST["overrun_share"]:
        wrong.append(f"{100 * result['overrun_share']:.2f} % of the steps ran late")
    latency = result["feedback_latency_ms"]
    if latency is None or latency["p99"] > MOST["latency_p99_ms"]:
        wrong.append(f"feedback latency: {latency}")
    for part, told in result["processes"].items():
        begin, end = told["memory_mb"]
        if told["memory_growth"] > MOST["memory_growth"] and end - begin > SMALL_MB:
            wrong.append(f"{part}: memory from {begin:g} to {end:g} MB")
        for what, small in (("threads", 0), ("files", SMALL_FILES)):
            if told[what][1] > told[what][0] + small:
                wrong.append(f"{part}: {what} {told[what][0]} -> {told[what][1]}")
    return wrong


def draw(courses: dict[str, list[Vitals]], minutes: dict[str, list[float]], warm_up_s: float, path: Path) -> None:
    """Four courses over the time of the session."""
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 8.5), layout="constrained")
        axes = figure.subplots(4, 1, sharex=True, height_ratios=[3, 2, 2, 3])
        for part, course in courses.items():
            if len(course) < 3:
                continue
            rows = np.array(course, float)
            colour = COLOURS.get(part.split(" ")[0], "#8d99ae")
            after = rows[rows[:, 0] >= warm_up_s]
            zero = np.median(after[: max(1, len(after) // 10), 1]) if len(after) else rows[-1, 1]
            axes[0].plot(rows[:, 0] / 60, rows[:, 1] - zero, color=colour, lw=1.2, label=f"{part} ({zero:.0f} MB)")
            axes[1].plot(rows[:, 0] / 60, rows[:, 2], color=colour, lw=1.2)
            axes[2].plot(rows[:, 0] / 60, rows[:, 3], color=colour, lw=1.2)
        axes[0].set(ylabel="memory (USS) against\nafter the warm-up (MB)")
        axes[0].legend(frameon=False, ncols=3, fontsize=8, loc="best")
        low, high = axes[0].get_ylim()
        axes[0].set_ylim(max(low, -30), max(high, 5))
        axes[1].set(ylabel="threads", ylim=(0, None))
        axes[2].set(ylabel="file descriptors", ylim=(0, None))
        axes[3].plot(
            minutes["minute"],
            minutes["latency_p99"],
            "o-",
            ms=3,
            lw=1,
            color="#d1495b",
            label="feedback latency, 99th percentile of a minute",
        )
        axes[3].plot(
            minutes["minute"], minutes["latency_median"], "o-", ms=3, lw=1, color="#1d2733", label="its median"
        )
        axes[3].plot(
            minutes["minute"],
            minutes["step_p99"],
            "o-",
            ms=3,
            lw=1,
            color="#8d99ae",
            label="participant's step, 99th percentile",
        )
        axes[3].axhline(45, color="#d1495b", lw=0.8, ls="--")
        axes[3].text(0.0, 45.6, "wanted: p99 at most 45 ms", fontsize=8, color="#d1495b")
        axes[3].set(xlabel="time (min)", ylabel="ms", ylim=(0, None))
        axes[3].legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.25))
        for axis in axes:
            axis.axvspan(0, warm_up_s / 60, color="#8d99ae", alpha=0.15, lw=0)
            axis.margins(x=0.01)
        axes[0].set_title("grey: warm-up, which does not count", loc="right", fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)


def main(config: Config) -> None:
    """Runs, judges, writes."""
    seconds = 60 * config.minutes
    warm_up_s = min(config.warm_up_s, seconds / 5)
    command = [
        sys.executable,
        "-m",
        "myoloop",
        "run",
        str(config.experiment),
        "--runs",
        str(config.runs),
        "--ros",
        "False",
    ]
    command += [
        "--duration",
        str(seconds),
        "--set",
        "record=true",
        "--set",
        "participant.id=soak",
        *(["--view"] if config.view else []),
    ]
    (config.runs / "latest").unlink(missing_ok=True)
    courses, load, code = watch(command, config)
    run = (config.runs / "latest").resolve()
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    minutes = per_minute(read_rows(run / "steps"))
    loop, kept = report["loop"], report["recording"] or {}
    result = {
        "minutes": config.minutes,
        "view": config.view,
        "browser": config.browser,
        "exit_code": code,
        "failure": report["failure"],
        "samples_sent": report["emg"]["samples_sent"],
        "samples_lost": report["emg"]["samples_lost"],
        "recorded_lost": kept.get("lost"),
        "recorded_bytes": kept.get("bytes"),
        "decoder_lost": report["decoder"]["samples_lost"],
        "steps": loop["steps"],
        "overrun_share": round(loop["overruns"] / max(1, loop["steps"]), 6),
        "feedback_latency_ms": loop["feedback_latency_ms"],
        "step_ms": loop["step_ms"],
        "stale_steps": report["decoder"]["stale_steps"],
        "processes": {part: told for part, course in courses.items() if (told := grown(course, warm_up_s))},
        "warm_up_s": warm_up_s,
        "by_minute": minutes,
        "messages": report["messages"],
        "load_average": round(float(np.median(load)), 2) if load else None,
        "device": processor(),
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
    }
    result["memory_growth"] = max((told["memory_growth"] for told in result["processes"].values()), default=None)
    result["not_as_wanted"] = judge(result)
    table = Table("process", "memory MB", "growth", "threads", "files", "of a core")
    for part, told in result["processes"].items():
        memory, threads, files = (" -> ".join(f"{x:g}" for x in told[key]) for key in ("memory_mb", "threads", "files"))
        table.add_row(
            part, memory, f"{100 * told['memory_growth']:+.2f} %", threads, files, f"{100 * told['cpu']:.0f} %"
        )
    console = Console(stderr=True)
    console.print(table)
    for wrong in result["not_as_wanted"]:
        console.print(f"[red]{wrong}[/red]")
    if config.out:
        config.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if config.picture:
        draw(courses, minutes, warm_up_s, config.picture)
    print(json.dumps({key: value for key, value in result.items() if key != "by_minute"}))
    sys.exit(bool(result["not_as_wanted"]))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
