"""Where answers are wrong: the arithmetic on answers made by hand, and drives that are heard again or chosen freely."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from myoloop.body.leverage import leverage
from myoloop.body.model import load_hand
from myoloop.decoder import tcn
from myoloop.decoder.weights import DecoderWeights
from myoloop.emg.armband import armband
from myoloop.emg.synthesis import build_emg
from myoloop.learn.limits import (
    FAR,
    around_changes,
    by_gesture,
    chance,
    company,
    concentration,
    from_change,
    lagged,
    where_wrong,
    without_changes,
)
from myoloop.learn.replay import Wanted, best_drive, replay
from myoloop.learn.through_forward import unit_leverage
from myoloop.task.reference import EXTENDED, FLEXED

DT = 0.02


def labels_of(*fingers: str) -> np.ndarray:
    """(steps, 1, 5) from a string of 0 and 1 for each finger; missing fingers stay extended."""
    rows = [*fingers, *["0" * len(fingers[0])] * (5 - len(fingers))]
    return np.array([[int(c) for c in row] for row in rows], np.float32).T[:, None]


def test_steps_are_counted_from_the_nearest_change_of_the_own_label() -> None:
    at = from_change(labels_of("000001111110"))[:, 0]
    assert at[:, 0].tolist() == [-5, -4, -3, -2, -1, 0, 1, 2, 3, -2, -1, 0]
    assert (at[:, 1] == FAR).all()


def test_errors_at_changes_are_what_leaving_them_out_gains() -> None:
    labels = labels_of("0" * 20 + "1" * 20, "1" * 20 + "0" * 20)[..., :2]
    right = np.ones(labels.shape, bool)
    right[20:24] = False  # both fingers are answered 80 ms late
    rows = without_changes(right, labels, DT, (0.04, 0.08))
    assert rows[0]["share"] == pytest.approx(4 / 40) and rows[0]["accuracy"] == pytest.approx(34 / 36, abs=1e-4)
    assert rows[1] == {"margin_s": 0.08, "share": 0.2, "accuracy": 1.0, "points": 10.0, "points_lost_there": 10.0}
    curve = around_changes(right, labels, DT, reach_s=0.1)
    assert curve["time_s"][5] == 0.0 and curve["accuracy"] == [1.0] * 5 + [0.0] * 4 + [1.0] * 2


def test_late_answers_are_right_at_their_lag() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((500, 2, 5)) > 0.5).astype(np.float32)
    found = lagged(np.roll(labels, 3, axis=0) > 0.5, labels, DT, range(-5, 6))
    best = int(np.argmax(found["accuracy"]))
    assert found["lag_s"][best] == pytest.approx(0.06) and found["accuracy"][best] == 1.0


def test_finger_that_spoils_another_is_named() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((4000, 2, 5)) > 0.5).astype(np.float32)
    wrong = np.zeros(labels.shape, bool)
    wrong[..., 3] = (labels[..., 3] == 0) & (labels[..., 4] == 1)  # ring is taken for flexed when little is
    found = company(wrong, labels)
    assert found[3, 4].tolist() == [1.0, 0.0] and np.abs(np.delete(found[3], 4, axis=0)).max() < 0.1
    assert not found[:3].any()
    rate, share = by_gesture(wrong, labels)
    assert rate[0b10000].tolist() == [0, 0, 0, 1, 0] and rate[0b11000, 3] == 0 and share.sum() == pytest.approx(1.0)
    assert concentration(rate, share) == (4, 160), "8 of 160 cells hold all errors, about evenly"


def test_chance_is_what_averaging_takes_away_and_the_rest_is_always_wrong() -> None:
    rng = np.random.default_rng(2)
    labels = (rng.random((2000, 2, 5)) > 0.5).astype(np.float32)
    mean = np.where(labels > 0.5, 1.0, -1.0)
    mean[..., 0] *= -1.0  # the thumb is always taken for its opposite
    noisy = mean[None] + rng.normal(0.0, 1.0, (40, *mean.shape))
    found = chance(noisy, labels)
    miss = 0.1587  # a normal variable below minus one standard deviation
    assert found.accuracy == pytest.approx(0.8 * (1 - miss) + 0.2 * miss, abs=0.01)
    assert found.denoised == pytest.approx(0.8, abs=0.01) and found.agree == pytest.approx(
        1 - 2 * miss * (1 - miss), abs=0.01
    )
    assert found.wrong_mostly == pytest.approx(0.2 * (1 - miss), abs=0.01)
    assert found.wrong_mostly + found.wrong_sometimes == pytest.approx(1 - found.accuracy)


def test_all_figures_of_perfect_answers_are_without_error() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat(rng.random((60, 2, 5)) > 0.5, 50, axis=0).astype(np.float32)
    found = where_wrong(labels - 0.5, labels, DT)
    assert found["accuracy"] == 1.0 and found["best_lag"] == {"lag_s": 0.0, "points": 0.0}
    assert all(finger["settled"] == 0 for finger in found["error_per_finger"].values())


@pytest.fixture(scope="module")
def hearing():
    """A band, one person's EMG and an untrained decoder that hears power."""
    band = armband("myo8")
    network = tcn.TcnConfig(
        channels=band.channels, rate_hz=band.rate_hz, spatial_filters=8, temporal_filters=2, hidden=8
    )
    params = tcn.init_params(network, jax.random.key(1))
    return build_emg(band), DecoderWeights(network, params, band.channel_labels, "untrained", {})


def test_drive_heard_again_differs_by_chance_only(hearing) -> None:
    emg, decoder = hearing
    drive = np.full((60, 2, 39), 0.05, np.float32)
    odds = replay(emg, decoder, drive, (0, 1, 0))
    assert odds.shape == (3, 60, 2, 5)
    assert np.array_equal(odds[0], odds[2]) and np.abs(odds[0] - odds[1]).max() > 1e-3
    assert np.abs(odds[0, :, 0] - odds[0, :, 1]).max() > 1e-3, "participants have noise of their own"


def test_free_drive_pleases_the_decoder_and_keeps_the_movement_when_told_to(hearing) -> None:
    emg, decoder = hearing
    rng = np.random.default_rng(4)
    labels = np.repeat(rng.random((4, 2, 5)) > 0.5, 20, axis=0).astype(np.float32)
    habit = np.full((80, 2, 39), 0.02, np.float32)
    turning = unit_leverage(leverage(load_hand(), np.stack([EXTENDED, FLEXED])))
    short, free, kept, mute = (
        best_drive(emg, decoder, labels, habit, turning, wanted, iterations)
        for wanted, iterations in (
            (Wanted(), 20), (Wanted(), 60), (Wanted(movement=1000.0), 60), (Wanted(without=tuple(range(39))), 20),
        )
    )  # fmt: skip
    assert free.loss < short.loss < mute.loss
    assert kept.strayed < 0.2 * free.strayed and free.excitation.shape == habit.shape
    assert not mute.excitation.any() and (free.excitation >= 0).all() and (free.excitation <= 1).all()
