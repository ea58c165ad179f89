"""Record a dataset: many people, placements, conditions and references, by seed, into HDF5 shards (docs/datasets.md).

    python training/dataset.py --out data/forearms --people 16 --conditions fatigue 0.2 1.0 ecg 0.5 1.0
    python training/dataset.py --out data/forearms --people 16 --conditions fatigue 0.2 1.0 ecg 0.5 1.0 --resume

Ctrl-C (or SIGTERM, or a kill) loses the open shard only. The last line of standard output is one JSON object with what was
recorded and how fast. `myoloop dataset info FOLDER` tells what is inside.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from myoloop.errors import MyoloopError
from myoloop.learn.dataset_plan import DatasetConfig, Shard, plan
from myoloop.learn.dataset_record import record_dataset


@dataclass(frozen=True)
class DatasetRun:
    """One dataset: where it lies, and what it holds."""

    out: Path
    """Folder of the dataset; new or empty, but for --resume."""
    resume: bool = False
    """Record the shards that are missing in a folder begun with the same settings."""
    threads: int = 0
    """Threads of the physics (engine mujoco); 0: all cores."""
    config: Annotated[DatasetConfig, tyro.conf.arg(name="")] = field(default_factory=DatasetConfig)


def main(run: DatasetRun) -> dict:
    """Record; returns what the last line says."""
    console = Console(stderr=True)
    shards = plan(run.config)
    total = sum(len(shard.recordings) for shard in shards) * run.config.seconds
    console.print(f"{len(shards)} shards, {total / 60:.0f} participant-minutes, seed {run.config.seed}")
    done = {"shards": 0, "recorded": 0, "seconds": 0.0}
    started = time.perf_counter()
    with progress_bar(console) as bar:
        task = bar.add_task("recording", total=total, note="building people")

        def note() -> str:
            rate = done["seconds"] / (time.perf_counter() - started)
            return f"{rate:.1f} participant s/s, {done['shards']}/{len(shards)} shards"

        def on_second(seconds: float) -> None:
            done["seconds"] += seconds
            bar.update(task, advance=seconds, note=note())

        def on_shard(shard: Shard, recorded: bool) -> None:
            done["shards"] += 1
            done["recorded"] += recorded
            if not recorded:
                bar.update(task, total=bar.tasks[task].total - len(shard.recordings) * run.config.seconds)
            bar.update(task, note=note())

        record_dataset(run.out, run.config, run.resume, on_second, on_shard, run.threads)
    took = time.perf_counter() - started
    return {
        "folder": str(run.out),
        "shards": len(shards),
        "shards_recorded_now": done["recorded"],
        "participant_s": total,
        "seconds": round(took, 1),
        "participant_s_per_s": round(done["seconds"] / took, 2),
        "megabytes": round(sum((run.out / shard.name).stat().st_size for shard in shards) / 1e6, 1),
    }


def progress_bar(console: Console) -> Progress:
    """A bar with a note and the time left, on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.percentage:3.0f} %"))
    return Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(json.dumps(main(tyro.cli(DatasetRun, description=__doc__))))
    except MyoloopError as error:
        sys.exit(f"training/dataset.py: {error}")
    except KeyboardInterrupt:
        sys.exit("training/dataset.py: stopped; finished shards are kept, go on with --resume.")
