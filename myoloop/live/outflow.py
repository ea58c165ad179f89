"""How fast a session that outruns real time may send what is recorded."""

from __future__ import annotations

import time
from collections.abc import Callable

SAMPLES_PER_S = 40_000.0
"""Of one irregular stream. LabRecorder looks every 0.5 s, and liblsl keeps the newest 36,000 samples of such a stream for it
(360 s at 100 Hz, which it takes for the rate): a look may come 0.4 s late."""
BURST = 5_000.0
"""Samples that may be sent at once."""


class Outflow:
    """A bucket that fills at SAMPLES_PER_S, up to BURST: what was sent is taken out, and who has emptied it waits."""

    def __init__(self, now: Callable[[], float] = time.monotonic):
        """Args: the time, s."""
        self._now = now
        self._room, self._looked, self._sent = BURST, now(), 0

    def wait_s(self, sent: int) -> float:
        """How long to wait before more is sent, s.

        Args:
          sent: samples of the stream so far.
        """
        now = self._now()
        self._room = min(BURST, self._room + SAMPLES_PER_S * (now - self._looked)) - (sent - self._sent)
        self._looked, self._sent = now, sent
        return max(0.0, -self._room / SAMPLES_PER_S)
