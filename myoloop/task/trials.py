"""How quickly and how firmly what was asked is answered: users of interfaces are judged by trials, not by control steps.

A trial is one gesture. It begins at the control step at which the asked gesture - all five labels together - changes,
and ends when it changes again, or at the time limit. It is reached at the first step from which the answers of all five
fingers are right and stay right for the dwell time. The terms are those of tests with users of prostheses: time to
reach and completion rate within a time limit of the motion test (Kuiken et al. 2009, JAMA 301:619-628), a dwell time
for which the target must be held of the target achievement control test (Simon et al. 2011, J Rehabil Res Dev
48:619-628), path efficiency of Fitts' law tests of pattern recognition (Wurth & Hargrove 2014, J NeuroEng Rehabil
11:91). Those tests hold a gesture for seconds after a cue that nobody can foresee. A reference that flows asks for
another gesture several times a second, one finger after the other, and tells ahead: so gestures that are asked for less
than the dwell time are only passed through and counted apart, answers that were there before they were asked for are
counted as early, and reaching is told by how long the gesture was asked, too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from myoloop.errors import MyoloopError

LENGTHS_S = (0.0, 0.4, 0.8, math.inf)
"""Bounds of the lengths of trials by which reaching is told, s."""


@dataclass(frozen=True)
class TrialRules:
    """When a gesture counts as reached."""

    dwell_s: float = 0.2
    """s for which all five answers must stay right. Longer than half a transition of a finger (task/reference.py); the motion
    test takes 1 s, the target achievement control test 2 s, of gestures that are held for that long."""
    limit_s: float = 5.0
    """s within which the dwell must be over; as in the motion test."""

    def __post_init__(self) -> None:
        if not 0.0 < self.dwell_s <= self.limit_s:
            raise MyoloopError(
                f"trials with a dwell of {self.dwell_s} s and a limit of {self.limit_s} s: expected a dwell above 0 and a "
                "limit of at least the dwell."
            )


class Trial(NamedTuple):
    """One gesture that was asked for at least as long as the dwell."""

    length_s: float
    """For how long it was asked, s; at most the limit."""
    reached_s: float
    """From the change of the gesture to the first of the right answers that last, s; not a number if they never came."""
    early: bool
    """The answers were already right in the step before the gesture was asked for."""
    hold: float
    """Part of the steps after the dwell in which all five answers are right; not a number where none are left."""
    least: int
    """Answers that had to change: fingers whose last answer before the trial is not what it asks for."""
    made: int
    """Answers that did change, from the last one before the trial until it was reached, or until its end."""


class Found(NamedTuple):
    """The trials of a recording."""

    trials: list[Trial]
    too_short: int
    """Gestures that were asked for less than the dwell."""


def quantiles(values: np.ndarray) -> dict[str, float] | None:
    """Median, 95th and 99th percentile and maximum of the finite values; None if there are none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    median, p95, p99 = np.percentile(values, [50, 95, 99])
    named = {"median": median, "p95": p95, "p99": p99, "max": values.max()}
    return {key: round(float(value), 3) for key, value in named.items()}


def find_trials(target: np.ndarray, answer: np.ndarray, dt: float, rules: TrialRules) -> Found:
    """The trials of one recording.

    The gesture with which it begins is no trial, as nobody saw when it was first asked for. The last one, which the end of the
    recording cuts off, counts only if it lasted as long as the limit.

    Args:
      target: (steps, 5) labels asked for.
      answer: (steps, 5) labels answered; both 1 (or true) for flexed.
      dt: seconds a step.
      rules: when a gesture is reached.
    """
    asked, given = np.asarray(target) > 0.5, np.asarray(answer) > 0.5
    right = (asked == given).all(axis=1)
    flips = np.zeros(len(given), int)
    flips[1:] = (given[1:] != given[:-1]).sum(axis=1)
    dwell, limit = max(1, round(rules.dwell_s / dt)), round(rules.limit_s / dt)
    starts = np.flatnonzero((asked[1:] != asked[:-1]).any(axis=1)) + 1
    trials, too_short = [], 0
    for start, end in itertools.pairwise([*starts.tolist(), len(asked)]):
        if end == len(asked) and end - start < limit:
            continue
        if end - start < dwell:
            too_short += 1
            continue
        end = min(end, start + limit)
        good = right[start:end]
        lasting = np.flatnonzero(np.lib.stride_tricks.sliding_window_view(good, dwell).all(axis=1))
        reached = int(lasting[0]) if len(lasting) else None
        rest = good[reached + dwell :] if reached is not None else good[:0]
        until = end if reached is None else start + reached + 1
        trials.append(
            Trial(
                length_s=(end - start) * dt,
                reached_s=math.nan if reached is None else reached * dt,
                early=bool((given[start - 1] == asked[start]).all()),
                hold=float(rest.mean()) if len(rest) else math.nan,
                least=int((given[start - 1] != asked[start]).sum()),
                made=int(flips[start:until].sum()),
            )
        )
    return Found(trials, too_short)


def gesture_trials(
    recordings: Iterable[tuple[np.ndarray, np.ndarray]], dt: float, rules: TrialRules | None = None
) -> dict[str, Any]:
    """How every new gesture was answered, over all recordings; for report.json and the like.

    Args:
      recordings: (target, answer) of each, (steps, 5), see `find_trials`.
      dt: seconds a step.
      rules: when a gesture is reached.

    Returns:
      count: trials; too_short: gestures passed through; dwell_s, limit_s: the rules.
      reached: share of the trials, the completion rate; None without trials, as everything that follows where it has no value.
      early: share of the trials that were answered before they were asked for, and reached at once.
      time_to_reach_s: quantiles over those reached, from the change of the gesture to the beginning of the dwell.
      hold: mean part of what is left after the dwell in which all five answers are right.
      path_efficiency: changes of answers that were needed over those that were made, summed over the trials reached.
      by_length: count and reached of trials by how long the gesture was asked, from_s up to to_s (None: any longer).
    """
    rules = rules or TrialRules()
    found = [find_trials(target, answer, dt, rules) for target, answer in recordings]
    trials = [trial for each in found for trial in each.trials]
    length, time, hold = (np.array([getattr(t, name) for t in trials]) for name in ("length_s", "reached_s", "hold"))
    done = [trial for trial in trials if np.isfinite(trial.reached_s)]
    made = sum(trial.made for trial in done)
    by_length = []
    for low, high in itertools.pairwise(LENGTHS_S):
        within = (length >= low - 1e-9) & (length < high - 1e-9)
        if within.any():
            share = round(float(np.isfinite(time[within]).mean()), 4)
            bounds = {"from_s": max(low, rules.dwell_s), "to_s": high if math.isfinite(high) else None}
            by_length.append({**bounds, "count": int(within.sum()), "reached": share})
    return {
        "count": len(trials),
        "too_short": sum(each.too_short for each in found),
        "dwell_s": rules.dwell_s,
        "limit_s": rules.limit_s,
        "reached": round(len(done) / len(trials), 4) if trials else None,
        "early": round(sum(t.early and t.reached_s == 0.0 for t in trials) / len(trials), 4) if trials else None,
        "time_to_reach_s": quantiles(time),
        "hold": round(float(np.nanmean(hold)), 4) if np.isfinite(hold).any() else None,
        "path_efficiency": round(sum(trial.least for trial in done) / made, 4) if made else None,
        "by_length": by_length,
    }
