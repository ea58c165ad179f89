"""Writes LSL streams into an XDF file with the LabRecorder's own recording code (the package `labrecorder`).

What labrecorder 1.0.0rc0 does, as measured: it looks into its inlets every 0.5 s and drops what is there when it is told to
stop, so a stop needs a pause before it; it ends up to 7 s after that (its threads for clock offsets sleep for 5 s and may wait
2 s for an answer), and only then writes footers and the last few kilobytes; told to take no clock offsets it crashes. A stream
whose outlet comes back under the same source_id goes on in the same file after 1 to 2 s; one without source_id ends. Its own
watching for streams that come later looks every 5 s: what is sent in between is lost, so it is not used here.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pylsl

from myoloop.errors import MyoloopError
from myoloop.streams.network import LOOPBACK, use_loopback

DRAIN_S = 1.2
"""s between the last sample and the stop: two looks into the inlets, and some for a busy machine."""
OPEN_S = 15.0
"""s within which all streams must be open: LabRecorder waits for 5 s for each, for all at the same time."""
ANSWER_S = 2.0
"""s that an outlet may take to describe itself."""
STARTED = "Started data collection for stream "
"""How LabRecorder says, on stdout, that it listens to a stream."""


def why_not() -> str | None:
    """Why nothing can be recorded here; None if it can."""
    if importlib.util.find_spec("labrecorder") is not None:
        return None
    if sys.version_info >= (3, 13):
        return f"labrecorder has no package for Python {platform.python_version()}: 3.11 and 3.12 have one"
    return "labrecorder is not installed: `pip install myoloop[record]`"


class Said:
    """What LabRecorder prints on this process's stdout, which is all that it tells; the lines go on to stderr."""

    def __init__(self) -> None:
        self.started = 0
        """streams to which it has begun to listen"""
        read, write = os.pipe()
        os.dup2(write, 1)
        os.close(write)
        threading.Thread(target=self._read, args=(read,), name="said", daemon=True).start()

    def _read(self, read: int) -> None:
        with os.fdopen(read, errors="replace") as lines:
            for line in lines:
                self.started += line.count(STARTED)
                sys.stderr.write(line)


class XdfWriter:
    """One XDF file that grows until it is closed. Use it in a process of its own: it takes stdout and may crash."""

    def __init__(self, path: Path, streams: Sequence[pylsl.StreamInfo], said: Said, stop: Callable[[], bool]):
        """Comes back when LabRecorder listens to all streams, or after OPEN_S, or when `stop` says so.

        Args:
          path: of the file, which must not exist.
          streams: what to record.
          said: this process's ear.
          stop: whether to wait no longer.
        """
        _same_network()
        import labrecorder

        self.path = path
        before, until = said.started, time.monotonic() + OPEN_S
        self._recording: Any = labrecorder.Recording(str(path), list(streams))
        self._recording.__enter__()
        while said.started < before + len(streams) and time.monotonic() < until and not stop():
            time.sleep(0.01)
        self.whole = said.started >= before + len(streams)
        """whether all streams were being listened to in time"""
        self.closed = False

    def close(self) -> None:
        """Ends the recording and comes back when the file is whole. What was sent less than DRAIN_S before may be missing."""
        self._recording.request_stop()
        self._recording.__exit__(None, None, None)
        self._recording = None  # its destructor joins the threads and closes the file
        self.closed = True


def answers(info: pylsl.StreamInfo) -> bool:
    """Whether an outlet that was found is still there: LabRecorder would wait for ever for one that is not."""
    inlet = pylsl.StreamInlet(info, recover=False)
    try:
        inlet.info(timeout=ANSWER_S)
    except (TimeoutError, pylsl.util.LostError):
        return False
    return True


def next_file(path: Path) -> Path:
    """The path if nothing is there, else `<stem>-2.xdf`, `-3` and so on."""
    number = 1
    candidate = path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def _same_network() -> None:
    """labrecorder brings a liblsl of its own, which hears of a configuration by file only."""
    if not use_loopback():
        return
    handle, name = tempfile.mkstemp(prefix="myoloop-lsl-", suffix=".cfg")
    with os.fdopen(handle, "w") as file:
        file.write(LOOPBACK)
    atexit.register(Path(name).unlink, missing_ok=True)
    os.environ["LSLAPICFG"] = name


def refuse_without_labrecorder() -> None:
    """Raises MyoloopError if nothing can be recorded here."""
    if reason := why_not():
        raise MyoloopError(f"recording is off: {reason}.")
