"""Evaluate a policy on held-out references and pushes, beside the baseline controller and a hand in its mean posture.

    python training/evaluate.py --policy runs/phase1/policy.safetensors --out runs/evaluation

Writes `evaluation.json` and `evaluation.png` into --out; the last line of standard output is the same JSON object: `policy`,
`baseline`, `mean_posture`, each with joint_error_deg, keypoint_error_mm, effort and recovery_s.
"""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from myoloop.assets import find_file
from myoloop.body.model import load_hand
from myoloop.body.names import JOINTS
from myoloop.checkpoint import write_atomically
from myoloop.errors import MyoloopError
from myoloop.learn.evaluation import (
    KINDS,
    EvaluationConfig,
    Recovered,
    Tracked,
    baseline_controller,
    follow,
    mean_posture,
    policy_controller,
    take_pushes,
)
from myoloop.learn.policy_card import publish
from myoloop.policy.learned import load_policy
from myoloop.task.tracking import FINGER_JOINTS

COLOURS = {"policy": "#1f4e79", "baseline": "#c55a11", "mean_posture": "#999999"}


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, on what, and where the result goes."""

    policy: Path = Path("runs/phase1/policy.safetensors")
    """A policy's file."""
    out: Path = Path("runs/evaluation")
    """Folder for evaluation.json and evaluation.png."""
    publish: Path | None = None
    """Folder to copy the policy's run to, with its evaluation and a model card, ready to ship."""
    test: Annotated[EvaluationConfig, tyro.conf.arg(name="")] = field(default_factory=EvaluationConfig)


def main(run: Evaluation) -> dict:
    """Evaluate; returns what goes to evaluation.json."""
    console = Console(stderr=True)
    loaded = load_policy(find_file(run.policy, kind="policy"))
    if abs(loaded.policy.control_hz - run.test.control_hz) > 1e-6:
        raise MyoloopError(
            f"{run.policy} acts at {loaded.policy.control_hz:g} Hz, the evaluation at {run.test.control_hz:g} Hz: give "
            f"--control-hz {loaded.policy.control_hz:g}."
        )
    hand = load_hand()
    controllers = {
        "policy": policy_controller(loaded.policy),
        "baseline": baseline_controller(hand, 1.0 / run.test.control_hz),
    }
    tracked, recovered = {}, {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        for name, controller in controllers.items():
            task = bar.add_task(f"{name}: following", total=len(KINDS) * run.test.seconds)
            tracked[name] = follow(controller, hand, run.test, lambda s, task=task: bar.advance(task, s))  # type: ignore
            bar.update(task, description=f"{name}: pushed")
            recovered[name] = take_pushes(controller, hand, run.test, tracked[name]["all"].keypoint_error_mm)
            bar.update(task, description=name)
    tracked["mean_posture"] = mean_posture(hand, run.test)
    result = summary(tracked, recovered)
    result["about"] = {"policy": loaded.policy.name, "made_by": loaded.made_by, "test": asdict(run.test)}
    result["about"]["physics_dt_s"] = hand.model.opt.timestep
    write_atomically(run.out / "evaluation.json", (json.dumps(result, indent=1) + "\n").encode())
    drawn = picture(tracked)
    write_atomically(run.out / "evaluation.png", drawn)
    if run.publish:
        publish(run.policy.parent, result, drawn, run.publish)
    console.print(table(result))
    return result


def summary(tracked: dict[str, dict[str, Tracked]], recovered: dict[str, Recovered]) -> dict:
    """The figures of everybody; `recovery_s` and `effort` are null for a hand without muscles."""
    result: dict = {}
    for name, kinds in tracked.items():
        everything, pushes = kinds["all"], recovered.get(name)
        result[name] = {
            "joint_error_deg": round(everything.joint_error_deg, 2),
            "keypoint_error_mm": round(everything.keypoint_error_mm, 2),
            "wrist_error_deg": round(everything.wrist_error_deg, 2),
            "effort": round(everything.effort, 5) if pushes else None,
            "recovery_s": round(pushes.median_s, 3) if pushes else None,
            "recovery_p90_s": round(pushes.p90_s, 3) if pushes else None,
            "not_recovered": pushes.never if pushes else None,
            "push_moved_mm": round(pushes.peak_mm, 1) if pushes else None,
            "per_joint_deg": {
                JOINTS[j]: round(x, 2) for j, x in zip(FINGER_JOINTS, everything.per_joint_deg, strict=True)
            },
            "per_finger_mm": [round(x, 2) for x in everything.per_finger_mm],
            "kinds": {
                kind: {
                    "joint_error_deg": round(t.joint_error_deg, 2),
                    "keypoint_error_mm": round(t.keypoint_error_mm, 2),
                    "effort": round(t.effort, 5) if pushes else None,
                }
                for kind, t in kinds.items()
                if kind != "all"
            },
        }
    return result


def table(result: dict) -> Table:
    """For reading."""
    made = Table(title="held-out references and pushes")
    for column in ("", "joints (deg)", "fingertips (mm)", "effort", "recovery (s)"):
        made.add_column(column, justify="left" if not column else "right")
    for name in COLOURS:
        row = result[name]
        shown = ["-" if row[key] is None else f"{row[key]:.4g}" for key in ("effort", "recovery_s")]
        made.add_row(name, f"{row['joint_error_deg']:.1f}", f"{row['keypoint_error_mm']:.1f}", *shown)
    return made


def picture(tracked: dict[str, dict[str, Tracked]]) -> bytes:
    """Errors by kind of reference and by joint."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained", width_ratios=(1, 1, 2))
    kinds = [" ".join(kind) for kind in KINDS]
    joints = [JOINTS[j] for j in FINGER_JOINTS]
    for index, (name, colour) in enumerate(COLOURS.items()):
        shift = 0.27 * (index - 1)
        label = name.replace("_", " ")
        for axis, field_name in ((axes[0], "keypoint_error_mm"), (axes[1], "joint_error_deg")):
            heights = [getattr(tracked[name][kind], field_name) for kind in kinds]
            axis.bar(np.arange(len(kinds)) + shift, heights, 0.25, color=colour, label=label)
        axes[2].bar(np.arange(len(joints)) + shift, tracked[name]["all"].per_joint_deg, 0.25, color=colour)
    axes[0].axhline(9.0, color="black", linewidth=0.8, linestyle="--", label="published, this hand: 9 mm")
    axes[0].set_ylabel("fingertips' mean error (mm)")
    axes[1].set_ylabel("finger joints' mean error (deg)")
    axes[2].set_ylabel("mean error (deg)")
    axes[0].legend(fontsize=8)
    for axis, names in ((axes[0], kinds), (axes[1], kinds), (axes[2], joints)):
        axis.set_xticks(np.arange(len(names)), names, rotation=60 if axis is axes[2] else 25, ha="right", fontsize=8)
        axis.grid(axis="y", alpha=0.3)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    plt.close(figure)
    return image.getvalue()


if __name__ == "__main__":
    try:
        print(json.dumps(main(tyro.cli(Evaluation, description=__doc__))))
    except MyoloopError as error:
        sys.exit(f"training/evaluate.py: {error}")
