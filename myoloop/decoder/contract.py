"""What an ONNX file must be to serve as a decoder, and the check that says exactly what is wrong with one that is not.

Input `emg`, float32 (batch, samples, channels), microvolts. Output `prediction`, float32 (batch, 5): probability of
flexed, or flexion, thumb to little, 0..1. A streaming model may have inputs `state_NAME`, each answered by an output
`next_state_NAME` of the same shape; states start at zero. The batch axis is dynamic, or 1. The metadata of the file (ONNX
`metadata_props`):

    version           "1": of this contract
    kind              "streaming" (called every samples_per_call) or "window" (stateless, called every hop on a window)
    rate_hz           sampling rate of the EMG
    channel_labels    JSON list of strings, in the order of the channels
    classes           JSON list: ["thumb", "index", "middle", "ring", "little"]
    samples_per_call  streaming: samples of each call
    window, hop       window: samples looked at, and samples between calls
    target            optional: what the five values are. "flexed" (default): probability that the finger is flexed;
                      "flexion": how far it is flexed, 0 extended to 1 flexed
    name, model_version   optional: what reports should call it
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from myoloop.body.names import FINGERS
from myoloop.errors import MyoloopError

CONTRACT_VERSION = "1"
KINDS = ("streaming", "window")
TARGETS = ("flexed", "flexion")
"""What the five values may be: a probability, or how far the finger is flexed."""
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


@dataclasses.dataclass(frozen=True)
class DecoderInfo:
    """What a decoder says about itself: the metadata of its file."""

    name: str
    """What reports call it."""
    model_version: str
    """The maker's own version; may be empty."""
    kind: str
    """'streaming' or 'window'."""
    rate_hz: float
    """Sampling rate of the EMG it reads, Hz."""
    channel_labels: tuple[str, ...]
    """Channels it reads, in order."""
    window: int
    """Samples it is given at each call (streaming: samples_per_call)."""
    hop: int
    """New samples between calls (streaming: samples_per_call)."""
    classes: tuple[str, ...] = FINGERS
    """The fingers that the five values of a prediction belong to."""
    target: str = "flexed"
    """What the values are: one of TARGETS."""
    version: str = CONTRACT_VERSION
    """Version of the contract."""

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.channel_labels)

    def to_metadata(self) -> dict[str, str]:
        """The same as ONNX metadata properties."""
        streaming = self.kind == "streaming"
        lengths = {"samples_per_call": self.hop} if streaming else {"window": self.window, "hop": self.hop}
        return {
            "version": self.version,
            "kind": self.kind,
            "rate_hz": repr(float(self.rate_hz)),
            "channel_labels": json.dumps(list(self.channel_labels)),
            "classes": json.dumps(list(self.classes)),
            "target": self.target,
            "name": self.name,
            "model_version": self.model_version,
        } | {key: str(value) for key, value in lengths.items()}


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """An input or output as the file declares it; an axis of None is dynamic."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def zeros(self) -> np.ndarray:
        """A start value for one participant."""
        return np.zeros([1, *(int(axis or 0) for axis in self.shape[1:])], _DTYPES[self.dtype])

    def __str__(self) -> str:
        axes = ", ".join("dynamic" if axis is None else str(axis) for axis in self.shape)
        return f"{_short(self.dtype)} ({axes})"


def parse_info(metadata: dict[str, str], fallback_name: str, where: str) -> DecoderInfo:
    """Metadata properties -> DecoderInfo, or a MyoloopError that names the key and the file (`where`)."""
    version = _text(metadata, "version", where, f'"{CONTRACT_VERSION}"')
    if version != CONTRACT_VERSION:
        raise MyoloopError(
            f"{where}: made for decoder contract version '{version}', this myoloop knows '{CONTRACT_VERSION}'. Export "
            "the decoder again with this version, or use the myoloop that made it."
        )
    kind = _text(metadata, "kind", where, '"streaming" or "window"')
    if kind not in KINDS:
        raise MyoloopError(f"{where}: metadata 'kind' is '{kind}'; expected 'streaming' or 'window'.")
    rate_hz = _number(metadata, "rate_hz", where, "the EMG's sampling rate in Hz, e.g. 2000")
    labels = _names(metadata, "channel_labels", where, 'a JSON list of labels, e.g. ["EMG1", "EMG2"]')
    if not labels or len(set(labels)) != len(labels):
        raise MyoloopError(f"{where}: metadata 'channel_labels' must name every channel once; found {list(labels)}.")
    classes = _names(metadata, "classes", where, json.dumps(list(FINGERS)))
    if classes != FINGERS:
        raise MyoloopError(
            f"{where}: metadata 'classes' is {list(classes)}; expected {list(FINGERS)}, in this order. Reorder the "
            "outputs."
        )
    if kind == "streaming":
        window = hop = _count(metadata, "samples_per_call", where, "the samples of each call, e.g. 40")
    else:
        window = _count(metadata, "window", where, "the samples it looks at, e.g. 400")
        hop = _count(metadata, "hop", where, "the samples between calls, e.g. 40")
        if hop > window:
            raise MyoloopError(
                f"{where}: metadata 'hop' is {hop} samples but 'window' only {window}: some samples would never be "
                "looked at. Make hop at most window."
            )
    target = metadata.get("target", TARGETS[0]).strip()
    if target not in TARGETS:
        raise MyoloopError(
            f"{where}: metadata 'target' is '{target}'; expected 'flexed' (probability that a finger is flexed, also "
            "when left out) or 'flexion' (how far it is flexed, 0 to 1)."
        )
    name = metadata.get("name", "").strip() or fallback_name
    model_version = metadata.get("model_version", "").strip()
    return DecoderInfo(name, model_version, kind, rate_hz, labels, window, hop, classes, target, version)


def emg_input(inputs: Iterable[TensorSpec], where: str) -> TensorSpec:
    """The input that takes the EMG. A model of another trade is best told by lacking it, so this is checked first."""
    inputs = tuple(inputs)
    for spec in inputs:
        if spec.name == "emg":
            return spec
    found = ", ".join(f"'{spec.name}' {spec}" for spec in inputs) or "none"
    raise MyoloopError(
        f"{where}: no input named 'emg'; found {found}. A decoder reads 'emg', float32 (batch, samples, channels), "
        "microvolts."
    )


def check_tensors(
    info: DecoderInfo, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], where: str
) -> tuple[TensorSpec, ...]:
    """Check names, ranks, types and widths; returns the state inputs in order. A fault raises a MyoloopError."""
    by_input = {spec.name: spec for spec in inputs}
    by_output = {spec.name: spec for spec in outputs}
    _check_emg(info, by_input, where)
    _check_prediction(by_output, where)
    states = tuple(spec for spec in inputs if spec.name != "emg")
    for spec in states:
        if not spec.name.startswith("state_"):
            raise MyoloopError(
                f"{where}: unexpected input '{spec.name}'. Inputs are 'emg' and, for what is remembered, "
                "'state_NAME'. Make it a constant of the model or rename it."
            )
        if info.kind == "window":
            raise MyoloopError(
                f"{where}: a window model has no state, but there is an input '{spec.name}'. Set kind to 'streaming'."
            )
        _check_state(spec, by_output, where)
    for name in by_output:
        if name.startswith("next_state_") and name.removeprefix("next_") not in by_input:
            raise MyoloopError(f"{where}: output '{name}' has no input '{name.removeprefix('next_')}' to go back to.")
    return states


def check_against(
    info: DecoderInfo, rate_hz: float, channel_labels: Sequence[str], armband: str = "the armband"
) -> None:
    """Refuse a decoder that was made for another device: other rate (beyond 0.1 %), channel count, names or order."""
    who, labels = f"decoder '{info.name}'", tuple(channel_labels)
    if abs(info.rate_hz - rate_hz) > 1e-3 * rate_hz:
        raise MyoloopError(
            f"{who} reads EMG at {info.rate_hz:g} Hz, but {armband} sends {rate_hz:g} Hz. Choose the armband that the "
            "decoder was trained with, or train a decoder for this one (training/decoder.py)."
        )
    if info.channels != len(labels):
        raise MyoloopError(
            f"{who} reads {info.channels} channels, but {armband} sends {len(labels)}. Choose the armband that the "
            "decoder was trained with, or train a decoder for this one (training/decoder.py)."
        )
    wrong = [i for i, (own, sent) in enumerate(zip(info.channel_labels, labels, strict=True)) if own != sent]
    if wrong:
        first = wrong[0]
        raise MyoloopError(
            f"{who} expects channel {first + 1} to be '{info.channel_labels[first]}', but {armband} sends "
            f"'{labels[first]}' there ({len(wrong)} of {len(labels)} differ). Send the channels in the decoder's "
            f"order: {', '.join(info.channel_labels)}."
        )


def read_bytes(path: str | Path) -> bytes:
    """The file's content, or a MyoloopError when it is missing, a folder, unreadable or empty."""
    path = Path(path)
    if not path.exists():
        raise MyoloopError(f"{path}: no such file. Give the path of a decoder in ONNX format.")
    if path.is_dir():
        raise MyoloopError(f"{path}: is a folder. Give the ONNX file in it.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MyoloopError(f"{path}: cannot be read ({error.strerror}).") from error
    if not content:
        raise MyoloopError(f"{path}: the file is empty; expected an ONNX model. Copy or export it again.")
    return content


def _check_emg(info: DecoderInfo, inputs: dict[str, TensorSpec], where: str) -> None:
    spec = emg_input(inputs.values(), where)
    if spec.dtype != "tensor(float)":
        raise MyoloopError(f"{where}: input 'emg' is {spec}; expected float32. Cast inside the model.")
    if len(spec.shape) != 3:
        raise MyoloopError(
            f"{where}: input 'emg' has {len(spec.shape)} axes, {spec}; expected 3: (batch, samples, channels)."
        )
    batch, samples, channels = spec.shape
    _check_batch(batch, "input 'emg'", where)
    if samples is not None and samples != info.window:
        key = "samples_per_call" if info.kind == "streaming" else "window"
        raise MyoloopError(
            f"{where}: input 'emg' takes {samples} samples, but metadata '{key}' says {info.window}. Make them equal."
        )
    if channels is not None and channels != info.channels:
        raise MyoloopError(
            f"{where}: input 'emg' takes {channels} channels, but metadata 'channel_labels' names {info.channels}. "
            "The axes are (batch, samples, channels), in this order."
        )


def _check_prediction(outputs: dict[str, TensorSpec], where: str) -> None:
    spec = outputs.get("prediction")
    expected = "float32 (batch, 5): probability of flexed, thumb to little"
    if spec is None:
        raise MyoloopError(f"{where}: no output named 'prediction'; found {_listed(outputs)}. Expected {expected}.")
    if spec.dtype != "tensor(float)":
        raise MyoloopError(f"{where}: output 'prediction' is {spec}; expected {expected}.")
    if spec.shape and (len(spec.shape) != 2 or spec.shape[1] not in (None, len(FINGERS))):
        raise MyoloopError(f"{where}: output 'prediction' is {spec}; expected {expected}.")
    if spec.shape:
        _check_batch(spec.shape[0], "output 'prediction'", where)


def _check_state(spec: TensorSpec, outputs: dict[str, TensorSpec], where: str) -> None:
    answer = outputs.get(f"next_{spec.name}")
    if answer is None:
        raise MyoloopError(
            f"{where}: state input '{spec.name}' has no output 'next_{spec.name}'; found {_listed(outputs)}. Return "
            "its next value under that name."
        )
    if spec.dtype not in _DTYPES:
        known = ", ".join(_short(dtype) for dtype in _DTYPES)
        raise MyoloopError(f"{where}: state '{spec.name}' is {spec}; known types are {known}.")
    if not spec.shape or any(axis is None for axis in spec.shape[1:]):
        raise MyoloopError(
            f"{where}: state '{spec.name}' is {spec}; all axes but the batch must be fixed, so that it can start at "
            "zero."
        )
    _check_batch(spec.shape[0], f"state '{spec.name}'", where)
    if answer.dtype != spec.dtype:
        raise MyoloopError(
            f"{where}: state '{spec.name}' is {spec}, but 'next_{spec.name}' is {answer}. Make them equal."
        )


def _check_batch(axis: int | None, what: str, where: str) -> None:
    if axis not in (None, 1):
        raise MyoloopError(
            f"{where}: {what} has a fixed batch of {axis}; expected a dynamic batch, or 1. Export with a dynamic "
            "first axis."
        )


def _listed(specs: dict[str, TensorSpec]) -> str:
    return ", ".join(f"'{name}'" for name in specs) or "none"


def _short(dtype: str) -> str:
    return dtype.removeprefix("tensor(").removesuffix(")")


def _text(metadata: dict[str, str], key: str, where: str, expected: str) -> str:
    if key not in metadata:
        found = ", ".join(sorted(metadata)) or "none"
        raise MyoloopError(
            f"{where}: metadata '{key}' is missing (found: {found}). Set it to {expected}, for example with "
            "myoloop.decoder.export.add_metadata."
        )
    return metadata[key].strip()


def _number(metadata: dict[str, str], key: str, where: str, expected: str) -> float:
    text = _text(metadata, key, where, expected)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (0 < value < float("inf")):
        raise MyoloopError(f"{where}: metadata '{key}' is '{text}'; expected {expected}.")
    return value


def _count(metadata: dict[str, str], key: str, where: str, expected: str) -> int:
    value = _number(metadata, key, where, expected)
    if value != int(value):
        raise MyoloopError(f"{where}: metadata '{key}' is '{metadata[key]}'; expected a whole number: {expected}.")
    return int(value)


def _names(metadata: dict[str, str], key: str, where: str, expected: str) -> tuple[str, ...]:
    text = _text(metadata, key, where, expected)
    try:
        value: Any = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise MyoloopError(f"{where}: metadata '{key}' is '{text}'; expected {expected}.")
    return tuple(value)
