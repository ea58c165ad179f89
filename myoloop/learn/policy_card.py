"""A policy's folder as it ships: the file, how it was made, how good it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from myoloop.checkpoint import write_atomically
from myoloop.errors import MyoloopError
from myoloop.policy.learned import load_policy

NEEDED = ("policy.safetensors", "config.json", "curves.csv", "curves.png")
"""Files of a run that ship with its policy."""


def publish(run: Path, evaluated: dict[str, Any], picture: bytes, folder: Path) -> None:
    """Copy a run's policy with its curves into `folder`, with its evaluation and a model card.

    Raises:
      MyoloopError: the run lacks a file.
    """
    missing = [name for name in NEEDED if not (run / name).is_file()]
    if missing:
        raise MyoloopError(
            f"{run}: no {', '.join(missing)}: --policy must be inside a run folder of training/phase1.py."
        )
    for name in NEEDED:
        write_atomically(folder / name, (run / name).read_bytes())
    write_atomically(folder / "evaluation.json", (json.dumps(evaluated, indent=1) + "\n").encode())
    write_atomically(folder / "evaluation.png", picture)
    write_atomically(folder / "README.md", card(run, evaluated).encode())


def card(run: Path, evaluated: dict[str, Any]) -> str:
    """The model card, Markdown."""
    loaded = load_policy(run / "policy.safetensors")
    about, config = loaded.about, loaded.about["config"]
    test, everybody = evaluated["about"]["test"], ("policy", "baseline", "mean_posture")
    steps, minutes = about["steps"], about["seconds"] / 60
    ahead = ", ".join(f"{1e3 * s:g}" for s in config["task"]["look_ahead_s"])
    facts = {
        "trained for": f"{steps / 1e6:.1f} M control steps of 20 ms ({steps * 0.02 / 3600:.0f} h of participant time)",
        "with": f"{config['environments']} participants, engine {config['engine']}, physics step "
        f"{1e3 * config['physics_dt']:g} ms, {minutes:.0f} min of computing",
        "seed": config["seed"],
        "network": " x ".join(map(str, config["network"]["hidden"])),
        "observation": f"joint angles, velocities, activations, difference to the reference {ahead} ms ahead",
        "made by": ", ".join(f"{k} {v}" for k, v in loaded.made_by.items()),
    }
    return f"""# Policy: phase 1

Drives MyoHand's 39 muscles so that the fingers follow a reference, by feedback; learned from nothing by PPO. Use it as
`participant.policy` in an experiment.

| | finger joints (deg) | fingertips (mm) | effort | recovery from a push (s) |
|---|---|---|---|---|
{_rows({name.replace("_", " "): evaluated[name] for name in everybody}, recovery=True)}

Held-out references, {test["participants"]} of each kind, {test["seconds"]:g} s each (the first second does not count): mean
absolute error of the 20 finger joints; mean distance of the fingertips from the reference, in the frame of the carpus; mean
squared excitation. Recovery: median over {test["pushes"]} pushes of {test["push_n"]:g} N for {1e3 * test["push_s"]:g} ms on
one fingertip, until its error is again within 1.5 x the usual one. The mean posture is a hand that does not move.

| reference | finger joints (deg) | fingertips (mm) | effort |
|---|---|---|---|
{_rows(evaluated["policy"]["kinds"], recovery=False)}

![evaluation](evaluation.png)

| | |
|---|---|
{chr(10).join(f"| {name} | {fact} |" for name, fact in facts.items())}

All settings: [config.json](config.json).

![curves](curves.png)
"""


def _rows(results: dict[str, Any], recovery: bool) -> str:
    lines = []
    for name, r in results.items():
        cells = [f"{r['joint_error_deg']:.1f}", f"{r['keypoint_error_mm']:.1f}", _or_dash(r["effort"], 4)]
        cells += [_or_dash(r["recovery_s"], 2)] if recovery else []
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _or_dash(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
