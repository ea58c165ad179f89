"""What a population leaves in the run folder: who they are, a row a control step for all, and their EMG's spectrum."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from myoloop.body.engine import BodyState
from myoloop.body.names import FINGERS, JOINTS
from myoloop.emg.armband import Armband
from myoloop.emg.people import Person
from myoloop.live.feedback import Feedback
from myoloop.live.member import Times
from myoloop.live.tally import RECENT
from myoloop.participant import Act, Participants
from myoloop.population_settings import PopulationSettings
from myoloop.streams.clock import Tick
from myoloop.streams.rowlog import Column, RowLog

PEOPLE = "people.json"
"""File in the run folder: one mapping a participant, see `person_facts`."""
SPECTRUM = "population_spectrum.npz"
"""File in the run folder: `power` (B, F, C) microvolts^2 and `frequency` (F,) Hz, over the whole session."""
WINDOW_S = 0.25
"""s of each window of the spectrum."""
EVERY_S = 0.5
"""s from one to the next."""
FINGER_JOINTS = [n for n, joint in enumerate(JOINTS) if joint not in ("pro_sup", "deviation", "flexion")]


def columns(participants: int, channels: int) -> list[Column]:
    """Columns of population.rows: times of the batch, then what is each participant's, one after the other.

    `power`: mean square of each channel in the step's chunk, microvolts^2; `joint_error_deg`: mean over the finger joints;
    else as in steps.rows.
    """
    batch = ("started", "policy_emg_ms", "push_ms", "body_ms", "step_ms", "waited_ms")
    one = ("prediction_age_s", "stale", "feedback_latency_ms", "effort", "joint_error_deg")
    wide = {"target": len(FINGERS), "prediction": len(FINGERS), "power": channels}
    return [
        *((name, 1) for name in batch),
        *((name, participants) for name in one),
        *((name, participants * width) for name, width in wide.items()),
    ]


def person_facts(
    people: Participants, settings: PopulationSettings, names: Sequence[str], published: Sequence[str]
) -> list[dict[str, Any]]:
    """Who each participant is: seed, conditions, and what is drawn for a person (emg/people.py)."""
    home, facts = people.config.armband, []
    for number, (name, person) in enumerate(zip(names, people.config.people, strict=True)):
        own = dict(settings.persons[number].conditions) if settings.persons else {}
        facts.append(
            {
                "id": name,
                "person": person.config.seed,
                "published": name in published,
                "conditions": dict(people.config.conditions) | own,
                "traits": traits_of(person, home),
            }
        )
    return facts


def traits_of(person: Person, home: Armband) -> dict[str, float]:
    """What is drawn for a person (emg/people.py), and how the armband sits beside `home`, where it would."""
    config, band = person.config, person.band
    return {
        "forearm_radius_mm": band.radius_mm,
        "fat_mm": config.conductor.fat_mm,
        "conduction_velocity_m_s": config.velocity_mean,
        "units_scale": config.units_scale,
        "zone_spread": config.zone_spread,
        "recruitment_range": config.recruitment_range,
        "last_recruited": config.last_recruited,
        "min_rate_hz": config.min_rate_hz,
        "band_turn_deg": band.first_angle_deg - home.first_angle_deg,
        "band_level": band.level,
    }


class PopulationLog:
    """Takes every step; without a folder only the running figures are kept."""

    def __init__(
        self, run_dir: Path | None, participants: int, channels: int, rate_hz: float, say: Callable[[str], None]
    ):
        self._run_dir, self._rate_hz = run_dir, rate_hz
        self._rows = RowLog(run_dir / "population", columns(participants, channels), say) if run_dir else None
        self._right = np.zeros((participants, len(FINGERS)))
        self._judged = np.zeros(participants, int)
        self._step_ms: deque[float] = deque(maxlen=RECENT)
        self._latency_ms: deque[float] = deque(maxlen=RECENT)
        self._window = round(WINDOW_S * rate_hz)
        self._taper = np.hanning(self._window).astype(np.float32)[:, None]
        self._recent: deque[np.ndarray] = deque()
        self._since = 0.0
        self._power: np.ndarray | None = None
        self._windows = 0

    @property
    def failed(self) -> str | None:
        """Why the log stopped, or None."""
        return self._rows.failed if self._rows else None

    def step(self, tick: Tick, act: Act, body: BodyState, heard: Sequence[Feedback], times: Times) -> None:
        """One control step of everybody."""
        prediction = np.stack([feedback.values for feedback in heard])
        age = np.array([feedback.age_s for feedback in heard])
        latency = np.array([feedback.latency_ms for feedback in heard])
        judged = np.isfinite(age)
        self._judged += judged
        self._right += ((prediction > 0.5) == (act.target > 0.5)) & judged[:, None]
        self._step_ms.append(times.step_ms)
        if np.isfinite(latency[0]):
            self._latency_ms.append(float(latency[0]))
        if self._rows is None:
            return
        error = np.degrees(np.abs(body.qpos - act.wanted))[:, FINGER_JOINTS].mean(axis=1)
        self._rows.append(
            tick.deadline, started=tick.started - tick.deadline, **times._asdict(), waited_ms=1e3 * tick.waited_s,
            prediction_age_s=_row(age), stale=_row(np.array([feedback.stale for feedback in heard])),
            feedback_latency_ms=_row(latency), effort=_row(np.mean(act.excitation**2, axis=1)),
            joint_error_deg=_row(error), target=act.target.ravel(), prediction=prediction.ravel(),
            power=np.mean(np.square(act.chunk), axis=1).ravel(),
        )  # fmt: skip
        self._listen(act.chunk)

    def _listen(self, chunk: np.ndarray) -> None:
        """Adds a window to the spectrum now and then."""
        self._since += chunk.shape[1] / self._rate_hz
        if self._since < EVERY_S - WINDOW_S - 1e-9:
            return
        self._recent.append(chunk)
        if sum(each.shape[1] for each in self._recent) < self._window:
            return
        window = np.concatenate(self._recent, axis=1)[:, : self._window]
        power = np.square(np.abs(np.fft.rfft((window - window.mean(axis=1, keepdims=True)) * self._taper, axis=1)))
        self._power = power if self._power is None else self._power + power
        self._windows += 1
        self._recent.clear()
        self._since = 0.0

    def status(self) -> dict[str, Any]:
        """Accuracy of each so far, sorted; times of the last steps. JSON-able."""
        seen = self._judged > 0
        accuracy = (self._right[seen].mean(axis=1) / self._judged[seen]).round(4)
        return {
            "accuracies": np.sort(accuracy).tolist(),
            "step_ms": _median(self._step_ms),
            "feedback_latency_ms": _median(self._latency_ms),
        }

    def flush(self) -> None:
        """Writes the spectrum."""
        if self._run_dir and self._power is not None:
            frequency = np.fft.rfftfreq(self._window, 1.0 / self._rate_hz)
            with contextlib.suppress(OSError):  # a full disk is said by the rows
                np.savez(
                    self._run_dir / SPECTRUM,
                    power=(self._power / self._windows).astype(np.float32),
                    frequency=frequency,
                )

    def close(self) -> None:
        """Closes the rows."""
        if self._rows:
            self._rows.close()


def _row(values: np.ndarray) -> Any:
    """(B,) as a column of that width takes it: of a single participant the number itself."""
    return values if len(values) > 1 else values[0]


def _median(values: deque[float]) -> float | None:
    return round(float(np.median(list(values))), 2) if values else None
