"""One participant of a batch whose streams are published: what it sends, and what of it is kept in a folder of its own."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pylsl

from myoloop.body.engine import BodyState
from myoloop.experiment import Experiment
from myoloop.live.board import make_run_dir
from myoloop.live.feedback import AnswerTimes, Feedback
from myoloop.live.record import STEP_COLUMNS, StepRecord
from myoloop.live.tally import Tally, bits
from myoloop.participant import Act, Participants
from myoloop.streams.clock import Tick
from myoloop.streams.outlets import ParticipantOutlets
from myoloop.streams.rowlog import EventLog, RowLog


class Times(NamedTuple):
    """How long the parts of a step took, ms; the same for all participants of a batch."""

    policy_emg_ms: float
    push_ms: float
    body_ms: float
    step_ms: float


class Spent(NamedTuple):
    """When the parts of a step were done, `time.perf_counter`."""

    begin: float
    acted: float
    pushed: float
    moved: float

    def times(self) -> Times:
        """How long they took; the step until now."""
        now = time.perf_counter()
        return Times(
            1e3 * (self.acted - self.begin), 1e3 * (self.pushed - self.acted), 1e3 * (self.moved - self.pushed),
            1e3 * (now - self.begin),
        )  # fmt: skip


class Member:
    """Streams, step log and events of participant `number`."""

    def __init__(
        self,
        experiment: Experiment,
        people: Participants,
        number: int,
        name: str,
        person: int,
        folder: Path | None,
        say: Callable[[str], None],
        now: Callable[[], float],
    ):
        """
        Args:
          experiment: what is run.
          people: the batch.
          number: place in the batch.
          name: id, the prefix of its streams.
          person: seed of its anatomy.
          folder: where its step log and events go; None: nowhere.
          say: tells the user.
          now: the session's time, s.

        Raises:
          MyoloopError: a stream cannot be opened, or the folder not be made.
        """
        self.name, self.number = name, number
        self._people, self._now = people, now
        me, emg = experiment.participant, people.emg_params
        band = people.bands[number]
        self._log = self._events = None
        if folder:
            self._log = RowLog(make_run_dir(folder) / "steps", STEP_COLUMNS, say)
            self._events = EventLog(folder / "events.jsonl", say)
        self._outlets = ParticipantOutlets(
            name,
            band.channel_labels,
            band.rate_hz,
            me.control_hz,
            emg_about=dataclasses.asdict(band),
            participant_about={"person": person, "engine": me.engine, "policy": me.policy, "seed": experiment.seed},
            spikes_about={"muap_delay_s": emg.muap_delay / band.internal_rate_hz},
            events_about={"gestures": json.dumps(me.reference.gestures), "clock": experiment.clock.kind},
        )
        self._outlets.refuse_unfound()
        self._prompts = {bits(np.array(labels)): each for each, labels in me.reference.gestures.items()}
        self.answers = AnswerTimes(me.control_hz)
        self.tally = Tally()
        self.last: StepRecord | None = None

    def close(self) -> None:
        """Takes the streams off the network and closes the files."""
        self._outlets.close()
        if self._log and self._events:
            self._log.close()
            self._events.close()

    def event(self, text: str, at: float = 0.0) -> None:
        """Publishes a marker; at 0: now."""
        at = at or self._now()
        self._outlets.event(text, at)
        if self._events:
            self._events.append(at, text)

    def send(self, act: Act, newest: float) -> None:
        """The step's EMG, whose last sample is of the time `newest`, and the discharges behind it.

        A device sample is the first of its `decimation` internal ones, so the chunk's newest lies that many before its end.
        """
        self.answers.sent(newest, pylsl.local_clock())  # before it goes out: an answer may be quick
        self._outlets.emg(act.chunk[self.number], newest)
        fired = self._people.discharges(act, self.number)
        band = self._people.emg_params.band
        last = int(act.spikes.start[self.number]) + (self._people.samples - 1) * band.decimation
        times = newest + (fired.sample - last) / band.internal_rate_hz
        self._outlets.spikes(np.stack([fired.muscle, fired.unit], axis=1), times)

    def finish(self, tick: Tick, act: Act, body: BodyState, feedback: Feedback, spent: Spent) -> StepRecord:
        """What the step did: streams, events, log, figures."""
        n, deadline = self.number, tick.deadline
        target, excitation, joints_deg = act.target[n], act.excitation[n], np.degrees(body.qpos[n])
        if self.last is None or not np.array_equal(target, self.last.target):
            self.event("target " + bits(target), deadline)
            if name := self._prompts.get(bits(target)):
                self.event("prompt " + name, deadline)
        wanted_deg = np.degrees(act.wanted[n])
        self._outlets.state(deadline, target, joints_deg, wanted_deg, excitation)
        self._outlets.feedback(deadline, feedback.values, feedback.age_s, feedback.latency_ms)
        self.tally.judge(feedback, target)
        times = spent.times()
        if self._log:
            self._log.append(
                deadline, started=tick.started - deadline, **times._asdict(), target=target, reference=act.reference[n],
                prediction=feedback.values, prediction_age_s=feedback.age_s, stale=feedback.stale,
                feedback_latency_ms=feedback.latency_ms, answer_ms=self.answers.ms(feedback),
                waited_ms=1e3 * tick.waited_s, joints_deg=joints_deg, wanted_deg=wanted_deg,
                excitation=excitation,
            )  # fmt: skip
        self.last = StepRecord(
            self.tally.steps, deadline, times.step_ms, target, feedback.values, feedback.age_s, feedback.stale,
            feedback.latency_ms, act.reference[n], joints_deg, np.degrees(body.qvel[n]), excitation, body.fingertips[n],
            float(np.mean(excitation**2)), self.tally.accuracy, act.chunk[n], self._outlets.emg_samples - len(act.chunk[n]),
            self.name,
        )  # fmt: skip
        self.tally.step(feedback, excitation, times.step_ms)
        return self.last

    @property
    def sent(self) -> dict[str, int]:
        """Samples sent so far, by stream."""
        return self._outlets.sent

    @property
    def log_failed(self) -> str | None:
        """Why the step log stopped, or None."""
        return self._log.failed if self._log else None

    def status(self) -> dict[str, Any]:
        """JSON-able counts."""
        return {**self.tally.status(), "sent": dict(self.sent), "log_failed": self.log_failed}
