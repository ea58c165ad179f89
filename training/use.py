"""How well a participant uses a decoder: policies beside each other, in closed and in open loop, on held-out references.

    python training/use.py --policies before=models/policy_phase1/policy.safetensors after=runs/phase2/policy.safetensors

Prints a table; the last line of standard output is one JSON object: for every policy `closed` (it perceives the answers, where
it is made for that) and `open` (it does not), each with accuracy, effort, joint_error_deg, trials (task/trials.py) and more;
and `sudden`: the same when gestures come suddenly and are held, as in tests with users of prostheses.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from myoloop.assets import POLICY, find_file
from myoloop.checkpoint import write_atomically
from myoloop.decoder.weights import load_decoder
from myoloop.emg.armband import armband
from myoloop.errors import MyoloopError
from myoloop.learn.closed_loop import UseConfig, use
from myoloop.learn.phase2 import worn
from myoloop.learn.policy_card import publish_adapted
from myoloop.participant import ParticipantConfig


@dataclass(frozen=True)
class UseRun:
    """Who uses what."""

    policies: tuple[str, ...] = (f"phase1={POLICY}",)
    """name=file of each policy; "baseline" is one, too."""
    decoder: str = "models/decoder_tcn/decoder.safetensors"
    """File of the decoder."""
    armband: str = "semg_rd16"
    """Armband preset that it was trained for."""
    person: int = 0
    """Seed of the participant's anatomy."""
    rotation_deg: float = 0.0
    """Degrees around the forearm by which the armband is worn otherwise than when the decoder was trained."""
    conditions: dict[str, float] = field(default_factory=dict)
    """Circumstances of the recording, strengths 0 to 1 by name."""
    open_loop: bool = True
    """Also without perceiving the answers."""
    motion_test_s: float = 3.0
    """s for which gestures that come suddenly are held in the third test; 0 leaves it out."""
    motion_test_dwell_s: float = 1.0
    """s for which all five answers must stay right there; 1 s in the motion test (Kuiken et al. 2009)."""
    out: Path | None = None
    """File for the JSON as well."""
    publish: Path | None = None
    """Folder to copy the last policy's run to, with these figures and a model card, ready to ship; the first is the one that
    it began with."""
    config: Annotated[UseConfig, tyro.conf.arg(name="")] = field(default_factory=UseConfig)


def main(run: UseRun) -> dict:
    """Everybody does the same test; returns what the last line says."""
    console, band = Console(stderr=True), worn(armband(run.armband), run.rotation_deg)
    decoder = load_decoder(find_file(run.decoder, kind="decoder"))
    named = {}
    for entry in run.policies:
        name, equals, file = entry.partition("=")
        if not equals or not file:
            raise MyoloopError(f"--policies {entry}: expected name=file, e.g. after=runs/phase2/policy.safetensors.")
        named[name] = file
    ways: dict[str, dict[str, Any]] = {"closed": {}}
    ways |= {"open": {"told": False}} if run.open_loop else {}
    ways |= {"sudden": {"sudden_s": run.motion_test_s, "dwell_s": run.motion_test_dwell_s}} if run.motion_test_s else {}
    table = Table("", "", "right", "effort", "joints", "fingertips", "gestures reached", "after", "held")
    found: dict = {}
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=len(named) * len(ways) * run.config.seconds)
        for name, file in named.items():
            who = ParticipantConfig(armband=band, person=run.person, policy=file)
            for way, changes in ways.items():
                bar.update(task, description=f"{name}, {way}")
                config = dataclasses.replace(run.config, **changes)
                figures = use(who, decoder, config, run.conditions, lambda s: bar.advance(task, s)).figures()
                found.setdefault(name, {})[way] = figures
                table.add_row(
                    name, way, f"{100 * figures['accuracy']:.1f} %", f"{figures['effort']:.4f}",
                    f"{figures['joint_error_deg']:.1f} deg", f"{figures['keypoint_error_mm']:.1f} mm",
                    *_trials(figures["trials"]),
                )  # fmt: skip
    console.print(table)
    found["about"] = {"decoder": decoder.name, "person": run.person, "test": run.config.__dict__}
    found["about"] |= {"rotation_deg": run.rotation_deg, "conditions": run.conditions}
    if run.out:
        write_atomically(run.out, (json.dumps(found, indent=1) + "\n").encode())
    if run.publish:
        before, after = next(iter(named)), list(named)[-1]
        publish_adapted(Path(named[after]).parent, found, before, after, run.publish)
    return found


def _trials(trials: dict[str, Any]) -> tuple[str, str, str]:
    """Reached, after which time, held for which part of the rest."""
    reached, after, hold = trials["reached"], trials["time_to_reach_s"], trials["hold"]
    return (
        "-" if reached is None else f"{100 * reached:.0f} % of {trials['count']}",
        f"{after['median']:.2f} s" if after else "-",
        "-" if hold is None else f"{100 * hold:.0f} %",
    )


if __name__ == "__main__":
    try:
        print(json.dumps(main(tyro.cli(UseRun, description=__doc__))))
    except MyoloopError as error:
        sys.exit(f"training/use.py: {error}")
