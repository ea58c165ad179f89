"""Where answers are wrong: near changes, at which fingers, in whose company, and by chance or always. Pure arithmetic.

Arrays are (steps, B, 5): labels 0 or 1, right or wrong, log-odds. One point is one percent of the control steps and fingers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from myoloop.body.names import FINGERS

FAR = 10**6
"""Steps that stand for no change at all."""


class Chance(NamedTuple):
    """What the randomness of the EMG does to the answers: the same excitations, heard again and again."""

    accuracy: float
    """Mean over the repeats."""
    spread: float
    """Standard deviation of a repeat's accuracy."""
    agree: float
    """Part of the answers that are the same in two repeats."""
    denoised: float
    """Accuracy of the mean log-odds over all repeats."""
    wrong_mostly: float
    """Part of the answers that belong to a step and finger wrong in more than half of the repeats, and are wrong."""
    wrong_sometimes: float
    """Part of the answers that are wrong although most repeats are right there; the two sum up to 1 - accuracy."""


def from_change(labels: np.ndarray) -> np.ndarray:
    """Steps from the nearest change of each finger's own label: 0 in the first step of the new label, negative before a change
    that is nearer than the last; FAR where a finger's label never changes."""
    flexed = labels > 0.5
    steps = len(flexed)
    place = np.arange(steps)[:, None, None]
    changed = np.zeros(flexed.shape, bool)
    changed[1:] = flexed[1:] != flexed[:-1]
    last = np.maximum.accumulate(np.where(changed, place, -FAR), axis=0)
    coming = np.minimum.accumulate(np.where(changed, place, FAR)[::-1], axis=0)[::-1]
    since, until = place - last, coming - place
    nearest = np.where(since <= until, since, -until)
    return np.where(np.minimum(since, until) >= FAR - steps, FAR, nearest)


def around_changes(right: np.ndarray, labels: np.ndarray, dt: float, reach_s: float = 1.0) -> dict[str, list[float]]:
    """Accuracy against the time from the nearest change: time_s, accuracy, share of all; where there are any."""
    at, reach = from_change(labels), round(reach_s / dt)
    found: dict[str, list[float]] = {"time_s": [], "accuracy": [], "share": []}
    for step in range(-reach, reach + 1):
        there = at == step
        if there.any():
            found["time_s"].append(round(step * dt, 4))
            found["accuracy"].append(round(float(right[there].mean()), 4))
            found["share"].append(round(float(there.mean()), 5))
    return found


def without_changes(
    right: np.ndarray, labels: np.ndarray, dt: float, margins_s: tuple[float, ...]
) -> list[dict[str, float]]:
    """What would be gained if the steps up to a margin before and after a change of the finger's label did not count.

    Returns: for each margin its margin_s, the share left out, the accuracy of the rest, the points gained by leaving it out,
    and the points that the errors there cost of all.
    """
    at, rows = from_change(labels), []
    for margin in margins_s:
        steps = round(margin / dt)
        out = (at >= -steps) & (at < steps)
        kept = float(right[~out].mean())
        rows.append(
            {
                "margin_s": margin,
                "share": round(float(out.mean()), 4),
                "accuracy": round(kept, 4),
                "points": round(100 * (kept - float(right.mean())), 2),
                "points_lost_there": round(100 * float(np.mean(out & ~right)), 2),
            }
        )
    return rows


def lagged(answered: np.ndarray, labels: np.ndarray, dt: float, lags: range) -> dict[str, list[float]]:
    """Accuracy of the answers (bool) against labels of other times: lag_s > 0 against what was asked earlier. All lags are
    judged on the same labels, those at least the longest lag away from either end."""
    flexed, most = labels > 0.5, max(abs(lags.start), abs(lags[-1]))
    inside = flexed[most : len(flexed) - most]
    found = [float(np.mean(answered[most + k : len(flexed) - most + k] == inside)) for k in lags]
    return {"lag_s": [round(k * dt, 4) for k in lags], "accuracy": [round(x, 4) for x in found]}


def company(wrong: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(5, 5, 2): by how much more often finger i is answered wrong while finger j is flexed than while it is extended, given
    that i itself is extended (0) or flexed (1); 0 on the diagonal, NaN where a case never occurs."""
    flexed, n = labels > 0.5, labels.shape[-1]
    found = np.zeros((n, n, 2))
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            for state in (0, 1):
                own = flexed[..., i] == bool(state)
                cases = [wrong[..., i][own & (flexed[..., j] == bool(other))] for other in (0, 1)]
                found[i, j, state] = cases[1].mean() - cases[0].mean() if len(cases[0]) and len(cases[1]) else np.nan
    return found


def by_gesture(wrong: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(32, 5) how often each finger is answered wrong in each gesture (number: the thumb is the lowest bit), NaN where it was
    never asked; and (32,) the gesture's share of the steps."""
    number = (labels > 0.5) @ (1 << np.arange(labels.shape[-1]))
    count = 2 ** labels.shape[-1]
    rate, share = np.full((count, labels.shape[-1]), np.nan), np.zeros(count)
    for gesture in np.unique(number):
        rate[gesture] = wrong[number == gesture].mean(axis=0)
        share[gesture] = np.mean(number == gesture)
    return rate, share


def concentration(rate: np.ndarray, share: np.ndarray, part: float = 0.5) -> tuple[int, int]:
    """The least number of cells (gesture, finger) that hold this part of all errors, of how many cells; see by_gesture."""
    errors = np.nan_to_num(rate * share[:, None]).ravel()
    order = np.sort(errors)[::-1]
    enough = np.searchsorted(np.cumsum(order), part * errors.sum() - 1e-12) + 1
    return int(enough), int(np.isfinite(rate).sum())


def chance(odds: np.ndarray, labels: np.ndarray) -> Chance:
    """Repeats (K, steps, B, 5) of log-odds, with the same excitations and other noise, against labels (steps, B, 5)."""
    flexed, repeats = labels > 0.5, len(odds)
    answered = odds > 0
    right = answered == flexed
    each = right.mean(axis=(1, 2, 3))
    says = answered.mean(axis=0)  # part of the repeats that say flexed
    wrong = 1.0 - right.mean(axis=0)
    mostly = wrong > 0.5
    pairs = repeats / (repeats - 1) * 2 * says * (1 - says)  # unbiased: a pair is two different repeats
    return Chance(
        accuracy=float(right.mean()),
        spread=float(each.std(ddof=1)),
        agree=float(1.0 - pairs.mean()),
        denoised=float(np.mean((odds.mean(axis=0) > 0) == flexed)),
        wrong_mostly=float(np.mean(wrong * mostly)),
        wrong_sometimes=float(np.mean(wrong * ~mostly)),
    )


def where_wrong(odds: np.ndarray, labels: np.ndarray, dt: float) -> dict[str, Any]:
    """All of the above that needs one rollout only, for a JSON file. odds, labels: (steps, B, 5)."""
    answered, flexed = odds > 0, labels > 0.5
    right = answered == flexed
    wrong = ~right
    rate, share = by_gesture(wrong, labels)
    half, cells = concentration(rate, share)
    shift = lagged(answered, labels, dt, range(-round(0.3 / dt), round(0.3 / dt) + 1))
    best = int(np.argmax(shift["accuracy"]))
    margins = (0.04, 0.1, 0.2, 0.4)
    at = from_change(labels)
    return {
        "accuracy": round(float(right.mean()), 4),
        "error_per_finger": {
            finger: {
                "share_of_errors": round(float(wrong[..., i].sum() / max(1, wrong.sum())), 4),
                "asked_extended": round(float(wrong[..., i][~flexed[..., i]].mean()), 4),
                "asked_flexed": round(float(wrong[..., i][flexed[..., i]].mean()), 4),
                "settled": round(float(wrong[..., i][np.abs(at[..., i]) >= round(0.4 / dt)].mean()), 4),
            }
            for i, finger in enumerate(FINGERS)
        },
        "around_changes": around_changes(right, labels, dt),
        "without_changes": without_changes(right, labels, dt, margins),
        "lagged": shift,
        "best_lag": {
            "lag_s": shift["lag_s"][best],
            "points": round(100 * (shift["accuracy"][best] - shift["accuracy"][len(shift["accuracy"]) // 2]), 2),
        },
        "company_points": np.round(100 * company(wrong, labels), 2).tolist(),
        "error_by_gesture": [None if np.isnan(row).any() else np.round(row, 4).tolist() for row in rate],
        "share_by_gesture": np.round(share, 5).tolist(),
        "half_of_the_errors_in": {"cells": half, "of": cells},
    }
