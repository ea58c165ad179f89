"""From flax to ONNX: caches become inputs and outputs, and the file is tried against JAX before it counts."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx

from myoloop import checkpoint
from myoloop.decoder import tcn
from myoloop.decoder.contract import DecoderInfo
from myoloop.decoder.runtime import OnnxDecoder
from myoloop.errors import MyoloopError

PARITY = 1e-4
"""Largest difference of a probability between the file in onnxruntime and the network in JAX."""

_TRIAL_FRAMES = 200  # 4 s at 20 ms: many times the receptive field


def export_tcn(
    path: str | Path,
    config: tcn.TcnConfig,
    params: tcn.Params,
    channel_labels: tuple[str, ...],
    name: str = "tcn",
    model_version: str = "",
) -> float:
    """Write a TCN as an ONNX decoder with a dynamic batch, and try it.

    Args:
      path: where to write.
      config: sizes of the network.
      params: its parameters.
      channel_labels: names of the channels, in order.
      name: what reports should call the decoder.
      model_version: the maker's version.

    Returns:
      the largest difference from JAX over a 4 s stream.

    Raises:
      MyoloopError: that difference exceeds `PARITY`, or the labels do not fit the network. The file is removed then.
    """
    if len(channel_labels) != config.channels:
        raise MyoloopError(
            f"the network reads {config.channels} channels, but {len(channel_labels)} labels were given: "
            f"{channel_labels}."
        )
    samples = config.samples_per_call
    info = DecoderInfo(name, model_version, "streaming", config.rate_hz, tuple(channel_labels), samples, samples)
    model = _to_onnx(config, params)
    path = Path(path)
    save_model(add_metadata(model, info), path)
    error = parity(path, config, params)
    if not error <= PARITY:
        path.unlink()
        raise MyoloopError(
            f"{path}: the exported decoder differs from the network by {error:.2g} (at most {PARITY:g} is allowed), "
            "so it was removed. An operator may have been translated wrongly: compare versions of jax2onnx and "
            "onnxruntime."
        )
    return error


def parity(
    path: str | Path, config: tcn.TcnConfig, params: tcn.Params, frames: int = _TRIAL_FRAMES, seed: int = 0
) -> float:
    """Largest difference of a probability between file and network, over a noise stream of changing loudness."""
    rng = np.random.default_rng(seed)
    samples = config.samples_per_call
    loudness = np.repeat(10.0 ** rng.uniform(0, 2.5, (frames // 10 + 1, config.channels)), 10 * samples, axis=0)
    emg = (rng.standard_normal((frames * samples, config.channels)) * loudness[: frames * samples]).astype(np.float32)
    expected, _ = jax.jit(functools.partial(tcn.predict, config))(params, tcn.init_state(config, 1), emg[None])
    answers = OnnxDecoder(path).push(emg)
    return float(np.max(np.abs(np.stack([p for _, p in answers]) - np.asarray(expected)[0])))


def add_metadata(model: onnx.ModelProto, info: DecoderInfo) -> onnx.ModelProto:
    """The model with a decoder's metadata, so that a network made by any tool can say what it reads and answers.

    import onnx
    from myoloop.decoder.contract import DecoderInfo
    from myoloop.decoder.export import add_metadata, save_model

    info = DecoderInfo("mine", "1.0", "window", 2000.0, ("EMG1", "EMG2"), window=400, hop=40)
    save_model(add_metadata(onnx.load("mine.onnx"), info), "decoder.onnx")
    """
    described = onnx.ModelProto()
    described.CopyFrom(model)
    del described.metadata_props[:]
    onnx.helper.set_model_props(described, info.to_metadata())
    return described


def save_model(model: onnx.ModelProto, path: str | Path) -> None:
    """Write an ONNX file whole or not at all."""
    checkpoint.write_atomically(Path(path), model.SerializeToString())


def _to_onnx(config: tcn.TcnConfig, params: tcn.Params) -> onnx.ModelProto:
    from jax2onnx import to_onnx  # slow to import, and needed only here

    def flat_step(emg: jax.Array, raw: jax.Array, power: jax.Array, *hidden: jax.Array) -> tuple[jax.Array, ...]:
        prediction, state = tcn.step(config, params, tcn.TcnState(raw, power, tuple(hidden)), emg)
        return (prediction, state.raw, state.power, *state.hidden)

    state = tcn.init_state(config, 1)
    emg = jnp.zeros((1, config.samples_per_call, config.channels))
    names = ["state_raw", "state_power", *(f"state_hidden_{layer}" for layer in range(len(state.hidden)))]
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of missing type notes on intermediate shapes
    return to_onnx(
        flat_step,
        inputs=[("batch", *array.shape[1:]) for array in (emg, state.raw, state.power, *state.hidden)],
        model_name="myoloop_tcn",
        input_names=["emg", *names],
        output_names=["prediction", *(f"next_{name}" for name in names)],
    )
