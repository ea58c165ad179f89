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
from myoloop.decoder import networks
from myoloop.decoder.contract import DecoderInfo
from myoloop.decoder.runtime import OnnxDecoder
from myoloop.errors import MyoloopError

PARITY = 1e-4
"""Largest difference of a probability between the file in onnxruntime and the network in JAX."""

TRIAL_S = 4.0
"""Length of the stream that an exported file is tried on, seconds: many times what a decoder looks back."""


def export_decoder(
    path: str | Path,
    config: networks.Config,
    params: networks.Params,
    channel_labels: tuple[str, ...],
    name: str = "",
    model_version: str = "",
    target: str = "flexed",
    trial_s: float = TRIAL_S,
) -> float:
    """Write a decoder of any kind as ONNX with a dynamic batch, and try it.

    Args:
      path: where to write.
      config: which decoder.
      params: its parameters.
      channel_labels: names of the channels, in order.
      name: what reports should call the decoder; its kind if empty.
      model_version: the maker's version.
      target: what its values are, of contract.TARGETS.
      trial_s: length of the stream it is tried on, seconds.

    Returns:
      the largest difference from JAX over that stream, cut at random.

    Raises:
      MyoloopError: that difference exceeds `PARITY`, or the labels do not fit the network. The file is removed then.
    """
    if len(channel_labels) != config.channels:
        raise MyoloopError(
            f"the network reads {config.channels} channels, but {len(channel_labels)} labels were given: "
            f"{channel_labels}."
        )
    samples = config.samples_per_call
    info = DecoderInfo(
        name or networks.kind_of(config), model_version, "streaming", config.rate_hz, tuple(channel_labels), samples,
        samples, target=target,
    )  # fmt: skip
    model = _to_onnx(config, params)
    path = Path(path)
    save_model(add_metadata(model, info), path)
    error = parity(path, config, params, trial_s)
    if not error <= PARITY:
        path.unlink()
        raise MyoloopError(
            f"{path}: the exported decoder differs from the network by {error:.2g} (at most {PARITY:g} is allowed), "
            "so it was removed. An operator may have been translated wrongly: compare versions of jax2onnx and "
            "onnxruntime."
        )
    return error


def parity(
    path: str | Path, config: networks.Config, params: networks.Params, seconds: float = TRIAL_S, seed: int = 0
) -> float:
    """Largest difference of a value between the file, fed chunks of 1 sample to 1 s at random, and the network, fed all at
    once, over a noise stream of changing loudness. Infinite if an answer is missing or comes at the wrong sample."""
    rng = np.random.default_rng(seed)
    samples = config.samples_per_call
    frames = round(seconds * config.rate_hz / samples)
    loudness = np.repeat(10.0 ** rng.uniform(0, 2.5, (frames // 10 + 1, config.channels)), 10 * samples, axis=0)
    emg = (rng.standard_normal((frames * samples, config.channels)) * loudness[: frames * samples]).astype(np.float32)
    expected, _ = jax.jit(functools.partial(networks.predict, config))(
        params, networks.init_state(config, 1), emg[None]
    )
    decoder, answers, due, start = OnnxDecoder(path), [], [], 0
    while start < len(emg):
        length = int(np.exp(rng.uniform(0.0, np.log(config.rate_hz))))  # as many short ones as long ones
        for used, answer in decoder.push(emg[start : start + length]):
            answers.append(answer)
            due.append(start + used)
        start += length
    if due != [(n + 1) * samples for n in range(frames)]:
        return float("inf")
    return float(np.max(np.abs(np.stack(answers) - np.asarray(expected)[0])))


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


def _to_onnx(config: networks.Config, params: networks.Params) -> onnx.ModelProto:
    from jax2onnx import to_onnx  # slow to import, and needed only here

    start = networks.init_state(config, 1)
    names = [f"state_{name}" for name, _ in networks.named(start)]
    leaves, structure = jax.tree.flatten(start)

    def flat_step(emg: jax.Array, *state: jax.Array) -> tuple[jax.Array, ...]:
        values, following = networks.step(config, params, jax.tree.unflatten(structure, state), emg)
        return (values, *jax.tree.leaves(following))

    emg = jnp.zeros((1, config.samples_per_call, config.channels))
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of missing type notes on intermediate shapes
    return to_onnx(
        flat_step,
        inputs=[("batch", *array.shape[1:]) for array in (emg, *leaves)],
        model_name=f"myoloop_{networks.kind_of(config)}",
        input_names=["emg", *names],
        output_names=["prediction", *(f"next_{name}" for name in names)],
    )
