"""From a network's action to the excitations of the muscles.

An action is any real number a muscle; excitation = 1 / (1 + exp(offset - slope * action)). At action 0 a muscle is nearly
silent. Mapping 0 to one half, as is often done, starts every training with half the strength of all muscles at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jax import Array

from myoloop.errors import MyoloopError


@dataclass(frozen=True)
class ActionConfig:
    """The mapping."""

    slope: float = 3.0
    """Steepness: from action 0 to 2 the excitation goes from 0.05 to 0.95."""
    offset: float = 3.0
    """1 / (1 + exp(offset)) is the excitation at action 0: 0.047."""

    def __post_init__(self) -> None:
        if self.slope <= 0:
            raise MyoloopError(f"slope of the action mapping is {self.slope}; expected above 0.")


def to_excitation(config: ActionConfig, action: Array) -> Array:
    """(..., muscles) actions -> excitations between 0 and 1."""
    return jax.nn.sigmoid(config.slope * action - config.offset)
