"""Sends a recording again over LSL, in its own timing: a decoder can be run on it as on a participant."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pylsl

from myoloop.errors import MyoloopError
from myoloop.live.threaded import Threaded
from myoloop.streams.network import use_loopback
from myoloop.streams.outlets import FLUSH_S, refuse_taken_id, stream_name
from myoloop.streams.xdf import XdfStream, read_xdf

PUSH_S = 0.02
"""s between pushes, as a participant sends."""
ANSWERS = ("prediction", "feedback")
"""Streams that are left out unless asked for: a decoder that listens to a replay makes its own."""


class Due(NamedTuple):
    """A stream and when its samples are due."""

    outlet: pylsl.StreamOutlet
    samples: np.ndarray
    at: np.ndarray
    """(n,) s after the begin of the replay, ascending"""


class LiveReplay(Threaded):
    """Runs one recording in a thread of its own, until its end or until stopped."""

    def __init__(
        self,
        path: str | Path,
        speed: float = 1.0,
        participant_id: str | None = None,
        answers: bool = False,
        wait_s: float = 60.0,
    ):
        """
        Args:
          path: XDF file or run folder.
          speed: times real time; time stamps follow the wall clock: at 2, samples are nearer to each other than recorded.
          participant_id: id of the streams that are sent, instead of the recorded one.
          answers: send the recorded predictions, and what the participant perceived, too.
          wait_s: how long to wait for somebody who listens to the EMG before beginning.

        Raises:
          MyoloopError: no recording of a participant, a speed that is none, or its id is taken.
        """
        if not 0.01 <= speed <= 100:
            raise MyoloopError(f"speed is {speed:g}: expected 0.01 to 100, 1 being the speed of the recording.")
        use_loopback()
        session = read_xdf(Path(path))
        session.need("emg")
        self.participant = participant_id or session.participant
        refuse_taken_id(self.participant)
        self.streams = {
            name: stream
            for name, stream in session.streams.items()
            if len(stream.stamps) and (answers or name not in ANSWERS)
        }
        begin = min(float(stream.stamps.min()) for stream in self.streams.values())
        end = max(float(stream.stamps.max()) for stream in self.streams.values())
        self.length_s = (end - begin) / speed
        self._wait_s = wait_s
        self._due = [self._prepare(name, stream, begin, speed) for name, stream in self.streams.items()]
        self.sent = dict.fromkeys(self.streams, 0)
        """samples sent so far, by stream"""
        self.begun_s: float | None = None
        """`local_clock` of the recording's first stamp, once it has begun"""
        self.error: BaseException | None = None
        super().__init__(replay=self._run)

    def close(self) -> None:
        """Stops and takes the streams off the network."""
        self.stop()
        if any(due.outlet.have_consumers() for due in self._due):
            time.sleep(FLUSH_S)
        self._due.clear()

    def _prepare(self, name: str, stream: XdfStream, begin: float, speed: float) -> Due:
        order = np.argsort(stream.stamps, kind="stable")
        info = _outlet_info(stream, stream_name(self.participant, name))
        return Due(pylsl.StreamOutlet(info), stream.samples[order], (stream.stamps[order] - begin) / speed)

    def _run(self) -> None:
        try:
            listened = next(due.outlet for name, due in zip(self.streams, self._due, strict=True) if name == "emg")
            until = time.monotonic() + self._wait_s
            while not listened.have_consumers() and time.monotonic() < until:
                if self._stop.wait(0.05):
                    return
            self._send()
        except Exception as error:  # the thread's last word
            self.error = error

    def _send(self) -> None:
        self.begun_s = begin = pylsl.local_clock()
        sent = [0] * len(self._due)
        while not self._stop.is_set():
            now = pylsl.local_clock() - begin
            for k, (name, due) in enumerate(zip(self.streams, self._due, strict=True)):
                upto = int(np.searchsorted(due.at, now, side="right"))
                if upto > sent[k]:
                    _push(due, slice(sent[k], upto), begin)
                    sent[k] = self.sent[name] = upto
            if all(count == len(due.at) for count, due in zip(sent, self._due, strict=True)):
                return
            self._stop.wait(PUSH_S)


def _push(due: Due, part: slice, begin: float) -> None:
    samples = due.samples[part]
    chunk = samples.tolist() if samples.dtype == object else np.ascontiguousarray(samples)
    due.outlet.push_chunk(chunk, (begin + due.at[part]).tolist())


def _outlet_info(stream: XdfStream, name: str) -> pylsl.StreamInfo:
    """The recorded stream's description under a new name."""
    fmt = str(stream.about("channel_format") or "float32")
    info = pylsl.StreamInfo(name, stream.kind, stream.samples.shape[1], stream.rate_hz, fmt, f"myoloop_{name}")
    desc = stream.info.get("desc")
    if isinstance(desc, list) and desc and isinstance(desc[0], Mapping):
        _copy(desc[0], info.desc())
    return info


def _copy(content: Mapping[str, Any], element: Any) -> None:
    for key, values in content.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, Mapping):
                _copy(value, element.append_child(str(key)))
            else:
                element.append_child_value(str(key), "" if value is None else str(value))


def replay_with_bar(replay: LiveReplay, stop: Callable[[], bool]) -> None:
    """Runs a replay to its end with a progress bar.

    Raises:
      MyoloopError: it stopped before its end.
    """
    from rich.progress import Progress

    replay.start()
    try:
        with Progress(transient=True) as bar:
            task = bar.add_task("waiting for a listener", total=replay.length_s)
            while replay.running and not stop():
                if replay.begun_s is not None:
                    bar.update(task, description="replaying", completed=pylsl.local_clock() - replay.begun_s)
                time.sleep(0.1)
    finally:
        replay.close()
    if replay.error is not None:
        raise MyoloopError(f"the replay stopped: {replay.error}")
    print(json.dumps({"participant": replay.participant, "sent": replay.sent}))
