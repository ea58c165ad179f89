"""How fast motor units discharge while they are recruited, counted along a rollout from the spikes themselves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from myoloop.emg.params import EmgParams
from myoloop.emg.synthesis import Spikes, block_samples

PAUSE_S = 0.25
"""s: a longer interval between two discharges is a pause, not a rate: units discharge at 4 Hz and more while recruited
(Freund, Budingen & Dietz 1975 found 5 to 12 Hz at recruitment in human hand muscles)."""
FEWEST = 10
"""Intervals from which a unit has a rate."""


class Rates(NamedTuple):
    """Of one person's U units, over all of a rollout's participants."""

    muscle: np.ndarray
    """(U,) index into FOREARM_MUSCLES."""
    rate_hz: np.ndarray
    """(U,) intervals a second while recruited; not a number for units with less than ten intervals."""
    active: np.ndarray
    """(U,) part of the time in which the unit is recruited: at most a pause ago it discharged."""

    def recruited(self, muscle: int) -> np.ndarray:
        """Rates of a muscle's units that have one, Hz."""
        rates = self.rate_hz[self.muscle == muscle]
        return rates[np.isfinite(rates)]


class UnitRates:
    """Takes in chunk after chunk; all participants must be the same person."""

    def __init__(self, emg: EmgParams, participants: int):
        self._rate, self._block = emg.band.internal_rate_hz, block_samples(emg.band)
        self._muscle = np.asarray(emg.muscle)
        self._pause = round(PAUSE_S * self._rate)
        self._last = np.full((participants, emg.units), -(10**9), np.int64)
        self._intervals, self._samples = np.zeros((2, emg.units))
        self._active, self._chunks = np.zeros(emg.units), 0

    def take(self, spikes: Spikes) -> None:
        """The next chunk of everybody."""
        when, start = np.asarray(spikes.when), np.asarray(spikes.start).astype(np.int64)
        newest = start
        for block in range(when.shape[1]):
            began = (start + block * self._block)[:, None]
            for nth in range(when.shape[2]):
                there = when[:, block, nth] >= 0
                if not there.any():
                    continue
                now = np.where(there, began + when[:, block, nth], self._last)
                interval = now - self._last
                counts = there & (interval <= self._pause)
                self._intervals += counts.sum(axis=0)
                self._samples += np.where(counts, interval, 0).sum(axis=0)
                self._last = now
            newest = start + (block + 1) * self._block
        self._active += (newest[:, None] - self._last <= self._pause).mean(axis=0)
        self._chunks += 1

    def result(self) -> Rates:
        """What was counted."""
        enough = self._intervals >= FEWEST
        hz = np.full(len(self._muscle), np.nan)
        hz[enough] = self._intervals[enough] * self._rate / self._samples[enough]
        return Rates(self._muscle, hz, self._active / max(1, self._chunks))
