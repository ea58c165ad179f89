"""How fast one participant learns during a session: the learner of `adapt: online`, as fast as it can be computed.

    python training/online.py --out runs/online.json --minutes 12 --rotate-after-min 2 --rotation-deg 15

The same participant, exploration, pairing and learner as live (learn/online.py), with the decoder in JAX and no clock;
so the figures are those of a session whose learner keeps up. The last line of standard output is one JSON object:
accuracy while exploring in windows, and, at some times, without exploration on held-out references.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from myoloop.assets import find_file
from myoloop.checkpoint import write_atomically
from myoloop.decoder import networks
from myoloop.decoder.weights import DecoderWeights, load_decoder
from myoloop.emg.armband import armband
from myoloop.errors import MyoloopError
from myoloop.learn.closed_loop import UseConfig, use
from myoloop.learn.heard import Answers, Steps
from myoloop.learn.online import OnlineConfig, OnlineLearner
from myoloop.participant import ParticipantConfig, Participants
from myoloop.policy.exploration import Exploration
from myoloop.policy.learned import load_policy, save_policy, told_as
from myoloop.task.reference import ReferenceConfig, held_out_seed

TURN_DEG = 30.0
"""Strength 1 of the condition `rotation`."""


@dataclass(frozen=True)
class Online:
    """One participant, one session."""

    minutes: float = 12.0
    """Length, participant minutes."""
    policy: str = "models/policy_phase2/policy.safetensors"
    """Who begins."""
    habit: str | None = None
    """Whose movement is kept; None: the policy's."""
    decoder: str = "models/decoder_tcn/decoder.safetensors"
    """File of the decoder."""
    armband: str = "semg_rd16"
    """Armband preset."""
    person: int = 0
    """Seed of the anatomy."""
    rotation_deg: float = 0.0
    """Degrees by which the armband turns."""
    rotate_after_min: float = 0.0
    """When, participant minutes."""
    reference: int = 1
    """Number of the held-out reference that is followed."""
    window_s: float = 30.0
    """Of the accuracy while exploring."""
    test_at_min: tuple[float, ...] = (0.0, 2.0, 5.0, 10.0)
    """When the policy is tried without exploration, minutes after the turn; the end is added."""
    test_participants: int = 8
    """References in a test."""
    out: Path | None = None
    """File for the JSON as well."""
    save: Path | None = None
    """File for the policy that was learned."""
    exploration: Exploration = field(default_factory=Exploration)
    learner: OnlineConfig = field(default_factory=OnlineConfig)


def main(run: Online) -> dict[str, Any]:
    """The whole session; returns what the last line says."""
    console = Console(stderr=True)
    decoder = load_decoder(find_file(run.decoder, kind="decoder"))
    reference = ReferenceConfig("discrete", "permuted", held_out_seed(run.reference), "held_out")
    who = ParticipantConfig(
        armband=armband(run.armband), person=run.person, policy=run.policy, movable_band=run.rotation_deg != 0.0
    )
    people = Participants(replace(who, reference=reference, exploration=run.exploration), threads=1)
    assert people.policy is not None
    habit = (
        None
        if run.habit is None
        else told_as(load_policy(find_file(run.habit, kind="habit")).policy, people.policy.cues)
    )
    learner = OnlineLearner(people.policy, run.learner, habit)
    answer = jax.jit(networks.logits, static_argnums=0)
    state, hz = networks.init_state(decoder.config, 1), people.config.control_hz
    total, turn = round(60 * run.minutes * hz), round(60 * run.rotate_after_min * hz)
    every, tests = run.learner.stretch, {turn + round(60 * m * hz) for m in run.test_at_min} | {total}
    right, effort, found, begun = [], [], [], time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("online", total=total)
        pending: list[tuple[Any, ...]] = []
        for step in range(total + 1):
            if step == turn and run.rotation_deg:
                people.set_condition("rotation", run.rotation_deg / TURN_DEG)
            if step in tests:
                found.append(
                    {"minute": round(step / hz / 60, 3), **_test(run, who, learner, decoder, people.conditions)}
                )
                console.print(found[-1])
            if step == total:
                break
            act = people.act()
            odds, state = answer(decoder.config, decoder.params, state, act.chunk)
            probability = 1.0 / (1.0 + np.exp(-np.asarray(odds)[0, -1]))
            people.perceive(probability)
            people.move()
            assert act.thought is not None
            obs, command, labels = (x[0] for x in act.thought)
            right.append((probability > 0.5) == (labels > 0.5))
            effort.append(np.mean(command**2))
            pending.append((step, (step + 1) / hz, obs, command, labels, False, probability))
            if len(pending) == every:
                number, stamp, *rest, said = (np.stack(column) for column in zip(*pending, strict=True))
                learner.hear(Steps(number, stamp, *rest), Answers(stamp, said))
                pending = []
                if (line := learner.think()) is not None:
                    people.set_policy(learner.params)
                    seen = np.mean(right[-round(run.window_s * hz) :])
                    bar.update(task, description=f"{100 * seen:.1f} %  model {line.model_loss:.3f} nats")
                if not console.is_terminal and len(right) % (every * 32) == 0:
                    console.print(
                        f"{step / hz / 60:.1f} min {100 * np.mean(right[-every * 32 :]):.1f} % {line}", soft_wrap=True
                    )
            bar.update(task, completed=step)
    window = round(run.window_s * hz)
    parts = range(0, len(right) - window + 1, window)
    result: dict[str, Any] = {
        "window_s": run.window_s,
        "accuracy_exploring": [round(float(np.mean(right[k : k + window])), 4) for k in parts],
        "effort_exploring": [round(float(np.mean(effort[k : k + window])), 5) for k in parts],
        "model_loss": [round(float(np.mean([x.model_loss for x in learner.lines
                                            if k / hz < x.time_s <= (k + window) / hz] or [np.nan])), 4) for k in parts],
        "tests": found,
        "think_s": round(float(np.median([line.compute_s for line in learner.lines])), 3),
        "seconds": round(time.perf_counter() - begun, 1),
        "pairs": dict(learner.pairing.counts),
        "run": {k: v for k, v in dataclasses.asdict(run).items() if k not in ("out", "save")},
    }  # fmt: skip
    if run.save:
        save_policy(run.save, learner.policy, {"online": result["run"]})
    if run.out:
        write_atomically(run.out, (json.dumps(result, indent=1) + "\n").encode())
    return result


def _test(
    run: Online, who: ParticipantConfig, learner: OnlineLearner, decoder: DecoderWeights, conditions: dict[str, float]
) -> dict[str, Any]:
    """Without exploration, on other held-out references."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "policy.safetensors"
        save_policy(file, learner.policy, {})
        config = UseConfig(participants=run.test_participants, seconds=16.0)
        figures = use(replace(who, policy=str(file)), decoder, config, conditions).figures()
    kept = ("accuracy", "settled_accuracy", "effort", "joint_error_deg", "keypoint_error_mm")
    return {name: figures[name] for name in kept}


if __name__ == "__main__":
    try:
        print(json.dumps(main(tyro.cli(Online, description=__doc__))))
    except MyoloopError as error:
        sys.exit(f"training/online.py: {error}")
