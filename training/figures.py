"""Pictures and numbers of adaptation from run folders.

    python training/figures.py --runs "internal model=runs/a,runs/b" "ppo=runs/c" --out docs/results

Every arm is one or more runs of training/phase2.py that differ in their seeds. Their policies are tried without
exploration, with the decoder, person and circumstances they learned with (kept in each run's used.json). Writes NAME.png and
NAME.json (`arms`: name -> steps, participant_hours, minutes, seeds, device, accuracy, effort and more, with intervals).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from myoloop.assets import POLICY, find_file
from myoloop.checkpoint import write_atomically
from myoloop.decoder.weights import load_tcn
from myoloop.emg.armband import armband
from myoloop.errors import MyoloopError
from myoloop.learn.arms import Arm, draw, read_run, summary
from myoloop.learn.closed_loop import UseConfig, use
from myoloop.learn.phase2 import worn
from myoloop.machine import processor
from myoloop.participant import ParticipantConfig


@dataclass(frozen=True)
class FiguresRun:
    """What is drawn."""

    runs: tuple[str, ...]
    """name=folder[,folder...] of each arm: its runs, which differ in their seeds."""
    before: str = POLICY
    """File of the policy from which they began: the dashed line."""
    title: str = "Learning to use a frozen decoder."
    """Of the picture."""
    logarithmic: bool = False
    """Whether the axis of steps is."""
    name: str = "adaptation"
    """Of the two files."""
    out: Path = Path("docs/results")
    """Their folder."""
    test: UseConfig = field(default_factory=UseConfig)
    """How policies are tried."""


def main(run: FiguresRun) -> dict[str, Any]:
    """Draws; returns what the JSON file holds."""
    folders = {}
    for entry in run.runs:
        name, equals, listed = entry.partition("=")
        if not equals or not listed:
            raise MyoloopError(f"--runs {entry}: expected name=folder or name=folder,folder.")
        folders[name] = [Path(folder) for folder in listed.split(",")]
    arms, first = {}, None
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=sum(map(len, folders.values())) + 1)
        for name, runs in folders.items():
            bar.update(task, description=name)
            read, used = [read_run(folder) for folder in runs], []
            for folder, (config, _) in zip(runs, read, strict=True):
                first = first or config
                used.append(_tried(run, folder / "policy.safetensors", config, folder / "used.json"))
                bar.advance(task)
            seeds = tuple(config["seed"] for config, _ in read)
            if len(set(seeds)) < len(seeds):
                raise MyoloopError(
                    f"arm '{name}' has runs of equal seeds {list(seeds)}: name runs that differ in them."
                )
            arms[name] = Arm(read[0][0], seeds, tuple(curves for _, curves in read), tuple(used))
        assert first is not None
        before = _tried(run, find_file(run.before, kind="policy"), first, None)
        bar.advance(task)
    result = {
        "arms": {name: summary(arm, processor()) for name, arm in arms.items()},
        "before": before,
        "test": dataclasses.asdict(run.test),
    }
    write_atomically(run.out / f"{run.name}.json", (json.dumps(result, indent=1) + "\n").encode())
    write_atomically(run.out / f"{run.name}.png", draw(arms, before, run.title, run.logarithmic))
    return result


def _tried(run: FiguresRun, policy: Path, config: dict[str, Any], kept: Path | None) -> dict[str, Any]:
    """The policy's figures without exploration, where and with what its run learned; from `kept` if it was this policy's."""
    asked = {"policy": hashlib.sha256(policy.read_bytes()).hexdigest(), "test": dataclasses.asdict(run.test)}
    if kept is not None and kept.is_file():
        known = json.loads(kept.read_text())
        if known["asked"] == asked:
            return known["figures"]  # type: ignore[no-any-return]
    band = worn(armband(config["armband"]), config["rotation_deg"])
    who = ParticipantConfig(armband=band, person=config["person"], policy=str(policy))
    decoder = load_tcn(find_file(config["decoder"], kind="decoder"))
    figures = use(who, decoder, run.test, config["conditions"]).figures()
    if kept is not None:
        write_atomically(kept, (json.dumps({"asked": asked, "figures": figures}, indent=1) + "\n").encode())
    return figures


if __name__ == "__main__":
    try:
        print(json.dumps(main(tyro.cli(FiguresRun, description=__doc__))))
    except MyoloopError as error:
        sys.exit(f"training/figures.py: {error}")
