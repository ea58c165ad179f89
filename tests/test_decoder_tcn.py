"""The decoder network: streaming, causality, sizes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from myoloop import checkpoint
from myoloop.decoder import networks, tcn
from myoloop.decoder.weights import load_decoder, save_decoder
from myoloop.errors import MyoloopError

SMALL = tcn.TcnConfig(channels=3, rate_hz=400.0, spatial_filters=4, temporal_filters=2, hidden=8)
FRAMES = 60
predict = jax.jit(networks.predict, static_argnums=0)


@pytest.fixture(scope="module")
def params():
    return tcn.init_params(SMALL, jax.random.key(1))


@pytest.fixture(scope="module")
def emg():
    return 30.0 * jax.random.normal(jax.random.key(2), (2, FRAMES * SMALL.samples_per_call, 3))


@pytest.fixture(scope="module")
def offline(params, emg):
    return np.asarray(predict(SMALL, params, tcn.init_state(SMALL, 2), emg)[0])


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.sampled_from([1, 2, 7, 13]), min_size=1, max_size=20))
def test_streaming_in_any_chunks_equals_offline(params, emg, offline, sizes):
    state, answers, start = tcn.init_state(SMALL, 2), [], 0
    for size in sizes:
        if start + size > FRAMES:
            break
        chunk = emg[:, start * SMALL.samples_per_call : (start + size) * SMALL.samples_per_call]
        answer, state = predict(SMALL, params, state, chunk)
        answers.append(answer)
        start += size
    np.testing.assert_allclose(np.concatenate(answers, axis=1), offline[:, :start], atol=1e-5)


def test_step_frame_by_frame_equals_offline_inside_a_jitted_loop(params, emg, offline):
    frames = emg.reshape(2, FRAMES, SMALL.samples_per_call, 3).swapaxes(0, 1)

    @jax.jit
    def run(params, frames):
        def one(state, frame):
            answer, state = networks.step(SMALL, params, state, frame)
            return state, answer

        return jax.lax.scan(one, tcn.init_state(SMALL, 2), frames)[1]

    np.testing.assert_allclose(np.asarray(run(params, frames)).swapaxes(0, 1), offline, atol=1e-5)


def test_a_prediction_does_not_depend_on_later_samples(params, emg, offline):
    later = emg.at[:, 30 * SMALL.samples_per_call :].set(500.0)
    answer, _ = predict(SMALL, params, tcn.init_state(SMALL, 2), later)
    np.testing.assert_allclose(answer[:, :30], offline[:, :30], atol=1e-6)
    assert np.abs(answer[:, 30:] - offline[:, 30:]).max() > 1e-3


def test_a_prediction_depends_on_the_receptive_field_and_no_further_back(params, emg, offline):
    sample = 5 * SMALL.samples_per_call
    answer, _ = predict(SMALL, params, tcn.init_state(SMALL, 2), emg.at[:, sample].add(300.0))
    changed = np.flatnonzero(np.abs(answer - offline).max(axis=(0, 2)) > 1e-6)
    reach = SMALL.looks_back_s * SMALL.rate_hz
    assert changed[0] == 5
    last_sample_seen_from = (changed[-1] + 1) * SMALL.samples_per_call - sample
    assert reach - SMALL.samples_per_call < last_sample_seen_from <= reach


def test_participants_of_a_batch_do_not_mix(params, emg, offline):
    alone, _ = predict(SMALL, params, tcn.init_state(SMALL, 1), emg[1:])
    np.testing.assert_allclose(alone[0], offline[1], atol=1e-5)


@pytest.mark.parametrize(("channels", "rate_hz", "samples"), [(16, 2000.0, 40), (8, 200.0, 4), (32, 500.0, 10)])
def test_any_armband_fits_within_100k_parameters_and_half_a_second(channels, rate_hz, samples):
    config = tcn.TcnConfig(channels=channels, rate_hz=rate_hz)
    params = tcn.init_params(config, jax.random.key(0))
    prediction, _ = networks.step(config, params, tcn.init_state(config, 2), jnp.ones((2, samples, channels)))
    assert config.samples_per_call == samples
    assert prediction.shape == (2, 5)
    assert networks.count_parameters(params) <= 100_000
    assert 0.3 <= config.looks_back_s <= 0.5


def test_an_electrode_artefact_of_a_million_volts_gives_a_probability(params):
    emg = jnp.full((1, SMALL.samples_per_call, 3), 1e12)
    prediction, state = networks.step(SMALL, params, tcn.init_state(SMALL, 1), emg)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((prediction, state)))


def test_standardised_features_have_zero_mean_and_unit_spread(params, emg):
    ready = tcn.standardise(SMALL, params, emg)
    again = tcn.standardise(SMALL, ready, emg)  # the log powers do not depend on the standardisation itself
    np.testing.assert_allclose(ready["feature_mean"], again["feature_mean"], atol=1e-5)
    assert (np.asarray(ready["feature_spread"]) > 1e-3).all()
    assert np.ptp(np.asarray(ready["feature_mean"])) > 0


@pytest.mark.parametrize("shape", [(1, 9, 3), (1, 0, 3), (1, 8, 4)])
def test_emg_of_the_wrong_shape_is_refused_with_the_shape_expected(params, shape):
    with pytest.raises(MyoloopError, match=r"multiple of 8 samples, 3 channels"):
        networks.step(SMALL, params, tcn.init_state(SMALL, 1), jnp.zeros(shape))


def test_a_frame_without_a_sample_is_refused():
    with pytest.raises(MyoloopError, match="holds no sample"):
        tcn.TcnConfig(rate_hz=10.0)


def test_saved_weights_come_back_exactly_and_ready_to_run(params, emg, offline, tmp_path):
    save_decoder(tmp_path / "w.safetensors", SMALL, params, ("a", "b", "c"), "mine")
    back = load_decoder(tmp_path / "w.safetensors")
    assert (back.config, back.channel_labels, back.name) == (SMALL, ("a", "b", "c"), "mine")
    again, _ = predict(back.config, back.params, tcn.init_state(back.config, 2), emg)
    np.testing.assert_array_equal(again, offline)


def test_weights_of_another_network_are_refused(params, tmp_path):
    path = tmp_path / "w.safetensors"
    checkpoint.save(path, params, kind="decoder_tcn", config={"network": {"width": 3}})
    with pytest.raises(MyoloopError, match="does not fit this version's network"):
        load_decoder(path)
