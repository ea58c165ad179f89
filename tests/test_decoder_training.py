"""Supervised training of the decoder, and its scores."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from myoloop.decoder import tcn
from myoloop.errors import MyoloopError
from myoloop.learn import supervised
from myoloop.learn.augmentation import AugmentationConfig, augment
from myoloop.learn.metrics import score

NETWORK = tcn.TcnConfig(channels=6, rate_hz=400.0, spatial_filters=8, temporal_filters=2, hidden=16)
BRIEF = supervised.TrainingConfig(updates=200, batch=8, crop_s=1.2, validations=4, seed=4)


def separable(recordings: int, seed: int, frames: int = 400) -> supervised.Recordings:
    """Noise whose loudness on channel f is 5 or 25 microvolts with finger f; the sixth channel is only noise."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(0, 2, (recordings, frames // 100, 5)), 100, axis=1).astype(np.float32)
    loud = np.concatenate([5.0 + 20.0 * labels, np.full((recordings, frames, 1), 5.0)], axis=-1)
    loud = np.repeat(loud, NETWORK.samples_per_call, axis=1)
    return supervised.Recordings((loud * rng.standard_normal(loud.shape)).astype(np.float32), labels)


@pytest.fixture(scope="module")
def trained():
    return supervised.train(NETWORK, BRIEF, separable(6, 0), separable(2, 1))


def test_a_separable_problem_is_learned_to_above_95_percent(trained):
    unseen = separable(2, 2)
    scores = score(supervised.run_offline(NETWORK, trained.params, unseen.emg), unseen.labels)
    assert min(scores.accuracy_per_finger) > 0.95
    assert scores.settled_accuracy > 0.98
    assert scores.calibration_error < 0.1


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    def brief(seed):
        config = dataclasses.replace(BRIEF, updates=6, validations=1, seed=seed)
        return jax.tree.leaves(supervised.train(NETWORK, config, separable(3, 0), separable(1, 1)).params)

    first, again, other = brief(4), brief(4), brief(5)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.allclose(a, b) for a, b in zip(first, other, strict=True))


def test_the_learning_curve_is_reported_as_often_as_asked(trained):
    assert [point.update for point in trained.history] == [50, 100, 150, 200]
    assert trained.history[-1].loss < trained.history[0].loss


def test_labels_that_tell_nothing_give_chance(trained):
    rng = np.random.default_rng(9)
    unseen = separable(4, 3, frames=600)
    odds = supervised.run_offline(NETWORK, trained.params, unseen.emg)
    shuffled = rng.permutation(unseen.labels.reshape(-1, 5)).reshape(unseen.labels.shape)
    assert abs(np.mean(score(odds, shuffled).balanced_per_finger) - 0.5) < 0.05


def test_run_offline_does_not_depend_on_how_recordings_are_grouped(trained):
    emg = separable(3, 5).emg
    together = supervised.run_offline(NETWORK, trained.params, emg, batch=3)
    apart = supervised.run_offline(NETWORK, trained.params, emg, batch=2)
    np.testing.assert_allclose(together, apart, atol=1e-4)


def test_augmentation_changes_gain_and_noise_and_loses_at_most_one_channel():
    config = AugmentationConfig(lost_channel=1.0, gain_sd=0.1, noise_uv=0.0)
    emg = np.random.default_rng(0).standard_normal((64, 200, 6)).astype(np.float32)
    changed = np.asarray(augment(config, jax.random.key(0), emg))
    gains = np.std(changed, axis=1) / np.std(emg, axis=1)
    assert ((gains == 0).sum(axis=1) == 1).all()
    kept = np.log(gains[gains > 0])
    assert 0.08 < kept.std() < 0.15
    untouched = AugmentationConfig(lost_channel=0.0, gain_sd=0.0, channel_gain_sd=0.0, noise_uv=0.0)
    np.testing.assert_allclose(augment(untouched, jax.random.key(0), emg), emg)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r._replace(emg=r.emg[..., :4]), r"\(recordings, samples, 6\)"),
        (lambda r: r._replace(labels=r.labels[:, :-1]), r"every 8 samples of EMG need one label"),
        (lambda r: r._replace(labels=r.labels * 2), r"0 \(extended\) or 1 \(flexed\)"),
        (lambda r: r._replace(emg=np.where(r.emg > 60, np.nan, r.emg)), r"not finite"),
        (lambda r: supervised.Recordings(r.emg[:, :160], r.labels[:, :20]), r"record longer"),
    ],
)
def test_recordings_that_do_not_fit_are_refused(change, message):
    good = separable(2, 0)
    with pytest.raises(MyoloopError, match=message):
        supervised.train(NETWORK, BRIEF, change(good), good)


def test_a_crop_shorter_than_the_receptive_field_is_refused():
    config = supervised.TrainingConfig(crop_s=0.2)
    with pytest.raises(MyoloopError, match="choose a longer crop"):
        supervised.train(NETWORK, config, separable(2, 0), separable(2, 1))


def test_scores_of_a_worked_example():
    labels = np.zeros((1, 100, 5), np.float32)
    labels[0, 50:, 0] = 1.0
    odds = np.full((1, 100, 5), -2.0)
    odds[0, 53:, 0] = 2.0  # the thumb is right three frames late
    scores = score(odds, labels)
    assert scores.accuracy_per_finger == (0.97, 1.0, 1.0, 1.0, 1.0)
    assert scores.balanced_per_finger[0] == pytest.approx((1.0 + 47 / 50) / 2)
    assert scores.settled_accuracy == 1.0
    assert scores.delay_ms == pytest.approx(60.0)
    sure = 1 / (1 + np.exp(-2.0))
    wrong = 3 / 500
    assert scores.loss == pytest.approx(-(1 - wrong) * np.log(sure) - wrong * np.log(1 - sure))
    assert scores.brier == pytest.approx((1 - wrong) * (1 - sure) ** 2 + wrong * sure**2)


def test_temperature_brings_back_log_odds_that_were_scaled():
    rng = np.random.default_rng(1)
    odds = rng.normal(0, 2, (4, 500, 5))
    labels = (rng.random(odds.shape) < 1 / (1 + np.exp(-odds))).astype(np.float32)
    assert supervised.fit_temperature(3.0 * odds, labels) == pytest.approx(3.0, rel=0.15)
    assert score(odds, labels).calibration_error < 0.02 < score(3.0 * odds, labels).calibration_error
