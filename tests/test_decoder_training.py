"""Supervised training of the decoder, and its scores."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from myoloop.decoder import networks, tcn
from myoloop.errors import MyoloopError
from myoloop.learn import supervised
from myoloop.learn.augmentation import AugmentationConfig, augment, turned
from myoloop.learn.metrics import score, score_flexion
from myoloop.learn.personal import personalised

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


@pytest.mark.parametrize("kind", ["gru", "lda"])
def test_the_yardsticks_learn_the_separable_problem_too(kind):
    sizes = {} if kind == "lda" else {"spatial_filters": 8, "temporal_filters": 2, "hidden": 16}
    network = networks.make_config(kind, channels=6, rate_hz=400.0, **sizes)
    config = dataclasses.replace(BRIEF, updates=150)
    found = supervised.train(network, config, separable(6, 0), separable(2, 1))
    unseen = separable(2, 2)
    scores = score(supervised.run_offline(network, found.params, unseen.emg), unseen.labels)
    assert scores.accuracy > 0.95
    assert scores.calibration_error < 0.1


def gradual(recordings, seed):
    """Noise whose loudness on channel f follows the flexion of finger f, which moves up and down."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (recordings, 1, 5)) + np.arange(400)[None, :, None] / rng.uniform(
        15, 40, (recordings, 1, 5)
    )
    flexion = (0.5 + 0.5 * np.sin(phase)).astype(np.float32)
    loud = np.concatenate([5.0 * np.exp(2.5 * flexion), np.full((recordings, 400, 1), 5.0)], axis=-1)
    loud = np.repeat(loud, NETWORK.samples_per_call, axis=1)
    return supervised.Recordings((loud * rng.standard_normal(loud.shape)).astype(np.float32), flexion)


def test_flexion_is_learned_and_explains_most_of_its_variance():
    found = supervised.train(NETWORK, BRIEF, gradual(6, 0), gradual(2, 1), target="flexion")
    unseen = gradual(2, 2)
    scores = score_flexion(supervised.run_offline(NETWORK, found.params, unseen.emg), unseen.labels)
    assert min(scores.r2_per_finger) > 0.7
    assert scores.rmse < 0.2


def test_scores_of_flexion_are_those_of_the_textbook():
    flexion = np.random.default_rng(0).uniform(0.1, 0.9, (2, 50, 5))
    answered = np.clip(flexion + 0.05, 0.0, 1.0)
    scores = score_flexion(np.log(answered / (1 - answered)), flexion)
    assert scores.rmse == pytest.approx(0.05)
    assert scores.r2 == pytest.approx(np.mean(1 - 0.05**2 / flexion.var(axis=(0, 1))))
    mean = np.broadcast_to(flexion.mean(axis=(0, 1)), flexion.shape)
    assert score_flexion(np.log(mean / (1 - mean)), flexion).r2 == pytest.approx(0.0, abs=1e-9)


def test_labels_that_are_no_flexion_are_refused_by_name_and_discriminants_cannot_learn_it():
    good = gradual(2, 0)
    bad = good._replace(labels=np.where(good.labels > 0.99, 1.2, good.labels))
    with pytest.raises(MyoloopError, match=r"recording \d+, frame \d+: the \w+'s label is 1\.2; .* flexion, 0 to 1"):
        supervised.train(NETWORK, BRIEF, bad, good, target="flexion")
    with pytest.raises(MyoloopError, match="train a tcn or a gru"):
        supervised.train(networks.make_config("lda", channels=6, rate_hz=400.0), BRIEF, good, good, target="flexion")


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


def test_a_turned_ring_hears_what_stood_further_on_and_keeps_its_power():
    emg = np.random.default_rng(0).standard_normal((3, 50, 8)).astype(np.float32)
    found = np.asarray(turned(emg, np.array([0.0, 1.0, -3.0])))
    for one, shift in enumerate((0, -1, 3)):
        np.testing.assert_allclose(found[one], np.roll(emg[one], shift, axis=-1), atol=1e-4)
    around = np.cos(2 * np.pi * np.arange(7) / 7 - 0.3)[None, None, :]
    between = np.cos(2 * np.pi * (np.arange(7) + 0.4) / 7 - 0.3)
    np.testing.assert_allclose(turned(around, np.array([0.4]))[0, 0], between, atol=1e-5)
    half = np.asarray(turned(emg[..., :7], np.full(3, 0.5)))
    np.testing.assert_allclose((half**2).sum(axis=-1), (emg[..., :7] ** 2).sum(axis=-1), rtol=1e-3)


@pytest.mark.parametrize(("field", "value"), [("lost_channel", 1.5), ("noise_uv", -1.0), ("gain_sd", float("nan"))])
def test_an_impossible_augmentation_is_refused(field, value):
    with pytest.raises(MyoloopError, match=field):
        AugmentationConfig(**{field: value})


def test_a_minute_of_a_person_fits_the_last_layer_and_little_data_leaves_it_nearly_as_it_was(trained):
    other = [r._replace(emg=np.roll(r.emg, 1, axis=-1)) for r in (separable(2, 7), separable(2, 8))]
    fitted = personalised(NETWORK, trained.params, other[0])
    before, after = (
        np.mean(score(supervised.run_offline(NETWORK, params, other[1].emg), other[1].labels).accuracy_per_finger)
        for params in (trained.params, fitted)
    )
    assert after > before + 0.1
    held = personalised(NETWORK, trained.params, other[0], hold=1e4)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), held["head"], trained.params["head"])
    assert max(jax.tree.leaves(moved)) < 0.02
    assert all(fitted[name] is trained.params[name] for name in fitted if name != "head")


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
