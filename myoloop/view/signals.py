"""What the page remembers of the streams: the EMG's envelope, and the last seconds of every control step."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import NamedTuple

import numpy as np

from myoloop.body.names import JOINTS, MUSCLES
from myoloop.streams.outlets import FEEDBACK_LABELS

WINDOW_S = 8.0
"""What the charts show."""
BINS = 320
"""Pieces of the window of which the EMG's lowest and highest sample are drawn: 25 ms each."""
SAME_S = 1e-6
"""Stamps of one control step differ by less."""
JUDGED_S = 30.0
"""The stretch whose accuracy is shown as the present one."""
EVENTS = 200
"""Events that are kept."""
LATENCY = FEEDBACK_LABELS.index("latency_ms")


class Trace(NamedTuple):
    """A drawable stretch: seconds before now, and a row a line."""

    time: np.ndarray
    """(n,) s, from -window to 0"""
    values: np.ndarray
    """(lines, n), NaN where there is nothing"""


class Envelope:
    """Lowest and highest sample of each piece of time: every peak shows, however few points are drawn."""

    def __init__(self, channels: int, window_s: float = WINDOW_S, bins: int = BINS):
        self._bin_s = window_s / bins
        self._low = np.full((bins, channels), np.nan, np.float32)
        self._high = self._low.copy()
        self._number = np.full(bins, -1)
        """which piece of the time line each row holds"""
        self.newest = float("nan")
        """stamp of the newest sample"""

    def add(self, samples: np.ndarray, stamps: np.ndarray) -> None:
        """Takes in samples (n, channels), with their stamps (n,) in s."""
        numbers = np.floor(stamps / self._bin_s).astype(int)
        firsts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
        lows, highs = np.minimum.reduceat(samples, firsts), np.maximum.reduceat(samples, firsts)
        for number, low, high in zip(numbers[firsts], lows, highs, strict=True):
            row = number % len(self._number)
            if self._number[row] == number:
                low, high = np.fmin(low, self._low[row]), np.fmax(high, self._high[row])
            self._number[row], self._low[row], self._high[row] = number, low, high
        self.newest = float(stamps[-1])

    def trace(self, now: float) -> Trace:
        """Two points a piece, the lowest and the highest, of the window that ends at the stamp `now`."""
        bins = len(self._number)
        last = int(np.floor(now / self._bin_s)) if np.isfinite(now) else -1
        numbers = np.arange(last - bins + 1, last + 1)
        rows = numbers % bins
        there = (self._number[rows] == numbers) & (numbers >= 0)
        pairs = np.stack([self._low[rows], self._high[rows]], axis=1)  # (bins, 2, channels)
        pairs[~there] = np.nan
        time = (numbers[:, None] - last - 1 + np.array([0.25, 0.75])) * self._bin_s
        return Trace(time.ravel(), pairs.reshape(2 * bins, -1).T)


class Track:
    """The last rows of a stream of control steps."""

    def __init__(self, width: int, window_s: float = WINDOW_S, most_hz: float = 200.0):
        self._rows: deque[np.ndarray] = deque(maxlen=round(window_s * most_hz))
        self._stamps: deque[float] = deque(maxlen=round(window_s * most_hz))
        self.last = np.full(width, np.nan, np.float32)
        """(width,) the newest row; NaN before the first"""
        self.newest = float("nan")
        """its stamp"""

    def add(self, samples: np.ndarray, stamps: np.ndarray) -> None:
        """Takes in rows (n, width) with their stamps (n,)."""
        self._rows.extend(np.asarray(samples, np.float32))
        self._stamps.extend(stamps.tolist())
        self.last, self.newest = self._rows[-1], self._stamps[-1]

    def since(self, start: float) -> tuple[np.ndarray, np.ndarray]:
        """Stamps (n,) and rows (n, width) from `start` on."""
        stamps = np.array(self._stamps)
        rows = np.array(self._rows, np.float32).reshape(len(stamps), len(self.last))
        return stamps[stamps >= start], rows[stamps >= start]


class Signals:
    """All that the page draws, fed stream by stream; times are the streams' stamps."""

    def __init__(self, emg_channels: int):
        self.emg = Envelope(emg_channels)
        self.target = Track(5, JUDGED_S)
        self.feedback = Track(len(FEEDBACK_LABELS), JUDGED_S)
        self.joints, self.reference = Track(len(JOINTS), 1.0), Track(len(JOINTS), 1.0)
        self.excitation = Track(len(MUSCLES), 1.0)
        self.tracks = {
            "target": self.target, "feedback": self.feedback, "kinematics": self.joints, "reference": self.reference,
            "excitation": self.excitation,
        }  # fmt: skip
        """the streams of control steps, by the suffix of their names"""
        self.events: deque[str] = deque(maxlen=EVENTS)
        """the newest last, with the participant's time"""
        self._begin: float | None = None
        self._gaps = self._moved_s = self._rate_hz = 0.0  # samples, s, Hz

    @property
    def missing(self) -> int:
        """EMG samples that never came here, by their stamps; those that were not made because of a pause do not count."""
        return max(0, round(self._gaps - self._moved_s * self._rate_hz))

    def add_emg(self, samples: np.ndarray, stamps: np.ndarray, rate_hz: float) -> None:
        """Takes in samples (n, channels), microvolts, with their stamps (n,)."""
        if self._begin is None:
            self._begin = float(stamps[0])
        elif np.isfinite(self.emg.newest):
            self._gaps += max(0, round((stamps[0] - self.emg.newest) * rate_hz) - 1)
        self._rate_hz = rate_hz
        self.emg.add(samples, stamps)

    def add_event(self, text: str, stamp: float) -> None:
        """Takes in an event."""
        since = f"{stamp - self._begin - self._moved_s:7.1f} s" if self._begin is not None else " " * 9
        self.events.append(f"{since}  {text}")
        if text.startswith("clock moved "):
            with contextlib.suppress(ValueError):
                self._moved_s += float(text.split()[-1])

    def fingers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the window: seconds before now (n,), target (n, 5) and prediction (n, 5), for steps of which both are there."""
        stamps, target, feedback = self._both(WINDOW_S)
        return stamps - self.emg.newest, target, feedback[:, :5]

    def latency(self) -> Trace:
        """Feedback latency in ms, in the steps that first used a prediction."""
        stamps, rows = self.feedback.since(self.emg.newest - WINDOW_S)
        new = np.isfinite(rows[:, LATENCY])
        return Trace((stamps - self.emg.newest)[new], rows[new, LATENCY][None])

    def accuracy(self) -> np.ndarray:
        """(5,) share of steps of the last half minute in which each finger's answer was right; NaN before the first answer."""
        _, target, feedback = self._both(JUDGED_S)
        heard = np.isfinite(feedback[:, 5])
        if not heard.any():
            return np.full(5, np.nan)
        return np.asarray(((feedback[heard, :5] > 0.5) == (target[heard] > 0.5)).mean(axis=0))

    def drawn_excitation(self) -> np.ndarray:
        """(39,) mean excitation of the last three control steps, 0 before the first."""
        _, rows = self.excitation.since(-np.inf)
        return rows[-3:].mean(axis=0) if len(rows) else np.zeros(39)

    def _both(self, seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start = self.emg.newest - seconds
        stamps, target = self.target.since(start)
        other, feedback = self.feedback.since(start)
        if not len(stamps) or not len(other):
            return np.zeros(0), np.zeros((0, 5)), np.full((0, len(FEEDBACK_LABELS)), np.nan)
        place = np.searchsorted(other, stamps - SAME_S).clip(0, len(other) - 1)
        same = np.abs(other[place] - stamps) < SAME_S
        return stamps[same], target[same], feedback[place[same]]
