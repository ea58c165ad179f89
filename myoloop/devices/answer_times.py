"""Which EMG an answer without a sample number is about."""

from __future__ import annotations

STILL_S = 0.2
"""s for which no EMG goes out and no answer comes, after which everything that had gone out counts as answered."""
SILENT_S = 2.0
"""s without an answer after which the next one begins a new count: the software was stopped, or is another."""


class AnswerTimes:
    """Counts the answers of software that gives one for every so many samples: the times of the EMG behind them.

    Software that has a queue somewhere answers as often as EMG comes, only about older EMG: when an answer arrives says
    nothing about it, how many have come does. The first answer, and the first after nothing moved for STILL_S, is about the
    newest EMG that was out when it came; each further one about `every_s` more.
    """

    def __init__(self, every_s: float):
        """every_s: s of EMG from answer to answer; 0: not known, each answer counts as about the newest EMG."""
        self._every_s = every_s
        self._about: float | None = None
        self._answered = self._went_out = float("-inf")
        self._still = False

    def emg(self, now: float) -> None:
        """EMG goes out, at the wall time `now`."""
        if now - max(self._went_out, self._answered) >= STILL_S:
            self._still = True
        self._went_out = now

    def answer(self, now: float, newest: float, missed: int = 0) -> float:
        """An answer has come.

        Args:
          now: wall time, s.
          newest: stamp of the newest EMG that was out when the software answered.
          missed: answers before it that are known of and were not looked at.

        Returns:
          the stamp of the newest EMG that it may be about.
        """
        afresh = self._about is None or self._still or now - self._answered > SILENT_S
        if afresh or not self._every_s or self._about is None:
            self._about = newest
        else:
            self._about = min(self._about + self._every_s * (1 + missed), newest)
        self._answered, self._still = now, False
        return self._about
