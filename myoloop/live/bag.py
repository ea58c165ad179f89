"""Writes a participant's ROS topics into MCAP in a thread of its own; who hears the topics, a node, puts the messages in."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from myoloop import __version__
from myoloop.experiment import Experiment, load_experiment
from myoloop.live.board import Board, log, make_run_dir
from myoloop.live.threaded import Threaded
from myoloop.streams.bag import BAG_FILE, BagFile
from myoloop.streams.xdf_writer import next_file

WAITING_BYTES = 32_000_000
"""What may wait for the disk: about three minutes of a participant with 16 channels; more is dropped and counted."""
FLUSH_S = 1.0
"""How often what was written is closed into a chunk: a process that is killed loses no more than this."""
LOOK_S = 0.05
"""How often the thread looks for messages, s."""


class Waiting(NamedTuple):
    """A message on its way to the file."""

    topic: str
    data: bytes
    """serialized (CDR)"""
    received_ns: int
    sent_ns: int


class LiveBag(Threaded):
    """A session.mcap in the run folder, or session-2.mcap where there is one; takes messages between start and stop."""

    def __init__(self, experiment: Experiment, run_dir: str | Path):
        """
        Args:
          experiment: what is recorded; its name and seed stand in the file.
          run_dir: where the file and the status go.

        Raises:
          MyoloopError: mcap is not installed, or the folder cannot be written.
        """
        self.experiment = experiment
        folder = make_run_dir(run_dir)
        self._file = BagFile(next_file(folder / BAG_FILE))
        about = {"version": __version__, "experiment": experiment.name, "participant": experiment.participant.id}
        self._file.note("myoloop", about | {"seed": str(experiment.seed), "clock": experiment.clock.kind})
        self._board = Board(folder, "bag", self.status)
        self._queue: deque[Waiting] = deque()
        self._room = threading.Lock()
        self._waiting = 0  # bytes
        self._counts: dict[str, int] = {}
        self._written = 0
        self._heard = 0.0
        self._closed = False
        self._failed = ""
        self.dropped = 0
        """messages for which there was no room: the disk was too slow"""
        self.connected = False
        """whether the participant's topics are heard; to be set by who hears them"""
        super().__init__(bag=self._run)
        self.error: BaseException | None = None
        self._board.start()

    @classmethod
    def from_experiment(cls, path: str | Path, run_dir: str | Path, overrides: dict[str, Any] | None = None) -> LiveBag:
        """From a file, with dotted overrides as in `load_experiment`."""
        return cls(load_experiment(path, overrides), run_dir)

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    def add(self, topic: str, type_name: str) -> None:
        """A topic to record, before the start; MyoloopError if its definition is not installed."""
        self._file.add(topic, type_name)
        self._counts[topic] = 0

    def take(self, topic: str, data: bytes, received_ns: int, sent_ns: int) -> None:
        """A message of a topic that was added, serialized; comes back at once. While stopped, nothing is taken."""
        if not self.running or self._stop.is_set() or self._failed:
            return
        self._heard = time.monotonic()
        with self._room:
            if self._waiting + len(data) > WAITING_BYTES:
                self.dropped += 1
                return
            self._waiting += len(data)
        self._queue.append(Waiting(topic, data, received_ns, sent_ns))

    def quiet_s(self) -> float:
        """Seconds since the last message."""
        return time.monotonic() - self._heard

    def subscribe(self, watcher: Callable[[Any], None]) -> None:
        """Nothing is told to those who watch: what comes in is recorded, not passed on."""

    def status(self) -> dict[str, Any]:
        """Where the recording stands: JSON-able numbers and strings."""
        phase = "closed" if self._closed else "recording" if self.connected and self.running else "waiting for topics"
        level, message = ("error", self._failed) if self._failed else ("warn" if self.dropped else "ok", phase)
        return {
            "phase": phase,
            "level": level,
            "message": message,
            "file": self.path.name,
            "messages": dict(self._counts),
            "dropped": self.dropped,
            "bytes": self._written,
            "cpu_s": round(time.process_time(), 2),
        }

    def close(self) -> None:
        """Ends the file; a second call changes nothing."""
        self.stop()
        if self._closed:
            return
        try:
            self._file.close()
        except OSError as error:
            self._fail(error)
        self._written = self.path.stat().st_size if self.path.exists() else 0
        self._closed = True
        self._board.close()

    def _run(self) -> None:
        flushed = time.monotonic()
        try:
            while not self._failed:
                ending = self._stop.wait(LOOK_S)
                while self._queue:
                    message = self._queue.popleft()
                    with self._room:
                        self._waiting -= len(message.data)
                    self._file.write(*message)
                    self._counts[message.topic] += 1
                now = time.monotonic()
                if ending or now - flushed > FLUSH_S:
                    self._file.flush()
                    self._written = self.path.stat().st_size
                    flushed = now
                if ending:
                    return
        except OSError as error:
            self._fail(error)
        except Exception as error:  # the thread's last word: it must reach the node
            self.error = error
            log.exception("the recording of topics stopped")
            self._board.say(f"the recording of topics stopped: {type(error).__name__}: {error}")

    def _fail(self, error: OSError) -> None:
        """A full disk ends the recording and nothing else."""
        if not self._failed:
            self._failed = f"{self.path.name} cannot be written: {error.strerror}; what was written before can be read"
            self._board.say(self._failed)
