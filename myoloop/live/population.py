"""Many live participants in one batch: one clock, one step for all; streams, decoder and figures for each."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pylsl

from myoloop.decoder.batch import BatchDecoder
from myoloop.decoder.contract import check_against
from myoloop.experiment import Experiment, load_experiment
from myoloop.live.board import linger_while_recorded
from myoloop.live.hearing import Answers, Hearing, Inbox, InsideInbox
from myoloop.live.loop import LiveLoop
from myoloop.live.member import Member, Spent
from myoloop.live.person import population_config
from myoloop.live.population_log import PEOPLE, PopulationLog, person_facts
from myoloop.live.record import Info
from myoloop.live.requests import Requests
from myoloop.participant import Act, ParticipantConfig, Participants
from myoloop.population_settings import PopulationSettings
from myoloop.streams.clock import Tick
from myoloop.streams.outlets import refuse_taken_id
from myoloop.streams.predictions import PredictionInbox


class LivePopulation(LiveLoop):
    """Runs the participants of an experiment with a section `population` in a thread of its own.

    Whoever is published sends and hears over LSL, as a single live participant does; the others' EMG goes to the
    experiment's ONNX model in this process, and its answers are there one control step later. Everything that may fail for a
    reason the user can mend fails in the constructor, as MyoloopError.
    """

    def __init__(self, experiment: Experiment, run_dir: str | Path | None = None):
        """
        Args:
          experiment: what to run.
          run_dir: where logs and status go; None: nowhere.
        """
        assert experiment.population is not None
        super().__init__("population", experiment, run_dir)
        me, settings = experiment.participant, experiment.population
        self.names = settings.names(me.id)
        self.published = settings.published(me.id)
        for name in self.published:
            refuse_taken_id(name, wait_s=0.3)
        self._phase = "building people"
        self._ears: list[Hearing] = []
        self._board.start()
        try:
            self._build(population_config(experiment), settings)
        except BaseException:
            self._board.close()
            raise

    def _build(self, config: ParticipantConfig, settings: PopulationSettings) -> None:
        """All parts, what can be wrong first: people take half a second each."""
        experiment, me, band = self.experiment, self.experiment.participant, config.armband
        self.info = Info(me.id, tuple(band.channel_labels), float(band.rate_hz))
        self._inside = self._make_inside()
        self._people = Participants(config, settings.count, os.cpu_count() or 1, on_person=self._built)
        self._phase = "compiling their step"
        self._warm_up()
        for note in self._people.notes:
            self._board.say(note)
        self._clock_now: Callable[[], float] = pylsl.local_clock
        self._members = self._make_members()
        ears = self._make_ears()
        self._outside = outside = Answers(
            [ears[n].inbox for n in self._members]
        )  # answers from inside are always there
        self._clock = self._make_clock(outside.there if self._members else None, lambda: outside.count)
        self._clock_now = self._clock.now
        self._log = PopulationLog(self._run_dir, settings.count, band.channels, band.rate_hz, self._board.say)
        if self._run_dir:
            facts = person_facts(self._people, settings, self.names, self.published)
            (self._run_dir / PEOPLE).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        self.requests = Requests(self._people, self._now, self._event, experiment.changes, experiment.seed)
        self._ears = ears
        self._phase = "ready"

    # --- parts -----------------------------------------------------------------------------------------------------

    def _built(self, people: int) -> None:
        self._phase = f"building people: {people} of {len(self.names)}"

    def _make_inside(self) -> BatchDecoder | None:
        """The decoder of those who are not published."""
        decoder, hidden = self.experiment.decoder, len(self.names) - len(self.published)
        if decoder is None or not hidden:
            return None
        assert decoder.model is not None
        made = BatchDecoder(decoder.model, hidden, threads=1)
        check_against(made.info, self.info.rate_hz, list(self.info.channel_labels), "the population's EMG")
        return made

    def _make_members(self) -> dict[int, Member]:
        members: dict[int, Member] = {}
        with ExitStack() as undo:  # where one cannot be made, those before it give their streams back
            for number, name in enumerate(self.names):
                if name in self.published:
                    folder = self._run_dir / "participants" / name if self._run_dir else None
                    person = self._people.config.people[number].config.seed
                    members[number] = Member(
                        self.experiment, self._people, number, name, person, folder, self._sayer(name), self._now
                    )
                    undo.callback(members[number].close)
            undo.pop_all()
        return members

    def _make_ears(self) -> list[Hearing]:
        ears, decoder = [], self.experiment.decoder
        for number, name in enumerate(self.names):
            member = self._members.get(number)
            if member:
                inbox = PredictionInbox(name, self._sayer(name), self._now, named=True)
                ears.append(Hearing(inbox, self.experiment, number, member.event))
            else:
                source = decoder.name + " (inside)" if decoder else ""
                ears.append(Hearing(InsideInbox(source), self.experiment, number, lambda text: None))
        self._hidden = np.array([n for n in range(len(ears)) if n not in self._members], int)
        return ears

    def _now(self) -> float:
        return self._clock_now()

    def _sayer(self, name: str) -> Callable[[str], None]:
        return lambda message: self._board.say(f"{name}: {message}")

    @classmethod
    def from_experiment(
        cls, path: str | Path, run_dir: str | Path | None = None, overrides: dict[str, Any] | None = None
    ) -> LivePopulation:
        """From a file, with dotted overrides as in `load_experiment`."""
        return cls(load_experiment(path, overrides), run_dir)

    # --- life ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stops and gives everything back: streams, threads, files."""
        self.stop()
        for ear in self._ears:
            ear.inbox.close()
        if self._members:
            linger_while_recorded(self._run_dir)
        for member in self._members.values():
            member.close()
        self._board.close()
        self._log.close()

    # --- figures ---------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Where the session stands: JSON-able numbers and strings; `participants` has a line for each published one."""
        if not self._ears:
            return {"id": self.experiment.participant.id, "phase": self._phase, "level": "ok", "message": self._phase}
        ears = [ear.status() for ear in self._ears]
        level, message = ("error", str(self.error)) if self.error else ("ok", self._phase)
        told = {name: sum(each[name] for each in ears) for name in ears[0] if name.startswith(("predictions", "stale"))}
        members = {m.name: m.status() | ears[n] for n, m in self._members.items()}
        first = next(iter(members.values()), None)
        return {
            "id": self.info.id,
            "conditions": self._people.conditions,
            "phase": self._phase,
            "level": level,
            "message": message,
            **self._pace(),
            "emg_samples_sent": first["sent"]["emg"] if first else 0,
            "sent": first["sent"] if first else {},
            **told,
            "prediction_source": next((each["prediction_source"] for each in ears if each["prediction_source"]), ""),
            "answers_missed": self._outside.missed,
            "link": ears[0]["link"],
            "log_failed": self._log.failed,
            "population": self._log.status() | {"participants": len(self.names), "published": self.published},
            "participants": members,
        }

    # --- the loop --------------------------------------------------------------------------------------------------

    def _awaited(self) -> dict[str, Inbox]:
        return {member.name: self._ears[n].inbox for n, member in self._members.items()}

    def _discharges(self) -> int:
        return max((member.sent["spikes"] for member in self._members.values()), default=0)

    def _open_loop(self, silent: Sequence[str]) -> None:
        for member in self._members.values():
            if member.name in silent:
                member.event("open loop")

    def _over(self) -> None:
        self._log.flush()

    def _step(self, tick: Tick) -> None:
        now, people = time.perf_counter, self._people
        begin = now()
        self.requests.obey(tick.started, self._time_s)
        heard = [ear.step(tick.started) for ear in self._ears]
        if self.experiment.participant.feedback:
            people.perceive(np.stack([feedback.values for feedback in heard]))
        act = people.act()
        acted = now()
        for member in self._members.values():
            member.send(act, tick.deadline)
        pushed = now()
        body = people.move()
        moved = now()
        if body.diverged.any():
            self._diverged += int(body.diverged.sum())
            who = ", ".join(name for name, lost in zip(self.names, body.diverged, strict=True) if lost)
            self._board.say(f"the physics of {who} diverged at {people.time:.2f} s: the body starts again from rest")
            for n, member in self._members.items():
                if body.diverged[n]:
                    member.event("body diverged")
            body = people.reset_body(body.diverged)
        self._answer_inside(act, tick)
        spent = Spent(begin, acted, pushed, moved)
        records = [member.finish(tick, act, body, heard[n], spent) for n, member in self._members.items()]
        self._overruns += self._clock.overrun(tick)
        self._log.step(tick, act, body, heard, spent.times())
        for record in records:
            for watcher in self._watchers:
                watcher(record)

    def _answer_inside(self, act: Act, tick: Tick) -> None:
        """The model answers those who are not published; they hear it in the next step."""
        if self._inside is None:
            return
        arrived = self._clock.now()
        rate_hz, samples = self.info.rate_hz, act.chunk.shape[1]
        for used, predictions, good in self._inside.push(act.chunk[self._hidden]):
            newest = tick.deadline - (samples - used) / rate_hz
            for n, values, sound in zip(self._hidden, predictions, good, strict=True):
                if sound:
                    self._ears[n].inbox.take(values, newest, arrived)  # type: ignore[attr-defined]

    def _event(self, text: str) -> None:
        for member in self._members.values():
            member.event(text)
