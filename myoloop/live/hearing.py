"""How one participant of many hears its decoder: an inbox, what is injected behind it, and the hold on the last answer."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import pylsl

from myoloop.experiment import Experiment
from myoloop.live.feedback import Feedback, FeedbackHold
from myoloop.live.link import Link, longest_s
from myoloop.streams.predictions import RECENT, Prediction


class Inbox(Protocol):
    """Where a participant's predictions arrive: over LSL (streams/predictions.py) or from inside the process."""

    latest: Prediction | None
    recent: deque[Prediction]
    accepted: int
    refused: int
    restamped: int
    source: str

    def hurry(self, on: bool) -> None:
        """Whether nobody is to wait for an answer any more."""

    def close(self) -> None:
        """Nothing arrives afterwards."""


class InsideInbox:
    """Predictions of a decoder in the same process."""

    def __init__(self, source: str):
        self.latest: Prediction | None = None
        self.recent: deque[Prediction] = deque(maxlen=RECENT)
        self.accepted = self.refused = self.restamped = 0
        self.source = source

    def take(self, values: np.ndarray, emg_time: float, arrived: float) -> None:
        """A prediction (5,), sound; times as in `Prediction`."""
        self.accepted += 1
        self.latest = Prediction(values, emg_time, arrived, self.accepted, pylsl.local_clock())
        self.recent.append(self.latest)

    def hurry(self, on: bool) -> None:
        """Nobody waits."""

    def close(self) -> None:
        """Nothing to give back."""


class Hearing:
    """One participant's ear: the newest answer that it may use at each control step."""

    def __init__(self, inbox: Inbox, experiment: Experiment, number: int, event: Callable[[str], None]):
        """
        Args:
          inbox: where predictions arrive.
          experiment: whose link is injected.
          number: of the participant: each has losses and jitter of its own.
          event: publishes "decoder lost" and "decoder back".
        """
        self.inbox = inbox
        link = experiment.link
        self._link = Link(link, experiment.seed + number) if link else None
        self._hold = FeedbackHold(experiment.participant.stale_after_s + longest_s(link), event)

    def step(self, now: float) -> Feedback:
        """The feedback of a control step that starts at `now`."""
        link, inbox = self._link, self.inbox
        heard = link.step(inbox.recent, now) if link else inbox.latest
        inbox.recent.clear()  # nobody else takes them out
        return self._hold.step(heard, now)

    def status(self) -> dict[str, Any]:
        """JSON-able counts."""
        inbox = self.inbox
        return {
            "predictions": inbox.accepted,
            "predictions_refused": inbox.refused,
            "predictions_restamped": inbox.restamped,
            "prediction_source": inbox.source,
            "stale_steps": self._hold.stale_steps,
            "link": self._link.status() if self._link else None,
        }


class Answers:
    """For lockstep with several decoders: waits for those who take part in the dialogue, not for one that fell silent.

    One that misses its time is not waited for again until it has answered anew.
    """

    def __init__(self, inboxes: Sequence[Any]):
        self._inboxes = inboxes
        self._silent_at = [0] * len(inboxes)
        """answers that each had given when it was last found silent"""
        self.missed = 0

    @property
    def count(self) -> int:
        """Answers of all so far."""
        return sum(inbox.accepted for inbox in self._inboxes)

    def there(self, since: float, timeout: float) -> bool:
        """Waits up to `timeout` s in all until all who take part have answered EMG of the time `since`; whether anybody has."""
        until, heard = time.monotonic() + timeout, False
        for n, inbox in enumerate(self._inboxes):
            if inbox.accepted == self._silent_at[n]:
                continue
            if inbox.answered(since, max(0.0, until - time.monotonic())):
                heard, self._silent_at[n] = True, -1
            else:
                self._silent_at[n] = inbox.accepted
                self.missed += 1
        return heard
