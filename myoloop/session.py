"""A session: an experiment in, its processes supervised, a run folder with a report out."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from myoloop.decoder_switch import DecoderSwitch, keep_status
from myoloop.experiment import Experiment, save_experiment
from myoloop.live.board import RECORDING, WITNESS_READY, make_run_dir, read_status, steps_over
from myoloop.liveline import LiveLine
from myoloop.processes import BAD_INPUT, CLOSING_S, Backoff, Child, command_for, environment_for, listed, parts_of
from myoloop.streams.bag import refuse_without_mcap
from myoloop.streams.network import use_loopback
from myoloop.streams.witness import EmgWitness
from myoloop.streams.xdf_writer import why_not

VIEWER_S = (2.0, 1.0)
"""Patience with the viewer at the end: it has nothing to keep."""

STEPPING_S = 6.0
"""How long the participant may take to make its last step."""

FULL_BYTES = 200_000
"""A disk with less is full: about a second of a session."""

ANSWERING_S = 0.3
"""How long the decoder may answer the last chunks; one that is slower has not answered them in time anyway."""

START_UP_S = 180.0
"""How long the participant may take to get ready (the first start compiles)."""

log = logging.getLogger("myoloop")


class Session:
    """Runs one experiment from start to report.

    With `spawn=False` the processes are somebody else's (a launch file's): the session only watches and reports.
    """

    def __init__(
        self,
        experiment: Experiment,
        runs: str | Path = "runs",
        run_dir: str | Path | None = None,
        spawn: bool = True,
        console: Console | None = None,
    ):
        """
        Args:
          experiment: what to run.
          runs: folder that gets a new run folder and the link `latest`.
          run_dir: this very folder instead.
          spawn: start the processes.
          console: where the live line goes.

        Raises:
          MyoloopError: the run folder cannot be written, or ROS is asked for and not there.
        """
        use_loopback()
        self.experiment = experiment
        self.console = console or Console()
        if run_dir is None:
            stamp = time.strftime("%Y%m%d-%H%M%S")
            self.run_dir = make_run_dir(fresh(Path(runs) / f"{stamp}-{experiment.name}"))
        else:
            self.run_dir = make_run_dir(run_dir)
        self._config = self.run_dir / "config.yaml"
        save_experiment(experiment, self._config)
        self._saved = self._config.read_bytes()
        logs = make_run_dir(self.run_dir / "logs")
        self._parts: dict[str, Child] = {}
        if spawn:
            env = environment_for(experiment)
            for part in parts_of(experiment):
                command = command_for(part, experiment, self._config, self.run_dir)
                self._parts[part] = Child(part, command, logs / f"{part}.log", env)
        self._unrecorded = why_not() if experiment.record.xdf else None
        if experiment.record.xdf and not self._unrecorded:
            env = environment_for(experiment.model_copy(update={"ros": False}))
            command = command_for("recorder", experiment, self._config, self.run_dir)
            self._parts["recorder"] = Child("recorder", command, logs / "recorder.log", env, CLOSING_S)
            (self.run_dir / RECORDING).touch()
        if experiment.record.mcap:
            refuse_without_mcap()
            (self.run_dir / RECORDING).touch()
            if spawn:
                command = command_for("bag", experiment, self._config, self.run_dir)
                env = environment_for(experiment)
                self._parts["bag"] = Child("bag", command, logs / "bag.log", env, CLOSING_S)
        if experiment.view.on and spawn:
            env = environment_for(experiment.model_copy(update={"ros": False}))
            command = command_for("viewer", experiment, self._config, self.run_dir)
            self._parts["viewer"] = Child("viewer", command, logs / "viewer.log", env, VIEWER_S)
        self._switch = DecoderSwitch(experiment, self.run_dir, self._parts)
        if run_dir is None:
            link_latest(Path(runs), self.run_dir)
        self._stop = threading.Event()
        self._backoff = {name: Backoff() for name in self._parts}
        self._given_up: set[str] = set()
        self._told: Counter[str] = Counter()
        self._disk_full = False
        self.failure: str | None = None
        """why the session ended early, if it did"""

    def stop(self) -> None:
        """Ends the session soon; callable from a signal handler."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether somebody ended it."""
        return self._stop.is_set()

    def run(self) -> Path:
        """Runs to the end or until stopped, then writes the report; returns the run folder.

        Raises:
          MyoloopError: the report could not be written (its main figures are printed all the same).
        """
        before = {n: signal.signal(n, lambda *_: self.stop()) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            witness = EmgWitness(next(iter(listed(self.experiment)), self.experiment.participant.id))
            try:
                for child in self._parts.values():
                    child.start()
                self._watch(witness)
            finally:
                self._end(witness)
            return self.run_dir
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _watch(self, witness: EmgWitness) -> None:
        begin = time.monotonic()
        ready = self.run_dir / WITNESS_READY
        with LiveLine(self.experiment, self.console) as line:
            if self._unrecorded:
                line.say(f"recording is off: {self._unrecorded}")
            while not self._stop.wait(0.2):
                status = read_status(self.run_dir, "participant")
                decoder = read_status(self.run_dir, "decoder") or {}
                recorders = {name: read_status(self.run_dir, name) for name in ("recorder", "bag")}
                if witness.connected.is_set() and not ready.exists() and self._records(recorders):
                    ready.touch()
                self._relay("participant", status, line)
                for name, recorder in recorders.items():
                    self._relay(name, recorder, line)
                self._relay("viewer", read_status(self.run_dir, "viewer"), line)
                if self._switch.follow(status, line.say):
                    self._given_up.discard("decoder")
                    self._backoff["decoder"] = Backoff()
                moved = (status or {}).get("clock_moved_s", 0.0) * witness.rate_hz
                listeners = len(decoder.get("each", {})) or 1
                missing = max(witness.missing - moved, decoder.get("samples_lost", 0) - listeners * moved)
                line.show(status, max(0, round(missing)))
                if status and status["phase"] in ("finished", "failed"):
                    if status["phase"] == "failed":
                        self.failure = str(status["message"])
                    return
                participant = self._parts.get("participant")
                if participant and not participant.running:
                    if participant.exit_code:
                        self.failure = f"the participant ended with code {participant.exit_code}"
                        line.say(f"{self.failure}:\n{participant.last_words()}")
                    return
                if (status is None or status["phase"] == "ready") and time.monotonic() - begin > START_UP_S:
                    self.failure = f"the participant was not ready after {START_UP_S:g} s; see {self.run_dir / 'logs'}"
                    line.say(self.failure)
                    return
                for name in list(self._parts):
                    if name != "participant":
                        self._keep(name, line)
                self._look_at_disk(line)

    def _keep(self, name: str, line: LiveLine) -> None:
        """Starts a process again if it ended: at once the first time, then with growing pauses."""
        child = self._parts[name]
        if child.running or name in self._given_up:
            return
        if name.startswith("software") and child.exit_code == 0:
            self._given_up.add(name)
            line.say("the decoder software has ended" + name.removeprefix("software").replace("-", " for "))
            return
        if child.exit_code == BAD_INPUT:
            self._given_up.add(name)
            line.say(f"the {name} cannot run, and will not be started again:\n{child.last_words(1)}")
            return
        if not self._backoff[name].due(child.lived_s):
            return
        line.say(f"the {name} ended with code {child.exit_code}; starting it again\n{child.last_words(1)}")
        keep_status(self.run_dir, name)
        child.start()

    def _look_at_disk(self, line: LiveLine) -> None:
        """Says once that the disk is full: the processes can no longer write it down."""
        if self._disk_full:
            return
        with contextlib.suppress(OSError):
            self._disk_full = shutil.disk_usage(self.run_dir).free < FULL_BYTES
        if self._disk_full:
            line.say(f"the disk with {self.run_dir} is full: log, status and recording stop; the session goes on")

    def _records(self, statuses: dict[str, dict[str, Any] | None]) -> bool:
        """Whether the recorders listen, or there are none, or they are not to be waited for."""
        for name, status in statuses.items():
            recorder = self._parts.get(name)
            awaited = recorder.running if recorder is not None else name == "bag" and self.experiment.record.mcap
            if awaited and not (status and status["phase"] == "recording"):
                return False
        return True

    def _relay(self, name: str, status: dict[str, Any] | None, line: LiveLine) -> None:
        for message in (status or {}).get("messages", [])[self._told[name] :]:
            line.say(message)
            self._told[name] += 1

    def _end(self, witness: EmgWitness) -> None:
        """Ends the processes, then writes what was seen."""
        self._end_recording()
        for child in self._parts.values():
            child.interrupt()
        for child in self._parts.values():
            child.end()
        witness.close()
        self._keep_config()
        from myoloop.report import STRETCH, write_report  # loads plotting libraries: not before the loop is over

        samples, stamps = witness.stretch()
        summary = {
            **witness.summary(),
            "decoder_restarts": sum(max(0, child.starts - 1) for child in self._switch.decoders()),
            "failure": self.failure,
        }
        try:
            (self.run_dir / "witness.json").write_text(json.dumps(summary), encoding="utf-8")
            np.savez(self.run_dir / STRETCH, emg_uv=samples, time=stamps)
        except OSError as error:
            self.console.print(f"[red]{self.run_dir} cannot be written: {error.strerror}[/red]")
        write_report(self.run_dir, summary, (samples, stamps), self.console)

    def _keep_config(self) -> None:
        """The report is about what ran, also if somebody has written into the run folder meanwhile."""
        try:
            if self._config.read_bytes() == self._saved:
                return
        except OSError:
            pass
        with contextlib.suppress(OSError):  # the report will say what cannot be read
            self._config.write_bytes(self._saved)
            self.console.print("config.yaml was changed while the session ran: it is written again")

    def _end_recording(self) -> None:
        """Ends the participant's steps, the decoder's answers, then the recording, while all streams are open; lets them go."""
        participant, decoder = self._parts.get("participant"), self._parts.get("decoder")
        recorders = [child for name, child in self._parts.items() if name in ("recorder", "bag") and child.running]
        if recorders:
            if participant is not None:
                participant.interrupt()
            until = time.monotonic() + STEPPING_S
            while time.monotonic() < until and (participant is None or participant.running):
                if steps_over(self.run_dir):
                    break
                time.sleep(0.05)
            if decoder is not None:
                time.sleep(ANSWERING_S)
                decoder.interrupt()  # it answers no more, and keeps its stream open
            for recorder in recorders:
                recorder.interrupt()
            import myoloop.report  # noqa: F401  takes seconds, and so does the recorder

            for recorder in recorders:
                recorder.end()
        (self.run_dir / RECORDING).unlink(missing_ok=True)


def fresh(path: Path) -> Path:
    """The path, or the path with a number behind it if it exists."""
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
    return candidate


def link_latest(runs: Path, run_dir: Path) -> None:
    latest = runs / "latest"
    partial = runs / f".latest{os.getpid()}"
    try:
        if latest.is_dir() and not latest.is_symlink():
            return  # somebody's own folder
        partial.symlink_to(run_dir.name)
        partial.replace(latest)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        log.warning("could not link %s to %s", latest, run_dir)
