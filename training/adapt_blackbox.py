"""A participant learns to use somebody's decoder software that nobody can look into, by a copy of it, or online.

    python training/adapt_blackbox.py --run runs/blackbox                          # LibEMG, its environment first: make peers
    python training/adapt_blackbox.py --run runs/online --way online --online-s 1800

The first session calibrates the software, as with a person, and says how well it is used before. Then

- `copy`: --rounds times: a session in lockstep is recorded, a network learns to answer as the original did, and the participant
  adapts to this copy in the batch (phase 2); the next round records what the adapted participant does, where the copy may be
  wrong. The last participant is deployed on the original.
- `online`: the participant learns in a session with the original, in lockstep, for --online-s of its time.

Before and after are measured on the original, in real time, with the policy frozen and prompts in an order of their own. What
is there already is not done again: call it once more after an interruption. The last line of standard output is one JSON
object: `accuracy_before`, `accuracy_after` (balanced over the gestures; of the fingers where there are none), `copy_agreement`,
`participant_s` with the original, `wall_s`, and every stage's figures.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from myoloop.checkpoint import write_atomically
from myoloop.decoder.weights import load_decoder, save_decoder
from myoloop.emg.armband import armband_from
from myoloop.errors import MyoloopError, unknown_name
from myoloop.experiment import Experiment, load_experiment
from myoloop.learn.arms import read_run
from myoloop.learn.blackbox_figure import Course, plot_blackbox
from myoloop.learn.carry_out import carry_out, progress_bar
from myoloop.learn.copying import CopyConfig, agreement_with, copy_decoder
from myoloop.learn.phase2 import Phase2Config
from myoloop.live.pair_listener import PairListener
from myoloop.machine import processor
from myoloop.policy import BASELINE
from myoloop.session import Session, fresh
from myoloop.streams.pairs import Pairs, load_pairs, save_pairs

WAYS = ("copy", "online")
CONTROL_HZ = Phase2Config.control_hz
PAIRS = "pairs.npz"
LONG_ENOUGH = 0.98
"""Part of a session that must be there for it to count."""


@dataclass(frozen=True)
class BlackboxRun:
    """Who learns what, and how."""

    run: Path
    """Folder for sessions, copies and runs of phase 2."""
    calibrate: str = "experiments/libemg.yaml"
    """Experiment whose session calibrates the decoder and measures it before."""
    experiment: str = "experiments/libemg_calibrated.yaml"
    """Experiment of all later sessions: the same decoder, calibrated."""
    way: str = "copy"
    """copy or online."""
    rounds: int = 2
    """copy: how often is recorded, copied and adapted."""
    record_s: float = 1800.0
    """copy: participant time of each recorded session, s."""
    exploration: float = 0.15
    """copy: standard deviation of random changes to the actions while recording."""
    pairs: tuple[Path, ...] = ()
    """copy: more recordings of EMG with the answers of this decoder to learn from, pairs.npz of other runs."""
    steps: int = 400_000
    """copy: control steps of phase 2 in each round."""
    online_s: float = 7200.0
    """online: participant time in which it learns, s."""
    movement: float | None = 10.0
    """Cost of joint torques that differ from the habit's; None: the learner's own."""
    calibrate_s: float = 240.0
    """Participant time of the first session, calibration included, s."""
    measure_s: float = 180.0
    """Participant time of the last session, s."""
    lockstep: dict[str, float] = field(default_factory=lambda: {"behind_s": 0.1, "timeout_s": 0.25, "unanswered": 1.0})
    """Of the clock while recording and learning, besides its kind (experiment.ClockSettings). LibEMG, which answers every 50 ms
    of EMG, now and then leaves an answer out."""
    seed: int = 0
    """Seed of everything random."""
    out: Path | None = None
    """File for the JSON as well; a picture goes beside it."""
    copying: Annotated[CopyConfig, tyro.conf.arg(name="copy")] = field(default_factory=CopyConfig)
    """How copies are made."""


class Stages:
    """The stages of one run, each done once."""

    def __init__(self, run: BlackboxRun, console: Console):
        self.run, self.console = run, console
        self.experiment = load_experiment(run.experiment, {"ros": False})
        me = self.experiment.participant
        self.gestures = {name: tuple(map(float, labels)) for name, labels in me.reference.gestures.items()}
        self.wall_s: dict[str, float] = {}
        self.participant_s: dict[str, float] = {}
        self.measured: dict[str, Any] = {}
        check(self.experiment, run)

    def session(self, name: str, experiment: str, seconds: float, changes: dict[str, Any], pairs: bool) -> None:
        """A session with the original. Its EMG and answers are kept where `pairs` says so. What an interrupted one left is put
        aside."""
        folder = self.run.run / name
        if not whole(folder, seconds) or (pairs and not (folder / PAIRS).exists()):
            self.console.rule(name)
            if folder.exists():
                folder.rename(fresh(folder.with_name(f"{name}-interrupted")))
            fixed = {"ros": False, "record": False, "duration_s": seconds, "seed": self.run.seed, **changes}
            settings = load_experiment(experiment, fixed)
            listener = PairListener(settings.participant.id) if pairs else None
            try:
                Session(settings, run_dir=folder, console=self.console).run()
            finally:
                heard = listener.close() if listener else None
            if heard:
                save_pairs(heard, folder / PAIRS)
            if not whole(folder, seconds):
                raise MyoloopError(
                    f"the session in {folder} ended early: see its report and logs, then call this again."
                )
        report: dict[str, Any] = json.loads((folder / "report.json").read_text())
        self.wall_s[name], self.participant_s[name] = report["loop"]["wall_s"], report["duration_s"]
        self.measured[name] = summary(report)

    def pairs(self, name: str) -> Pairs:
        """What was kept of a session."""
        return load_pairs(self.run.run / name / PAIRS)

    def copy(self, name: str, sessions: list[str]) -> Path:
        """The decoder's copy from these sessions."""
        folder = self.run.run / name
        told, control_hz = folder / "copy.json", self.experiment.participant.control_hz
        if not told.exists():
            self.console.rule(name)
            begun, updates = time.monotonic(), self.run.copying.training.updates
            with progress_bar(self.console) as bar:
                task = bar.add_task("copying", total=updates, note="compiling")

                def show(update: int, loss: float, progress: Any) -> None:
                    right = f", kept out {100 * progress.validation_accuracy:.1f} %" if progress else ""
                    bar.update(task, completed=update, note=f"{loss:.3f} nats{right}")

                heard = [self.pairs(each) for each in sessions] + [load_pairs(path) for path in self.run.pairs]
                copy = copy_decoder(self.run.copying, heard, control_hz, self.gestures or None, show)
            band = armband_from(self.experiment.participant.armband)
            folder.mkdir(parents=True, exist_ok=True)
            title = f"copy of {self.experiment.decoder.name if self.experiment.decoder else 'a decoder'}"
            save_decoder(folder / "decoder.safetensors", copy.network, copy.params, band.channel_labels, title)
            about = {"kept_out": copy.kept_out._asdict(), "stretches": copy.stretches}
            about |= {"wall_s": round(time.monotonic() - begun, 1)}
            write_atomically(told, (json.dumps(about, indent=1) + "\n").encode())
        self.measured[name] = json.loads(told.read_text())
        self.wall_s[name] = self.measured[name]["wall_s"]
        return folder / "decoder.safetensors"

    def agreement(self, copy: Path, name: str) -> dict[str, Any]:
        """Of a copy with the original in a session that it has not learned from."""
        weights = load_decoder(copy)
        heard, control_hz = self.pairs(name), self.experiment.participant.control_hz
        gestures, stretch_s = self.gestures or None, self.run.copying.stretch_s
        return agreement_with(weights.config, weights.params, heard, control_hz, gestures, stretch_s)._asdict()

    def adapt(self, name: str, copy: Path, policy: str) -> str:
        """Phase 2 with the copy; the policy's file."""
        folder, me = self.run.run / name, self.experiment.participant
        config = Phase2Config(
            steps=self.run.steps, seed=self.run.seed, policy=policy, habit=me.policy, decoder=str(copy),
            armband=str(me.armband), person=me.person, conditions=dict(me.conditions),
        )  # fmt: skip
        if self.gestures:
            task = dataclasses.replace(
                config.task, gestures=tuple(self.gestures.values()), hold_s=me.reference.hold_s, rest_s=me.reference.rest_s
            )  # fmt: skip
            config = dataclasses.replace(config, task=task)
        objective = dataclasses.replace(config.internal_model.objective, balanced=bool(self.gestures))
        if self.run.movement is not None:
            objective = dataclasses.replace(objective, movement=self.run.movement)
        config = dataclasses.replace(
            config, internal_model=dataclasses.replace(config.internal_model, objective=objective)
        )
        kept = folder / "result.json"
        if not kept.exists():
            self.console.rule(name)
            begun = (folder / "state.safetensors").exists()
            told = carry_out(config, folder, begun, 60.0, name)
            if told["steps"] < self.run.steps:
                raise MyoloopError(f"stopped in {folder}: call this again to go on.")
            write_atomically(kept, (json.dumps(told, indent=1) + "\n").encode())
        told = json.loads(kept.read_text())
        self.wall_s[name] = told["seconds"]
        self.measured[name] = {key: told[key] for key in ("steps", "accuracy", "effort", "tip_error_mm")}
        return str(folder / "policy.safetensors")


def check(experiment: Experiment, run: BlackboxRun) -> None:
    """Refuses, by MyoloopError, what cannot be adapted to in this way."""
    if run.way not in WAYS:
        raise unknown_name("way", run.way, WAYS, "training/adapt_blackbox.py")
    me, where = experiment.participant, run.experiment
    if run.rounds < 1:
        raise MyoloopError(f"--rounds is {run.rounds}: expected at least 1.")
    if experiment.decoder is None:
        raise MyoloopError(f"{where} has no decoder to adapt to: name one, see docs/connect-your-decoder.md.")
    if me.policy == BASELINE:
        raise MyoloopError(f"{where}: participant.policy is '{BASELINE}', which cannot learn: name a policy's file.")
    if run.way == "copy" and (not isinstance(me.armband, str) or me.sample or me.anatomy or me.conductor):
        raise MyoloopError(
            f"{where}: adapting to a copy knows participants by `person`, `armband` (a preset) and `conditions`; leave out "
            "participant.sample, anatomy, conductor and own armbands, or learn online (--way online)."
        )


def begin(run: BlackboxRun) -> None:
    """Keeps the settings in the run folder, or refuses, by MyoloopError, to go on with others: stages would be mixed up."""
    file, now = run.run / "settings.json", json.loads(json.dumps(dataclasses.asdict(run), default=str))
    del now["out"]
    try:
        then = json.loads(file.read_text())
    except OSError:
        run.run.mkdir(parents=True, exist_ok=True)
        write_atomically(file, (json.dumps(now, indent=1) + "\n").encode())
        return
    if differing := sorted(key for key in {*then, *now} if then.get(key) != now.get(key)):
        raise MyoloopError(
            f"{run.run} was begun with other settings of {', '.join(differing)}: give the same, or another --run. They are in "
            f"{file}."
        )


def whole(folder: Path, seconds: float) -> bool:
    """Whether a session's report is there, of (nearly) its whole length."""
    try:
        report = json.loads((folder / "report.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(report["duration_s"] >= LONG_ENOUGH * seconds)


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """The figures of a session that a comparison needs."""
    task, latency = report["task"], report["loop"]["feedback_latency_ms"]
    return {
        "balanced_accuracy": (task["gestures"] or {}).get("balanced_accuracy"),
        "balanced_accuracy_steady": (task["gestures"] or {}).get("balanced_accuracy_steady"),
        "by_gesture": (task["gestures"] or {}).get("by_gesture"),
        "finger_accuracy": task["accuracy"],
        "effort": report["effort"],
        "clock": report["loop"]["clock"],
        "factor": report["loop"]["factor"],
        "feedback_latency_ms": latency and latency["median"],
        "predictions": report["decoder"]["predictions"],
        "samples_lost": report["emg"]["samples_lost"],
        "frames_dropped": sum(life["trigno"]["frames_dropped"] for life in report["devices"] if "trigno" in life),
    }


def main(run: BlackboxRun) -> dict[str, Any]:
    """All stages; returns what the last line says."""
    console = Console(stderr=True)
    stages = Stages(run, console)
    begin(run)
    lockstep = {f"clock.{key}": value for key, value in ({"kind": "lockstep"} | run.lockstep).items()}
    reference = "participant.reference.seed"
    for path in run.pairs:
        load_pairs(path)  # before an hour is spent
    stages.session("before", run.calibrate, run.calibrate_s, {reference: 1_000_101}, pairs=False)
    policy, agreements = stages.experiment.participant.policy, []
    if run.way == "copy":
        recorded: list[str] = []
        for number in range(1, run.rounds + 1):
            record = f"record{number}"
            changes = {
                "participant.policy": policy,
                "participant.exploration": run.exploration,
                reference: 200 + number,
            }
            stages.session(record, run.experiment, run.record_s, changes | lockstep, pairs=True)
            recorded.append(record)
            copy = stages.copy(f"copy{number}", recorded)
            policy = stages.adapt(f"adapt{number}", copy, policy)
    else:
        learn = {"participant.adapt.exploration": run.exploration, reference: 300}
        learn["participant.adapt.balanced"] = bool(stages.gestures)
        if run.movement is not None:
            learn["participant.adapt.movement"] = run.movement
        stages.session("online", run.experiment, run.online_s, learn | lockstep, pairs=True)
        policy = str(run.run / "online" / "policy.safetensors")
    changes = {"participant.policy": policy, reference: 1_000_102}
    stages.session("after", run.experiment, run.measure_s, changes, pairs=True)
    if run.way == "copy":
        agreements = [stages.agreement(copy, "after"), stages.measured[f"copy{run.rounds}"]["kept_out"]]
    result = conclude(stages, agreements, processor())
    if run.out:
        write_atomically(run.out, (json.dumps(result, indent=1) + "\n").encode())
        plot_blackbox(result, course(run)).savefig(run.out.with_suffix(".png"), dpi=130)
    return result


def course(run: BlackboxRun) -> Course | None:
    """How learning went, exploring: with the original, or with its copies."""
    if run.way == "online":
        told = json.loads((run.run / "online" / "report.json").read_text())["course"]
        if not told:
            return None
        minutes = [told["window_s"] * (n + 0.5) / 60 for n in range(len(told["accuracy"]))]
        return Course(minutes, told["accuracy"], "while learning, original, exploring")
    minutes, accuracy, passed = [], [], 0.0
    for number in range(1, run.rounds + 1):
        _, curves = read_run(run.run / f"adapt{number}")
        minutes += list(passed + curves["steps"] / CONTROL_HZ / 60)
        accuracy += list(curves["accuracy"])
        passed = minutes[-1]
    return Course(minutes, accuracy, "in the batch, copy, exploring")


def conclude(stages: Stages, agreements: list[dict[str, Any]], machine: str) -> dict[str, Any]:
    """What the last line says."""
    of = "balanced_accuracy" if stages.gestures else "finger_accuracy"
    before, after = stages.measured["before"][of], stages.measured["after"][of]
    on_original = agreements[0] if agreements else None
    with_original = sum(s for name, s in stages.participant_s.items() if name not in ("before", "after"))
    return {
        "decoder": stages.experiment.decoder.name if stages.experiment.decoder else None,
        "way": stages.run.way,
        "accuracy_before": before,
        "accuracy_after": after,
        "error_gone": round(1.0 - (1.0 - after) / (1.0 - before), 4) if before < 1.0 else None,
        "copy_agreement": on_original and round(on_original["gestures"] or on_original["fingers"], 4),
        "agreement_after": on_original,
        "agreement_kept_out": agreements[1] if agreements else None,
        "participant_s": round(with_original, 1),
        "wall_s": round(sum(stages.wall_s.values()), 1),
        "wall_s_by_stage": stages.wall_s,
        "stages": stages.measured,
        "seed": stages.run.seed,
        "steps": stages.run.steps if stages.run.way == "copy" else None,
        "device": f"{machine}, {os.cpu_count()} cores",
        "load_average": [round(x, 1) for x in os.getloadavg()],
    }


if __name__ == "__main__":
    try:
        print(json.dumps(main(tyro.cli(BlackboxRun, description=__doc__))))
    except MyoloopError as error:
        sys.exit(f"training/adapt_blackbox.py: {error}")
