"""The kinds of decoder behind one interface: streaming, export, weights, and a place in the loop in training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from myoloop import checkpoint
from myoloop.decoder import export, networks
from myoloop.decoder.lda import LdaConfig
from myoloop.decoder.runtime import OnnxDecoder
from myoloop.decoder.weights import load_decoder, save_decoder
from myoloop.errors import MyoloopError
from myoloop.learn.linear import fit_discriminants

LABELS = ("a", "b", "c")
SIZES = {"channels": 3, "rate_hz": 400.0}
SMALL = {"spatial_filters": 4, "temporal_filters": 2, "hidden": 8}
FRAMES = 50


def small(kind):
    return networks.make_config(kind, **SIZES, **({} if kind == "lda" else SMALL))


def some_params(config):
    params = networks.init_params(config, jax.random.key(1))
    spread = jax.random.normal(jax.random.key(2), (len(jax.tree.leaves(params["head"])), 64))
    head = jax.tree.map(lambda leaf: leaf + 0.3 * spread.ravel()[: leaf.size].reshape(leaf.shape), params["head"])
    return {**params, "head": head}


@pytest.fixture(scope="module", params=networks.KINDS)
def decoder(request):
    config = small(request.param)
    return config, some_params(config)


@pytest.fixture(scope="module")
def emg():
    return 30.0 * jax.random.normal(jax.random.key(3), (2, FRAMES * 8, 3))


def test_frame_by_frame_equals_all_at_once(decoder, emg):
    config, params = decoder
    together, _ = networks.predict(config, params, networks.init_state(config, 2), emg)
    step = jax.jit(networks.step, static_argnums=0)
    state, answers = networks.init_state(config, 2), []
    for frame in range(FRAMES):
        answer, state = step(config, params, state, emg[:, 8 * frame : 8 * frame + 8])
        answers.append(answer)
    assert np.ptp(together) > 0.05
    np.testing.assert_allclose(np.stack(answers, axis=1), together, atol=1e-5)


def test_an_answer_does_not_depend_on_later_samples(decoder, emg):
    config, params = decoder
    one, _ = networks.predict(config, params, networks.init_state(config, 2), emg)
    other, _ = networks.predict(config, params, networks.init_state(config, 2), emg.at[:, 30 * 8 :].set(400.0))
    np.testing.assert_allclose(one[:, :30], other[:, :30], atol=1e-6)
    assert np.abs(one[:, 30:] - other[:, 30:]).max() > 1e-3


def test_onnx_equals_jax_sample_by_sample_over_a_minute_in_chunks_of_a_sample_to_a_second(decoder, tmp_path):
    config, params = decoder
    path = tmp_path / "decoder.onnx"
    assert export.export_decoder(path, config, params, LABELS, trial_s=60.0) <= 1e-4
    again = OnnxDecoder(path)
    assert (again.samples_per_call, again.name, again.info.target) == (8, networks.kind_of(config), "flexed")
    other = {**params, "head": jax.tree.map(lambda leaf: leaf + 0.1, params["head"])}
    assert export.parity(path, config, other, 2.0) > 1e-3


def test_weights_of_any_kind_come_back_with_what_they_answer(decoder, tmp_path):
    config, params = decoder
    save_decoder(tmp_path / "w.safetensors", config, params, LABELS, "mine", "flexion")
    back = load_decoder(tmp_path / "w.safetensors")
    assert (back.config, back.target, back.kind) == (config, "flexion", networks.kind_of(config))
    jax.tree.map(np.testing.assert_array_equal, back.params, params)


def test_the_last_layer_reads_what_head_inputs_gives(decoder, emg):
    config, params = decoder
    odds, _ = networks.logits(config, params, networks.init_state(config, 2), emg)
    read = networks.head_inputs(config, params, emg)
    np.testing.assert_allclose(read @ params["head"]["kernel"] + params["head"]["bias"], odds, atol=1e-4)
    cooler, _ = networks.logits(config, networks.tempered(params, 2.0), networks.init_state(config, 2), emg)
    np.testing.assert_allclose(cooler, odds / 2.0, atol=1e-4)


def test_a_checkpoint_that_is_no_decoder_is_refused(tmp_path):
    checkpoint.save(tmp_path / "p.safetensors", {"a": np.zeros(2)}, kind="policy")
    with pytest.raises(
        MyoloopError, match="holds a 'policy', expected a decoder: decoder_tcn, decoder_gru, decoder_lda"
    ):
        load_decoder(tmp_path / "p.safetensors")


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(MyoloopError, match=r"'cnn'.*tcn.*gru.*lda"):
        networks.make_config("cnn", **SIZES)


def test_discriminants_are_scikit_learns_on_the_log_variance_of_the_window():
    rng = np.random.default_rng(0)
    config = LdaConfig(**SIZES, window_ms=80.0)
    labels = np.repeat(rng.integers(0, 2, (4, 5, 5)), 20, axis=1).astype(np.float32)
    loud = np.exp(0.5 * labels[..., :3]) * 20.0
    emg = (np.repeat(loud, 8, axis=1) * rng.standard_normal((4, 800, 3))).astype(np.float32)
    params = fit_discriminants(config, [(emg, labels)])
    found, _ = networks.predict(config, params, networks.init_state(config, 4), jnp.asarray(emg))
    windows = np.stack([emg[:, 8 * k - 32 : 8 * k] for k in range(4, 101)], axis=1)  # from the first full window on
    features = np.log(np.mean(windows.astype(np.float64) ** 2, axis=2) + 1.0).reshape(-1, 3)
    for finger in range(5):
        own = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features, labels[:, 3:, finger].ravel())
        np.testing.assert_allclose(found[:, 3:, finger].ravel(), expit(own.decision_function(features)), atol=2e-3)


def test_a_finger_that_never_moves_cannot_be_discriminated():
    emg, labels = np.ones((1, 80, 3), np.float32), np.zeros((1, 10, 5), np.float32)
    with pytest.raises(MyoloopError, match="the thumb is never flexed"):
        fit_discriminants(LdaConfig(**SIZES, window_ms=40.0), [(emg, labels)])
