"""Environment steps (control steps of all participants) per second of phase 1, learning included.

Each row runs in a process of its own, so that compilation and memory are its own: policy, physics, observation, reward
and PPO as training/phase1.py has them, with the EMG of an armband synthesised at every step or not. The rate is that of
whole updates after two that compile and warm up.

    python benchmarks/throughput.py                                                        # CPU: mujoco, 256 participants
    python benchmarks/throughput.py --engines mjx warp --environments 1 16 64 --seconds 5  # the others, small, on a CPU

On a GPU (`make gpu` first), the scaling table; a part at a time, joined afterwards:

    python benchmarks/throughput.py --engines mjx warp --environments 1 16 64 256 512 1024 2048 4096 8192 \\
        --emg off --seconds 10 | tee scaling.json
    python benchmarks/throughput.py --engines warp --environments 1024 4096 --emg on --seconds 10 --join scaling.json \\
        --plot throughput.png

The last line of the output is one JSON object: `rows` of `engine`, `environments`, `emg`, `device`, `steps_per_s`,
`physics_share` (part of the time that the physics takes; for `mjx` and `warp` its time alone over that of all, where there
is one device), `start_s` (building and compiling) and `memory_mb` (the most that was held: of the device, or of the process
on a CPU). A row that failed has `error` instead of figures.
"""

from __future__ import annotations

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from myoloop.errors import MyoloopError

Row = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Which rows to measure."""

    engines: tuple[str, ...] = ("mujoco",)
    """physics engines: mujoco, mjx, warp"""
    environments: tuple[int, ...] = (256,)
    """participants side by side"""
    emg: Literal["off", "on", "both"] = "both"
    """without EMG, with, or a row of each"""
    armband: str = "semg_rd16"
    """armband of the rows with EMG"""
    unroll: int = 32
    """control steps of each participant between two updates"""
    seconds: float = 30.0
    """time measured at least, s; whole updates, three at least"""
    physics_dt: float | None = None
    """step of the physics, s; None: that of phase 1"""
    time_limit: float = 1800.0
    """a row that takes longer than this, compilation included, fails; s"""
    join: tuple[Path, ...] = ()
    """what earlier runs printed: their rows are taken over where this run does not measure them anew"""
    plot: Path | None = None
    """PNG to draw"""
    row: str = ""
    """only this row, as JSON (the program calls itself with this)"""


# --- one row, in its own process --------------------------------------------------------------------------------------


def measure(config: Config, row: Row) -> Row:
    """A row with its figures."""
    import jax

    from myoloop.learn.phase1 import Phase1Config
    from myoloop.learn.trainer import Trainer

    begun = time.perf_counter()
    armband = config.armband if row["emg"] else ""
    phase1 = Phase1Config(engine=row["engine"], environments=row["environments"], emg=armband, unroll=config.unroll)
    if config.physics_dt is not None:
        phase1 = replace(phase1, physics_dt=config.physics_dt)
    trainer = Trainer(phase1)
    for _ in range(2):
        trainer.update()
    ready = time.perf_counter()
    steps = trainer.steps
    updates = []
    while len(updates) < 3 or time.perf_counter() - ready < config.seconds:
        updates.append(trainer.update())
    took = time.perf_counter() - ready
    rate = (trainer.steps - steps) / took
    share: float | None = statistics.mean(update.physics_share for update in updates)
    if share == 0.0:  # physics and all else are one program on the device, or on several
        one = len(jax.devices()) == 1
        share = physics_alone(config, row, phase1.physics_dt) * rate if one else None
    device = jax.devices()[0]
    return row | {
        "device": "cpu" if device.platform == "cpu" else device.device_kind,
        "steps_per_s": round(rate, 1),
        "physics_share": None if share is None else round(share, 3),
        "start_s": round(ready - begun, 1),
        "memory_mb": round(most_memory(device) / 1e6),
    }


def physics_alone(config: Config, row: Row, physics_dt: float) -> float:
    """Seconds per control step and participant of `mjx` or `warp` with nothing else in the program."""
    import jax
    import numpy as np

    from myoloop.body.engines import make_engine
    from myoloop.body.model import load_hand

    physics = make_engine(row["engine"], load_hand(physics_dt), row["environments"]).physics
    drive = np.random.default_rng(0).uniform(0.0, 0.3, (row["environments"], 39)).astype(np.float32)

    @jax.jit
    def advance(state: Any) -> Any:
        return jax.lax.scan(lambda now, _: (physics.advance(now, drive), None), state, length=config.unroll)[0]

    state = jax.block_until_ready(advance(physics.start()))
    begun, rounds = time.perf_counter(), 0
    while rounds < 3 or time.perf_counter() - begun < config.seconds / 4:
        state, rounds = jax.block_until_ready(advance(state)), rounds + 1
    return (time.perf_counter() - begun) / (rounds * config.unroll * row["environments"])


def most_memory(device: Any) -> float:
    """The most bytes that were held so far: the device's where it counts them, else the process's."""
    counted = (device.memory_stats() or {}).get("peak_bytes_in_use") if device.platform != "cpu" else None
    return float(counted or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


# --- all rows ---------------------------------------------------------------------------------------------------------


def asked(config: Config) -> list[Row]:
    """The rows of a configuration, without figures."""
    emg = {"off": (False,), "on": (True,), "both": (False, True)}[config.emg]
    return [
        {"engine": engine, "environments": count, "emg": with_emg}
        for engine in config.engines
        for count in config.environments
        for with_emg in emg
    ]


def in_own_process(config: Config, row: Row) -> Row:
    """The row, measured or with what went wrong."""
    command = [sys.executable, __file__, "--row", json.dumps(row), "--armband", config.armband]
    for name in ("unroll", "seconds", "physics_dt"):
        command += [f"--{name.replace('_', '-')}", str(getattr(config, name))]  # tyro reads None as None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=config.time_limit)
    except subprocess.TimeoutExpired:
        return row | {"error": f"took longer than {config.time_limit:g} s"}
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return row | {"error": said[-1] if said else f"ended with {done.returncode}"}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def joined(rows: Sequence[Row], earlier: Sequence[Path]) -> list[Row]:
    """Rows with those of earlier runs that were measured; where both have one of a device, the new one stays.

    Raises:
      MyoloopError: an earlier output that does not end with rows.
    """
    known = {key(row): row for row in rows}
    for path in earlier:
        try:
            old = json.loads(path.read_text().strip().splitlines()[-1])["rows"]
        except (OSError, ValueError, IndexError, KeyError, TypeError) as error:
            raise MyoloopError(f"{path}: expected the output of this program, with its JSON line last.") from error
        known = {key(row): row for row in old if "error" not in row} | known
    return sorted(known.values(), key=key)


def key(row: Row) -> tuple[str, bool, str, int]:
    """What a row is known by, in the order of the table."""
    return row["engine"], row["emg"], row.get("device", ""), row["environments"]


def table(rows: Sequence[Row]) -> Table:
    """The rows that could be measured, for people."""
    shown = Table("engine", "EMG", "participants", "steps/s", "physics", "start (s)", "memory (MB)", "device")
    for row in rows:
        if "error" not in row:
            name = (row["engine"], "on" if row["emg"] else "off", f"{row['environments']}")
            share = "" if row["physics_share"] is None else f"{100 * row['physics_share']:.0f} %"
            figures = (f"{row['steps_per_s']:,.0f}", share, f"{row['start_s']:.0f}", f"{row['memory_mb']:,}")
            shown.add_row(*name, *figures, row["device"])
    return shown


def plot(rows: Sequence[Row], path: Path) -> None:
    """Steps per second against participants, a line for each engine, device and EMG on or off."""
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    axes = figure.add_subplot()
    colours = {"mujoco": "#1d2733", "mjx": "#1f6fb2", "warp": "#1f9d6b"}
    measured = [row for row in rows if "error" not in row]
    for engine, emg, device in sorted({(row["engine"], row["emg"], row["device"]) for row in measured}):
        line = [row for row in measured if (row["engine"], row["emg"], row["device"]) == (engine, emg, device)]
        points = sorted((row["environments"], row["steps_per_s"]) for row in line)
        label = f"{engine}, {'with EMG' if emg else 'no EMG'}, {device}"
        style = {"color": colours.get(engine), "marker": "o", "linestyle": "--" if emg else "-"}
        axes.plot(*zip(*points, strict=True), label=label, **style)
    axes.set(xscale="log", yscale="log", xlabel="participants side by side", ylabel="control steps per second (all)")
    ticks = sorted({row["environments"] for row in measured})
    axes.set_xticks(ticks, [str(count) for count in ticks])
    axes.minorticks_off()
    rates = [row["steps_per_s"] for row in measured]
    axes.set_ylim(10 ** math.floor(math.log10(min(rates))), 10 ** math.ceil(math.log10(max(rates)) + 1e-6))
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.supxlabel(
        "Phase 1 with learning. A straight rise: more participants cost no more time. Flat: the processor is full.",
        fontsize=8,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(config: Config) -> None:
    if config.row:
        print(json.dumps(measure(config, json.loads(config.row))))
        return
    console = Console(stderr=True)
    rows = []
    for number, row in enumerate(asked(config), 1):
        console.print(f"row {number} of {len(asked(config))}: {row}")
        rows.append(in_own_process(config, row))
        console.print(rows[-1].get("error") or f"{rows[-1]['steps_per_s']:,.0f} steps/s")
    rows = joined(rows, config.join)
    console.print(table(rows))
    if config.plot is not None and any("error" not in row for row in rows):
        plot(rows, config.plot)
    result = {"rows": rows, "cores": len(os.sched_getaffinity(0)), "unroll": config.unroll}
    print(json.dumps(result))
    if all("error" in row for row in rows):
        sys.exit("no row could be measured")


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except MyoloopError as error:
        sys.exit(f"benchmarks/throughput.py: {error}")
