"""Which samples of a recorded session belong to which control step, and where it goes on without a break."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from myoloop.streams.clock import RESYNC_AFTER_S
from myoloop.streams.xdf import XdfSession

EVERY_STEP = ("target", "kinematics", "reference", "excitation")
"""Streams that hold a row a control step, under the time of the newest EMG sample of the step."""


class Steps(NamedTuple):
    """Control steps whose EMG is whole and of which all of EVERY_STEP tell, in order of time, (n,) each."""

    stamps: np.ndarray
    """Time of the newest EMG sample, s."""
    newest: np.ndarray
    """Its place in the EMG."""
    rows: dict[str, np.ndarray]
    """The step's row in each of EVERY_STEP."""


def whole_steps(session: XdfSession, samples: int) -> Steps:
    """The control steps of a recording; those with a gap in their EMG or without a row somewhere are left out.

    Args:
      session: with EMG and all of EVERY_STEP.
      samples: of EMG a control step.

    Raises:
      MyoloopError: a stream is missing or empty.
    """
    emg = session.need("emg")
    within = 0.5 / emg.rate_hz
    stamps = np.sort(session.need("target").stamps)
    newest, whole = _nearest(emg.stamps, stamps, within)
    oldest, span = newest - (samples - 1), (samples - 1) / emg.rate_hz
    whole &= (oldest >= 0) & (np.abs(emg.stamps[np.maximum(oldest, 0)] + span - stamps) < within)
    rows = {}
    for name in EVERY_STEP:
        rows[name], there = _nearest(session.need(name).stamps, stamps, within)
        whole &= there
    return Steps(stamps[whole], newest[whole], {name: row[whole] for name, row in rows.items()})


def without(steps: Steps, breaks: Sequence[float]) -> Steps:
    """The steps without those that may have been at work at one of these times.

    What happens in a step happens at its time stamp or later: a step is late by RESYNC_AFTER_S at most.
    """
    kept = np.ones(len(steps.stamps), bool)
    for time in breaks:
        kept &= (steps.stamps < time - RESYNC_AFTER_S) | (steps.stamps > time + 1e-6)
    return Steps(steps.stamps[kept], steps.newest[kept], {name: row[kept] for name, row in steps.rows.items()})


def unbroken(steps: Steps, samples: int, rate_hz: float) -> list[tuple[int, int]]:
    """(first, how many) of the steps that follow each other without a gap, for every such run."""
    if not len(steps.stamps):
        return []
    apart = np.abs(np.diff(steps.stamps) - samples / rate_hz) > 0.5 / rate_hz
    ends = np.flatnonzero(apart | (np.diff(steps.newest) != samples)) + 1
    firsts = np.concatenate([[0], ends])
    return list(zip(firsts.tolist(), np.diff([*firsts, len(steps.stamps)]).tolist(), strict=True))


def _nearest(stamps: np.ndarray, wanted: np.ndarray, within: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the stamp nearest to each wanted time stands, and whether it is near enough, s."""
    order = np.argsort(stamps, kind="stable")
    ordered = stamps[order]
    after = np.clip(np.searchsorted(ordered, wanted), 1, max(1, len(ordered) - 1))
    after = np.minimum(after, len(ordered) - 1)
    before = np.maximum(after - 1, 0)
    place = np.where(np.abs(ordered[before] - wanted) <= np.abs(ordered[after] - wanted), before, after)
    return order[place], np.abs(ordered[place] - wanted) < within
