"""From a network's action to the excitations of the muscles.

An action is any real number a muscle. Both mappings leave a muscle nearly silent at action 0: mapping 0 to one half, as is
often done, starts every training with half the strength of all muscles at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from myoloop.errors import MyoloopError, unknown_name

KINDS = ("linear", "logistic")


@dataclass(frozen=True)
class ActionConfig:
    """The mapping."""

    kind: str = "linear"
    """linear: offset + slope * action, cut to 0..1: exploration adds to every muscle alike. logistic: 1 / (1 + exp(-(offset +
    slope * action))): exploration multiplies, so a silent muscle is hardly tried; it left the thumb's extensors silent
    and the thumb 57 mm off after 9 M steps (measured, slope 3, offset -3)."""
    slope: float = 0.25
    """Steepness; with a standard deviation of 1, linear exploration begins with a quarter of the range."""
    offset: float = 0.05
    """Sets the excitation at action 0."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("action mapping", self.kind, KINDS)
        if self.slope <= 0:
            raise MyoloopError(f"slope of the action mapping is {self.slope}; expected above 0.")


def to_excitation(config: ActionConfig, action: Array) -> Array:
    """(..., muscles) actions -> excitations from 0 to 1."""
    level = config.offset + config.slope * action
    return jnp.clip(level, 0.0, 1.0) if config.kind == "linear" else jax.nn.sigmoid(level)
