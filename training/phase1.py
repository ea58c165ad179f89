"""Phase 1: train a policy to follow references, from nothing.

    python training/phase1.py --run runs/phase1
    python training/phase1.py --run runs/phase1 --resume            # go on where it stopped
    python training/phase1.py --run runs/phase1 --resume --steps 40000000

Ctrl-C (or SIGTERM) stops it after the update at work and leaves a good checkpoint. The last line of standard output is one
JSON object with the speed and the last figures. The run folder: `policy.safetensors` (what experiments name),
`state.safetensors` (to resume), `curves.csv`, `curves.png`, `config.json`.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from myoloop.errors import MyoloopError
from myoloop.learn.curves import plot_curves
from myoloop.learn.phase1 import Phase1Config, Row, Trainer, saved_config, train


@dataclass(frozen=True)
class Phase1Run:
    """One run: where it lives, and what it is."""

    run: Path
    """Run folder; made when it is not there."""
    resume: bool = False
    """Go on from the run folder's checkpoint, with its settings; only --steps may be given with it."""
    save_every_s: float = 60.0
    """s between checkpoints."""
    config: Annotated[Phase1Config, tyro.conf.arg(name="")] = field(default_factory=Phase1Config)


def main(run: Phase1Run) -> dict:
    """Train; returns what the last line says."""
    console = Console(stderr=True)
    config = run.config
    if run.resume:
        config = dataclasses.replace(saved_config(run.run), steps=config.steps)
    elif (run.run / "state.safetensors").exists():
        raise MyoloopError(f"{run.run} holds a run already: go on with --resume, or name another folder.")
    console.print(
        f"phase 1: {config.steps / 1e6:g} M steps, {config.environments} participants, engine {config.engine}, "
        f"seed {config.seed}"
    )
    trainer = Trainer(config)
    if run.resume:
        trainer.restore(run.run)
    before = trainer.steps, trainer.seconds
    stop = threading.Event()

    def ask(number: int, frame: object) -> None:
        if stop.is_set():  # asked twice: at once; the last checkpoint stays
            raise KeyboardInterrupt
        stop.set()

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, ask)
    with progress_bar(console) as bar:
        task = bar.add_task("training", total=config.steps, completed=trainer.steps, note="compiling")

        def show(row: Row) -> None:
            bar.update(task, completed=row.steps, note=note(trainer.rows))

        train(trainer, run.run, show, run.save_every_s, stop.is_set)
    if not trainer.done:
        console.print(f"stopped at step {trainer.steps}; go on with --resume.")
    plot_curves(run.run / "curves.png", trainer.rows)
    return result(trainer, *before)


def note(rows: list[Row]) -> str:
    """The figures that matter, over the last ten updates."""
    last = np.mean(np.array(rows[-10:]), axis=0)
    row = Row(*last)
    return (
        f"{row.steps_per_s:,.0f} steps/s, joints {row.joint_error_deg:.1f} deg, tips {row.tip_error_mm:.1f} mm, effort "
        f"{row.effort:.3f}"
    )


def result(trainer: Trainer, steps_before: int, seconds_before: float) -> dict:
    """Speed of this life of the run without its first three updates, in which programs are compiled; the last figures."""
    rows = [row for row in trainer.rows if row.steps > steps_before]
    timed = rows[3:] or rows
    seconds = sum(trainer.config.environments * trainer.config.unroll / row.steps_per_s for row in timed)
    steps = len(timed) * trainer.config.environments * trainer.config.unroll
    last = Row(*np.mean(np.array(trainer.rows[-20:]), axis=0)) if trainer.rows else None
    return {
        "steps": trainer.steps,
        "seconds": round(trainer.seconds, 1),
        "seconds_now": round(trainer.seconds - seconds_before, 1),
        "steps_per_s": round(steps / seconds, 1) if seconds else None,
        "physics_share": round(float(np.mean([row.physics_share for row in timed])), 3) if timed else None,
        "environments": trainer.config.environments,
        "engine": trainer.config.engine,
        "emg": trainer.config.emg or None,
        "joint_error_deg": round(last.joint_error_deg, 2) if last else None,
        "tip_error_mm": round(last.tip_error_mm, 2) if last else None,
        "effort": round(last.effort, 4) if last else None,
    }


def progress_bar(console: Console) -> Progress:
    """A bar with a note and the time left, on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.percentage:3.0f} %"))
    return Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console
    )


if __name__ == "__main__":
    try:
        print(json.dumps(main(tyro.cli(Phase1Run, description=__doc__))))
    except MyoloopError as error:
        sys.exit(f"training/phase1.py: {error}")
    except KeyboardInterrupt:
        sys.exit("training/phase1.py: stopped at once; the last checkpoint is good.")
