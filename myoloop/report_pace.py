"""Whether a decoder keeps up: a slow one answers late, always as late; one that cannot keep up falls ever farther behind."""

from __future__ import annotations

from typing import Any

import numpy as np

from myoloop.task.trials import quantiles

GROWS = 0.02
"""s a second by which answers get later, from which on a decoder falls behind: less is jitter or a busy machine."""
FELL_S = 0.2
"""s by which they must have got later in all: ten control steps."""
OFTEN = 0.01
"""Part of the lockstep answers that may time out."""
PARTS = 5
"""Stretches of equal length in which the latency is looked at."""


def pace(
    rows: np.ndarray | None, control_hz: float, clock: str = "realtime", timeouts: int = 0
) -> dict[str, Any] | None:
    """What the step log says of the decoder's pace; None if it never answered.

    Args:
      rows: the step log.
      control_hz: Hz.
      clock: kind of clock, see experiment.ClockSettings.
      timeouts: steps that began without the answer they had waited for.

    Returns:
      `verdict` ("keeps up", "slow" or "cannot keep up"), `why` in words, `answer_ms` (quantiles of the wall time from sending
      a chunk to its answer), and `falls_behind` (s a second; None in lockstep, where it is waited for).
    """
    if rows is None or "answer_ms" not in (rows.dtype.names or ()):
        return None
    first = np.isfinite(rows["feedback_latency_ms"])
    if not first.any():
        return None
    answer = quantiles(rows["answer_ms"])
    step_ms = 1e3 / control_hz
    p95 = answer["p95"] if answer else None
    falls, fell_s = (None, 0.0) if clock == "lockstep" else _falling(rows[first])
    if clock == "lockstep" and timeouts > OFTEN * np.count_nonzero(first):
        verdict, why = "cannot keep up", f"{timeouts} steps waited in vain for an answer"
    elif falls is not None and falls > GROWS and fell_s > FELL_S:
        verdict, why = (
            "cannot keep up",
            f"its answers get {falls:.2f} s later every second: it falls ever farther behind",
        )
    elif p95 is not None and p95 > step_ms:
        verdict = "slow"
        why = f"an answer takes up to {p95:g} ms (p95), more than a control step of {step_ms:g} ms; it does not fall behind"
    elif p95 is None:
        verdict, why = "unknown", "its answers cannot be told apart by their stamps"
    else:
        verdict, why = "keeps up", f"an answer takes {p95:g} ms at most (p95)"
    return {
        "verdict": verdict,
        "why": why,
        "answer_ms": answer,
        "falls_behind": None if falls is None else round(falls, 4),
        "timeouts": timeouts,
    }


def _falling(used: np.ndarray) -> tuple[float, float]:
    """By how much later answers get: s a second, and s in all, between the first and the last fifth of the session."""
    time, latency = used["time"], 1e-3 * used["feedback_latency_ms"]
    edges = np.linspace(time[0], time[-1], PARTS + 1)
    begins, ends = latency[time <= edges[1]], latency[time >= edges[-2]]
    apart = float(edges[-2] - edges[0])
    if apart <= 0 or not len(begins) or not len(ends):
        return 0.0, 0.0
    fell = float(np.median(ends) - np.median(begins))
    return fell / apart, fell
