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
    _copy(run, folder)
    write_atomically(folder / "evaluation.json", (json.dumps(evaluated, indent=1) + "\n").encode())
    write_atomically(folder / "evaluation.png", picture)
    write_atomically(folder / "README.md", card(run, evaluated).encode())


def publish_adapted(run: Path, used: dict[str, Any], before: str, after: str, folder: Path) -> None:
    """The same for a policy that learned to use a decoder.

    Args:
      run: folder of training/phase2.py.
      used: what training/use.py found.
      before, after: names in it of the policy it began with, and of this one.

    Raises:
      MyoloopError: the run lacks a file.
    """
    _copy(run, folder)
    write_atomically(folder / "use.json", (json.dumps(used, indent=1) + "\n").encode())
    write_atomically(folder / "README.md", adapted_card(run, used, before, after).encode())


def adapted_card(run: Path, used: dict[str, Any], before: str, after: str) -> str:
    """The model card, Markdown."""
    loaded = load_policy(run / "policy.safetensors")
    about, config = loaded.about, loaded.about["config"]
    steps, minutes, test = about["steps"], about["seconds"] / 60, used["about"]["test"]
    lines = []
    for name, entry in ((before, "before"), (after, "after")):
        for way, figures in ((way, used[name][way]) for way in ("closed", "open") if way in used[name]):
            lines.append(
                f"| {entry}, {way} loop | {100 * figures['accuracy']:.1f} | {100 * figures['settled_accuracy']:.1f} | "
                f"{figures['effort']:.4f} | {figures['joint_error_deg']:.1f} | {figures['keypoint_error_mm']:.1f} |"
            )
    fingers = ", ".join(f"{100 * x:.1f}" for x in used[after]["closed"]["accuracy_per_finger"])
    answered = "".join(
        f"\nFlexion answered against flexion asked for, {entry}: R2 {flexion['r2']:.2f}, RMSE {flexion['rmse']:.2f} of the "
        "whole way."
        for name, entry in ((before, "before"), (after, "after"))
        if (flexion := used[name]["closed"].get("flexion"))
    )
    facts = {
        "learner": config["learner"],
        "trained for": f"{steps / 1e6:.2f} M control steps of 20 ms ({steps * 0.02 / 3600:.1f} h of participant time)",
        "with": f"{config['environments']} participants, engine {config['engine']}, {minutes:.0f} min of computing",
        "began with": config["policy"] or "nothing",
        "decoder": f"{config['decoder']}, frozen; armband {config['armband']}, person {config['person']}",
        "told besides": ", ".join(loaded.policy.cues) or "nothing",
        "seed": config["seed"],
        "made by": ", ".join(f"{k} {v}" for k, v in loaded.made_by.items()),
    }
    return f"""# Policy: phase 2

Drives MyoHand's 39 muscles so that a decoder understands what the fingers are asked for: the policy of phase 1, after
it learned to use this decoder, which stayed as it was. Use both together: this as `participant.policy`, and its
`decoder.onnx`.

| | right (%) | right, settled (%) | effort | finger joints (deg) | fingertips (mm) |
|---|---|---|---|---|---|
{chr(10).join(lines)}

Held-out references, {test["participants"]} of kind {test["kind"]}, {test["seconds"]:g} s each (the first second does not
count), no exploration. Right: mean over fingers and control steps; settled: without the 0.4 s after each change. Thumb to
little, after, in closed loop: {fingers} %. Joints and fingertips: off the gesture that the labels stand for.{answered}

| | |
|---|---|
{chr(10).join(f"| {name} | {fact} |" for name, fact in facts.items())}

All settings: [config.json](config.json).

![curves](curves.png)
"""


def _copy(run: Path, folder: Path) -> None:
    missing = [name for name in NEEDED if not (run / name).is_file()]
    if missing:
        raise MyoloopError(f"{run}: no {', '.join(missing)}: the policy must be inside a run folder of training/.")
    for name in NEEDED:
        write_atomically(folder / name, (run / name).read_bytes())


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
one fingertip, until its error is again within 1.5 x the usual one - its own: a controller that is always far off has recovered
at once. The mean posture is a hand that does not move.

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
