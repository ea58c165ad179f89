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

    kind: str = "logistic"
    """logistic: 1 / (1 + exp(-(offset + slope * action))): exploration multiplies, so that strong muscles can be kept silent.
    linear: offset + slope * action, cut to 0..1: exploration adds, and makes even muscles pull that the policy wants silent."""
    slope: float = 3.0
    """Steepness: logistic, from action 0 to 2 the excitation goes from 0.05 to 0.95."""
    offset: float = -3.0
    """Sets the excitation at action 0: logistic, 0.047."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("action mapping", self.kind, KINDS)
        if self.slope <= 0:
            raise MyoloopError(f"slope of the action mapping is {self.slope}; expected above 0.")


def to_excitation(config: ActionConfig, action: Array) -> Array:
    """(..., muscles) actions -> excitations from 0 to 1."""
    level = config.offset + config.slope * action
    return jnp.clip(level, 0.0, 1.0) if config.kind == "linear" else jax.nn.sigmoid(level)
