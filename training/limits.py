"""What keeps a participant that adapted from being understood all the time: where its errors are, and what could have been.

    python training/limits.py --after runs/phase2/policy.safetensors

Measures the errors around changes, by finger, gesture and company; the same drive heard again with other noise; the drive
with one muscle silenced; and free drives: excitations chosen step by step, through the expected EMG and the decoder
itself, with the movement and effort that the policy was trained for, without them, and without groups of muscles. Writes
limits.json and limits.png; the last line of standard output says the points. About three minutes of computing on two
cores.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from myoloop.assets import POLICY, find_file
from myoloop.body.engines import make_engine
from myoloop.body.leverage import leverage
from myoloop.body.model import load_hand
from myoloop.body.names import FINGERS, FOREARM_MUSCLES
from myoloop.checkpoint import write_atomically
from myoloop.decoder.weights import DecoderWeights, load_decoder
from myoloop.emg.armband import armband
from myoloop.emg.params import EmgParams
from myoloop.errors import MyoloopError
from myoloop.learn.closed_loop import Use, UseConfig, use
from myoloop.learn.limits import chance, where_wrong, without_changes
from myoloop.learn.limits_figure import draw
from myoloop.learn.replay import Wanted, best_drive, replay
from myoloop.learn.through_forward import ObjectiveConfig, unit_leverage
from myoloop.participant import ParticipantConfig, Participants
from myoloop.policy.learned import load_policy
from myoloop.task.reference import EXTENDED, FLEXED
from myoloop.task.tracking import FINGER_JOINTS

GROUPS = {
    "thumb's long muscles": ("EPL", "EPB", "FPL", "APL"),
    "wrist muscles": ("ECRL", "ECRB", "ECU", "FCR", "FCU", "PL", "PT", "PQ"),
    "finger flexors": ("FDS5", "FDS4", "FDS3", "FDS2", "FDP5", "FDP4", "FDP3", "FDP2"),
    "finger extensors": ("EDC5", "EDC4", "EDC3", "EDC2", "EDM", "EIP"),
}
"""Muscles of the forearm by what they turn."""
SETTLE_S = 1.0
"""s at the start of a replay that do not count: units and decoder begin silent."""


@dataclass(frozen=True)
class LimitsRun:
    """Who is examined."""

    after: str = "models/policy_phase2/policy.safetensors"
    """Policy that learned to use the decoder."""
    before: str = POLICY
    """Policy before: its torques are the movement that free drives should keep."""
    decoder: str = "models/decoder_tcn/decoder.safetensors"
    """File of the decoder."""
    armband: str = "semg_rd16"
    """Armband preset that it was trained for."""
    person: int = 0
    """Seed of the participant's anatomy."""
    repeats: int = 8
    """How often a drive is heard again, with other discharges and noise."""
    repeated: int = 8
    """Participants whose drive is heard again."""
    free: int = 6
    """Participants whose excitations are chosen freely, and silenced muscle by muscle."""
    free_s: float = 12.0
    """s of them."""
    iterations: int = 100
    """Steps of descent of a free drive."""
    out: Path = Path("docs/results")
    """Folder for limits.json and limits.png."""
    config: Annotated[UseConfig, tyro.conf.arg(name="")] = field(default_factory=UseConfig)


def main(run: LimitsRun) -> dict[str, Any]:
    """Measures, draws; returns what the last line says."""
    decoder = load_decoder(find_file(run.decoder, kind="decoder"))
    who = ParticipantConfig(armband=armband(run.armband), person=run.person, policy=run.after)
    dt, emg = 1.0 / who.control_hz, Participants(who, 1).emg_params
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=1.0)

        def doing(what: str, share: float) -> Callable[[float], None]:
            """To be called with parts of this piece of work; share: of the whole."""
            bar.update(task, description=what)
            return lambda part: bar.advance(task, share * part)

        rollouts = {}
        for name, policy, told in (
            ("before", run.before, True),
            ("closed", run.after, True),
            ("open", run.after, False),
        ):
            on = doing(f"using the decoder: {name}", 0.08 / run.config.seconds)
            rollouts[name] = use(replace(who, policy=policy), decoder, replace(run.config, told=told), on_second=on)
        after = rollouts["closed"]
        found: dict[str, Any] = {
            "use": {name: round(each.scores.accuracy, 4) for name, each in rollouts.items()},
            "where": where_wrong(after.odds, after.labels, dt),
            "chance": _chance(run, emg, decoder, after, dt, doing("the same drive again", 0.16)),
            "muted": _muted(run, emg, decoder, after, dt, doing("muscle by muscle", 0.16)),
            "free": _free(run, emg, decoder, rollouts, dt, doing),
        }
    found["points"] = points(found)
    found["about"] = {
        "policies": {"before": run.before, "after": run.after}, "decoder": decoder.name, "armband": run.armband,
        "person": run.person, "test": run.config.__dict__, "repeats": run.repeats, "repeated": run.repeated, "free": run.free,
        "free_s": run.free_s, "iterations": run.iterations,
    }  # fmt: skip
    write_atomically(run.out / "limits.json", (json.dumps(found) + "\n").encode())
    write_atomically(run.out / "limits.png", draw(found))
    return found["points"]  # type: ignore[no-any-return]


def points(found: dict[str, Any]) -> dict[str, float]:
    """What accounts for how many points, each measured on its own test; they overlap, so they need not sum up."""
    where, free, again = found["where"], found["free"], found["chance"]
    kept = free["movement and effort kept"]
    near = next(row for row in where["without_changes"] if row["margin_s"] == 0.1)
    return {
        "missing": round(100 * (1 - where["accuracy"]), 2),
        "lost_within_0.1_s_of_changes": near["points_lost_there"],
        "gained_without_0.1_s_around_changes": near["points"],
        "gained_by_judging_at_the_best_lag": where["best_lag"]["points"],
        "gained_by_averaging_out_the_randomness": round(100 * (again["denoised"] - again["accuracy"]), 2),
        "wrong_in_most_repeats": round(100 * again["wrong_mostly"], 2),
        "wrong_in_some_repeats": round(100 * again["wrong_sometimes"], 2),
        "gained_by_perceiving_the_answers": round(100 * (found["use"]["closed"] - found["use"]["open"]), 2),
        "between_policy_and_free_drive_that_keeps_the_movement": round(100 * (kept["accuracy"] - kept["policy"]), 2),
        "missing_of_that_free_drive": round(100 * (1 - kept["accuracy"]), 2),
        "of_these_lost_within_0.1_s_of_changes": kept["points_lost_within_0.1_s_of_changes"],
        "of_these_gained_by_averaging_out_the_randomness": round(100 * (kept["denoised"] - kept["accuracy"]), 2),
        **{
            f"lost_without_{name}": round(
                100 * (free["movement free"]["accuracy"] - free[f"without {name}"]["accuracy"]), 2
            )
            for name in GROUPS
        },
    }


def _stretch(run: LimitsRun, used: Use, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Excitations and labels of the participants and seconds that free drives are about."""
    steps = round(run.free_s / dt)
    return used.excitation[:steps, : run.free], used.labels[:steps, : run.free]


def _right(odds: np.ndarray, labels: np.ndarray, dt: float) -> np.ndarray:
    """Repeats of log-odds (K, steps, B, 5) -> (5,) part right, once settled."""
    skip = round(SETTLE_S / dt)
    return np.mean((odds > 0) == (labels > 0.5), axis=0)[skip:].mean(axis=(0, 1))  # type: ignore[no-any-return]


def _chance(
    run: LimitsRun, emg: EmgParams, decoder: DecoderWeights, used: Use, dt: float, on: Callable[[float], None]
) -> dict[str, float]:
    skip = round(SETTLE_S / dt)
    drive, labels = used.excitation[:, : run.repeated], used.labels[:, : run.repeated]
    odds = replay(emg, decoder, drive, range(run.repeats), 1 / dt, lambda: on(1 / run.repeats))
    return {name: round(value, 4) for name, value in chance(odds[:, skip:], labels[skip:])._asdict().items()}


def _muted(
    run: LimitsRun, emg: EmgParams, decoder: DecoderWeights, used: Use, dt: float, on: Callable[[float], None]
) -> dict[str, Any]:
    """Points that every finger loses when a muscle's drive is left out and all else stays."""
    drive, labels = _stretch(run, used, dt)
    whole = _right(replay(emg, decoder, drive, (0,), 1 / dt), labels, dt)
    lost = {}
    for index, muscle in enumerate(FOREARM_MUSCLES):
        silent = drive.copy()
        silent[..., index] = 0.0
        left = _right(replay(emg, decoder, silent, (0,), 1 / dt), labels, dt)
        lost[muscle] = np.round(100 * (whole - left), 2).tolist()
        on(1 / len(FOREARM_MUSCLES))
    return {"accuracy": round(float(whole.mean()), 4), "points": lost}


def _free(
    run: LimitsRun,
    emg: EmgParams,
    decoder: DecoderWeights,
    rollouts: dict[str, Use],
    dt: float,
    doing: Callable[..., Any],
) -> dict[str, Any]:
    """Free drives, each judged by real EMG, three times."""
    habit, labels = _stretch(run, rollouts["before"], dt)
    policy = _right(replay(emg, decoder, _stretch(run, rollouts["closed"], dt)[0], range(3), 1 / dt), labels, dt).mean()
    turning = unit_leverage(leverage(load_hand(), np.stack([EXTENDED, FLEXED])))
    trained = load_policy(find_file(run.after, kind="policy")).about.get("config", {})
    objective = {**ObjectiveConfig().__dict__, **trained.get(trained.get("learner", ""), {}).get("objective", {})}
    costs = {name: float(objective[name]) for name in ("effort", "smoothness", "movement")}
    loose = Wanted(effort=costs["effort"], smoothness=costs["smoothness"])
    arms = {"movement and effort kept": Wanted(**costs), "movement free": loose}
    for name, muscles in GROUPS.items():
        arms[f"without {name}"] = replace(loose, without=tuple(FOREARM_MUSCLES.index(muscle) for muscle in muscles))
    found: dict[str, Any] = {}
    before = rollouts["before"]
    habitual = _joint_error(before, habit)
    for name, wanted in arms.items():
        on = doing(f"free drive: {name}", 0.44 / len(arms))
        free = best_drive(emg, decoder, labels, habit, turning, wanted, run.iterations, on)
        odds = replay(emg, decoder, free.excitation, range(3), 1 / dt)
        right = _right(odds, labels, dt)
        near = [
            without_changes((one > 0) == (labels > 0.5), labels, dt, (0.1,))[0]["points_lost_there"] for one in odds
        ]
        found[name] = {
            "accuracy": round(float(right.mean()), 4),
            "denoised": round(float(_right(odds.mean(axis=0, keepdims=True), labels, dt).mean()), 4),
            "points_lost_within_0.1_s_of_changes": round(float(np.mean(near)), 2),
            "policy": round(float(policy), 4),
            "per_finger": dict(zip(FINGERS, np.round(right, 4).tolist(), strict=True)),
            "effort": round(float(np.mean(free.excitation**2)), 5),
            "strayed": round(free.strayed, 5),
            "joint_error_deg": round(_joint_error(before, free.excitation), 2),
            "joint_error_deg_of_the_habit": round(habitual, 2),
            "costs": costs if wanted.movement else {**costs, "movement": 0.0},
        }
    return found


def _joint_error(before: Use, drive: np.ndarray) -> float:
    """Mean absolute error of the finger joints, degrees, when bodies are driven by excitations (steps, B, 39) that do not feel
    them, from where the policy of before had them."""
    steps, people = drive.shape[:2]
    body = make_engine("mujoco", load_hand(), people, 0.02)
    body.reset(before.reached[0, :people])
    reached = np.stack([body.step(excitation).qpos for excitation in drive[1:]])
    apart = np.abs(reached - before.wanted[1:steps, :people])
    return float(np.degrees(apart[..., list(FINGER_JOINTS)].mean()))


if __name__ == "__main__":
    try:
        print(json.dumps(main(tyro.cli(LimitsRun, description=__doc__))))
    except MyoloopError as error:
        sys.exit(f"training/limits.py: {error}")
