"""How quickly what was asked is answered: users of interfaces are judged by trials, not by control steps."""

from __future__ import annotations

from typing import Any

import numpy as np

HELD_STEPS = 5
"""Control steps (0.1 s at 50 Hz) that a prediction must stay right to count as having reached its target."""


def quantiles(values: np.ndarray) -> dict[str, float] | None:
    """Median, 95th and 99th percentile and maximum of the finite values; None if there are none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    median, p95, p99 = np.percentile(values, [50, 95, 99])
    named = {"median": median, "p95": p95, "p99": p99, "max": values.max()}
    return {key: round(float(value), 3) for key, value in named.items()}


def finger_trials(target: np.ndarray, right: np.ndarray, dt: float) -> dict[str, Any]:
    """How a finger's every new target was answered.

    A trial lasts from one change of a finger's target to its next. It is reached at the first step from which the
    prediction is right for `HELD_STEPS` steps on end.

    Args:
      target: (steps, 5) labels.
      right: (steps, 5) whether the prediction was right.
      dt: seconds a step.

    Returns:
      count, reached (share, or None without trials), time_to_reach_s as quantiles of those reached.
    """
    times, count = [], 0
    for finger in range(target.shape[1]):
        edges = np.flatnonzero(np.diff(target[:, finger])) + 1
        for start, end in zip(edges, np.append(edges, len(target))[1:], strict=True):
            if end - start < HELD_STEPS:
                continue
            count += 1
            held = np.lib.stride_tricks.sliding_window_view(right[start:end, finger], HELD_STEPS).all(axis=1)
            if held.any():
                times.append(np.argmax(held) * dt)
    return {
        "count": count,
        "reached": round(len(times) / count, 4) if count else None,
        "time_to_reach_s": quantiles(np.array(times)),
    }
