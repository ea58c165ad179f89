"""What a participant does differently after it has learned to use a decoder: drive, motor units, EMG, movement.

Two policies do the same held-out test without exploration (learn/closed_loop.py), and each rollout is described from the
inside, by what no experimenter could see: excitations, spikes, joints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import GroupKFold, cross_val_predict

from myoloop.body.model import load_hand
from myoloop.body.names import FINGERS, FLEXION_JOINTS, FOREARM_MUSCLES, JOINTS, MUSCLES
from myoloop.decoder.weights import DecoderWeights
from myoloop.learn.closed_loop import Use, UseConfig, use
from myoloop.learn.metrics import label_age
from myoloop.learn.synergies import compare_synergies
from myoloop.learn.unit_rates import Rates, UnitRates
from myoloop.participant import Act, ParticipantConfig, Participants
from myoloop.task.kinematics import build_kinematics, fingertips
from myoloop.task.reference import EXTENDED, FLEXED

SETTLED_S = 0.4
"""s after a change of its label from which a finger should be where it is asked to be: a whole transition (the label changes
in the middle of it)."""
HEARD_S = 0.16
"""s of EMG power that the discriminant sees at each step."""
GESTURES = 2 ** len(FINGERS)


class Behaviour(NamedTuple):
    """A rollout from the inside."""

    use: Use
    power: np.ndarray
    """(steps, B, C) mean square of each channel in each step, microvolts^2."""
    rates: Rates


class Movement(NamedTuple):
    """What the hand makes of the gestures."""

    joint_error_deg: np.ndarray
    """(23,) mean absolute error of every joint, wrist included."""
    tip_error_mm: np.ndarray
    """(5,) mean distance of every fingertip from where the gesture has it."""
    made_wrong: np.ndarray
    """(5, 2) part of the settled steps in which a finger asked to be extended is flexed by more than half, and the reverse."""
    travel: np.ndarray
    """(5,) mean flexion made when settled flexed, minus that when settled extended: 1 is the whole movement, 0 is none."""
    coupling: np.ndarray
    """(5, 5) flexion made by finger i when finger j is asked, others kept the same: the identity for a perfect hand."""


def observe(
    participant: ParticipantConfig,
    decoder: DecoderWeights,
    config: UseConfig,
    on_second: Callable[[float], None] = lambda seconds: None,
) -> Behaviour:
    """The test of learn.closed_loop.use, watched."""
    power: list[np.ndarray] = []
    counter: list[UnitRates] = []

    def watch(people: Participants, act: Act) -> None:
        if not counter:
            counter.append(UnitRates(people.emg_params, people.participants))
        counter[0].take(act.spikes)
        power.append(np.mean(np.square(act.chunk), axis=1))

    used = use(participant, decoder, config, on_second=on_second, watch=watch)
    return Behaviour(used, np.stack(power), counter[0].result())


def compare(before: Behaviour, after: Behaviour, dt: float, most: int = 26) -> dict[str, Any]:
    """All that changed, for a JSON file; dt: seconds a step; most: synergies that are tried."""
    both = {"before": before, "after": after}
    return {
        "use": {name: each.use.figures() for name, each in both.items()},
        "excitation": {name: _drive(each.use) for name, each in both.items()},
        "synergies": compare_synergies(before.use.excitation, after.use.excitation, most),
        "motor_units": {name: _units(each.rates) for name, each in both.items()},
        "emg": {name: _emg(each, dt) for name, each in both.items()},
        "movement": {name: _moved(each.use, dt) for name, each in both.items()},
    }


def flexed_minus_extended(excitation: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(39, 5) mean excitation of each muscle while a finger is asked to be flexed, minus that while extended.

    Args: excitation: (..., 39). labels: (..., 5) 0 or 1, of the same leading axes.
    """
    drive, asked = excitation.reshape(-1, excitation.shape[-1]), labels.reshape(-1, labels.shape[-1]) > 0.5
    return np.stack([drive[on].mean(axis=0) - drive[~on].mean(axis=0) for on in asked.T], axis=1)


def bend(qpos: np.ndarray) -> np.ndarray:
    """Joint angles (..., 23) rad -> flexion (..., 5) of the fingers: 0 as in the extended gesture, 1 as in the flexed; mean
    over a finger's three flexion joints."""
    joints = np.array(FLEXION_JOINTS)
    return np.mean((qpos[..., joints] - EXTENDED[joints]) / (FLEXED - EXTENDED)[joints], axis=-1)  # type: ignore[no-any-return]


def movement(reached: np.ndarray, wanted: np.ndarray, labels: np.ndarray, dt: float) -> Movement:
    """Joint angles made and asked for (steps, B, 23), rad, and labels (steps, B, 5)."""
    kinematics = build_kinematics(load_hand())
    tips = [
        np.asarray(fingertips(kinematics, x.reshape(-1, len(JOINTS)).astype(np.float32))) for x in (reached, wanted)
    ]
    made, flexed = bend(reached), labels > 0.5
    settled = np.swapaxes(label_age(np.swapaxes(flexed, 0, 1)), 0, 1) >= round(SETTLED_S / dt)
    wrong, travel = np.zeros((len(FINGERS), 2)), np.zeros(len(FINGERS))
    for finger in range(len(FINGERS)):
        parts = [settled[..., finger] & (flexed[..., finger] == state) for state in (False, True)]
        at = [made[..., finger][part] for part in parts]
        wrong[finger] = [np.mean(at[0] > 0.5), np.mean(at[1] <= 0.5)]
        travel[finger] = np.mean(at[1]) - np.mean(at[0])
    asked = bend(wanted).reshape(-1, len(FINGERS))
    design = np.concatenate([asked, np.ones((len(asked), 1))], axis=1)
    slope = np.linalg.lstsq(design, made.reshape(-1, len(FINGERS)), rcond=None)[0][: len(FINGERS)]
    return Movement(
        joint_error_deg=np.degrees(np.abs(reached - wanted).mean(axis=(0, 1))),
        tip_error_mm=1e3 * np.linalg.norm(tips[0] - tips[1], axis=-1).mean(axis=0),
        made_wrong=wrong,
        travel=travel,
        coupling=slope.T,
    )


def gesture_number(labels: np.ndarray) -> np.ndarray:
    """(..., 5) labels -> 0..31, the thumb's the lowest bit."""
    return (labels > 0.5) @ (1 << np.arange(len(FINGERS)))  # type: ignore[no-any-return]


def emg_map(power: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(32 gestures, C) RMS, microvolts, of power (steps, B, C) while each gesture is asked; NaN for those never asked."""
    number, out = gesture_number(labels), np.full((GESTURES, power.shape[-1]), np.nan)
    for gesture in np.unique(number):
        out[gesture] = np.sqrt(power[number == gesture].mean(axis=0))
    return out


def separability(power: np.ndarray, labels: np.ndarray, dt: float) -> np.ndarray:
    """(5,) accuracy of linear discriminants of the log RMS of the last 160 ms, fitted anew to this behaviour: what a simple
    decoder could get from the EMG if it were trained on it. Cross-validated over participants.

    Args: power: (steps, B, C). labels: (steps, B, 5).
    """
    width = max(1, round(HEARD_S / dt))
    total = np.cumsum(np.pad(power.astype(np.float64), ((1, 0), (0, 0), (0, 0))), axis=0)
    heard = np.log((total[width:] - total[:-width]) / width)
    asked = labels[width - 1 :] > 0.5
    group = np.broadcast_to(np.arange(power.shape[1]), asked.shape[:2]).ravel()
    folds = GroupKFold(min(4, power.shape[1]))
    features = heard.reshape(len(group), -1)
    right = []
    for finger in range(asked.shape[-1]):
        wanted = asked[..., finger].ravel()
        guess = cross_val_predict(LinearDiscriminantAnalysis(), features, wanted, groups=group, cv=folds)
        right.append(np.mean(guess == wanted))
    return np.array(right)


def _drive(used: Use) -> dict[str, Any]:
    change = flexed_minus_extended(used.excitation, used.labels)
    mean = used.excitation.mean(axis=(0, 1))
    return {
        "mean": {m: round(float(x), 4) for m, x in zip(MUSCLES, mean, strict=True)},
        "flexed_minus_extended": {m: np.round(x, 4).tolist() for m, x in zip(MUSCLES, change, strict=True)},
    }


def _units(rates: Rates) -> dict[str, Any]:
    found = {}
    for index, muscle in enumerate(FOREARM_MUSCLES):
        hz = rates.recruited(index)
        own = rates.muscle == index
        at = (
            dict(zip(("p5", "p25", "median", "p75", "p95"), np.percentile(hz, [5, 25, 50, 75, 95]), strict=True))
            if len(hz)
            else {}
        )
        found[muscle] = {
            "units": int(own.sum()),
            "recruited": len(hz),
            "active_at_a_time": round(float(rates.active[own].sum()), 2),
            "rate_hz": {key: round(float(value), 2) for key, value in at.items()} or None,
        }
    everyone = rates.rate_hz[np.isfinite(rates.rate_hz)]
    whole = {
        "units": len(rates.muscle),
        "recruited": len(everyone),
        "active_at_a_time": round(float(rates.active.sum()), 1),
        "median_rate_hz": round(float(np.median(everyone)), 2) if len(everyone) else None,
    }
    return {"all": whole, "muscles": found}


def _emg(behaviour: Behaviour, dt: float) -> dict[str, Any]:
    seen = emg_map(behaviour.power, behaviour.use.labels)
    fresh = separability(behaviour.power, behaviour.use.labels, dt)
    return {
        "rms_uv": round(float(np.sqrt(behaviour.power.mean())), 2),
        "rms_uv_by_gesture": [None if np.isnan(row).any() else np.round(row, 2).tolist() for row in seen],
        "fresh_discriminant_accuracy": round(float(fresh.mean()), 4),
        "fresh_discriminant_per_finger": np.round(fresh, 4).tolist(),
    }


def _moved(used: Use, dt: float) -> dict[str, Any]:
    found = movement(used.reached, used.wanted, used.labels, dt)
    made = bend(used.reached) > 0.5
    asked, answered = used.labels > 0.5, used.odds > 0
    lost = made != asked
    return {
        "joint_error_deg": {j: round(float(x), 2) for j, x in zip(JOINTS, found.joint_error_deg, strict=True)},
        "tip_error_mm": {f: round(float(x), 2) for f, x in zip(FINGERS, found.tip_error_mm, strict=True)},
        "flexed_though_extended_asked": {
            f: round(float(x), 4) for f, x in zip(FINGERS, found.made_wrong[:, 0], strict=True)
        },
        "extended_though_flexed_asked": {
            f: round(float(x), 4) for f, x in zip(FINGERS, found.made_wrong[:, 1], strict=True)
        },
        "travel": {f: round(float(x), 3) for f, x in zip(FINGERS, found.travel, strict=True)},
        "coupling": np.round(found.coupling, 3).tolist(),
        "hand_disagrees": round(float(lost.mean()), 4),
        "answers_right_where_the_hand_disagrees": round(float((answered == asked)[lost].mean()), 4)
        if lost.any()
        else None,
    }
