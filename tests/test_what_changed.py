"""What changed in a participant, on behaviours made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from myoloop.body.names import FINGERS
from myoloop.emg.armband import armband
from myoloop.emg.synthesis import Spikes, block_samples, build_emg
from myoloop.learn.synergies import compare_synergies, explained, find_synergies, match
from myoloop.learn.unit_rates import UnitRates
from myoloop.learn.what_changed import bend, emg_map, flexed_minus_extended, gesture_number, movement, separability
from myoloop.task.reference import posture

DT = 0.02


def behaviour(groups: np.ndarray, seed: int) -> np.ndarray:
    """(400, 2, 39) excitations of non-negative random courses of given groups (k, 39)."""
    rng = np.random.default_rng(seed)
    course = rng.gamma(0.5, size=(800, len(groups)))
    return (0.1 * course @ groups).reshape(400, 2, -1)


def groups(count: int, seed: int) -> np.ndarray:
    """(count, 39): every muscle belongs to one group, with a weight of its own."""
    rng = np.random.default_rng(seed)
    which = rng.permutation(np.arange(39) % count)
    return (which == np.arange(count)[:, None]) * rng.uniform(0.5, 1.5, 39)


def test_synergies_that_made_the_excitations_are_found_and_counted() -> None:
    made = groups(4, 0)
    drive = behaviour(made, 1).reshape(-1, 39)
    found = find_synergies(drive, 6)
    assert found.enough(0.99) == 4 and found.enough(0.9) in (3, 4)
    unit = made / np.linalg.norm(made, axis=1, keepdims=True)
    assert match(unit, found.groups[3]).similarity.min() > 0.98
    assert explained(found.groups[3], drive) == pytest.approx(found.accounted[3], abs=0.01)


def test_synergies_are_paired_whatever_their_order_and_strangers_are_no_more_alike_than_by_chance() -> None:
    rng = np.random.default_rng(2)
    before = groups(5, 3)
    order = rng.permutation(5)
    same = match(before, 3.0 * before[order])
    assert same.similarity == pytest.approx(1.0) and (order[same.pairs[:, 1]] == same.pairs[:, 0]).all()
    assert same.chance < 0.9
    stranger = match(before, groups(5, 4))
    assert stranger.similarity.mean() < stranger.chance + 0.1 and stranger.similarity.mean() < 0.8


def test_comparison_tells_kept_synergies_from_new_ones() -> None:
    kept = compare_synergies(behaviour(groups(3, 0), 1), behaviour(groups(3, 0), 2), most=5, every=1)
    new = compare_synergies(behaviour(groups(3, 0), 1), behaviour(groups(3, 9), 2), most=5, every=1)
    assert kept["before"]["count_95"] == kept["after"]["count_95"] == 3
    assert kept["shared"]["mean"] > 0.98 > new["shared"]["mean"]
    assert kept["shared"]["before_accounts_for_after"] > 0.98 > new["shared"]["before_accounts_for_after"]


def test_units_have_the_rate_at_which_they_discharge_and_pauses_do_not_count() -> None:
    emg = build_emg(armband("myo8"))
    hz, block = emg.band.internal_rate_hz, block_samples(emg.band)
    counter = UnitRates(emg, 1)
    every, chunk = round(0.1 * hz), round(0.02 * hz)  # unit 0 at 10 Hz for 2 s, a second's pause, and again
    for number in range(250):
        when = np.full((1, -(-chunk // block), 1, emg.units), -1, np.int8)
        for sample in range(number * chunk, (number + 1) * chunk):
            if sample % every == 0 and not 2.0 <= sample / hz < 3.0:
                inside = sample - number * chunk
                when[0, inside // block, 0, 0] = inside % block
        counter.take(Spikes(when, np.array([number * chunk], np.int32)))
    rates = counter.result()
    assert rates.rate_hz[0] == pytest.approx(10.0) and np.isnan(rates.rate_hz[1:]).all()
    assert rates.active[0] == pytest.approx(
        (2.15 + 2.0) / 5.0, abs=0.02
    )  # recruited until a pause after the last discharge
    assert len(rates.recruited(int(rates.muscle[0]))) == 1


def test_hand_that_does_what_is_asked_has_lost_nothing() -> None:
    labels, flexion = squares()
    wanted = np.asarray(posture(flexion), np.float64)
    found = movement(wanted, wanted, labels, DT)
    assert np.abs(found.coupling - np.eye(5)).max() < 1e-4
    assert (
        found.travel == pytest.approx(1.0, abs=1e-4) and found.made_wrong.max() == 0 and found.tip_error_mm.max() == 0
    )
    assert bend(wanted) == pytest.approx(flexion, abs=1e-5)


def test_finger_that_stays_and_one_that_is_dragged_along_are_seen() -> None:
    labels, flexion = squares()
    wanted = np.asarray(posture(flexion), np.float64)
    made = flexion.copy()
    made[..., 1] = 0.0  # the index finger never flexes
    made[..., 3] += 0.3 * flexion[..., 4]  # the ring finger follows the little one
    found = movement(np.asarray(posture(made), np.float64), wanted, labels, DT)
    assert found.made_wrong[1] == pytest.approx([0.0, 1.0]) and found.travel[1] == pytest.approx(0.0, abs=1e-4)
    assert found.coupling[3, 4] == pytest.approx(0.3, abs=1e-3) and found.coupling[1] == pytest.approx(0.0, abs=1e-3)
    assert found.tip_error_mm[1] > 20 > found.tip_error_mm[0]


def test_excitation_and_emg_are_told_by_what_was_asked() -> None:
    labels, _ = squares()
    excitation = np.zeros((*labels.shape[:2], 39))
    excitation[..., 7] = 0.1 + 0.2 * labels[..., 2]
    change = flexed_minus_extended(excitation, labels)
    assert change[7, 2] == pytest.approx(0.2) and np.abs(change[:7]).max() == 0
    power = np.ones((*labels.shape[:2], 4)) * (1 + 3 * labels[..., :1])
    seen = emg_map(power, labels)
    asked = np.unique(gesture_number(labels))
    assert seen[asked][:, 0] == pytest.approx(np.where(asked & 1, 2.0, 1.0)) and np.isnan(seen).all(
        axis=1
    ).sum() == 32 - len(asked)


def test_fresh_discriminant_finds_what_the_emg_carries_and_nothing_else() -> None:
    labels, _ = squares(participants=4)
    rng = np.random.default_rng(0)
    power = rng.gamma(4.0, size=(*labels.shape[:2], 6))
    power[..., 0] *= np.where(labels[..., 0] > 0.5, 10.0, 1.0)
    found = separability(power, labels, DT)
    assert found[0] > 0.9 and found[1:].max() < 0.65


def squares(participants: int = 2, steps: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Labels and flexions (steps, B, 5) that go up and down independently, each held for 0.6 to 2 s."""
    rng, out = np.random.default_rng(5), np.zeros((steps, participants, len(FINGERS)), np.float32)
    for person in range(participants):
        for finger in range(len(FINGERS)):
            edges = np.cumsum(rng.integers(30, 100, size=steps // 30))
            out[:, person, finger] = np.searchsorted(edges, np.arange(steps), side="right") % 2
    return out, out.astype(np.float64)
