"""An independent listener to a session's EMG: what a client of the stream really gets."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Any

import numpy as np
from scipy import signal

from myoloop.streams.follower import StreamFollower
from myoloop.streams.outlets import stream_name

log = logging.getLogger("myoloop")

KEEP_S = 20.0
"""Seconds of EMG kept for the report's spectrum and picture."""


class EmgWitness:
    """Receives one participant's EMG in a thread, counts every sample, and keeps the last stretch."""

    def __init__(self, participant: str):
        self._name = stream_name(participant, "emg")
        self._stop = threading.Event()
        self.received = 0
        self.missing = 0
        """samples that the time stamps say are missing in between"""
        self.not_finite = 0
        """samples that hold NaN or infinity: they count as zero in the figures"""
        self.connected = threading.Event()
        self.rate_hz = 0.0
        self.labels: list[str] = []
        self._square_sum: np.ndarray | None = None
        self._kept: deque[tuple[np.ndarray, np.ndarray]] = deque()
        self._kept_samples = 0
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes what has already arrived, then stops."""
        self._stop.set()
        self._thread.join(timeout=3.0)

    def _run(self) -> None:
        follower = StreamFollower(f"name='{self._name}'", buffer_s=60.0)
        try:
            self._listen(follower)
        except Exception:  # the session goes on; the report says how many samples were received
            log.exception("the session's listener stopped")
        finally:
            follower.close()

    def _listen(self, follower: StreamFollower) -> None:
        last = None
        while True:
            stopping = self._stop.is_set()
            block = follower.read(timeout=0.2)
            if follower.info is not None:
                self.connected.set()
            if block is None:
                if stopping:
                    break
                continue
            if not self.rate_hz:
                self.rate_hz = block.info.nominal_srate()
                self.labels = [str(x) for x in block.info.get_channel_labels() or []]
                self._square_sum = np.zeros(block.info.channel_count())
            if last is not None:
                self.missing += max(0, round((block.stamps[0] - last) * self.rate_hz) - 1)
            last = block.stamps[-1]
            self.received += len(block.samples)
            finite = np.isfinite(block.samples)
            self.not_finite += int(np.count_nonzero(~finite.all(axis=1)))
            self._square_sum += np.sum(np.where(finite, block.samples, 0).astype(np.float64) ** 2, axis=0)
            self._keep(block.samples, block.stamps)

    def _keep(self, samples: np.ndarray, stamps: np.ndarray) -> None:
        self._kept.append((samples.copy(), stamps.copy()))
        self._kept_samples += len(samples)
        while self._kept_samples - len(self._kept[0][0]) > KEEP_S * self.rate_hz:
            self._kept_samples -= len(self._kept.popleft()[0])

    def summary(self) -> dict[str, Any]:
        """Counts, RMS over the session and median frequency over the kept stretch, per channel.

        `rms_uv` and `median_frequency_hz` are lists, one a channel, or None before the first sample.
        """
        rms = median = None
        if self._square_sum is not None and self.received:
            rms = np.sqrt(self._square_sum / self.received).round(2).tolist()
            samples, _ = self.stretch()
            median = median_frequency(samples, self.rate_hz).round(1).tolist()
        return {
            "samples_received": self.received,
            "missing": self.missing,
            "not_finite": self.not_finite,
            "rate_hz": self.rate_hz,
            "labels": self.labels,
            "rms_uv": rms,
            "median_frequency_hz": median,
        }

    def stretch(self) -> tuple[np.ndarray, np.ndarray]:
        """The last `KEEP_S` seconds: (n, channels) microvolts and (n,) stamps."""
        if not self._kept:
            return np.zeros((0, 0), np.float32), np.zeros(0)
        return np.concatenate([s for s, _ in self._kept]), np.concatenate([t for _, t in self._kept])


def median_frequency(samples: np.ndarray, rate_hz: float) -> np.ndarray:
    """Frequency that halves each channel's power (Welch, 1 s windows), Hz; (n, channels) -> (channels,); NaN counts as 0."""
    samples = np.where(np.isfinite(samples), samples, 0)
    frequency, power = signal.welch(samples, rate_hz, nperseg=min(len(samples), round(rate_hz)), axis=0)
    share = np.cumsum(power, axis=0) / np.maximum(power.sum(axis=0), 1e-30)
    return frequency[np.argmax(share >= 0.5, axis=0)]
