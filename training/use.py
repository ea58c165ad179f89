"""How well a participant uses a decoder: policies beside each other, in closed and in open loop, on held-out references.

    python training/use.py --policies before=models/policy_phase1/policy.safetensors after=runs/phase2/policy.safetensors

Prints a table; the last line of standard output is one JSON object: for every policy `closed` (it perceives the answers, where
it is made for that) and `open` (it does not), each with accuracy, effort, joint_error_deg, trials and more.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

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
    ways = {"closed": True} | ({"open": False} if run.open_loop else {})
    table = Table("", "", "right", "effort", "joints", "fingertips", "trials reached", "after")
    found: dict = {}
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=len(named) * len(ways) * run.config.seconds)
        for name, file in named.items():
            who = ParticipantConfig(armband=band, person=run.person, policy=file)
            for way, told in ways.items():
                bar.update(task, description=f"{name}, {way} loop")
                config = UseConfig(**{**run.config.__dict__, "told": told})
                figures = use(who, decoder, config, run.conditions, lambda s: bar.advance(task, s)).figures()
                found.setdefault(name, {})[way] = figures
                reached = figures["trials"]
                after = reached["time_to_reach_s"]
                table.add_row(
                    name, way, f"{100 * figures['accuracy']:.1f} %", f"{figures['effort']:.4f}",
                    f"{figures['joint_error_deg']:.1f} deg", f"{figures['keypoint_error_mm']:.1f} mm",
                    f"{100 * (reached['reached'] or 0):.0f} %", f"{after['median']:.2f} s" if after else "-",
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


if __name__ == "__main__":
    try:
        print(json.dumps(main(tyro.cli(UseRun, description=__doc__))))
    except MyoloopError as error:
        sys.exit(f"training/use.py: {error}")
