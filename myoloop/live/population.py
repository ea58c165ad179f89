"""Many live participants in one batch: one clock, one step for all; streams, decoder and figures for each."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pylsl

from myoloop.body.names import FINGERS
from myoloop.decoder.batch import BatchDecoder
from myoloop.decoder.contract import check_against
from myoloop.experiment import Experiment, load_experiment
from myoloop.live.board import Board, linger_while_recorded, log, make_run_dir, wait_until_heard
from myoloop.live.hearing import Answers, Hearing, InsideInbox
from myoloop.live.member import Member, Spent
from myoloop.live.person import population_config
from myoloop.live.population_log import PEOPLE, PopulationLog, person_facts
from myoloop.live.record import Info, StepRecord
from myoloop.live.requests import Requests
from myoloop.live.threaded import Threaded
from myoloop.participant import Act, ParticipantConfig, Participants
from myoloop.population_settings import PopulationSettings
from myoloop.streams.clock import Clock, LockstepClock, RealtimeClock, SimulatedClock, Tick
from myoloop.streams.network import use_loopback
from myoloop.streams.outlets import refuse_taken_id
from myoloop.streams.predictions import PredictionInbox


class LivePopulation(Threaded):
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
        use_loopback()
        assert experiment.population is not None
        self.experiment = experiment
        me, settings = experiment.participant, experiment.population
        self._run_dir = make_run_dir(run_dir) if run_dir else None
        self.names = settings.names(me.id)
        self.published = settings.published(me.id)
        for name in self.published:
            refuse_taken_id(name, wait_s=0.3)
        self._phase = "building people"
        self.error: BaseException | None = None
        """what ended the loop, if something went wrong"""
        self._ears: list[Hearing] = []
        self._board = Board(self._run_dir, "participant", self.status)
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
        self._clock = self._make_clock(ears)
        self._clock_now = self._clock.now
        self._log = PopulationLog(self._run_dir, settings.count, band.channels, band.rate_hz, self._board.say)
        if self._run_dir:
            facts = person_facts(self._people, settings, self.names, self.published)
            (self._run_dir / PEOPLE).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        self._watchers: list[Callable[[StepRecord], None]] = []
        self.requests = Requests(self._people, self._now, self._event, experiment.changes, experiment.seed)
        super().__init__(population=self._run)
        self._steps = self._overruns = self._diverged = 0
        self._clock_moved_s = self._began = self._ended = 0.0
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
        try:
            for number, name in enumerate(self.names):
                if name in self.published:
                    folder = self._run_dir / "participants" / name if self._run_dir else None
                    person = self._people.config.people[number].config.seed
                    members[number] = Member(
                        self.experiment, self._people, number, name, person, folder, self._sayer(name), self._now
                    )
        except Exception:
            for member in members.values():
                member.close()
            raise
        return members

    def _make_ears(self) -> list[Hearing]:
        ears, decoder = [], self.experiment.decoder
        for number, name in enumerate(self.names):
            member = self._members.get(number)
            if member:
                ears.append(
                    Hearing(
                        PredictionInbox(name, self._sayer(name), self._now, named=True),
                        self.experiment,
                        number,
                        member.event,
                    )
                )
            else:
                source = decoder.name + " (inside)" if decoder else ""
                ears.append(Hearing(InsideInbox(source), self.experiment, number, lambda text: None))
        self._hidden = np.array([n for n in range(len(ears)) if n not in self._members], int)
        return ears

    def _make_clock(self, ears: list[Hearing]) -> Clock:
        period_s, settings = 1.0 / self.experiment.participant.control_hz, self.experiment.clock
        if settings.kind == "realtime":
            return RealtimeClock(period_s)
        outside = [ears[n].inbox for n in self._members]
        if settings.kind == "free" or not outside:  # answers from inside are always there
            return SimulatedClock(period_s)
        self._answers = Answers(outside)
        return LockstepClock(
            period_s, self._answers.there, lambda: self._answers.count, settings.timeout_s, settings.behind_s,
            settings.unanswered,
        )  # fmt: skip

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

    @property
    def finished(self) -> bool:
        """Whether the session's duration has been reached."""
        return self._steps >= round(self.experiment.duration_s * self.experiment.participant.control_hz)

    def subscribe(self, watcher: Callable[[StepRecord], None]) -> None:
        """`watcher` is called with each step's record of the first published participant, from the loop's thread."""
        self._watchers.append(watcher)

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
            "time_s": self._steps / self.experiment.participant.control_hz,
            "steps": self._steps,
            "overruns": self._overruns,
            "clock": self.experiment.clock.kind,
            "wall_s": round((self._ended or pylsl.local_clock()) - self._began, 3) if self._began else 0.0,
            "timeouts": self._clock.timeouts,
            "clock_moved_s": round(self._clock_moved_s, 3),
            "diverged": self._diverged,
            "emg_samples_sent": first["sent"]["emg"] if first else 0,
            "sent": first["sent"] if first else {},
            **told,
            "prediction_source": next((each["prediction_source"] for each in ears if each["prediction_source"]), ""),
            "link": ears[0]["link"],
            "log_failed": self._log.failed,
            "population": self._log.status() | {"participants": len(self.names), "published": self.published},
            "participants": members,
        }

    # --- the loop --------------------------------------------------------------------------------------------------

    def _warm_up(self) -> None:
        """Compiles and touches everything once, so that no step of the session has to."""
        seeds = [self.experiment.seed] * len(self.names)
        self._people.reset(seeds)
        fresh = self._people.save()
        self._people.set_target(np.ones(len(FINGERS)))
        for _ in range(3):
            self._people.discharges(self._people.act())
            self._people.move()
        self._people.follow_reference()
        self._people.restore(fresh)

    def _run(self) -> None:
        sys.setswitchinterval(5e-4)  # s: other threads must not hold the loop up for Python's usual 5 ms
        gc.collect()
        gc.freeze()  # start-up's objects are not looked at again: a full collection would cost many steps
        try:
            self._wait_for_decoders()
            self._phase = "running"
            self._clock.start()
            self._began, self._ended = pylsl.local_clock(), 0.0
            self._event("session start")
            while not self._stop.is_set() and not self.finished:
                self._step(self._clock.wait())
            self._ended = pylsl.local_clock()
            self._phase = "finished" if self.finished else "stopped"
            self._event("session end")
        except Exception as error:  # the thread's last word: it must reach the node and the report
            self.error = error
            self._phase = "failed"
            log.exception("the population stopped")
            self._board.say(f"the population stopped: {type(error).__name__}: {error}")
        finally:
            gc.unfreeze()
            self._log.flush()

    def _wait_for_decoders(self) -> None:
        """Those of all who are published, for as long as the experiment allows."""
        if not self._members:
            return
        wait = self.experiment.participant.wait_for_decoder_s if self.experiment.decoder else 0.0
        self._phase = "waiting for decoders"
        until = time.monotonic() + wait
        awaited = [self._ears[n].inbox for n in self._members]
        while not all(inbox.source for inbox in awaited) and time.monotonic() < until and not self._stop.wait(0.05):
            pass
        silent = [self._members[n] for n in self._members if not self._ears[n].inbox.source]
        if silent and not self._stop.is_set():
            names = ", ".join(f"'{member.name}_prediction'" for member in silent)
            reason = (
                f"no stream {names} after {wait:g} s" if self.experiment.decoder else "no decoder in the experiment"
            )
            self._board.say(f"{reason}: running open loop until predictions come")
        self._phase = "waiting for the session to listen"
        wait_until_heard(self._run_dir, self._stop)
        for member in silent:
            member.event("open loop")

    def _step(self, tick: Tick) -> None:
        now, people = time.perf_counter, self._people
        begin = now()
        if tick.skipped_s:
            self._clock_moved_s += tick.skipped_s
            self._board.say(f"the process was held up for {tick.skipped_s:.1f} s: the time line was moved")
            self._event(f"clock moved {tick.skipped_s:.3f}")
        self.requests.obey(tick.started, self._steps / self.experiment.participant.control_hz)
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
        self._steps += 1
        for watcher in self._watchers if records else ():
            watcher(records[0])

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
