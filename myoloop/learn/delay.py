"""Delay of a decoder's answers in the batch: whole control steps; and how late answers are in the end."""

from __future__ import annotations

import numpy as np

from myoloop.errors import MyoloopError
from myoloop.learn.limits import lagged
from myoloop.task.trials import TrialRules, find_trials


def whole_steps(delay_s: float, control_hz: float) -> int:
    """How many control steps a delay is.

    Raises:
      MyoloopError: it is negative, or no whole number of control steps.
    """
    steps = round(delay_s * control_hz)
    if delay_s < 0 or abs(delay_s * control_hz - steps) > 1e-6:
        raise MyoloopError(
            f"delay_s is {delay_s:g}: expected 0 or a whole number of control steps of {1 / control_hz:g} s, as "
            f"{max(1, steps) / control_hz:g}. Delays between these exist live only (section link of an experiment)."
        )
    return steps


def per_participant(odds: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(B,) part of the answers, (steps, B, 5) log-odds, that are right."""
    return np.mean((odds > 0) == (labels > 0.5), axis=(0, 2))  # type: ignore[no-any-return]


def quartiles_to_reach(odds: np.ndarray, labels: np.ndarray, dt: float, rules: TrialRules) -> list[float] | None:
    """25th, 50th and 75th percentile of the times to reach a gesture, s, of trials as task.trials judges them; None if none is
    reached. Arrays as in `late`."""
    each = zip(np.swapaxes(labels, 0, 1), np.swapaxes(odds > 0, 0, 1), strict=True)
    times = np.array([trial.reached_s for one in each for trial in find_trials(*one, dt, rules).trials])
    times = times[np.isfinite(times)]
    return [round(float(x), 3) for x in np.percentile(times, [25, 50, 75])] if len(times) else None


def late(odds: np.ndarray, labels: np.ndarray, dt: float, furthest_s: float = 0.5) -> float:
    """How late answers are, s: they are most often right about what was asked so long before they are heard.

    Args:
      odds: (steps, B, 5) log-odds of the answers heard.
      labels: (steps, B, 5) asked for at the same time.
      dt: s a step.
      furthest_s: how far is looked, s, in both directions.
    """
    most = round(furthest_s / dt)
    found = lagged(odds > 0, labels, dt, range(-most, most + 1))
    return found["lag_s"][int(np.argmax(found["accuracy"]))]
