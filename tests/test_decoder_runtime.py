"""Running an ONNX decoder on a stream."""

from __future__ import annotations

import logging

import decoder_models as toy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from myoloop.decoder.export import add_metadata
from myoloop.decoder.runtime import OnnxDecoder
from myoloop.errors import MyoloopError

EMG = np.random.default_rng(0).normal(0, 1, (80, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def streaming(folder):
    return toy.save(toy.with_metadata(toy.counter_model()), folder, "streaming.onnx")


@pytest.fixture(scope="module")
def window(folder):
    return toy.save(add_metadata(toy.mean_model(samples=24), toy.info("window", 24, 8)), folder, "window.onnx")


def counted(emg):
    """What the counter model answers after each 8 samples."""
    sums = np.cumsum(emg.reshape(-1, 8, 3).mean(axis=1)[:, 0])
    return 1 / (1 + np.exp(-sums))


def test_a_decoder_says_what_it_reads(streaming):
    decoder = OnnxDecoder(streaming)
    assert (decoder.name, decoder.version, decoder.kind) == ("toy", "0.1", "streaming")
    assert (decoder.channels, decoder.rate_hz, decoder.samples_per_call) == (3, 400.0, 8)
    assert decoder.channel_labels == toy.LABELS
    assert decoder.classes == ("thumb", "index", "middle", "ring", "little")


@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(0, 80), max_size=12))
def test_any_chunking_gives_the_same_predictions_at_the_same_samples(streaming, cuts):
    decoder, answers = OnnxDecoder(streaming), []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 80], strict=True):
        answers += [(start + used, prediction) for used, prediction in decoder.push(EMG[start:end])]
    assert [at for at, _ in answers] == list(range(8, 81, 8))
    np.testing.assert_allclose([p[0] for _, p in answers], counted(EMG), atol=1e-5)
    assert all(p.dtype == np.float32 and p.shape == (5,) for _, p in answers)


@pytest.mark.parametrize("size", [1, 5, 8, 24, 80])
def test_a_window_model_fires_every_hop_over_the_last_window(window, size):
    decoder, answers = OnnxDecoder(window), []
    for start in range(0, 80, size):
        answers += [(start + used, prediction) for used, prediction in decoder.push(EMG[start : start + size])]
    assert [at for at, _ in answers] == list(range(24, 81, 8))
    for at, prediction in answers:
        np.testing.assert_allclose(prediction, toy.mean_answer(EMG[at - 24 : at]), atol=1e-5)


def test_reset_starts_again_from_silence(streaming):
    decoder = OnnxDecoder(streaming)
    first = decoder.push(EMG[:20])
    decoder.reset()
    again = decoder.push(EMG[:20])
    np.testing.assert_array_equal([p for _, p in first], [p for _, p in again])


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_emg_that_is_not_finite_is_refused_counted_said_once_and_leaves_the_state(streaming, caplog, poison):
    decoder, bad = OnnxDecoder(streaming), EMG.copy()
    bad[12:30:8, 1] = poison  # frames 1, 2 and 3
    with caplog.at_level(logging.WARNING):
        answers = decoder.push(bad)
    kept = np.delete(EMG.reshape(-1, 8, 3), [1, 2, 3], axis=0).reshape(-1, 3)
    np.testing.assert_allclose([p[0] for _, p in answers], counted(kept), atol=1e-5)
    assert [used for used, _ in answers] == [8, 40, 48, 56, 64, 72, 80]
    assert (decoder.refused_inputs, decoder.refused_outputs, decoder.predictions) == (3, 0, 7)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "EMG2" in said[0]


def test_an_answer_that_is_no_number_is_refused_counted_and_the_decoder_recovers(folder, caplog):
    model = toy.counter_model()
    model.graph.node[3].op_type = "Sqrt"  # sqrt of a negative sum: NaN; of 0..1: a number
    decoder = OnnxDecoder(toy.save(toy.with_metadata(model), folder, "sqrt.onnx"))
    low, high = np.full((8, 3), -0.5, np.float32), np.full((8, 3), 0.25, np.float32)
    with caplog.at_level(logging.WARNING):
        assert decoder.push(low) == decoder.push(low) == []
    ((used, prediction),) = decoder.push(high)
    assert used == 8
    np.testing.assert_allclose(prediction, 0.5, atol=1e-6)
    assert (decoder.refused_outputs, len(caplog.records)) == (2, 1)


def test_an_answer_outside_zero_to_one_is_refused(folder):
    decoder = OnnxDecoder(toy.save(toy.with_metadata(toy.mean_model(squash="Abs")), folder, "abs.onnx"))
    assert decoder.push(np.full((8, 3), 4.0)) == []
    assert decoder.refused_outputs == 1
    assert len(decoder.push(np.full((8, 3), 0.1))) == 1


@pytest.mark.parametrize("shape", [(8,), (8, 4), (1, 8, 3)])
def test_a_chunk_of_another_shape_is_refused_with_the_channels_expected(streaming, shape):
    with pytest.raises(MyoloopError, match=r"\(samples, 3\).*EMG1, EMG2, EMG3"):
        OnnxDecoder(streaming).push(np.zeros(shape, np.float32))


def test_a_dynamic_number_of_samples_is_accepted(folder):
    model = toy.with_metadata(toy.mean_model(samples="samples"))
    (first,) = OnnxDecoder(toy.save(model, folder, "dynamic.onnx")).push(EMG[:8])
    np.testing.assert_allclose(first[1], toy.mean_answer(EMG[:8]), atol=1e-5)
