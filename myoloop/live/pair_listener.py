"""An independent listener to both directions of a session: its EMG, and the answers to it."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pylsl

from myoloop.body.names import FINGERS
from myoloop.streams.follower import StreamFollower
from myoloop.streams.outlets import stream_name
from myoloop.streams.pairs import Pairs
from myoloop.streams.predictions import Prediction, PredictionInbox

log = logging.getLogger("myoloop")

AHEAD_S = 0.1
"""s by which an answer's stamp may be ahead of the newest EMG that got here: the two come in threads of their own."""


class PairListener:
    """Receives one participant's EMG and predictions in threads of its own, until closed; keeps everything in memory."""

    def __init__(self, participant: str):
        self._name = stream_name(participant, "emg")
        self._stop = threading.Event()
        self._chunks: list[tuple[np.ndarray, np.ndarray]] = []
        self._answers: list[Prediction] = []
        self._newest = 0.0
        self._rate_hz = 0.0
        self._inbox = PredictionInbox(participant, log.debug, self._now)
        self._thread = threading.Thread(target=self._run, name="pairs", daemon=True)
        self._thread.start()

    def close(self) -> Pairs:
        """Takes what has already arrived, stops, and returns it all."""
        self._stop.set()
        self._thread.join(timeout=5.0)
        self._inbox.close()
        self._drain()
        emg = [samples for samples, _ in self._chunks] or [np.zeros((0, 0), np.float32)]
        stamps = [times for _, times in self._chunks] or [np.zeros(0)]
        answers = [answer.values for answer in self._answers]
        return Pairs(
            np.concatenate(emg).astype(np.float32),
            np.concatenate(stamps),
            np.array([answer.emg_time for answer in self._answers]),
            np.array(answers, np.float32).reshape(-1, len(FINGERS)),
            self._rate_hz,
        )

    def _now(self) -> float:
        """The session's time, as far as its EMG tells: real or simulated."""
        return self._newest + AHEAD_S if self._newest else pylsl.local_clock()

    def _drain(self) -> None:
        while self._inbox.recent:
            answer = self._inbox.recent.popleft()
            if self._newest:  # answers to EMG that did not get here cannot be paired
                self._answers.append(answer)

    def _run(self) -> None:
        follower = StreamFollower(f"name='{self._name}'", buffer_s=60.0)
        try:
            while True:
                stopping = self._stop.is_set()
                block = follower.read(timeout=0.2)
                self._drain()
                if block is None:
                    if stopping:
                        break
                    continue
                self._rate_hz = block.info.nominal_srate()
                self._newest = float(block.stamps[-1])
                self._chunks.append((block.samples.copy(), block.stamps.copy()))
        except Exception:  # the session goes on; there will be fewer pairs
            log.exception("the listener to pairs stopped")
        finally:
            follower.close()
