"""Feedback that comes late: right answers and time of trials against the delay, adapted at no delay and at that delay.

    python training/delays.py

Every delay has its participant, adapted in runs/delay_<ms> by training/phase2.py with the same steps and seed; runs that are
missing are trained first, one after the other (minutes each on two cores), runs that were stopped go on. Then everybody is
tried at every delay on held-out references, which are known 0.25 s ahead, and on gestures that come suddenly. Writes
delay.json and delay.png; the last line of standard output is one JSON object with the accuracies and reached gestures. What
has been measured is kept in the run folders' place, so that a run of this program that was stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from myoloop.assets import find_file
from myoloop.checkpoint import write_atomically
from myoloop.decoder.weights import load_decoder
from myoloop.emg.armband import armband
from myoloop.errors import MyoloopError
from myoloop.learn.arms import interval
from myoloop.learn.carry_out import carry_out
from myoloop.learn.closed_loop import UseConfig, use
from myoloop.learn.delay import late, per_participant, quartiles_to_reach
from myoloop.learn.delay_figure import AT_NONE, AT_THIS, SHIPPED, draw, slope
from myoloop.learn.phase2 import Phase2Config, worn
from myoloop.learn.trainer import as_json, saved_config
from myoloop.machine import processor
from myoloop.participant import ParticipantConfig
from myoloop.task.trials import TrialRules


@dataclass(frozen=True)
class DelaysRun:
    """What is compared."""

    delays_ms: tuple[int, ...] = (0, 60, 120, 180, 240, 300)
    """Delays, ms, whole control steps, at which those adapted without delay are tried."""
    adapted_ms: tuple[int, ...] = (0, 120, 240, 300)
    """Delays at which a participant adapts, and is tried; the first of them is tried at all the others, too."""
    runs: Path = Path("runs")
    """Where the runs delay_<ms> are, or will be."""
    shipped: str = ""
    """Another policy to try at every delay, as models/policy_phase2/policy.safetensors, which learned five times as long;
    empty: none."""
    train: bool = True
    """Train what is missing; else say by which commands."""
    sudden_s: float = 3.0
    """s for which gestures that come suddenly are held."""
    sudden_dwell_s: float = 1.0
    """s for which all five answers must stay right there."""
    out: Path = Path("docs/results")
    """Folder for delay.json and delay.png."""
    test: UseConfig = field(default_factory=UseConfig)
    """How policies are tried; its delay, sudden gestures and their dwell are set by this program."""
    config: Annotated[Phase2Config, tyro.conf.arg(name="")] = field(default_factory=lambda: Phase2Config(steps=200_000))
    """How every participant adapts, the delay apart."""


def main(run: DelaysRun) -> dict[str, Any]:
    """Trains, measures, draws; returns what the last line says."""
    for name, listed in (("delays", run.delays_ms), ("adapted", run.adapted_ms)):
        if len(listed) < 2 or len(set(listed)) < len(listed):
            raise MyoloopError(f"--{name}-ms {listed}: expected two or more, all different.")
    folders = {ms: run.runs / f"delay_{ms}" for ms in run.adapted_ms}
    _train(run, folders)
    policies = {ms: str(folder / "policy.safetensors") for ms, folder in folders.items()}
    first = run.adapted_ms[0]
    lines = {AT_NONE: dict.fromkeys(run.delays_ms, policies[first]), AT_THIS: policies}
    if run.shipped:
        lines[SHIPPED] = dict.fromkeys(run.delays_ms, str(find_file(run.shipped, kind="policy")))
    found: dict[str, Any] = {name: [] for name in lines}
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=2 * run.test.seconds * sum(map(len, lines.values())))
        for name, policy_at in lines.items():
            for ms, policy in policy_at.items():
                bar.update(task, description=f"{name}, {ms} ms")
                before = bar.tasks[0].completed
                figures = _tried(run, policy, ms, lambda s: bar.advance(task, s))
                bar.update(task, completed=before + 2 * run.test.seconds)
                found[name].append({"delay_ms": ms, **figures})
    found["slopes"] = {name: slope(found[name]) for name in lines}
    found["about"] = {
        "adapted_at_ms": first, "steps": run.config.steps, "learner": run.config.learner, "seed": run.config.seed,
        "decoder": run.config.decoder, "armband": run.config.armband, "person": run.config.person, "device": processor(),
        "shipped": run.shipped, "test": dataclasses.asdict(run.test), "sudden_s": run.sudden_s,
        "sudden_dwell_s": run.sudden_dwell_s,
    }  # fmt: skip
    write_atomically(run.out / "delay.json", (json.dumps(found, indent=1) + "\n").encode())
    write_atomically(run.out / "delay.png", draw(found))
    return {
        name: [
            {"delay_ms": row["delay_ms"], **{k: row[k] for k in ("accuracy", "sudden_reached")}} for row in found[name]
        ]
        for name in lines
    }


def _train(run: DelaysRun, folders: dict[int, Path]) -> None:
    """Sees to it that every run is there, is done, and was made as the others."""
    missing = []
    for ms, folder in folders.items():
        wanted = dataclasses.replace(run.config, delay_s=ms / 1e3)
        begun = (folder / "state.safetensors").exists()
        if begun:
            then, now = as_json(saved_config(Phase2Config, folder)), as_json(wanted)
            if differing := sorted(key for key in now if then[key] != now[key] and key != "threads"):
                raise MyoloopError(
                    f"{folder} is a run with other settings of {', '.join(differing)}: name another folder by --runs, or give "
                    "the same settings."
                )
            if _steps(folder) >= wanted.steps:
                continue
        if not run.train:
            more = " --resume" if begun else f" --delay-s {ms / 1e3:g} --seed {wanted.seed} --steps {wanted.steps}"
            missing.append(f"python training/phase2.py --run {folder}{more}")
            continue
        carry_out(wanted, folder, begun, 60.0, f"adapting at {ms} ms")
        if _steps(folder) < wanted.steps:
            raise MyoloopError("stopped; the same command goes on.")
    if missing:
        raise MyoloopError("these runs are missing or not done:\n" + "\n".join(missing))


def _steps(folder: Path) -> int:
    """How far a run is."""
    return int((folder / "curves.csv").read_text().splitlines()[-1].split(",")[0])


def _tried(run: DelaysRun, policy: str, ms: int, on_second: Callable[[float], None]) -> dict[str, Any]:
    """The policy's figures at a delay on both tests; from what was kept, if it is there."""
    config = run.config
    plain = dataclasses.replace(run.test, delay_s=ms / 1e3, sudden_s=0.0)
    sudden = dataclasses.replace(plain, sudden_s=run.sudden_s, dwell_s=run.sudden_dwell_s)
    file = find_file(config.decoder, kind="decoder")
    hashes = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in (policy, file)]
    about = [config.armband, config.person, config.rotation_deg, config.conditions]
    asked = json.dumps([*hashes, *about, dataclasses.asdict(plain), dataclasses.asdict(sudden)], sort_keys=True)
    kept = run.runs / "delays.json"
    known = json.loads(kept.read_text()) if kept.is_file() else {}
    if asked not in known:
        band, decoder = worn(armband(config.armband), config.rotation_deg), load_decoder(file)
        who = ParticipantConfig(armband=band, person=config.person, policy=policy)
        followed, surprised = (use(who, decoder, each, config.conditions, on_second) for each in (plain, sudden))
        figures, trials = followed.figures(), surprised.figures()["trials"]
        dt, rules = 1 / config.control_hz, TrialRules(sudden.dwell_s, sudden.sudden_s)
        mean, half = interval(per_participant(followed.odds, followed.labels))
        known[asked] = {
            "accuracy": round(mean, 4),
            "accuracy_ci": round(half, 4),
            "late_s": round(late(followed.odds, followed.labels, dt), 3),
            "effort": figures["effort"],
            "joint_error_deg": figures["joint_error_deg"],
            "trials": figures["trials"],
            "sudden_accuracy": round(float(per_participant(surprised.odds, surprised.labels).mean()), 4),
            "sudden_reached": trials["reached"],
            "sudden_quartiles_s": quartiles_to_reach(surprised.odds, surprised.labels, dt, rules),
            "sudden_trials": trials,
        }
        write_atomically(kept, (json.dumps(known, indent=1) + "\n").encode())
    return known[asked]  # type: ignore[no-any-return]


if __name__ == "__main__":
    try:
        print(json.dumps(main(tyro.cli(DelaysRun, description=__doc__))))
    except MyoloopError as error:
        sys.exit(f"training/delays.py: {error}")
    except KeyboardInterrupt:
        sys.exit("training/delays.py: stopped at once; the same command goes on.")
