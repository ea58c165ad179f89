"""Software that answers over UDP as a decoder in the loop: datagrams in, predictions out over LSL."""

from __future__ import annotations

import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import numpy as np
import pylsl

from myoloop.body.names import FINGERS
from myoloop.devices.datagrams import Gestures, Refusal, read_datagram
from myoloop.devices.muovi import PACKET_BYTES, SAMPLES_A_PACKET
from myoloop.devices.network import is_loopback
from myoloop.devices.queues import unread_bytes
from myoloop.devices.trigno_protocol import FRAME_BYTES as TRIGNO_BYTES
from myoloop.devices.udp import UdpInbox
from myoloop.emg.armband import armband_from
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment
from myoloop.live.board import Board, linger_while_recorded, log, make_run_dir, steps_over
from myoloop.live.threaded import Threaded
from myoloop.streams.follower import StreamFollower
from myoloop.streams.network import use_loopback
from myoloop.streams.outlets import make_outlet, refuse_unfound, stream_name

AGE_S = 60.0
"""A time inside a datagram that is further than this before its arrival is of another clock."""
QUIET_S = 2.0
"""Without EMG for this long, a prediction is not about the newest that there was."""


class LiveUdpDecoder(Threaded):
    """Publishes what arrives by UDP as the participant's prediction stream, until stopped.

    A prediction's stamp is the time of the newest EMG sample that had gone out when the software answered: it cannot have
    used a newer one. "When it answered" is the time in the datagram if there is a usable one, else the datagram's arrival.
    In lockstep, where a queue in front of the software would never get shorter, what it has not read yet out of its connection
    to an emulated amplifier is taken off besides; the system takes up to 10 ms to tell, too long for real time.
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
        self._run_dir = make_run_dir(run_dir) if run_dir else None
        self._inbox = UdpInbox(udp.host, udp.port, "decoder.udp.port")
        self.port = self._inbox.port
        self._board = Board(self._run_dir, "decoder", self.status)
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
        refuse_unfound([self._outlet.get_info()])
        self._refused: Counter[str] = Counter()
        self._sent = self._declined = self._timed = 0
        self._amplifier = amplifier(experiment) if experiment.clock.kind == "lockstep" else None
        self._newest: deque[tuple[float, float]] = deque(maxlen=150)  # (when it was here, its stamp) of the last chunks
        super().__init__(datagrams=self._receive, newest=self._watch)
        self.error: BaseException | None = None
        self._board.start()

    def close(self) -> None:
        self.stop()
        self._inbox.close()
        if steps_over(self._run_dir):  # else it failed or was switched, and another is to take its place
            linger_while_recorded(self._run_dir)
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
        for said in read_datagram(data, self._gestures):
            if isinstance(said, Refusal):
                self._refused[said.kind] += 1
                if self._refused[said.kind] == 1:
                    self._board.say(f"prediction by UDP refused: {said.text}")
            elif said.fingers is None:
                self._declined += 1
            else:
                self._outlet.push_chunk(said.fingers[None], self._stamp(said.unix_time, arrived))
                self._sent += 1

    def _stamp(self, unix_time: float | None, arrived: float) -> float:
        """The stamp of the newest EMG that the software may have used; the time of its answer if there was none lately."""
        answered = arrived
        if unix_time is not None:
            age = time.time() - unix_time
            if 0.0 <= age < AGE_S:
                answered = arrived - age
                self._timed += 1
        known = [(here, stamp) for here, stamp in list(self._newest) if here <= answered]
        if not known or answered - known[-1][0] >= QUIET_S:
            return answered
        return known[-1][1] - self._unread_s()

    def _unread_s(self) -> float:
        """Seconds of EMG that wait in the software's connection to the amplifier; 0 where that is not known."""
        if self._amplifier is None:
            return 0.0
        port, bytes_a_second = self._amplifier
        return (unread_bytes(port) or 0) / bytes_a_second

    def _watch(self) -> None:
        """Keeps when each chunk of EMG was there."""
        follower = StreamFollower(f"name='{stream_name(self._participant, 'emg')}'", buffer_s=1.0)
        try:
            while not self._stop.is_set():
                block = follower.read(timeout=0.2)
                if block is not None:
                    self._newest.append((pylsl.local_clock(), float(np.max(block.stamps))))
        finally:
            follower.close()


def amplifier(experiment: Experiment) -> tuple[int, float] | None:
    """TCP port of the emulated amplifier's EMG and its bytes a second; None if there is none, or two."""
    devices, rate_hz = experiment.devices, armband_from(experiment.participant.armband).rate_hz
    ways = []
    if devices.trigno is not None:
        ways.append((devices.trigno.emg_port, TRIGNO_BYTES * rate_hz))
    if devices.muovi is not None:
        ways.append((devices.muovi.port, PACKET_BYTES / SAMPLES_A_PACKET * rate_hz))
    return ways[0] if len(ways) == 1 and ways[0][0] else None
