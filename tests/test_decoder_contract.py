"""The ONNX contract: what is not a decoder is refused by name, with what was found and what to do."""

from __future__ import annotations

import decoder_models as toy
import onnx
import pytest
from onnx import TensorProto, helper

from myoloop.decoder.contract import DecoderInfo, check_against, parse_info
from myoloop.decoder.runtime import OnnxDecoder
from myoloop.errors import MyoloopError

VIOLATIONS = {
    "the EMG input has another name": (
        lambda: toy.with_metadata(toy.mean_model(emg="data")),
        r"no input named 'emg'.*'data'",
    ),
    "the prediction has another name": (
        lambda: toy.with_metadata(toy.mean_model(prediction="out")),
        r"no output named 'prediction'.*'out'",
    ),
    "the EMG has two axes": (lambda: toy.with_metadata(toy.mean_model(rank=2)), r"2 axes.*expected 3"),
    "the EMG has four axes": (lambda: toy.with_metadata(toy.mean_model(rank=4)), r"4 axes.*expected 3"),
    "the EMG is double": (
        lambda: toy.with_metadata(toy.mean_model(dtype=TensorProto.DOUBLE)),
        r"double.*expected float32",
    ),
    "the prediction has four values": (
        lambda: toy.with_metadata(toy.mean_model(width=4)),
        r"4\).*expected float32 \(batch, 5\)",
    ),
    "the batch is fixed at 32": (lambda: toy.with_metadata(toy.mean_model(batch=32)), r"fixed batch of 32"),
    "more channels than labels": (lambda: toy.with_metadata(toy.mean_model(channels=4)), r"takes 4 channels.*names 3"),
    "samples differ from samples_per_call": (
        lambda: toy.with_metadata(toy.mean_model(samples=9)),
        r"takes 9 samples.*'samples_per_call' says 8",
    ),
    "no metadata at all": (toy.mean_model, r"metadata 'version' is missing"),
    "another contract version": (lambda: toy.with_metadata(toy.mean_model(), version="2"), r"version '2'.*knows '1'"),
    "no rate": (lambda: toy.with_metadata(toy.mean_model(), rate_hz=None), r"'rate_hz' is missing.*kind"),
    "the rate is no number": (lambda: toy.with_metadata(toy.mean_model(), rate_hz="fast"), r"'rate_hz' is 'fast'"),
    "the rate is negative": (lambda: toy.with_metadata(toy.mean_model(), rate_hz="-5"), r"'rate_hz' is '-5'"),
    "no channel labels": (
        lambda: toy.with_metadata(toy.mean_model(), channel_labels=None),
        r"'channel_labels' is missing",
    ),
    "labels are no list": (lambda: toy.with_metadata(toy.mean_model(), channel_labels="a b"), r"JSON list"),
    "a label twice": (
        lambda: toy.with_metadata(toy.mean_model(), channel_labels='["a","a","b"]'),
        r"every channel once",
    ),
    "classes in another order": (
        lambda: toy.with_metadata(toy.mean_model(), classes='["little","ring","middle","index","thumb"]'),
        r"'classes' is .*expected .*thumb",
    ),
    "unknown kind": (lambda: toy.with_metadata(toy.mean_model(), kind="batch"), r"'kind' is 'batch'.*'window'"),
    "no samples per call": (
        lambda: toy.with_metadata(toy.mean_model(), samples_per_call=None),
        r"'samples_per_call' is missing",
    ),
    "half a sample per call": (lambda: toy.with_metadata(toy.mean_model(), samples_per_call="7.5"), r"whole number"),
    "a window model without hop": (
        lambda: toy.with_metadata(toy.mean_model(), kind="window", window="8"),
        r"'hop' is missing",
    ),
    "a hop beyond the window": (
        lambda: toy.with_metadata(toy.mean_model(), kind="window", window="8", hop="9"),
        r"'hop' is 9 samples but 'window' only 8",
    ),
    "a state that is not handed on": (
        lambda: toy.with_metadata(toy.counter_model(next_state="later")),
        r"'state_sum' has no output 'next_state_sum'",
    ),
    "an input that is no state": (
        lambda: toy.with_metadata(toy.counter_model(state="memory")),
        r"unexpected input 'memory'",
    ),
    "a state of unknown size": (
        lambda: toy.with_metadata(toy.counter_model(state_shape=("batch", "n"))),
        r"'state_sum' is float.*must be fixed",
    ),
    "a window model with a state": (
        lambda: toy.with_metadata(toy.counter_model(), kind="window", window="8", hop="8"),
        r"window model has no state",
    ),
    "a state that changes its shape": (
        lambda: toy.with_metadata(toy.counter_model(state_shape=("batch", 1))),
        r"must keep its shape",
    ),
    "probabilities beyond one": (lambda: _shifted(), r"outside 0..1.*sigmoid"),
    "an operator nobody knows": (
        lambda: _exotic(),
        r"cannot load this model.*the operators Fold \(opset 17\), Teleport \(domain org\.example\)\. Export it",
    ),
    "an opset of the future": (lambda: _future(), r"cannot load this model.*ONNX opset 99, it knows those up to \d+\."),
    "values of another kind": (
        lambda: toy.with_metadata(toy.mean_model(), target="force"),
        r"'target' is 'force'; expected 'flexed'.*or 'flexion'",
    ),
}


def _shifted() -> onnx.ModelProto:
    model = toy.mean_model(squash="Cosh")  # 1 on silence; twice that is no probability
    model.graph.node.append(helper.make_node("Add", ["raw", "raw"], ["prediction"]))
    model.graph.node[3].output[0] = "raw"
    return toy.with_metadata(model)


def _exotic() -> onnx.ModelProto:
    model = toy.mean_model()
    model.graph.node[3].op_type = "Teleport"
    model.graph.node[3].domain = "org.example"
    model.graph.node[1].op_type = "Fold"
    model.opset_import.append(helper.make_opsetid("org.example", 1))
    return toy.with_metadata(model)


def _future() -> onnx.ModelProto:
    model = toy.mean_model()
    model.opset_import[0].version = 99
    return toy.with_metadata(model)


@pytest.mark.parametrize("case", list(VIOLATIONS))
def test_a_breach_of_the_contract_is_named(case, tmp_path):
    make, message = VIOLATIONS[case]
    path = toy.save(make(), tmp_path)
    with pytest.raises(MyoloopError, match=message) as raised:
        OnnxDecoder(path)
    assert str(path) in str(raised.value)


def test_a_file_that_is_not_onnx_is_refused(tmp_path):
    path = tmp_path / "decoder.onnx"
    path.write_text("I am a shopping list\n" * 20)
    with pytest.raises(MyoloopError, match="not an ONNX model, or a truncated one"):
        OnnxDecoder(path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused(tmp_path, share):
    content = toy.with_metadata(toy.counter_model()).SerializeToString()
    path = tmp_path / "decoder.onnx"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MyoloopError, match=str(path)):
        OnnxDecoder(path)


def test_missing_empty_and_folder_are_told_apart(tmp_path):
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name, message in (("none.onnx", "no such file"), ("empty.onnx", "is empty"), ("", "is a folder")):
        with pytest.raises(MyoloopError, match=message):
            OnnxDecoder(tmp_path / name)


def test_metadata_survives_the_way_through_a_file(tmp_path):
    for info in (toy.info(), toy.info("window", window=24, hop=8)):
        assert parse_info(info.to_metadata(), "fallback", "x.onnx") == info
    nameless = toy.info().to_metadata() | {"name": " "}
    assert parse_info(nameless, "fallback", "x.onnx").name == "fallback"


DECODER = DecoderInfo("mine", "", "streaming", 2000.0, ("a", "b", "c"), 40, 40)


def test_an_armband_that_fits_is_accepted():
    check_against(DECODER, 2000.4, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("rate_hz", "labels", "message"),
    [
        (200.0, ("a", "b", "c"), r"2000 Hz, but the armband sends 200 Hz"),
        (2000.0, ("a", "b"), r"reads 3 channels, but the armband sends 2"),
        (2000.0, ("a", "c", "b"), r"channel 2 to be 'b', but the armband sends 'c'.*2 of 3 differ.*a, b, c"),
    ],
)
def test_an_armband_of_other_rate_channels_or_order_is_refused(rate_hz, labels, message):
    with pytest.raises(MyoloopError, match=message):
        check_against(DECODER, rate_hz, labels)
