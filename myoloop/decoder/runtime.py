"""Run an ONNX decoder on a stream of EMG: samples go in as they come, predictions come out when they are due."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from myoloop.body.names import FINGERS
from myoloop.decoder.contract import DecoderInfo, TensorSpec, check_tensors, emg_input, parse_info, read_bytes
from myoloop.errors import MyoloopError

_log = logging.getLogger(__name__)

_RANGE_SLACK = 1e-4  # rounding of a float32 sigmoid or softmax; beyond it a value is no probability


class OnnxDecoder:
    """One decoder for one participant.

        decoder = OnnxDecoder("models/decoder_tcn/decoder.onnx")
        for used, prediction in decoder.push(chunk):        # chunk (samples, channels), microvolts
            ...             # prediction (5,), made from chunk[:used] and what came before

    EMG that is not finite, and answers that are not five probabilities, are refused: counted in `refused_inputs` and
    `refused_outputs` and logged once each. A refused frame leaves the state as it was; a refused answer resets it,
    because a model that answers nonsense to good EMG may have nonsense in its state.

    Raises:
      MyoloopError: the file is not a decoder; the message says what is wrong with it and what to do.
    """

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        self.path = Path(path)
        self._session = open_session(self.path, threads)
        self.info, self._states = read_contract(self._session, self.path)
        self._outputs = ["prediction", *(f"next_{spec.name}" for spec in self._states)]
        self.refused_inputs = 0
        self.refused_outputs = 0
        self.predictions = 0
        self.reset()
        self._try_once()

    @property
    def name(self) -> str:
        """What reports call the decoder."""
        return self.info.name

    @property
    def version(self) -> str:
        """The maker's version of the model, or the contract's when it has none."""
        return self.info.model_version or self.info.version

    @property
    def kind(self) -> str:
        """'streaming' or 'window'."""
        return self.info.kind

    @property
    def channels(self) -> int:
        """Channels of a chunk."""
        return self.info.channels

    @property
    def rate_hz(self) -> float:
        """Sampling rate that the decoder expects, Hz."""
        return self.info.rate_hz

    @property
    def channel_labels(self) -> tuple[str, ...]:
        """Names of the channels, in order."""
        return self.info.channel_labels

    @property
    def samples_per_call(self) -> int:
        """New samples from one prediction to the next."""
        return self.info.hop

    @property
    def classes(self) -> tuple[str, ...]:
        """What the five values stand for."""
        return self.info.classes

    def reset(self) -> None:
        """Forget all EMG seen so far. The counters stay."""
        self._buffer = np.zeros((0, self.channels), np.float32)
        self._state = self.silence()

    def push(self, chunk: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Take the next samples; returns the predictions that became due.

        Args:
          chunk: (samples, channels) microvolts, any number of samples, in order and without gaps.

        Returns:
          one (used, prediction) per call of the model: `used` counts samples of this chunk up to and including the
          newest that the prediction used; prediction is float32 (5,), probability of flexed, thumb to little.
        """
        chunk = np.asarray(chunk, np.float32)
        if chunk.ndim != 2 or chunk.shape[1] != self.channels:
            raise MyoloopError(
                f"decoder '{self.name}' reads chunks of shape (samples, {self.channels}); found {chunk.shape}. "
                f"Channels: {', '.join(self.channel_labels)}."
            )
        older = len(self._buffer)
        self._buffer = np.concatenate([self._buffer, chunk])
        due, start = [], 0
        while len(self._buffer) - start >= self.info.window:
            end = start + self.info.window
            prediction = self._call(self._buffer[start:end])
            if prediction is not None:
                due.append((end - older, prediction))
            start += self.info.hop
        self._buffer = self._buffer[start:].copy()
        return due

    def _call(self, emg: np.ndarray) -> np.ndarray | None:
        """One call of the model on (window, channels); None when the EMG or the answer is refused."""
        if not np.isfinite(emg).all():
            self._refuse_input(emg)
            return None
        prediction, states = self.call(emg[None], self._state)
        fault = _fault(prediction, list(states.values()))
        if fault:
            self._refuse_output(fault)
            return None
        self._state = states
        self.predictions += 1
        return np.clip(prediction[0], 0.0, 1.0)

    def _refuse_input(self, emg: np.ndarray) -> None:
        if not self.refused_inputs:
            bad = [self.channel_labels[i] for i in np.flatnonzero(~np.isfinite(emg).all(axis=0))]
            _log.warning(
                "decoder '%s': EMG with NaN or infinite values in %s refused; no prediction until it is finite again. "
                "Further ones are counted, not said.",
                self.name,
                ", ".join(bad),
            )
        self.refused_inputs += 1

    def _refuse_output(self, fault: str) -> None:
        if not self.refused_outputs:
            _log.warning(
                "decoder '%s': answer refused (%s) and its state reset. Further ones are counted, not said.",
                self.name,
                fault,
            )
        self.refused_outputs += 1
        self._state = self.silence()

    @property
    def takes_batches(self) -> bool:
        """Whether one call may answer several participants."""
        return all(isinstance(node.shape[0], str) or node.shape[0] in (None, -1) for node in self._session.get_inputs())

    def call(self, emg: np.ndarray, state: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The model itself: predictions (B, 5) and the next state of EMG (B, window, channels); nothing is checked."""
        prediction, *states = self._session.run(self._outputs, {"emg": emg, **state})
        return prediction, {spec.name: value for spec, value in zip(self._states, states, strict=True)}

    def silence(self) -> dict[str, np.ndarray]:
        """The state of one participant before the first sample."""
        return {spec.name: spec.zeros() for spec in self._states}

    def _try_once(self) -> None:
        """Run the model on silence: what the file declares may not be what it does."""
        emg = np.zeros((1, self.info.window, self.channels), np.float32)
        try:
            prediction, *states = self._session.run(self._outputs, {"emg": emg, **self._state})
        except Exception as error:  # onnxruntime raises its own, undocumented classes
            raise MyoloopError(
                f"{self.path}: the model fails on EMG of shape {emg.shape}: {_first_line(error)}. Check that it "
                "accepts (batch, samples, channels) as its metadata says."
            ) from error
        if prediction.shape != (1, len(FINGERS)):
            raise MyoloopError(
                f"{self.path}: the model answers 'prediction' of shape {prediction.shape} for a batch of one; "
                "expected (1, 5)."
            )
        for spec, value in zip(self._states, states, strict=True):
            if value.shape != spec.zeros().shape:
                raise MyoloopError(
                    f"{self.path}: 'next_{spec.name}' comes out as {value.shape}, but '{spec.name}' goes in as "
                    f"{spec.zeros().shape}. A state must keep its shape."
                )
        fault = _fault(prediction, states)
        if fault:
            raise MyoloopError(
                f"{self.path}: on silence the model answers {np.round(prediction[0], 3).tolist()} ({fault}); expected "
                "five probabilities. End the model with a sigmoid."
            )


def open_session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU that leaves the other cores alone: `threads` threads, none of them spinning."""
    content = read_bytes(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own, undocumented classes
        reason = _first_line(error)
        if "parsing failed" in reason or "ModelProto" in reason or "INVALID_PROTOBUF" in reason:
            raise MyoloopError(
                f"{path}: not an ONNX model, or a truncated one ({len(content)} bytes). Export or copy it again."
            ) from error
        unknown = unsupported(content)
        raise MyoloopError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot load this model: {unknown or reason}. Export it with "
            "operators and an opset that this onnxruntime knows."
        ) from error


def unsupported(content: bytes) -> str:
    """What of a model's file this onnxruntime does not know: operators, with domain or opset, or the opset; else empty."""
    import onnx  # only when something is wrong: it is slow to load

    model = onnx.load_from_string(content)
    own = {(function.domain, function.name) for function in model.functions}
    opsets = {_domain(entry.domain): entry.version for entry in model.opset_import}
    kernels: dict[tuple[str, str], int] = {}  # operator -> first opset of its newest kernel
    for kernel in getattr(onnxruntime.capi._pybind_state, "get_all_opkernel_def", list)():
        name = (_domain(kernel.domain), kernel.op_name)
        kernels[name] = max(kernels.get(name, 0), kernel.version_range[0])
    missing = set()
    for node in _nodes(model):
        name = (_domain(node.domain), node.op_type)
        if kernels and name not in kernels and (node.domain, node.op_type) not in own and not _composed(*name, opsets):
            where = f"domain {node.domain}" if name[0] else f"opset {opsets.get('', '?')}"
            missing.add(f"{node.op_type} ({where})")
    if missing:
        return f"it does not know the operator{'s' if len(missing) > 1 else ''} {', '.join(sorted(missing))}"
    newest = max((opset for (domain, _), opset in kernels.items() if not domain), default=0)
    if opsets.get("", 0) > newest > 0:
        return f"the model is of ONNX opset {opsets['']}, it knows those up to {newest}"
    return ""


def _nodes(model: Any) -> Iterator[Any]:
    """All nodes of a model, those of its branches, loops and functions included."""
    graphs = [model.graph, *model.functions]
    while graphs:
        for node in graphs.pop().node:
            yield node
            graphs += [each.g for each in node.attribute if each.HasField("g")]
            graphs += [graph for each in node.attribute for graph in each.graphs]


def _composed(domain: str, name: str, opsets: dict[str, int]) -> bool:
    """Whether the standard defines an operator by others, so that no kernel is needed."""
    import onnx

    try:
        schema: Any = onnx.defs.get_schema(name, min(opsets.get(domain, 1), onnx.defs.onnx_opset_version()), domain)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def _domain(name: str) -> str:
    """The standard's domain has two names."""
    return "" if name == "ai.onnx" else name


def read_contract(session: onnxruntime.InferenceSession, path: Path) -> tuple[DecoderInfo, tuple[TensorSpec, ...]]:
    """What the file says it is, checked, and its state inputs. A breach of the contract raises a MyoloopError."""
    inputs, outputs = _specs(session.get_inputs()), _specs(session.get_outputs())
    emg_input(inputs, str(path))
    info = parse_info(dict(session.get_modelmeta().custom_metadata_map), path.stem, str(path))
    return info, check_tensors(info, inputs, outputs, str(path))


def _specs(nodes: list) -> list[TensorSpec]:
    return [
        TensorSpec(n.name, tuple(a if isinstance(a, int) and a > 0 else None for a in n.shape), n.type) for n in nodes
    ]


def _fault(prediction: np.ndarray, states: list[np.ndarray]) -> str:
    """Why an answer is no answer; empty when it is one."""
    if not np.isfinite(prediction).all():
        return "not finite"
    if prediction.min() < -_RANGE_SLACK or prediction.max() > 1.0 + _RANGE_SLACK:
        return "outside 0..1"
    if not all(np.isfinite(state).all() for state in states):
        return "its next state is not finite"
    return ""


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
