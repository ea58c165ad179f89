"""A run on the console: progress bar, stopping it, and what its last line says."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from myoloop.errors import MyoloopError
from myoloop.learn.curves import plot_curves
from myoloop.learn.trainer import Row, Run, Trainer, saved_config, train

C = TypeVar("C", bound=Run)


def carry_out(config: C, folder: Path, resume: bool, save_every_s: float, title: str) -> dict:
    """Trains in `folder` until the steps are done, or SIGINT or SIGTERM ask to stop after the update at work.

    Args:
      config: what is learned; with `resume` only its `steps` counts, the rest is the saved run's.
      save_every_s: s between checkpoints.
      title: of the phase.

    Returns:
      what the last line of a training program says.

    Raises:
      MyoloopError: the folder holds a run already, or none to resume.
      KeyboardInterrupt: asked to stop twice.
    """
    console = Console(stderr=True)
    if resume:
        config = dataclasses.replace(saved_config(type(config), folder), steps=config.steps)  # type: ignore[type-var]
    elif (folder / "state.safetensors").exists():
        raise MyoloopError(f"{folder} holds a run already: go on with --resume, or name another folder.")
    console.print(
        f"{title}: {config.steps / 1e6:g} M steps, {config.environments} participants, engine {config.engine}, "
        f"seed {config.seed}"
    )
    trainer = Trainer(config)
    if resume:
        trainer.restore(folder)
    before = trainer.steps, trainer.seconds
    stop = threading.Event()

    def ask(number: int, frame: object) -> None:
        if stop.is_set():  # asked twice: at once; the last checkpoint stays
            raise KeyboardInterrupt
        stop.set()

    handlers = {name: signal.signal(name, ask) for name in (signal.SIGINT, signal.SIGTERM)}
    with contextlib.ExitStack() as after, progress_bar(console) as bar:
        for name, handler in handlers.items():
            after.callback(signal.signal, name, handler)
        task = bar.add_task("training", total=config.steps, completed=trainer.steps, note="compiling")

        def show(row: Row) -> None:
            bar.update(task, completed=row.steps, note=note(trainer.rows))

        train(trainer, folder, show, save_every_s, stop.is_set)
    if not trainer.done:
        console.print(f"stopped at step {trainer.steps}; go on with --resume.")
    plot_curves(folder / "curves.png", trainer.rows)
    return result(trainer, *before)


def note(rows: list[Row]) -> str:
    """The figures that matter, over the last ten updates."""
    last = np.mean(np.array(rows[-10:]), axis=0)
    row = Row(*last)
    right = "" if np.isnan(row.accuracy) else f"right {100 * row.accuracy:.1f} %, "
    return (
        f"{row.steps_per_s:,.0f} steps/s, {right}joints {row.joint_error_deg:.1f} deg, tips {row.tip_error_mm:.1f} mm, effort "
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
        "emg": emg.band.name if (emg := trainer.collector.loop.emg) else None,
        "joint_error_deg": round(last.joint_error_deg, 2) if last else None,
        "tip_error_mm": round(last.tip_error_mm, 2) if last else None,
        "effort": round(last.effort, 4) if last else None,
        "accuracy": round(last.accuracy, 4) if last and not np.isnan(last.accuracy) else None,
    }


def progress_bar(console: Console) -> Progress:
    """A bar with a note and the time left, on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.percentage:3.0f} %"))
    return Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console
    )
