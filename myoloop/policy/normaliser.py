"""Running mean and variance of observations, so that a network sees numbers of about unit size."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

LARGEST = 8.0  # standard deviations; what lies further out is cut


class Normaliser(NamedTuple):
    """Chan et al. 1983: moments of batches joined."""

    count: Array  # type: ignore[assignment]
    """() observations seen."""
    mean: Array
    """(n,)"""
    variance: Array
    """(n,)"""


def init_normaliser(size: int) -> Normaliser:
    """Nothing seen: leaves observations as they are."""
    return Normaliser(jnp.zeros(()), jnp.zeros(size), jnp.ones(size))


def update(now: Normaliser, obs: Array) -> Normaliser:
    """With observations (..., n) added."""
    flat = obs.reshape(-1, obs.shape[-1])
    count, mean, variance = flat.shape[0], jnp.mean(flat, axis=0), jnp.var(flat, axis=0)
    total = now.count + count
    apart = mean - now.mean
    joined = now.variance * now.count + variance * count + apart**2 * now.count * count / total
    return Normaliser(total, now.mean + apart * count / total, joined / total)


def normalise(now: Normaliser, obs: Array) -> Array:
    """(..., n) of about unit variance."""
    scaled = (obs - now.mean) / jnp.sqrt(now.variance + 1e-4)
    return jnp.clip(scaled, -LARGEST, LARGEST)
