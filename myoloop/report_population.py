"""What a population's run folder says: how well the decoder did on each participant, on all, and what sets the worst apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from myoloop.body.names import FINGERS
from myoloop.errors import MyoloopError
from myoloop.live.population_log import PEOPLE, SPECTRUM
from myoloop.streams.rowlog import read_rows
from myoloop.task.gestures import score_gestures
from myoloop.task.trials import gesture_trials

LEAST_S = 1.0
"""s for which a gesture must have been asked to be told as one that fails."""
OWN_FRAMES = 8
"""Control steps of EMG, 160 ms at 50 Hz, whose power a person's own discriminant reads."""
MOST_OWN = 256
"""Participants up to which own discriminants are fitted; more would take minutes."""
LEVEL = 0.05
"""A correlation is told as one that holds if chance makes it less often than this, all of them counted."""

TRAITS = {
    "rms_uv": "EMG amplitude (µV RMS)",
    "median_frequency_hz": "EMG median frequency (Hz)",
    "channel_spread": "unevenness of the channels",
    "effort": "effort",
    "joint_error_deg": "error of the movement (deg)",
    "own_discriminant": "own discriminant's accuracy",
    "forearm_radius_mm": "forearm radius (mm)",
    "fat_mm": "subcutaneous fat (mm)",
    "conduction_velocity_m_s": "conduction velocity (m/s)",
    "units_scale": "number of motor units (scale)",
    "zone_spread": "spread of innervation zones",
    "recruitment_range": "range of recruitment",
    "last_recruited": "last recruitment (of maximum)",
    "min_rate_hz": "lowest discharge rate (Hz)",
    "band_turn_deg": "armband turned (deg)",
    "band_turn_size_deg": "armband turned, either way (deg)",
    "band_level": "armband along the forearm",
}
"""What a participant may differ in from the others: key and how a report calls it; conditions come on top."""


class Crowd(NamedTuple):
    """What a population did: T control steps of B participants."""

    people: list[dict[str, Any]]
    """see live/population_log.py"""
    target: np.ndarray
    """(B, T, 5) labels"""
    prediction: np.ndarray
    """(B, T, 5)"""
    judged: np.ndarray
    """(B, T) bool: from the first prediction on"""
    effort: np.ndarray
    """(B,) mean squared excitation"""
    joint_error_deg: np.ndarray
    """(B,)"""
    power: np.ndarray
    """(B, T, C) mean square of each chunk, microvolts^2"""
    median_hz: np.ndarray
    """(B,) median over the channels of the EMG's median frequency, Hz; NaN if unknown"""


def read_crowd(run_dir: Path) -> tuple[Crowd, np.ndarray]:
    """What the run folder of a population holds, and the rows of the batch (their times).

    Raises:
      MyoloopError: it is no population's run folder, or it made no step.
    """
    try:
        people = json.loads((run_dir / PEOPLE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MyoloopError(f"{run_dir}: {PEOPLE} is missing or damaged: was it a population that ran there?") from error
    rows, count = read_rows(run_dir / "population"), len(people)
    if not len(rows):
        raise MyoloopError(f"{run_dir}: the population made no step; see {run_dir / 'logs'}.")

    def each(name: str) -> np.ndarray:
        """(B, T, n) of a column that holds n values of each participant."""
        return rows[name].reshape(len(rows), count, -1).transpose(1, 0, 2)

    heard = np.isfinite(each("prediction_age_s")[..., 0])
    crowd = Crowd(
        people,
        each("target"),
        each("prediction"),
        np.cumsum(heard, axis=1) > 0,
        each("effort")[..., 0].mean(axis=1),
        each("joint_error_deg")[..., 0].mean(axis=1),
        each("power"),
        _median_frequency(run_dir, count),
    )
    return crowd, rows


def _median_frequency(run_dir: Path, count: int) -> np.ndarray:
    try:
        with np.load(run_dir / SPECTRUM) as saved:
            power, frequency = saved["power"], saved["frequency"]
    except (OSError, ValueError, KeyError):
        return np.full(count, np.nan)
    share = np.cumsum(power, axis=1) / np.maximum(power.sum(axis=1, keepdims=True), 1e-30)
    return np.median(frequency[np.argmax(share >= 0.5, axis=1)], axis=1)


def population_figures(crowd: Crowd, config: Mapping[str, Any]) -> dict[str, Any]:
    """The section `population` of report.json; without predictions only who they are and what they sent.

    Args:
      crowd: what they did.
      config: the resolved experiment.
    """
    settings, control_hz = config["population"], config["participant"]["control_hz"]
    gestures = config["participant"]["reference"].get("gestures")
    people = [_person(crowd, n, control_hz, gestures) for n in range(len(crowd.people))]
    judged = [each for each in people if each["accuracy"] is not None]
    found: dict[str, Any] = {"participants": len(people), "judged": len(judged), "people": people}
    for name in ("accuracy", "balanced_accuracy", "reached", "effort", "joint_error_deg"):
        found[name] = spread([each[name] for each in judged])
    found["fingers"] = (
        {f: spread([each["accuracy_per_finger"][f] for each in judged]) for f in FINGERS} if judged else None
    )
    found["reliability"] = _reliability(crowd)
    found["related"] = related(judged)
    found["worst"] = worst(crowd, judged, found["related"], control_hz) if len(judged) > 1 else None
    drawn = "listed" if settings["persons"] else f"drawn from published ranges by seed {settings['seed']}"
    published = [each["id"] for each in crowd.people if each["published"]]
    return found | {key: settings[key] for key in ("seed", "how", "motion")} | {"drawn": drawn, "published": published}


def spread(values: list[Any]) -> dict[str, Any] | None:
    """Mean, quartiles and extremes of the values that are known; the median's 95 % interval over people, by bootstrap."""
    known = np.array([value for value in values if value is not None], float)
    if not len(known):
        return None
    low, q1, median, q3, high = np.percentile(known, [0, 25, 50, 75, 100])
    named = {"mean": known.mean(), "median": median, "q1": q1, "q3": q3, "min": low, "max": high}
    if len(known) > 2 and known.std() > 0:
        drawn = stats.bootstrap(
            (known,), np.median, n_resamples=2000, method="percentile", rng=np.random.default_rng(0)
        )
        named |= {"median_low": drawn.confidence_interval.low, "median_high": drawn.confidence_interval.high}
    return {key: round(float(value), 5) for key, value in named.items()} | {"count": len(known)}


def _person(crowd: Crowd, n: int, control_hz: float, gestures: Mapping[str, Any] | None) -> dict[str, Any]:
    """One participant's figures."""
    who, seen = crowd.people[n], crowd.judged[n]
    target, prediction = crowd.target[n][seen], crowd.prediction[n][seen]
    rms = np.sqrt(crowd.power[n].mean(axis=0))
    figures: dict[str, Any] = {
        **{key: who[key] for key in ("id", "person", "published", "conditions")},
        "accuracy": None, "accuracy_per_finger": None, "balanced_accuracy": None, "reached": None, "trials": None,
        "effort": round(float(crowd.effort[n]), 5),
        "joint_error_deg": round(float(crowd.joint_error_deg[n]), 2),
        "rms_uv": round(float(np.median(rms)), 2) if np.isfinite(rms).all() else None,
        "median_frequency_hz": round(float(crowd.median_hz[n]), 1) if np.isfinite(crowd.median_hz[n]) else None,
        "channel_spread": round(float(rms.std() / max(rms.mean(), 1e-9)), 3) if np.isfinite(rms).all() else None,
        "own_discriminant": _own(crowd.power[n], crowd.target[n]) if len(crowd.people) <= MOST_OWN else None,
        "traits": {key: round(float(value), 3) for key, value in who["traits"].items()},
    }  # fmt: skip
    figures["traits"]["band_turn_size_deg"] = abs(figures["traits"]["band_turn_deg"])
    if not seen.any():
        return figures
    right = ((prediction > 0.5) == (target > 0.5)).mean(axis=0)
    trials = gesture_trials([(target, prediction)], 1.0 / control_hz)
    figures |= {
        "accuracy": round(float(right.mean()), 4),
        "accuracy_per_finger": {f: round(float(x), 4) for f, x in zip(FINGERS, right, strict=True)},
        "reached": trials["reached"],
        "trials": trials["count"],
    }
    if gestures:
        scores = score_gestures(target, prediction, gestures, 1.0 / control_hz)
        figures["balanced_accuracy"] = round(scores.balanced_accuracy, 4)
        figures["by_gesture"] = {name: round(share, 4) for name, share in scores.by_gesture.items()}
    return figures


def _own(power: np.ndarray, target: np.ndarray) -> float | None:
    """How well linear discriminants of the log-power of this participant's own EMG tell its fingers: fitted on one half of the
    session, tested on the other, both ways; what the EMG itself gives away, whoever decodes it."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    if len(power) < 20 * OWN_FRAMES:
        return None
    smooth = np.lib.stride_tricks.sliding_window_view(power, OWN_FRAMES, axis=0).mean(axis=-1)
    features, labels = np.log(smooth + 1e-3), target[OWN_FRAMES - 1 :] > 0.5
    half, right = len(features) // 2, []
    for train, test in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
        for finger in range(len(FINGERS)):
            if len(np.unique(labels[train, finger])) < 2:
                continue
            fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(
                features[train], labels[train, finger]
            )
            right.append(float(np.mean(fitted.predict(features[test]) == labels[test, finger])))
    return round(float(np.mean(right)), 4) if right else None


def _reliability(crowd: Crowd) -> float | None:
    """Rank correlation between the participants' accuracies in the two halves of the session: whether the spread is them."""
    half = crowd.target.shape[1] // 2
    halves = []
    for part in (slice(0, half), slice(half, None)):
        seen = crowd.judged[:, part]
        if not (seen.sum(axis=1) > 0).all():
            return None
        right = ((crowd.prediction[:, part] > 0.5) == (crowd.target[:, part] > 0.5)).mean(axis=2)
        halves.append(np.where(seen, right, 0.0).sum(axis=1) / seen.sum(axis=1))
    return _rank(halves[0], halves[1])[0]


def _rank(x: np.ndarray, y: np.ndarray) -> tuple[float | None, float | None]:
    """Spearman's rho and its p; None where it says nothing: fewer than 5, or all alike."""
    if len(x) < 5 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None, None
    found = stats.spearmanr(x, y)
    return round(float(found.statistic), 3), float(found.pvalue)


def trait(person: dict[str, Any], name: str) -> float | None:
    """A trait or condition of a participant, by its key in TRAITS or `condition <name>`."""
    if name.startswith("condition "):
        return float(person["conditions"].get(name.removeprefix("condition "), 0.0))
    value = person["traits"].get(name, person.get(name))
    return None if value is None else float(value)


def related(people: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How each trait goes with accuracy over the participants, the closest first: rank correlation, its p, and the p after
    Holm's correction for how many were looked at."""
    ill = sorted({f"condition {name}" for each in people for name in each["conditions"]})
    found: list[dict[str, Any]] = []
    for name in (*TRAITS, *ill):
        pairs = [(value, each["accuracy"]) for each in people if (value := trait(each, name)) is not None]
        rho, p = _rank(*np.array(pairs).T) if len(pairs) == len(people) and pairs else (None, None)
        if rho is not None:
            found.append({"trait": name, "label": TRAITS.get(name, name), "rho": rho, "p": p})
    found.sort(key=lambda each: each["p"])
    adjusted = 0.0
    for place, each in enumerate(found):
        adjusted = max(adjusted, min(1.0, (len(found) - place) * each["p"]))
        each["p_corrected"] = float(f"{adjusted:.3g}")
        each["p"] = float(f"{each['p']:.3g}")
    return found


def worst(
    crowd: Crowd, people: list[dict[str, Any]], relations: list[dict[str, Any]], control_hz: float
) -> dict[str, Any]:
    """The participant whom the decoder served worst: which fingers and gestures fail, and in what it is unlike the others."""
    person = min(people, key=lambda each: each["accuracy"])
    number = next(n for n, each in enumerate(crowd.people) if each["id"] == person["id"])
    median = float(np.median([each["accuracy"] for each in people]))
    fingers = _failing_fingers(crowd, number, people)
    found = {
        "id": person["id"],
        "person": person["person"],
        "accuracy": person["accuracy"],
        "below_median": round(median - person["accuracy"], 4),
        "fingers": fingers,
        "gestures": _failing_gestures(crowd, number, control_hz),
        "unlike": _unlike(person, people, relations),
        "own_discriminant": person["own_discriminant"],
        "own_discriminant_median": (spread([each["own_discriminant"] for each in people]) or {}).get("median"),
    }
    return found | {"words": in_words(found, relations, len(people))}


def _failing_fingers(crowd: Crowd, number: int, people: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fingers, the one furthest below the others' median first: and which way the answers err."""
    said, asked = crowd.prediction > 0.5, crowd.target > 0.5
    found: list[dict[str, Any]] = []
    for n, finger in enumerate(FINGERS):
        false, missed = [], []
        for b in range(len(crowd.people)):
            seen = crowd.judged[b]
            down, up = seen & ~asked[b, :, n], seen & asked[b, :, n]
            false.append(float(said[b, down, n].mean()) if down.any() else float("nan"))
            missed.append(float(1.0 - said[b, up, n].mean()) if up.any() else float("nan"))
        accuracies = [each["accuracy_per_finger"][finger] for each in people]
        own = next(each for each in people if each["id"] == crowd.people[number]["id"])["accuracy_per_finger"][finger]
        found.append(
            {
                "finger": finger,
                "accuracy": own,
                "median": round(float(np.median(accuracies)), 4),
                **{
                    key: {"own": _rounded(values[number]), "median": _rounded(np.nanmedian(values))}
                    for key, values in (("extended_called_flexed", false), ("flexed_called_extended", missed))
                },
            }
        )
    return sorted(found, key=lambda each: each["accuracy"] - each["median"])


def _failing_gestures(crowd: Crowd, number: int, control_hz: float, most: int = 3) -> list[dict[str, Any]]:
    """Gestures, five labels together, whose answers are furthest below what the others reach on them."""
    right = ((crowd.prediction > 0.5) == (crowd.target > 0.5)).mean(axis=2)
    code = (crowd.target > 0.5) @ (1 << np.arange(len(FINGERS)))
    found: list[dict[str, Any]] = []
    for gesture in np.unique(code[number]):
        asked = (code == gesture) & crowd.judged
        if asked[number].sum() < LEAST_S * control_hz:
            continue
        shares = [float(right[b, asked[b]].mean()) for b in range(len(code)) if asked[b].any()]
        labels = "".join(str(gesture >> n & 1) for n in range(len(FINGERS)))
        own = float(right[number, asked[number]].mean())
        seconds = round(float(asked[number].sum() / control_hz), 2)
        found.append(
            {
                "labels": labels,
                "seconds": seconds,
                "accuracy": _rounded(own),
                "median": _rounded(float(np.median(shares))),
            }
        )
    return sorted(found, key=lambda each: each["accuracy"] - each["median"])[:most]


def _unlike(
    person: dict[str, Any], people: list[dict[str, Any]], relations: list[dict[str, Any]], most: int = 4
) -> list[dict[str, Any]]:
    """Traits in which the participant is at the edge of the population, on the side that goes with lower accuracy first."""
    by_trait = {each["trait"]: each for each in relations}
    found = []
    for name, relation in by_trait.items():
        values = np.array([trait(each, name) for each in people], float)
        own = trait(person, name)
        deviation = float(stats.iqr(values)) / 1.349 or float(values.std())  # 1.349: of a normal distribution
        if own is None or deviation <= 0:
            continue
        z = (own - float(np.median(values))) / deviation
        if abs(z) < 1.0:
            continue
        rank = int((values > own).sum() if z > 0 else (values < own).sum()) + 1
        found.append(
            {
                "trait": name, "label": relation["label"], "value": own, "median": round(float(np.median(values)), 4),
                "z": round(z, 2), "rank": rank, "side": "largest" if z > 0 else "smallest", "rho": relation["rho"],
                "p": relation["p"], "p_corrected": relation["p_corrected"], "agrees": bool(z * relation["rho"] < 0),
            }
        )  # fmt: skip
    return sorted(found, key=lambda each: (not each["agrees"], -abs(each["z"] * each["rho"])))[:most]


def in_words(found: dict[str, Any], relations: list[dict[str, Any]], count: int) -> list[str]:
    """The same as sentences: what was measured, and how sure it is."""
    finger = found["fingers"][0]
    false, missed = finger["extended_called_flexed"], finger["flexed_called_extended"]
    direction = max((false, missed), key=lambda way: (way["own"] or 0.0) - (way["median"] or 0.0))
    meant, called = ("extended", "flexed") if direction is false else ("flexed", "extended")
    words = [
        f"{found['id']} (person {found['person']}) is {100 * found['accuracy']:.1f} % right, {100 * found['below_median']:.1f} "
        f"points below the median of {count}.",
        f"The {finger['finger']} fails most beside the others: {100 * finger['accuracy']:.0f} % (median "
        f"{100 * finger['median']:.0f} %); when asked to be {meant} it is called {called} in "
        f"{100 * (direction['own'] or 0.0):.0f} % of the steps (median {100 * (direction['median'] or 0.0):.0f} %).",
    ]
    if found["gestures"]:
        gesture = found["gestures"][0]
        words.append(
            f"Of the gestures, {gesture['labels']} (thumb to little, 1: flexed) falls furthest: "
            f"{100 * gesture['accuracy']:.0f} % of its fingers are right (median {100 * gesture['median']:.0f} %)."
        )
    telling = [each for each in found["unlike"] if each["agrees"] and each["p"] < LEVEL]
    for each in telling[:3]:
        sure = "holds" if each["p_corrected"] < LEVEL else "may be chance"
        words.append(
            f"{each['label'][0].upper()}{each['label'][1:]} {each['value']:g}: {_ordinal(each['rank'])}{each['side']} of "
            f"{count} (median {each['median']:g}). Over all of them, {'more' if each['rho'] < 0 else 'less'} of it goes with "
            f"fewer right answers: rank correlation {each['rho']:+.2f}, p {each['p']:.2g}, {each['p_corrected']:.2g} after "
            f"correction for {len(relations)} traits: {sure}."
        )
    if not relations:
        words.append("Too few participants, or too much alike, to tell what goes with accuracy.")
    elif not telling:
        words.append(
            "It is not at the edge of the population in anything that goes with accuracy over all (rank correlation with p "
            f"below {LEVEL:g})."
        )
    if found["own_discriminant"] is not None:
        words.append(
            f"A linear discriminant fitted to one half of its own EMG is {100 * found['own_discriminant']:.0f} % right on the "
            f"other (median of all {100 * found['own_discriminant_median']:.0f} %): what its EMG gives away by itself."
        )
    return words


def _ordinal(rank: int) -> str:
    return "" if rank == 1 else {2: "second ", 3: "third "}.get(rank, f"{rank}th ")


def _rounded(value: Any) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
