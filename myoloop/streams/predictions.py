"""Predictions that come in over LSL: found by name or type, checked, and never blocking the loop."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pylsl

from myoloop.body.names import FINGERS
from myoloop.streams.follower import Block, StreamFollower, newest_first
from myoloop.streams.outlets import STREAM_TYPES, stream_name
from myoloop.streams.pairs import SAME_S

WIDTH = len(FINGERS)
NEAR_S = 60.0  # a stamp further than this from the session's time is of another clock (some tools send unix time)
BUFFER_S = 60.0  # 6,000 answers: where more come at once than liblsl may keep, it drops the end and holds back the rest
RECENT = 6000  # predictions that may wait for whoever wants them all: a minute of them at 100 Hz
LOOKED_AT = 20  # of the refused ones in a block: to say why
ROUNDING = 1e-6  # how far outside [0, 1] float32 rounding may put a probability


class Prediction(NamedTuple):
    """What the decoder said last."""

    values: np.ndarray
    """(5,) probability of flexed, thumb..little"""
    emg_time: float
    """time of the newest EMG sample that it used (its LSL stamp), or of arrival if the stamp was unusable"""
    arrived: float
    """when it got here, on the session's clock"""
    number: int
    """how many were accepted so far, this one included"""
    received: float = float("nan")
    """when it got here, `local_clock`"""


class Problem(NamedTuple):
    """Why a prediction is refused."""

    kind: str
    """text, width, nan or range: each is said once"""
    text: str


def check_prediction(values: np.ndarray) -> Problem | None:
    """Why a prediction must be refused, or None if it is good."""
    if values.dtype.kind not in "fiu":
        return Problem("text", f"it holds text, expected {WIDTH} numbers")
    if values.shape != (WIDTH,):
        return Problem("width", f"it has {values.size} channels, expected {WIDTH} ({', '.join(FINGERS)})")
    if not np.all(np.isfinite(values)):
        return Problem("nan", f"it holds NaN or infinity: {values.tolist()}")
    if np.any(values < -ROUNDING) or np.any(values > 1 + ROUNDING):
        worst = values[np.argmax(np.abs(values - 0.5))]
        return Problem("range", f"it holds {worst:g}, expected probabilities in 0..1")
    return None


def usable_stamp(stamp: Any, now: float) -> Any:
    """The stamp, or stamps, if of the session's time, else the time of arrival; never in the future."""
    return np.where(np.abs(np.asarray(stamp) - now) < NEAR_S, np.minimum(stamp, now), now)


class PredictionInbox:
    """Receives one participant's predictions in a thread of its own; `latest` costs the loop nothing.

    Looks for a stream named `<id>_prediction`; failing that, for one of type "Control" that is not named as another
    participant's. The newest outlet wins. A restarted decoder is found again by itself.
    """

    def __init__(
        self,
        participant: str,
        say: Callable[[str], None],
        now: Callable[[], float] = pylsl.local_clock,
        named: bool = False,
    ):
        """
        Args:
          participant: its id.
          say: called from the thread, once for each kind of problem.
          now: the session's time, s.
          named: only a stream named for this participant will do; for one of many.
        """
        self._named = named
        self._now = now
        self._name = stream_name(participant, "prediction")
        self._say = say
        self._stop = threading.Event()
        self.latest: Prediction | None = None
        """the last accepted prediction"""
        self.recent: deque[Prediction] = deque(maxlen=RECENT)
        """the accepted ones, for whoever takes them out; the oldest give way"""
        self.accepted = 0
        self.refused = 0
        self.restamped = 0
        """accepted ones whose time stamp was not LSL time"""
        self.connections = 0
        self.source = ""
        """name and host of the connected stream, "" if there is none"""
        self._said: Counter[str] = Counter()
        self._news = threading.Condition()
        self._hurried = False
        self._thread = threading.Thread(target=self._run, name="predictions", daemon=True)
        self._thread.start()

    def answered(self, since: float, timeout: float) -> bool:
        """Waits up to `timeout` s until there is an answer to EMG of the time `since` or newer; whether there is."""

        def there() -> bool:
            return self.latest is not None and self.latest.emg_time >= since - SAME_S

        with self._news:
            self._news.wait_for(lambda: there() or self._hurried, timeout)
            return there()

    def hurry(self, on: bool) -> None:
        """Whether `answered` is to come back at once: its session is being stopped."""
        with self._news:
            self._hurried = on
            self._news.notify_all()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=3.0)

    def _run(self) -> None:
        # in parentheses: liblsl puts its own "session_id='...' and" before it, and would find other sessions' streams
        wanted = (
            f"name='{self._name}'" if self._named else f"(name='{self._name}' or type='{STREAM_TYPES['prediction']}')"
        )
        follower = StreamFollower(wanted, prefer=self._prefer, buffer_s=BUFFER_S)
        try:
            while not self._stop.is_set():
                block = follower.read(timeout=0.2)
                self.connections = follower.connections
                self.source = f"{follower.info.name()}@{follower.info.hostname()}" if follower.info else ""
                if block is not None:
                    self._take(block)
        except Exception as error:  # a deaf participant must say so
            self.source = ""
            self._say(f"predictions are no longer received: {type(error).__name__}: {error}")
        finally:
            follower.close()

    def _prefer(self, infos: list[pylsl.StreamInfo]) -> list[pylsl.StreamInfo]:
        named = newest_first([i for i in infos if i.name() == self._name])
        if len(named) > 1:
            self._once("several", f"{len(named)} streams are named '{self._name}': using the newest")
        by_type = [i for i in infos if not i.name().endswith("_prediction")]
        return named or ([] if self._named else newest_first(by_type))

    def _take(self, block: Block) -> None:
        """Checks a block at once: of a flood each answer alone would take the loop's interpreter for too long."""
        now, here = self._now(), pylsl.local_clock()
        good = self._usable(block)
        stamps = np.asarray(block.stamps, float)[good]
        if foreign := int(np.count_nonzero(~(np.abs(stamps - now) < NEAR_S))):
            self.restamped += foreign
            self._once(
                "stamp", f"predictions from '{block.info.name()}' are not of the session's time: stamped on arrival"
            )
        times = usable_stamp(stamps, now).tolist()
        usable = np.clip(block.samples[good], 0, 1).astype(np.float32) if len(times) else ()
        for values, time in zip(usable, times, strict=True):
            self.accepted += 1
            prediction = Prediction(values, time, now, self.accepted, here)
            self.recent.append(prediction)  # before anybody is told that it is there
        if times:
            with self._news:
                self.latest = prediction
                self._news.notify()

    def _usable(self, block: Block) -> np.ndarray:
        """(n,) which of the answers can be used; the others are refused, and each kind is said once."""
        samples = np.asarray(block.samples)
        if samples.dtype.kind in "fiu" and samples.shape[1:] == (WIDTH,):
            with np.errstate(invalid="ignore"):  # NaN compares as false
                good = np.all((samples >= -ROUNDING) & (samples <= 1 + ROUNDING), axis=1)
        else:
            good = np.zeros(len(samples), bool)
        self.refused += int(np.count_nonzero(~good))
        said = set()
        for values in samples[~good][:LOOKED_AT]:
            problem = check_prediction(values)
            if problem is not None and problem.kind not in said:
                said.add(problem.kind)
                self._once(problem.kind, f"prediction from '{block.info.name()}' refused: {problem.text}")
        return good

    def _once(self, kind: str, message: str) -> None:
        self._said[kind] += 1
        if self._said[kind] == 1:
            self._say(message)
