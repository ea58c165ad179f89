"""A population one after another as one: what the sessions of its participants left, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from myoloop.emg.people import sample_person
from myoloop.errors import MyoloopError
from myoloop.experiment import checked
from myoloop.live.board import read_status
from myoloop.live.person import participant_config
from myoloop.live.population_log import FINGER_JOINTS, traits_of
from myoloop.population_settings import TURNS
from myoloop.report_population import Crowd
from myoloop.streams.rowlog import read_rows

COUNTS = (
    "steps", "overruns", "timeouts", "wall_s", "clock_moved_s", "emg_samples_sent", "predictions", "predictions_refused",
    "predictions_restamped", "stale_steps",
)  # fmt: skip
"""Numbers of a participant's status that are added up."""


def read_turns(run_dir: Path, config: dict[str, Any]) -> tuple[Crowd, np.ndarray, dict[str, Any], dict[str, Any]]:
    """What the run folder of `how: in_turn` holds.

    Returns:
      The crowd, all step rows, a status that adds up the participants', and a witness that adds up theirs.

    Raises:
      MyoloopError: nobody made a step.
    """
    try:
        done = json.loads((run_dir / TURNS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MyoloopError(f"{run_dir}: {TURNS} is missing or damaged: no participant had a turn.") from error
    home = participant_config(checked(config | {"population": None}, "config.yaml"))
    people, rows, statuses, witnesses = [], [], [], []
    for each in done:
        folder = run_dir / "participants" / each["id"]
        try:
            steps = read_rows(folder / "steps")
        except MyoloopError:
            continue
        if not len(steps):
            continue
        person = sample_person(each["person"], home.armband, home.anatomy)
        conditions = {**config["participant"]["conditions"], **each["conditions"]}
        about = {"id": each["id"], "person": each["person"], "published": True, "conditions": conditions}
        people.append(about | {"traits": traits_of(person, home.armband)})
        rows.append(steps)
        statuses.append(read_status(folder, "participant") or {})
        witnesses.append(read_status_file(folder / "witness.json"))
    if not people:
        raise MyoloopError(
            f"{run_dir}: no participant made a step; see the logs of each in {run_dir / 'participants'}."
        )
    failures = [f"{each['id']}: {each['failure']}" for each in done if each["failure"]]
    status = dict(statuses[0]) | {name: sum(s.get(name) or 0 for s in statuses) for name in COUNTS}
    status["messages"] = [
        f"{a['id']}: {m}" for a, s in zip(people, statuses, strict=True) for m in s.get("messages", [])
    ]
    received = [w.get("samples_received") for w in witnesses]
    witness = {
        "failure": "; ".join(failures) or None,
        "samples_received": None if None in received else sum(map(int, filter(None, received))),
        "rate_hz": witnesses[0].get("rate_hz"),
        "decoder_restarts": sum(w.get("decoder_restarts", 0) for w in witnesses),
    }
    return _crowd(people, rows, witnesses), np.concatenate(rows), status, witness


def read_status_file(path: Path) -> dict[str, Any]:
    """A JSON mapping, or nothing if it is not there or damaged."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _crowd(people: list[dict[str, Any]], rows: list[np.ndarray], witnesses: list[dict[str, Any]]) -> Crowd:
    """Sessions of different lengths side by side: what is missing of the shorter ones is not judged."""
    longest = max(map(len, rows))

    def each(name: str, width: int) -> np.ndarray:
        return np.stack([np.pad(r[name].reshape(len(r), width), ((0, longest - len(r)), (0, 0))) for r in rows])

    judged = np.zeros((len(rows), longest), bool)
    for n, steps in enumerate(rows):
        judged[n, : len(steps)] = np.cumsum(np.isfinite(steps["prediction_age_s"])) > 0
    rms = [np.array(w.get("rms_uv") or [np.nan], float) for w in witnesses]
    channels = max(map(len, rms))
    power = np.stack([np.pad(np.square(x), (0, channels - len(x)), constant_values=np.nan) for x in rms])[:, None]
    return Crowd(
        people,
        each("target", 5),
        each("prediction", 5),
        judged,
        np.array([float(np.mean(r["excitation"] ** 2)) for r in rows]),
        np.array([float(np.abs(r["joints_deg"] - r["wanted_deg"])[:, FINGER_JOINTS].mean()) for r in rows]),
        power,
        np.array([float(np.median(w.get("median_frequency_hz") or [np.nan])) for w in witnesses]),
    )
