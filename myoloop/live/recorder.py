"""Records every LSL stream of a session into XDF, in a process of its own."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pylsl

from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment
from myoloop.live.board import OVER, RECORDING, Board, log, make_run_dir, read_status
from myoloop.live.threaded import Threaded
from myoloop.streams.network import use_loopback
from myoloop.streams.outlets import PARTICIPANT_STREAMS, STREAM_TYPES, stream_name
from myoloop.streams.xdf import SESSION_FILE
from myoloop.streams.xdf_writer import DRAIN_S, Said, XdfWriter, answers, next_file, refuse_without_labrecorder

CLOSE_S = 12.0
"""s that files may take to close: LabRecorder takes up to 7, and for ever if a stream vanished before it was open."""
STILL_S = 5.0
"""s for which a file may stay as it is while the participant sends: LabRecorder writes twice a second, in blocks of 8 kB."""
HELD_UP_S = 1.0
"""s between two looks that say that this process was stopped or starved."""
ROOM_BYTES = 1_000_000
"""A disk with less is full: LabRecorder writes in blocks."""
BEGUN = ("waiting for the session to listen", "running", "paused", *OVER)
"""Phases of the participant in which no decoder is awaited any more."""


class LiveRecorder(Threaded):
    """Begins when the participant's streams, and the decoder's if one is awaited, are there; goes on until stopped.

    An outlet that comes back under its source_id goes on in the same file (LabRecorder sees to that); any other that appears
    later gets a file of its own beside it.
    """

    def __init__(self, experiment: Experiment, run_dir: str | Path):
        """
        Args:
          experiment: whose streams to record.
          run_dir: where the files and the status go.

        Raises:
          MyoloopError: labrecorder is not there, the folder cannot be written, or another recorder writes into it.
        """
        refuse_without_labrecorder()
        use_loopback()
        many, name = experiment.population, experiment.participant.id
        self._participants = many.published(name) if many else [name]
        self._awaited = experiment.decoder is not None
        self._wait_s = experiment.participant.wait_for_decoder_s
        self._run_dir = make_run_dir(run_dir)
        refuse_second(self._run_dir)
        self._board = Board(self._run_dir, "recorder", self.status)
        self._said = Said()
        self._own = {stream_name(name, stream) for name in self._participants for stream in PARTICIPANT_STREAMS}
        self._predictions = {stream_name(name, "prediction") for name in self._participants}
        self._writers: list[XdfWriter] = []
        self._known: set[str] = set()  # uids
        self._recovered: set[tuple[str, str]] = set()  # (name, source_id) that LabRecorder finds again
        self._streams: list[str] = []
        self._phase = "waiting for streams"
        self._began: float | None = None
        self._size, self._grew, self._looked, self._steps = -1, 0.0, 0.0, 0
        self._control_hz = experiment.participant.control_hz
        self._stuck = False
        super().__init__(recorder=self._run)
        self.error: BaseException | None = None
        self._board.start()

    def status(self) -> dict[str, Any]:
        """Where the recording stands: JSON-able numbers and strings."""
        return {
            "phase": self._phase,
            "files": [writer.path.name for writer in self._writers],
            "streams": list(self._streams),
            "bytes": max(0, self._size),
            "stuck": self._stuck,
            "cpu_s": round(time.process_time(), 2),
        }

    def close(self) -> None:
        """Takes what has been sent, closes the files, and lets the participant go."""
        self.stop()
        if self._writers:
            self._phase = "closing"
            time.sleep(DRAIN_S)
            closing = [threading.Thread(target=writer.close, daemon=True) for writer in self._writers]
            for thread in closing:
                thread.start()
            until = time.monotonic() + CLOSE_S
            for thread in closing:
                thread.join(max(0.0, until - time.monotonic()))
            self._look_at_size()
        self._phase = "closed"
        (self._run_dir / RECORDING).unlink(missing_ok=True)
        self._board.close()
        if hung := [writer.path.name for writer in self._writers if not writer.closed]:
            log.warning("%s: LabRecorder waits for a stream that is gone; what was recorded is kept", ", ".join(hung))
            os._exit(0)  # its thread would keep the process from ending

    def _run(self) -> None:
        mine = " or ".join(f"name='{name}'" for name in sorted(self._own | self._predictions))
        # in parentheses: liblsl puts its own "session_id='...' and" before it
        resolver = pylsl.ContinuousResolver(pred=f"({mine} or type='{STREAM_TYPES['prediction']}')")
        try:
            while not self._stop.wait(0.05):
                new = [info for info in resolver.results() if info.uid() not in self._known and self._meant(info)]
                if not self._writers and not self._complete({info.name() for info in new}):
                    continue
                new = [info for info in new if answers(info)]
                if not self._writers and not self._own <= {info.name() for info in new}:
                    continue
                if fresh := [info for info in new if (info.name(), info.source_id()) not in self._recovered]:
                    self._record(fresh)
                self._known |= {info.uid() for info in new}
                self._watch_size()
        except Exception as error:  # the thread's last word: it must reach the session
            self.error = error
            log.exception("the recorder stopped")
            self._board.say(f"the recorder stopped: {type(error).__name__}: {error}")

    def _meant(self, info: pylsl.StreamInfo) -> bool:
        """The session's streams, and a decoder's that is not named as another participant's: as PredictionInbox has it."""
        name = info.name()
        return name in self._own or name in self._predictions or (
            info.type() == STREAM_TYPES["prediction"] and not name.endswith("_prediction")
        )  # fmt: skip

    def _complete(self, there: set[str]) -> bool:
        """Whether all that a session begins with is there."""
        if not self._own <= there:
            return False
        now = time.monotonic()
        self._began = self._began or now
        status = read_status(self._run_dir, "participant")
        over = status["phase"] in BEGUN if status else now - self._began > self._wait_s
        return over or not self._awaited or len(there - self._own) >= len(self._participants)

    def _record(self, infos: list[pylsl.StreamInfo]) -> None:
        self._phase = "opening" if not self._writers else self._phase
        path = next_file(self._run_dir / SESSION_FILE)
        writer = XdfWriter(path, infos, self._said, self._stop.is_set)
        names = sorted(info.name() for info in infos)
        if not writer.whole and not self._stop.is_set():
            self._board.say(f"{path.name}: not all of {', '.join(names)} could be opened; see logs/recorder.log")
        if self._writers:
            self._board.say(f"{', '.join(names)} appeared later: recorded in {path.name}")
        self._writers.append(writer)
        self._streams += names
        self._recovered |= {(info.name(), info.source_id()) for info in infos if info.source_id()}
        self._phase = "recording"
        self._grew = time.monotonic()

    def _watch_size(self) -> None:
        """Sees to it that the files grow while samples are sent; LabRecorder itself says nothing if they do not.

        A full disk is said once. If there is room, LabRecorder hangs: its waits go by the wall clock, and if that is set back
        by an hour they end an hour late. Then the process ends with code 1; the session starts another, with another file.
        """
        now, status = time.monotonic(), read_status(self._run_dir, "participant") or {}
        steps = status.get("steps", 0)
        held_up, self._looked = now - self._looked > HELD_UP_S, now  # this process itself: then LabRecorder was, too
        if self._look_at_size() or held_up or status.get("phase") != "running":
            self._grew, self._steps = now, steps
        elif now - self._grew > STILL_S and not self._stuck:
            if not has_room(self._run_dir, self._size):
                self._stuck = True
                self._board.say(
                    f"{SESSION_FILE} does not grow any more after {self._size / 1e6:.1f} MB: is the disk full? "
                    "The session goes on."
                )
            elif steps - self._steps > STILL_S * self._control_hz / 2:  # else it is the participant that stands still
                self._board.say(f"LabRecorder hangs: {SESSION_FILE} does not grow. Was the wall clock set back?")
                self._board.write()
                os._exit(1)  # its threads cannot be ended

    def _look_at_size(self) -> bool:
        """Whether the files have grown since the last look."""
        size = 0
        for writer in self._writers:
            try:
                size += writer.path.stat().st_size
            except OSError:
                continue
        grew, self._size = size > self._size, size
        return grew


def has_room(folder: Path, size: int) -> bool:
    """Whether a file in the folder could grow beyond this size."""
    probe = folder / f".probe{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.truncate(size + 1)  # refused beyond a limit on files
        return shutil.disk_usage(folder).free > ROOM_BYTES
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)


def refuse_second(run_dir: Path) -> None:
    """Raises MyoloopError if a recorder that is alive writes into the folder."""
    there = read_status(run_dir, "recorder") or {}
    pid = there.get("pid", 0)
    if pid and pid != os.getpid() and there.get("phase") != "closed" and _alive(pid):
        raise MyoloopError(
            f"the session in {run_dir} is recorded already, by process {pid}: `myoloop run` starts a recorder by itself."
        )


def _alive(pid: int) -> bool:
    """Whether a process of that number is there, and is a `myoloop recorder`."""
    try:
        return "recorder" in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
