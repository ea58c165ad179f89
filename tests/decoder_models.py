"""Small ONNX models, right and wrong, for the decoder tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from myoloop.decoder.contract import DecoderInfo

LABELS = ("EMG1", "EMG2", "EMG3")


def info(kind: str = "streaming", window: int = 8, hop: int = 8) -> DecoderInfo:
    return DecoderInfo("toy", "0.1", kind, 400.0, LABELS, window, hop)


def value(name: str, shape: list, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def build(nodes: list, inputs: list, outputs: list, constants: dict | None = None) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, "toy", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def with_metadata(model: onnx.ModelProto, **changes: str | None) -> onnx.ModelProto:
    """The model with a good decoder's metadata, then some of it replaced (None: left out)."""
    metadata = info().to_metadata() | changes
    del model.metadata_props[:]
    helper.set_model_props(model, {k: v for k, v in metadata.items() if v is not None})
    return model


def save(model: onnx.ModelProto, folder: Path, name: str = "decoder.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def mean_model(
    samples: int | str = 8, channels: int = 3, batch: int | str = "batch", rank: int = 3, width: int = 5,
    dtype: int = TensorProto.FLOAT, emg: str = "emg", prediction: str = "prediction", squash: str = "Sigmoid",
) -> onnx.ModelProto:  # fmt: skip
    """prediction = squash(mean over the samples @ weights): stateless, so that answers can be worked out by hand."""
    shape = [batch, samples, channels][:rank] if rank <= 3 else [batch, samples, 1, channels]
    answer = [batch, width] if rank <= 3 else [batch, 1, width]
    weights = np.linspace(-1, 1, channels * width, dtype=np.float32).reshape(channels, width)
    nodes = [
        helper.make_node("Cast", [emg], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["as_float"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["odds"]),
        helper.make_node(squash, ["odds"], [prediction]),
    ]
    return build(nodes, [value(emg, shape, dtype)], [value(prediction, answer)], {"weights": weights})


def mean_answer(window: np.ndarray) -> np.ndarray:
    """What `mean_model` answers to (samples, channels)."""
    channels = window.shape[1]
    weights = np.linspace(-1, 1, channels * 5, dtype=np.float32).reshape(channels, 5)
    return 1.0 / (1.0 + np.exp(-(window.mean(axis=0) @ weights)))


def counter_model(
    state: str = "state_sum", next_state: str = "next_state_sum", state_shape: tuple = ("batch", 5)
) -> onnx.ModelProto:
    """Streaming: its state sums the mean of channel 1 over all calls; prediction = sigmoid(sum)."""
    nodes = [
        helper.make_node("ReduceMean", ["emg"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "first"], ["drive"]),
        helper.make_node("Add", [state, "drive"], [next_state]),
        helper.make_node("Sigmoid", [next_state], ["prediction"]),
    ]
    first = np.zeros((3, 5), np.float32)
    first[0] = 1.0
    return build(
        nodes,
        [value("emg", ["batch", 8, 3]), value(state, list(state_shape))],
        [value("prediction", ["batch", 5]), value(next_state, ["batch", 5])],
        {"first": first},
    )
