"""Reads one LSL stream, whoever serves it and however often its server restarts."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pylsl

FORGET_AFTER_S = 2.0  # a vanished outlet leaves the list of candidates after this
RETRY_AFTER_S = 1.0  # a candidate that could not be opened (killed, but still listed) is left alone for this
LOOK_EVERY_S = 1.0  # how often a connected stream is compared with the others; silence that long lets any other win


class Block(NamedTuple):
    """What one read returned."""

    samples: np.ndarray
    """(n, channels), in the stream's own type"""
    stamps: np.ndarray
    """(n,) seconds on this machine's `local_clock`"""
    info: pylsl.StreamInfo


class StreamFollower:
    """Follows the newest stream that matches a predicate.

    It reconnects by itself when the outlet goes away (kill, crash, restart) instead of relying on liblsl's recovery,
    which takes seconds and needs a source_id. All calls must come from one thread.
    """

    def __init__(
        self,
        predicate: str,
        prefer: Callable[[list[pylsl.StreamInfo]], list[pylsl.StreamInfo]] | None = None,
        buffer_s: float = 5.0,
    ):
        """
        Args:
          predicate: liblsl query, e.g. "name='myo_emg'".
          prefer: orders the candidates and drops those that are not meant, best first; default: newest first.
          buffer_s: seconds (x 100 samples for irregular streams) that liblsl may hold back.
        """
        # in brackets: liblsl puts "session_id=... and" before it, which an "or" inside would undo
        self._resolver = pylsl.ContinuousResolver(pred=f"({predicate})", forget_after=FORGET_AFTER_S)
        self._prefer = prefer or newest_first
        self._buffer_s = buffer_s
        self._inlet: pylsl.StreamInlet | None = None
        self._failed: dict[str, float] = {}
        self._last_sample = self._looked = 0.0
        self.info: pylsl.StreamInfo | None = None
        """the connected stream, with full metadata; None while there is none"""
        self.connections = 0
        """how many times a stream was connected"""

    def read(self, timeout: float) -> Block | None:
        """The samples that are there, waiting up to `timeout` seconds for the first; None if there are none."""
        self._look_around(time.monotonic())
        if self._inlet is None and not self._connect(timeout):
            return None
        assert self._inlet is not None and self.info is not None
        try:
            samples, stamps = self._inlet.pull_chunk(timeout=timeout, min_samples=1, max_samples=4096, as_numpy=True)
        except pylsl.util.LostError:
            self._drop()
            return None
        if len(stamps):
            self._last_sample = time.monotonic()
            return Block(samples, stamps, self.info)
        return None

    def _look_around(self, now: float) -> None:
        """Lets go of the stream if another one is to be preferred: always while it is silent, else only if both are there."""
        if now - self._looked < LOOK_EVERY_S or self.info is None:
            return
        self._looked = now
        best = self._candidates()[:1]
        mine, silent = self.info.uid(), now - self._last_sample > LOOK_EVERY_S
        if best and best[0].uid() != mine and (silent or mine in {i.uid() for i in self._resolver.results()}):
            self._drop()

    def close(self) -> None:
        self._drop()

    def _candidates(self) -> list[pylsl.StreamInfo]:
        now = time.monotonic()
        self._failed = {uid: t for uid, t in self._failed.items() if now - t < RETRY_AFTER_S}
        return self._prefer([i for i in self._resolver.results() if i.uid() not in self._failed])

    def _connect(self, timeout: float) -> bool:
        candidates = self._candidates()
        if not candidates:
            time.sleep(min(timeout, 0.05))
            return False
        info = candidates[0]
        near = info.hostname() == platform.node()
        inlet = pylsl.StreamInlet(
            info,
            max_buflen=max(1, round(self._buffer_s)),
            recover=False,
            # one machine has one clock; between machines the first estimate of the offset takes a second, and would
            # otherwise hold up the first samples
            processing_flags=pylsl.proc_none if near else pylsl.proc_clocksync,
        )
        try:
            full: Any = inlet.info(timeout=1.0)
            inlet.open_stream(timeout=1.0)
            if not near:
                inlet.time_correction(timeout=3.0)
        except (TimeoutError, pylsl.util.LostError):
            self._failed[info.uid()] = time.monotonic()
            return False
        self._inlet, self.info = inlet, full
        self._last_sample = time.monotonic()
        self.connections += 1
        return True

    def _drop(self) -> None:
        if self._inlet is not None:
            if self.info is not None:
                self._failed[self.info.uid()] = time.monotonic()
            with contextlib.suppress(pylsl.util.LostError, RuntimeError):
                self._inlet.close_stream()
        self._inlet, self.info = None, None


def newest_first(infos: list[pylsl.StreamInfo]) -> list[pylsl.StreamInfo]:
    """Candidates by the time their outlet was made, latest first."""
    return sorted(infos, key=lambda i: i.created_at(), reverse=True)
