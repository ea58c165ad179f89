"""A trained TCN as a checkpoint: what is needed to run it in JAX again, or to train it on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax

from myoloop import checkpoint
from myoloop.decoder import tcn
from myoloop.errors import MyoloopError

KIND = "decoder_tcn"
VERSION = 1


class TcnWeights(NamedTuple):
    """A trained network and what it reads."""

    config: tcn.TcnConfig
    params: tcn.Params
    channel_labels: tuple[str, ...]
    name: str
    made_by: dict[str, str]
    """Versions it was made with."""


def save_tcn(
    path: str | Path, config: tcn.TcnConfig, params: tcn.Params, channel_labels: tuple[str, ...], name: str
) -> None:
    """Write a trained network."""
    about = {"network": dataclasses.asdict(config), "channel_labels": list(channel_labels), "name": name}
    checkpoint.save(path, params, kind=KIND, version=VERSION, config=about)


def load_tcn(path: str | Path) -> TcnWeights:
    """Read what `save_tcn` wrote. Raises MyoloopError when it is something else, damaged, or for another network."""
    about = checkpoint.load(path, kind=KIND, version=VERSION).config
    try:
        sizes = about["network"]
        config = tcn.TcnConfig(**{**sizes, "dilations": tuple(sizes["dilations"])})
        labels, name = tuple(about["channel_labels"]), str(about["name"])
    except (KeyError, TypeError) as error:
        raise MyoloopError(
            f"{path}: its description does not fit this version's network ({error}). Use the myoloop that made it, or "
            "train again."
        ) from error
    like = tcn.init_params(config, jax.random.key(0))
    loaded = checkpoint.load(path, kind=KIND, version=VERSION, like=like)
    return TcnWeights(config, loaded.tree, labels, name, loaded.made_by)
