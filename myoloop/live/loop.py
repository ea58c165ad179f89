"""The loop of control steps that a live participant and a live population have in common."""

from __future__ import annotations

import gc
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pylsl

from myoloop.body.names import FINGERS
from myoloop.experiment import Experiment
from myoloop.live.board import Board, log, make_run_dir, recorded, wait_until_heard
from myoloop.live.hearing import Inbox
from myoloop.live.outflow import Outflow
from myoloop.live.record import Info, StepRecord
from myoloop.live.requests import Requests
from myoloop.live.threaded import Threaded
from myoloop.participant import Participants
from myoloop.streams.clock import Clock, LockstepClock, RealtimeClock, SimulatedClock, Tick
from myoloop.streams.network import use_loopback

CONNECT_S = 1.0
"""s that decoders are given, once their streams are there, to connect to the EMG: LSL does not tell who listens, and steps that
came sooner would get no answer."""


class LiveLoop(Threaded, ABC):
    """Steps people at the pace of the experiment's clock, in a thread of its own.

    A constructor sets `info`, `_people`, `_clock` and `requests`.
    """

    info: Info
    requests: Requests
    _people: Participants
    _clock: Clock

    def __init__(self, who: str, experiment: Experiment, run_dir: str | Path | None):
        """
        Args:
          who: what messages call it, and its thread.
          experiment: what to run.
          run_dir: where logs and status go; None: nowhere.
        """
        super().__init__(**{who: self._run})
        use_loopback()
        self.experiment = experiment
        self.error: BaseException | None = None
        """what ended the loop, if something went wrong"""
        self._who = who
        self._run_dir = make_run_dir(run_dir) if run_dir else None
        self._phase = "building"
        self._steps = self._overruns = self._diverged = 0
        self._clock_moved_s = self._began = self._ended = 0.0
        self._watchers: list[Callable[[StepRecord], None]] = []
        self._outflow: Outflow | None = None
        self._board = Board(self._run_dir, "participant", self.status)

    # --- to be filled in -------------------------------------------------------------------------------------------

    @abstractmethod
    def status(self) -> dict[str, Any]:
        """Where the session stands: JSON-able numbers and strings."""

    @abstractmethod
    def _step(self, tick: Tick) -> None:
        """Makes a control step; the base counts it."""

    @abstractmethod
    def _event(self, text: str) -> None:
        """Publishes and records what happened, for everybody whose streams there are."""

    @abstractmethod
    def _awaited(self) -> dict[str, Inbox]:
        """Whose decoders the session waits for: participant's id -> where its predictions arrive."""

    @abstractmethod
    def _discharges(self) -> int:
        """Discharges sent so far, of the participant who sent most."""

    def _time_moved(self, seconds: float) -> None:
        """After a pause the time line was moved by this."""

    def _over(self) -> None:
        """The loop has ended, well or not."""

    # --- parts -----------------------------------------------------------------------------------------------------

    def _warm_up(self) -> None:
        """Compiles and touches everything once, so that no step of the session has to, requests included."""
        people = self._people
        people.reset([self.experiment.seed] * people.participants)
        fresh = people.save()
        people.set_target(np.ones(len(FINGERS)))
        for _ in range(3):
            people.discharges(people.act())
            people.move()
        people.follow_reference()
        people.restore(fresh)

    def _make_clock(self, answered: Callable[[float, float], bool] | None, answers: Callable[[], int]) -> Clock:
        """The experiment's clock.

        Args:
          answered: for lockstep, waits for an answer, see `LockstepClock`; None: nobody outside the process answers, and there
            is nothing to wait for.
          answers: how many there were so far.
        """
        period_s, settings = 1.0 / self.experiment.participant.control_hz, self.experiment.clock
        if settings.kind == "realtime":
            return RealtimeClock(period_s)
        if settings.kind == "free" or answered is None:
            return SimulatedClock(period_s)
        return LockstepClock(period_s, answered, answers, settings.timeout_s, settings.behind_s, settings.unanswered)

    # --- life ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ends after the step at hand, which waits for no answer any more."""
        self._stop.set()
        awaited = self._awaited().values()
        for inbox in awaited:
            inbox.hurry(True)
        super().stop()
        for inbox in awaited:
            inbox.hurry(False)

    @property
    def finished(self) -> bool:
        """Whether the session's duration has been reached."""
        return self._steps >= round(self.experiment.duration_s * self.experiment.participant.control_hz)

    def subscribe(self, watcher: Callable[[StepRecord], None]) -> None:
        """`watcher` is called with each step's record from the loop's thread: it must return at once.

        Of a population, with those of all who are published, one after the other.
        """
        self._watchers.append(watcher)

    # --- figures ---------------------------------------------------------------------------------------------------

    @property
    def _time_s(self) -> float:
        """Of the session, by its steps."""
        return self._steps / self.experiment.participant.control_hz

    def _pace(self) -> dict[str, Any]:
        """The part of the status that tells of steps and time."""
        return {
            "time_s": self._time_s,
            "steps": self._steps,
            "overruns": self._overruns,
            "clock": self.experiment.clock.kind,
            "wall_s": round((self._ended or pylsl.local_clock()) - self._began, 3) if self._began else 0.0,
            "timeouts": self._clock.timeouts,
            "clock_moved_s": round(self._clock_moved_s, 6),
            "diverged": self._diverged,
        }

    # --- the loop --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        sys.setswitchinterval(5e-4)  # s: other threads must not hold the loop up for Python's usual 5 ms
        gc.collect()
        gc.freeze()  # start-up's objects are not looked at again: a full collection would cost many steps
        try:
            self._wait_for_decoders()
            self._phase = "running"
            self._begin()
            self._event("session start")
            while not self._stop.is_set() and not self.finished:
                if self.requests.paused:
                    self._pause()
                else:
                    self._make_step()
            self._phase = "finished" if self.finished else "stopped"
            self._event("session end")
        except Exception as error:  # the thread's last word: it must reach the node and the report
            self.error = error
            self._phase = "failed"
            log.exception(f"the {self._who} stopped")
            self._board.say(f"the {self._who} stopped: {type(error).__name__}: {error}")
        finally:
            gc.unfreeze()
            self._ended = pylsl.local_clock()
            self._over()

    def _wait_for_decoders(self) -> None:
        """As long as the experiment allows; then for the session's own listeners."""
        awaited, expected = self._awaited(), self.experiment.decoder is not None
        wait = self.experiment.participant.wait_for_decoder_s if expected else 0.0
        self._phase = "waiting for a decoder"
        until = time.monotonic() + wait
        while not all(inbox.source for inbox in awaited.values()) and time.monotonic() < until:
            if self._stop.wait(0.05):
                break
        listening = time.monotonic() + CONNECT_S
        silent = [name for name, inbox in awaited.items() if not inbox.source]
        if silent and not self._stop.is_set():
            names = ", ".join(f"'{name}_prediction'" for name in silent)
            reason = f"no stream {names} after {wait:g} s" if expected else "no decoder in the experiment"
            self._board.say(f"{reason}: running open loop until predictions come")
        if awaited:
            self._phase = "waiting for the session to listen"
            wait_until_heard(self._run_dir, self._stop)
        if expected and len(silent) < len(awaited):
            self._stop.wait(max(0.0, listening - time.monotonic()))
        if self._outflow is None and self.experiment.clock.kind != "realtime" and recorded(self._run_dir):
            self._outflow = Outflow()
        self._open_loop(silent)

    def _open_loop(self, silent: Sequence[str]) -> None:
        """The session starts without these participants' decoders."""
        if silent:
            self._event("open loop")

    def _begin(self) -> None:
        """Starts the clock, or goes on after a stop, as if nothing had been between."""
        if self._began:
            self._go_on()
            self._began += pylsl.local_clock() - self._ended
        else:
            self._clock.start()
            self._began = pylsl.local_clock()
        self._ended = 0.0

    def _go_on(self) -> None:
        """The next step is due now; where time went on by itself, the time line is moved."""
        if moved := self._clock.resume():
            self._clock_moved_s += moved
            self.requests.moved(moved)
            self._time_moved(moved)
            self._event(f"clock moved {moved:.3f}")

    def _pause(self) -> None:
        """Makes no step until it is resumed."""
        self._phase = "paused"
        self._event("pause")
        while self.requests.paused and not self._stop.wait(0.02):
            pass
        self._go_on()
        self._event("resume")
        self._phase = "running"

    def _make_step(self) -> None:
        tick = self._clock.wait()
        if tick.skipped_s:
            self._clock_moved_s += tick.skipped_s
            self.requests.moved(tick.skipped_s)
            self._board.say(f"the process was held up for {tick.skipped_s:.1f} s: the time line was moved")
            self._event(f"clock moved {tick.skipped_s:.3f}")
        self._step(tick)
        self._steps += 1
        if self._outflow and (wait := self._outflow.wait_s(self._discharges())):
            self._stop.wait(wait)
