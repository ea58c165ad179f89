"""How participants who learn while they act try what else they could do: noise on their actions, some steps long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from myoloop.body.names import MUSCLES


@dataclass(frozen=True)
class Exploration:
    """What is added to the actions."""

    deviation: float = 0.3
    """Standard deviation, in units of the actions."""
    persistence: float = 0.8
    """Correlation from step to step."""
    seed: int = 0
    """Of its chance."""


class Wander(NamedTuple):
    """Where the noise is."""

    key: Array
    """Data of a PRNG key."""
    noise: Array
    """(B, 39) in standard deviations."""


def still(seed: int, participants: int) -> Wander:
    """Before the first step: no noise yet."""
    return Wander(jax.random.key_data(jax.random.key(seed)), jnp.zeros((participants, len(MUSCLES))))


def wander(before: Wander, persistence: Array) -> Wander:
    """One step on, pure JAX: a first-order autoregression whose standard deviation tends to 1."""
    key, draw = jax.random.split(jax.random.wrap_key_data(before.key))
    fresh = jax.random.normal(draw, before.noise.shape)
    return Wander(jax.random.key_data(key), persistence * before.noise + (1.0 - persistence**2) ** 0.5 * fresh)
