"""Muscle synergies: groups of muscles that are driven together, and how much of them is kept when a participant adapts.

Excitations (time x muscles) are factorised into non-negative time courses and groups (Lee & Seung 1999, Nature
401:788-791), as muscle synergies are found in EMG envelopes (d'Avella, Saltiel & Bizzi 2003, Nat Neurosci 6:300-308;
Cheung et al. 2005, J Neurosci 25:6419-6434). Every muscle is in units of its own root mean square, so that strong muscles
do not decide alone. The number of synergies is the least that accounts for 90 or 95 % of the variance: 1 - residual over
total sum of squares, not centred. Synergies of two behaviours are paired so that the sum of cosine similarities is
greatest. As non-negative groups are similar by chance, too, the same is done with groups whose muscles were shuffled.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import NMF, non_negative_factorization
from sklearn.exceptions import ConvergenceWarning

ENOUGH = (0.90, 0.95)
"""Variance accounted for that is asked of the synergies."""
SILENT = 1e-3
"""Muscles whose root mean square excitation is below it in both behaviours have no part in synergies."""


class Synergies(NamedTuple):
    """Of one behaviour."""

    accounted: np.ndarray
    """(most,) part of the variance that 1, 2, ... synergies account for."""
    groups: tuple[np.ndarray, ...]
    """(k, muscles) of unit length for every k from 1 on."""

    def enough(self, part: float) -> int | None:
        """The least number of synergies that accounts for this part of the variance; None if none of those tried does."""
        reach = np.flatnonzero(self.accounted >= part)
        return int(reach[0]) + 1 if len(reach) else None


class Match(NamedTuple):
    """Synergies of two behaviours beside each other, the most similar pair first."""

    pairs: np.ndarray
    """(k, 2) index before and after."""
    similarity: np.ndarray
    """(k,) cosine, 0 to 1."""
    chance: float
    """95th percentile of the mean similarity when the muscles of every group are shuffled."""


def find_synergies(drive: np.ndarray, most: int, seed: int = 0) -> Synergies:
    """Factorise drives (samples, muscles), not negative, into 1 to `most` synergies."""
    total, accounted, groups = float(np.sum(drive**2)), [], []
    for count in range(1, min(most, *drive.shape) + 1):
        model = NMF(count, init="nndsvda", max_iter=400, tol=1e-4, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # what is left of it shows in the variance accounted for
            course = model.fit_transform(drive)
        left = float(np.sum((drive - course @ model.components_) ** 2))
        accounted.append(1.0 - left / total)
        size = np.linalg.norm(model.components_, axis=1, keepdims=True)
        groups.append(model.components_ / np.where(size > 0, size, 1.0))
    return Synergies(np.array(accounted), tuple(groups))


def match(before: np.ndarray, after: np.ndarray, shuffles: int = 200, seed: int = 0) -> Match:
    """Pair synergies (k, muscles) of two behaviours; those of the longer list that have no partner are left out."""
    pairs, similarity = _paired(before, after)
    rng = np.random.default_rng(seed)
    chance = [_paired(before, rng.permuted(after, axis=1))[1].mean() for _ in range(shuffles)]
    return Match(pairs, similarity, float(np.percentile(chance, 95)))


def explained(groups: np.ndarray, drive: np.ndarray) -> float:
    """Part of the variance of drives (samples, muscles) that given groups (k, muscles) account for, their time courses free."""
    course, fixed, _ = non_negative_factorization(
        drive, H=groups, n_components=len(groups), init="custom", update_H=False, max_iter=400
    )
    return 1.0 - float(np.sum((drive - course @ fixed) ** 2) / np.sum(drive**2))


def compare_synergies(before: np.ndarray, after: np.ndarray, most: int = 26, every: int = 10) -> dict[str, Any]:
    """Synergies of two behaviours, for a JSON file.

    Args:
      before, after: (steps, participants, muscles) excitations.
      most: synergies tried.
      every: step that is looked at; neighbouring ones hardly differ.

    Returns:
      muscles: indexes of those that take part; accounted: curves of both; count_90, count_95 of both; shared: at the greater of
      both counts for 90 %, the similarity of each pair, its
      mean, what the mean is by chance, and which part of the variance after adaptation the synergies from before account for.
    """
    flat = [x[::every].reshape(-1, x.shape[-1]).astype(np.float64) for x in (before, after)]
    size = np.sqrt([np.mean(x**2, axis=0) for x in flat])
    used = np.flatnonzero((size >= SILENT).any(axis=0))
    scale = np.sqrt(np.mean(size**2, axis=0))[used]
    found = [find_synergies(x[:, used] / scale, most) for x in flat]
    counts = [each.enough(ENOUGH[0]) for each in found]
    k = max(len(found[0].groups) if c is None else c for c in counts)
    pairing = match(found[0].groups[k - 1], found[1].groups[k - 1])
    shared = {
        "synergies": k,
        "similarity": [round(float(x), 3) for x in pairing.similarity],
        "mean": round(float(pairing.similarity.mean()), 3),
        "by_chance_95th_percentile": round(pairing.chance, 3),
        "before_accounts_for_after": round(explained(found[0].groups[k - 1], flat[1][:, used] / scale), 4),
        "groups_before": np.round(found[0].groups[k - 1][pairing.pairs[:, 0]], 3).tolist(),
        "groups_after": np.round(found[1].groups[k - 1][pairing.pairs[:, 1]], 3).tolist(),
    }
    each = {
        name: {
            "accounted": [round(float(x), 4) for x in one.accounted],
            **{f"count_{round(100 * part)}": one.enough(part) for part in ENOUGH},
        }
        for name, one in zip(("before", "after"), found, strict=True)
    }
    return {"muscles": used.tolist(), **each, "shared": shared}


def _paired(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(k, 2) indexes and (k,) cosines, the most similar first."""
    size = np.linalg.norm(before, axis=1)[:, None] * np.linalg.norm(after, axis=1)
    cosine = before @ after.T / np.where(size > 0, size, 1.0)
    rows, columns = linear_sum_assignment(-cosine)
    order = np.argsort(-cosine[rows, columns])
    return np.stack([rows, columns], axis=1)[order], cosine[rows, columns][order]
