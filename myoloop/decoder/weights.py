"""A trained decoder as a checkpoint: what is needed to run it in JAX again, or to train it on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax

from myoloop import checkpoint
from myoloop.decoder import networks
from myoloop.decoder.contract import TARGETS
from myoloop.errors import MyoloopError

VERSION = 1


class DecoderWeights(NamedTuple):
    """A trained decoder and what it reads."""

    config: networks.Config
    params: networks.Params
    channel_labels: tuple[str, ...]
    name: str
    made_by: dict[str, str]
    """Versions it was made with."""
    target: str = TARGETS[0]
    """What its five values are: one of contract.TARGETS."""

    @property
    def kind(self) -> str:
        """One of networks.KINDS."""
        return networks.kind_of(self.config)


def save_decoder(
    path: str | Path,
    config: networks.Config,
    params: networks.Params,
    channel_labels: tuple[str, ...],
    name: str,
    target: str = TARGETS[0],
) -> None:
    """Write a trained decoder."""
    about = {
        "network": dataclasses.asdict(config),
        "channel_labels": list(channel_labels),
        "name": name,
        "target": target,
    }
    checkpoint.save(path, params, kind=_stored(networks.kind_of(config)), version=VERSION, config=about)


def load_decoder(path: str | Path) -> DecoderWeights:
    """Read what `save_decoder` wrote. Raises MyoloopError when it is something else, damaged, or for another network."""
    found = checkpoint.kind_of(path)
    kinds = {_stored(kind): kind for kind in networks.KINDS}
    if found not in kinds:
        raise MyoloopError(f"{path}: this checkpoint holds a '{found}', expected a decoder: {', '.join(kinds)}.")
    about = checkpoint.load(path, kind=found, version=VERSION).config
    try:
        config = networks.make_config(kinds[found], **about["network"])
        labels, name = tuple(about["channel_labels"]), str(about["name"])
    except (KeyError, TypeError) as error:
        raise MyoloopError(
            f"{path}: its description does not fit this version's network ({error}). Use the myoloop that made it, or "
            "train again."
        ) from error
    like = networks.init_params(config, jax.random.key(0))
    loaded = checkpoint.load(path, kind=found, version=VERSION, like=like)
    return DecoderWeights(config, loaded.tree, labels, name, loaded.made_by, about.get("target", TARGETS[0]))


def _stored(kind: str) -> str:
    """What a checkpoint calls it."""
    return f"decoder_{kind}"
