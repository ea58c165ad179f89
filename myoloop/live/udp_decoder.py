"""Software that answers over UDP as a decoder in the loop: datagrams in, predictions out over LSL."""

from __future__ import annotations

import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import numpy as np
import pylsl

from myoloop.body.names import FINGERS
from myoloop.devices.answer_times import AnswerTimes
from myoloop.devices.datagrams import Gestures, Refusal, read_datagram
from myoloop.devices.network import is_loopback
from myoloop.devices.udp import UdpInbox
from myoloop.emg.armband import armband_from
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment
from myoloop.live.board import Board, log, make_run_dir
from myoloop.live.threaded import Threaded
from myoloop.streams.follower import StreamFollower
from myoloop.streams.network import use_loopback
from myoloop.streams.outlets import make_outlet, stream_name

AGE_S = 60.0
"""A time inside a datagram that is further than this before its arrival is of another clock."""
QUIET_S = 2.0
"""Without EMG for this long, a prediction is not about the newest that there was."""


class LiveUdpDecoder(Threaded):
    """Publishes what arrives by UDP as the participant's prediction stream, until stopped.

    A prediction's stamp is the time of the newest EMG sample that had gone out when the software answered: it cannot have
    used a newer one. "When it answered" is the time in the datagram if there is a usable one, else the datagram's arrival.
    Where the samples from answer to answer are known (`udp.increment`), answers are counted besides: see AnswerTimes.
    """

    def __init__(self, experiment: Experiment, run_dir: str | Path | None = None):
        """
        Args:
          experiment: whose `decoder` section is of kind `udp`.
          run_dir: where the status goes; None: nowhere.

        Raises:
          MyoloopError: another kind of decoder, or the port is taken.
        """
        use_loopback()
        settings = experiment.decoder
        if settings is None or settings.udp is None:
            raise MyoloopError("the experiment has no decoder of kind 'udp': nothing to receive.")
        self.name = settings.name
        udp = settings.udp
        self._participant = experiment.participant.id
        self._gestures = Gestures.from_mapping(udp.gestures, udp.regression_range)
        run_folder = make_run_dir(run_dir) if run_dir else None
        self._inbox = UdpInbox(udp.host, udp.port, "decoder.udp.port")
        self.port = self._inbox.port
        self._board = Board(run_folder, "decoder", self.status)
        if not is_loopback(udp.host):
            self._board.say(f"predictions are taken from the network: decoder.udp.host is {udp.host}")
        self._outlet: pylsl.StreamOutlet | None = make_outlet(
            self._participant,
            "prediction",
            FINGERS,
            "probability of flexed",
            0.0,
            about={"decoder": self.name, "stamp": "newest EMG sample that had gone out when the decoder answered"},
        )
        self._refused: Counter[str] = Counter()
        self._sent = self._declined = self._timed = 0
        rate_hz = armband_from(experiment.participant.armband).rate_hz
        self._times = AnswerTimes(udp.increment / rate_hz)
        self._flooded = 0
        self._newest: deque[tuple[float, float]] = deque(maxlen=150)  # (when it was here, its stamp) of the last chunks
        super().__init__(datagrams=self._receive, newest=self._watch)
        self.error: BaseException | None = None
        self._board.start()

    def close(self) -> None:
        self.stop()
        self._inbox.close()
        self._outlet = None  # liblsl takes the stream off the network when its last handle goes
        self._board.close()

    @property
    def running(self) -> bool:
        return super().running and self.error is None

    def status(self) -> dict[str, Any]:
        """Where the adapter stands: JSON-able numbers and strings."""
        heard = self._inbox.received > 0
        level, message = ("ok", "receiving") if heard else ("warn", f"nothing on UDP port {self.port} yet")
        if self.error:
            level, message = "error", str(self.error)
        return {
            "name": self.name,
            "level": level,
            "message": message,
            "predictions": self._sent,
            "udp": {
                "port": self.port,
                "datagrams": self._inbox.received,
                "refused": dict(self._refused),
                "declined": self._declined,
                "flooded": self._inbox.flooded,
                "with_time": self._timed,
            },
        }

    def _receive(self) -> None:
        try:
            while not self._stop.is_set():
                for data in self._inbox.read(timeout_s=0.2):
                    self._take(data, pylsl.local_clock())
        except Exception as error:  # the thread's last word: it must reach the report
            self.error = error
            log.exception("the adapter stopped")
            self._board.say(f"the adapter for UDP predictions stopped: {error}")

    def _take(self, data: bytes, arrived: float) -> None:
        assert self._outlet is not None
        missed, self._flooded = self._inbox.flooded - self._flooded, self._inbox.flooded
        for said in read_datagram(data, self._gestures):
            unix_time = None if isinstance(said, Refusal) else said.unix_time
            stamp = self._times.answer(arrived, self._newest_at(unix_time, arrived), missed)
            missed = 0
            if isinstance(said, Refusal):
                self._refused[said.kind] += 1
                if self._refused[said.kind] == 1:
                    self._board.say(f"prediction by UDP refused: {said.text}")
            elif said.fingers is None:
                self._declined += 1
            else:
                self._outlet.push_chunk(said.fingers[None], stamp)
                self._sent += 1

    def _newest_at(self, unix_time: float | None, arrived: float) -> float:
        """The stamp of the newest EMG that was out when the software answered; that time itself if there was none lately."""
        answered = arrived
        if unix_time is not None:
            age = time.time() - unix_time
            if 0.0 <= age < AGE_S:
                answered = arrived - age
                self._timed += 1
        known = [(here, stamp) for here, stamp in list(self._newest) if here <= answered]
        return known[-1][1] if known and answered - known[-1][0] < QUIET_S else answered

    def _watch(self) -> None:
        """Keeps when each chunk of EMG was there."""
        follower = StreamFollower(f"name='{stream_name(self._participant, 'emg')}'", buffer_s=1.0)
        try:
            while not self._stop.is_set():
                block = follower.read(timeout=0.2)
                if block is not None:
                    here = pylsl.local_clock()
                    self._times.emg(here)
                    self._newest.append((here, float(np.max(block.stamps))))
        finally:
            follower.close()
