"""A decoder in real time: EMG in over LSL, predictions out, each stamped with the time of the EMG behind it."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pylsl

from myoloop.body.names import FINGERS
from myoloop.decoder.contract import check_against
from myoloop.decoder.runtime import OnnxDecoder
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment, load_experiment
from myoloop.live.board import Board, linger_while_recorded, log, make_run_dir, recorded, steps_over
from myoloop.live.threaded import Threaded
from myoloop.streams.follower import Block, StreamFollower
from myoloop.streams.network import use_loopback
from myoloop.streams.outlets import make_outlet, refuse_unfound, stream_name

FOUND_S = 2.5
"""s that LabRecorder takes to find a stream again that comes back under its source_id: 1 to 2, as measured."""


class PredictionRecord(NamedTuple):
    """One prediction, for those who watch (ROS nodes)."""

    lsl_time: float
    """when it was published, local_clock"""
    emg_time: float
    """time of the newest EMG sample behind it: its LSL stamp"""
    prediction: np.ndarray
    """(5,) probability of flexed"""
    compute_ms: float
    name: str


class LiveDecoder(Threaded):
    """Runs an ONNX model on a participant's EMG stream in a thread of its own, until stopped."""

    def __init__(self, experiment: Experiment, run_dir: str | Path | None = None, write_status: bool = True):
        """
        Args:
          experiment: whose `decoder` section names the model.
          run_dir: the session's folder, where the status goes; None: there is none.
          write_status: keep `decoder.status.json` there; false for one of several.

        Raises:
          MyoloopError: the experiment has no ONNX decoder, or the model breaks the contract.
        """
        use_loopback()
        settings = experiment.decoder
        if settings is None or settings.kind != "onnx" or settings.model is None:
            raise MyoloopError("the experiment has no decoder of kind 'onnx': nothing to run.")
        self.experiment = experiment
        self.name = settings.name
        self._decoder = OnnxDecoder(settings.model)
        self._run_dir = make_run_dir(run_dir) if run_dir else None
        self._participant = experiment.participant.id
        self._board = Board(self._run_dir if write_status else None, "decoder", self.status)
        self._outlet: pylsl.StreamOutlet | None = make_outlet(
            self._participant,
            "prediction",
            FINGERS,
            "probability of flexed",
            0.0,
            about={
                "decoder": self._decoder.name,
                "model_version": self._decoder.version,
                "stamp": "time of the newest EMG sample used",
            },
        )
        refuse_unfound([self._outlet.get_info()])
        # an answer that came sooner would be in no recording by LabRecorder, which takes so long to find the stream
        heard_late = experiment.record.xdf and recorded(self._run_dir)
        self._mute_until = time.monotonic() + FOUND_S if heard_late else 0.0
        self._watchers: list[Callable[[PredictionRecord], None]] = []
        super().__init__(decoder=self._run)
        self.error: BaseException | None = None
        self._received = 0
        self._lost = 0
        self._sent = 0
        self._last_stamp: float | None = None
        self._compute_ms: deque[float] = deque(maxlen=3000)
        self._source = ""
        self._uid = ""
        self._board.start()

    @classmethod
    def from_experiment(
        cls,
        path: str | Path,
        name: str | None = None,
        run_dir: str | Path | None = None,
        overrides: dict[str, Any] | None = None,
    ) -> LiveDecoder:
        """From a file, with dotted overrides as in `load_experiment`; `name` must be the decoder's if given."""
        experiment = load_experiment(path, overrides)
        if name and (experiment.decoder is None or experiment.decoder.name != name):
            known = experiment.decoder.name if experiment.decoder else "none"
            raise MyoloopError(f"{path} has no decoder named '{name}'. Known: {known}.")
        return cls(experiment, run_dir)

    def close(self) -> None:
        self.stop()
        if steps_over(self._run_dir):  # else it failed or was switched, and another is to take its place
            linger_while_recorded(self._run_dir)
        self._outlet = None  # liblsl takes the stream off the network when its last handle goes
        self._board.close()

    def subscribe(self, watcher: Callable[[PredictionRecord], None]) -> None:
        """`watcher` is called with each prediction from the loop's thread: it must return at once."""
        self._watchers.append(watcher)

    def status(self) -> dict[str, Any]:
        """Where the decoder stands: JSON-able numbers and strings."""
        level, message = ("ok", f"decoding {self._source}") if self._source else ("warn", "waiting for EMG")
        if self.error:
            level, message = "error", str(self.error)
        compute = np.array(self._compute_ms) if self._compute_ms else np.full(1, np.nan)
        return {
            "name": self.name,
            "model": self._decoder.name,
            "model_version": self._decoder.version,
            "kind": self._decoder.kind,
            "level": level,
            "message": message,
            "source": self._source,
            "samples_received": self._received,
            "samples_lost": self._lost,
            "predictions": self._sent,
            "refused_inputs": self._decoder.refused_inputs,
            "refused_outputs": self._decoder.refused_outputs,
            "compute_ms": None if not self._compute_ms else round(float(np.median(compute)), 3),
            "compute_ms_p99": None if not self._compute_ms else round(float(np.percentile(compute, 99)), 3),
        }

    def _run(self) -> None:
        sys.setswitchinterval(5e-4)  # s: the status thread must not hold the decoder up
        follower = StreamFollower(f"name='{stream_name(self._participant, 'emg')}'", buffer_s=5.0)
        try:
            while not self._stop.is_set():
                block = follower.read(timeout=0.2)
                self._source = follower.info.name() if follower.info else ""
                if block is not None:
                    self._take(block)
        except Exception as error:  # the thread's last word: it must reach the node and the report
            self.error = error
            if not isinstance(error, MyoloopError):
                log.exception("the decoder stopped")
            self._board.say(f"the decoder stopped: {error}")
        finally:
            follower.close()

    def _take(self, block: Block) -> None:
        if block.info.uid() != self._uid:
            self._meet(block.info)
        stamps = block.stamps
        if self._last_stamp is not None:
            gap = round((stamps[0] - self._last_stamp) * self._decoder.rate_hz) - 1
            if gap > 0:
                self._lost += gap
                self._board.say(f"{gap} EMG samples are missing before {stamps[0]:.3f}")
        self._last_stamp = float(stamps[-1])
        self._received += len(stamps)
        for first in range(
            0, len(stamps), self._decoder.samples_per_call
        ):  # an answer goes out before the next is thought of
            if self._stop.is_set():
                return
            until = first + self._decoder.samples_per_call
            begin = time.perf_counter()
            for used, prediction in self._decoder.push(block.samples[first:until]):
                self._answer(prediction, float(stamps[first + used - 1]), begin)
                begin = time.perf_counter()

    def _answer(self, prediction: np.ndarray, emg_time: float, begin: float) -> None:
        """Publishes one prediction, whose making began at `begin`."""
        assert self._outlet is not None
        if self._mute_until and time.monotonic() < self._mute_until:
            return
        self._outlet.push_chunk(prediction[None], emg_time)
        took = 1e3 * (time.perf_counter() - begin)
        self._sent += 1
        self._compute_ms.append(took)
        record = PredictionRecord(pylsl.local_clock(), emg_time, prediction, took, self.name)
        for watcher in self._watchers:
            watcher(record)

    def _meet(self, info: pylsl.StreamInfo) -> None:
        """A new EMG stream: is it one that this model reads? Then start afresh on it."""
        labels = info.get_channel_labels() or [f"ch{i}" for i in range(info.channel_count())]
        check_against(self._decoder.info, info.nominal_srate(), [str(label) for label in labels], info.name())
        self._uid = info.uid()
        self._last_stamp = None
        self._decoder.reset()
