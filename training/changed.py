"""What a participant changed when it learned to use a decoder: two policies on the same held-out references, from the inside.

    python training/changed.py --before models/policy_phase1/policy.safetensors --after runs/phase2/policy.safetensors

Writes changed.json (excitation, synergies, motor units, EMG and movement before and after: myoloop/learn/what_changed.py) and
changed.png, one page of panels; the last line of standard output says the main figures. About a minute and a half.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from myoloop.assets import POLICY, find_file
from myoloop.checkpoint import write_atomically
from myoloop.decoder.weights import load_decoder
from myoloop.emg.armband import armband
from myoloop.errors import MyoloopError
from myoloop.learn.changed_figure import draw
from myoloop.learn.closed_loop import UseConfig
from myoloop.learn.what_changed import compare, observe
from myoloop.participant import ParticipantConfig


@dataclass(frozen=True)
class ChangedRun:
    """Who is compared."""

    before: str = POLICY
    """Policy before it met the decoder."""
    after: str = "models/policy_phase2/policy.safetensors"
    """Policy that learned to use it."""
    decoder: str = "models/decoder_tcn/decoder.safetensors"
    """File of the decoder."""
    armband: str = "semg_rd16"
    """Armband preset that it was trained for."""
    person: int = 0
    """Seed of the participant's anatomy."""
    synergies: int = 26
    """Synergies that are tried, at most."""
    out: Path = Path("docs/results")
    """Folder for changed.json and changed.png."""
    config: Annotated[UseConfig, tyro.conf.arg(name="")] = field(default_factory=UseConfig)


def main(run: ChangedRun) -> dict[str, Any]:
    """Observes, compares, draws; returns what the last line says."""
    decoder = load_decoder(find_file(run.decoder, kind="decoder"))
    files, seen = {"before": run.before, "after": run.after}, {}
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=len(files) * run.config.seconds)
        for name, file in files.items():
            bar.update(task, description=name)
            who = ParticipantConfig(armband=armband(run.armband), person=run.person, policy=file)
            seen[name] = observe(who, decoder, run.config, lambda s: bar.advance(task, s))
        bar.update(task, description="comparing")
        found = compare(seen["before"], seen["after"], 1.0 / who.control_hz, run.synergies)
    found["about"] = {
        "policies": files, "decoder": decoder.name, "armband": run.armband, "person": run.person, "test": run.config.__dict__,
    }  # fmt: skip
    write_atomically(run.out / "changed.json", (json.dumps(found) + "\n").encode())
    write_atomically(run.out / "changed.png", draw(found))
    return {
        name: {
            "accuracy": found["use"][name]["accuracy"],
            "effort": found["use"][name]["effort"],
            "fingertips_mm": found["use"][name]["keypoint_error_mm"],
            "synergies_90": found["synergies"][name]["count_90"],
            **{f"units_{key}": value for key, value in found["motor_units"][name]["all"].items()},
            "emg_rms_uv": found["emg"][name]["rms_uv"],
            "fresh_discriminant_accuracy": found["emg"][name]["fresh_discriminant_accuracy"],
            "hand_disagrees": found["movement"][name]["hand_disagrees"],
        }
        for name in files
    } | {"synergies_shared": found["synergies"]["shared"]["mean"]}


if __name__ == "__main__":
    try:
        print(json.dumps(main(tyro.cli(ChangedRun, description=__doc__))))
    except MyoloopError as error:
        sys.exit(f"training/changed.py: {error}")
