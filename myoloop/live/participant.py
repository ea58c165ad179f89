"""A live participant: steps on the wall clock or in step with its decoder, EMG out over LSL, predictions in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment, load_experiment
from myoloop.live.adaptation import Adaptation
from myoloop.live.board import linger_while_recorded
from myoloop.live.commanded import Commanded
from myoloop.live.feedback import LOST_AFTER_S, FeedbackHold
from myoloop.live.hearing import Inbox
from myoloop.live.link import Link, lag_s, longest_s
from myoloop.live.loop import LiveLoop
from myoloop.live.member import Member, Spent
from myoloop.live.person import participant_config
from myoloop.live.record import Info, StepRecord
from myoloop.live.requests import Requests
from myoloop.participant import Participants
from myoloop.sections import LinkSettings
from myoloop.streams.clock import Tick
from myoloop.streams.commands import CommandInbox
from myoloop.streams.outlets import refuse_taken_id
from myoloop.streams.predictions import PredictionInbox


class LiveParticipant(LiveLoop):
    """Runs one participant in a thread of its own, at the pace of the experiment's clock.

    Everything that may fail for a reason the user can mend fails in the constructor, as MyoloopError.
    """

    def __init__(self, experiment: Experiment, run_dir: str | Path | None = None):
        """
        Args:
          experiment: what to run.
          run_dir: where step log and status go; None: nowhere.
        """
        super().__init__("participant", experiment, run_dir)
        me = experiment.participant
        refuse_taken_id(me.id)
        self._people = Participants(participant_config(experiment), threads=1)
        band = self._people.emg_params.band
        self.info = Info(me.id, tuple(band.channel_labels), float(band.rate_hz))
        self._warm_up()
        for note in self._people.notes:
            self._board.say(note)
        refuse_taken_id(me.id, wait_s=0.3)  # once more: building took seconds
        self._member = Member(experiment, self._people, 0, me.id, me.person, self._run_dir, self._board.say, self._now)
        self._clock = self._make_clock(lambda since, s: self._inbox.answered(since, s), lambda: self._inbox.accepted)
        self._inbox = PredictionInbox(me.id, self._board.say, self._clock.now)
        link = experiment.link
        self._link = Link(link or LinkSettings(), experiment.seed)  # type: ignore[call-arg]
        self._asked_link = self._link.settings
        self._asked_exploration: float | None = None
        self._stale_after_s = me.stale_after_s
        self._hold = FeedbackHold(me.stale_after_s + longest_s(link), self._event)
        self.requests = Requests(self._people, self._clock.now, self._event, experiment.changes, experiment.seed)
        self._commands = CommandInbox(me.id, Commanded(self.requests, self.set_link).obey, self._board.say)
        self._fresh = True  # the body or the EMG begins anew: what came before has nothing to do with it
        self._adaptation: Adaptation | None = None
        if me.adapt is not None:
            self._adaptation = Adaptation(experiment, self._people, self._link, self._run_dir, self._board.say)
        self._phase = "ready"
        self._board.start()

    def _now(self) -> float:
        return self._clock.now()

    @classmethod
    def from_experiment(
        cls,
        path: str | Path,
        participant_id: str | None = None,
        run_dir: str | Path | None = None,
        overrides: dict[str, Any] | None = None,
    ) -> LiveParticipant:
        """From a file, with dotted overrides as in `load_experiment`."""
        changes = dict(overrides or {})
        if participant_id:
            changes["participant.id"] = participant_id
        return cls(load_experiment(path, changes), run_dir)

    # --- life ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stops and gives everything back: streams, threads, files."""
        self.stop()
        if self._adaptation:
            self._adaptation.close()
        self._inbox.close()
        self._commands.close()
        linger_while_recorded(self._run_dir)
        self._member.close()
        self._board.close()

    def set_link(self, settings: LinkSettings) -> None:
        """What is injected into the feedback from the next step on; from any thread.

        Raises:
          MyoloopError: a learner was told the delay when it began.
        """
        if self._adaptation:
            raise MyoloopError("the link stays: the participant's learner was told it when it began.")
        self._asked_link = settings

        def do() -> None:
            self._link.settings = settings
            self._hold.stale_after_s = self._stale_after_s + longest_s(settings)
            self._people.set_lag(lag_s(settings, self.experiment.participant.control_hz))
            self._event("link " + " ".join(f"{name} {value:g}" for name, value in settings.model_dump().items()))

        self.requests.later(do)

    def set_stale_after(self, seconds: float) -> None:
        """From which age on a prediction counts as stale, besides what the link delays it; from any thread."""
        self._stale_after_s = seconds

        def do() -> None:
            self._hold.stale_after_s = seconds + longest_s(self._link.settings)
            self._event(f"stale after {seconds:g}")

        self.requests.later(do)

    def explore(self, deviation: float) -> None:
        """Explores with this standard deviation of the actions, where the experiment lets it explore; from any thread."""
        self._asked_exploration = deviation

        def do() -> None:
            self._people.explore(deviation)
            self._asked_exploration = None
            self._event(f"exploration {deviation:g}")

        self.requests.later(do)

    @property
    def settings_now(self) -> dict[str, float]:
        """What may change during a run, as it is or was asked for: conditions, link and so on, by dotted names."""
        asked = self._asked_exploration
        exploring = asked if asked is not None else self._people.exploration
        return {
            "stale_after_s": self._stale_after_s,
            **{f"link.{name}": float(value) for name, value in self._asked_link.model_dump().items()},
            **({"exploration": exploring} if exploring is not None else {}),
            **{f"conditions.{name}": strength for name, strength in self._people.conditions.items()},
        }

    # --- figures ---------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Where the session stands: JSON-able numbers and strings."""
        last = self._member.last
        lost = bool(last and last.stale)
        level, message = "ok", self._phase
        if self.error:
            level, message = "error", str(self.error)
        elif self._phase == "running" and lost:
            level, message = "warn", self._why_stale(last)
        return {
            "id": self.info.id,
            "conditions": self._people.conditions,
            "phase": self._phase,
            "level": level,
            "message": message,
            **self._member.tally.status(),
            **self._pace(),
            "emg_samples_sent": self._member.sent["emg"],
            "sent": dict(self._member.sent),
            "target": last.target.tolist() if last else None,
            "prediction": last.prediction.tolist() if last else None,
            "predictions": self._inbox.accepted,
            "predictions_refused": self._inbox.refused,
            "predictions_restamped": self._inbox.restamped,
            "prediction_source": self._inbox.source,
            "stale_steps": self._hold.stale_steps,
            "link": self._link.status() if self.experiment.link or self._link.settings != LinkSettings() else None,  # type: ignore[call-arg]
            "commands": self._commands.accepted,
            "commands_refused": self._commands.refused,
            "decoder_wanted": self.requests.decoder_wanted,
            "log_failed": self._member.log_failed,
            "learner": self._adaptation.status() if self._adaptation else None,
        }

    def _why_stale(self, last: StepRecord | None) -> str:
        heard = self._inbox.latest
        if heard is None or last is None:
            return "open loop"
        if self._clock.now() - heard.arrived > LOST_AFTER_S:
            return "no fresh prediction: holding the last one"
        return f"predictions come, but of EMG {last.prediction_age_s:.1f} s ago: the decoder is late"

    # --- the loop --------------------------------------------------------------------------------------------------

    def _awaited(self) -> dict[str, Inbox]:
        return {self.info.id: self._inbox}

    def _discharges(self) -> int:
        return self._member.sent["spikes"]

    def _time_moved(self, seconds: float) -> None:
        self._hold.paused(self._clock.now(), seconds)

    def _step(self, tick: Tick) -> None:
        now = time.perf_counter
        begin = now()
        if self.requests.obey(tick.started, self._time_s):
            self._fresh = True
        if self._adaptation and (news := self._adaptation.use()):
            self._event(news)
        link, inbox = self._link, self._inbox
        feedback = self._hold.step(link.step(inbox.recent, tick.started), tick.started)
        if self.experiment.participant.feedback:
            self._people.perceive(feedback.values)
        act = self._people.act()
        if self._adaptation:
            self._adaptation.tell(self._steps, tick.deadline, act, self._fresh)
            self._fresh = False
        acted = now()
        self._member.send(act, tick.deadline)
        pushed = now()
        body = self._people.move()
        moved = now()
        if body.diverged[0]:
            self._diverged += 1
            self._board.say(f"the physics diverged at {self._people.time:.2f} s: the body starts again from rest")
            self._event("body diverged")
            body = self._people.reset_body()
            self._fresh = True
        spent = Spent(begin, acted, pushed, moved)
        record = self._member.finish(tick, act, body, feedback, spent)
        self._overruns += self._clock.overrun(tick)
        for watcher in self._watchers:
            watcher(record)
        if self._adaptation and self.experiment.clock.kind != "realtime":
            self._adaptation.let_think(self._stop)

    def _event(self, text: str, time: float = 0.0) -> None:
        self._member.event(text, time)
