"""Export of the network to ONNX."""

from __future__ import annotations

import jax
import numpy as np
import onnxruntime
import pytest

from myoloop.decoder import export, networks, tcn
from myoloop.decoder.contract import check_against
from myoloop.decoder.runtime import OnnxDecoder
from myoloop.errors import MyoloopError

CONFIG = tcn.TcnConfig()  # the size that ships
LABELS = tuple(f"EMG{i + 1}" for i in range(16))


@pytest.fixture(scope="module")
def params():
    return tcn.init_params(CONFIG, jax.random.key(3))


@pytest.fixture(scope="module")
def path(params, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "decoder.onnx"
    assert export.export_decoder(path, CONFIG, params, LABELS, name="test", model_version="7") <= export.PARITY
    return path


def test_the_file_equals_the_network_over_ten_seconds_in_odd_chunks(path, params):
    emg = (40.0 * np.random.default_rng(4).standard_normal((20_000, 16))).astype(np.float32)
    decoder, answers, start = OnnxDecoder(path), [], 0
    for size in np.random.default_rng(5).integers(1, 200, 400):
        answers += [p for _, p in decoder.push(emg[start : start + size])]
        start += size
    expected, _ = jax.jit(networks.predict, static_argnums=0)(CONFIG, params, tcn.init_state(CONFIG, 1), emg[None])
    assert len(answers) == 500
    assert np.ptp(expected) > 0.05  # the network says something
    np.testing.assert_allclose(answers, expected[0], atol=1e-4)


def test_the_file_carries_the_metadata_of_its_armband(path):
    decoder = OnnxDecoder(path)
    check_against(decoder.info, 2000.0, LABELS)
    assert (decoder.name, decoder.version, decoder.samples_per_call) == ("test", "7", 40)


def test_the_file_takes_any_batch(path, params):
    emg = (40.0 * np.random.default_rng(6).standard_normal((3, 40, 16))).astype(np.float32)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    feeds = {i.name: np.zeros([3, *i.shape[1:]], np.float32) for i in session.get_inputs()} | {"emg": emg}
    expected, _ = networks.step(CONFIG, params, tcn.init_state(CONFIG, 3), emg)
    np.testing.assert_allclose(session.run(["prediction"], feeds)[0], expected, atol=1e-4)


def test_a_file_that_differs_from_the_network_is_removed(params, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "parity", lambda *_: 0.01)
    with pytest.raises(MyoloopError, match=r"differs from the network by 0\.01"):
        export.export_decoder(tmp_path / "decoder.onnx", CONFIG, params, LABELS)
    assert list(tmp_path.iterdir()) == []


def test_parity_notices_other_weights(path, params):
    other = {**params, "head": jax.tree.map(lambda leaf: leaf + 0.1, params["head"])}
    assert export.parity(path, CONFIG, other, seconds=0.4) > export.PARITY


def test_labels_that_do_not_fit_the_network_are_refused(params, tmp_path):
    with pytest.raises(MyoloopError, match="16 channels, but 2 labels"):
        export.export_decoder(tmp_path / "decoder.onnx", CONFIG, params, ("a", "b"))
