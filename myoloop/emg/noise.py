"""Random numbers by address: a draw depends only on who asks (key) and for what (indices), never on call order.

That makes a stream independent of how it is cut into chunks, and equal on every device: integers only. Threefry
(jax.random) would serve too, with more operations per draw, which the motor units would pay for every unit in every
step; these draws need no cryptographic quality, only good statistics (tested).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

NORMAL_LIMIT = 3.46
"""Draws of `normal` stay within this many standard deviations: the sum of four uniforms is bounded."""

_SUM_MEAN = 131070
SUM_SD = (4 * (65536.0**2 - 1) / 12) ** 0.5
"""Standard deviation of `normal_sum`."""


def mix(x: Array) -> Array:
    """A bijection on uint32 that scatters neighbouring inputs (xor-shift and multiply, constants of Wellons 2018)."""
    x = x ^ (x >> 16)
    x = x * jnp.uint32(0x7FEB352D)
    x = x ^ (x >> 15)
    x = x * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def address(key: Array, *indices: Array) -> Array:
    """uint32 that stands for (key, indices): arrays of integers that broadcast together. For one key, different
    indices in one place never collide; pairs of keys and indices collide as random 32-bit words do."""
    word = jnp.asarray(key).astype(jnp.uint32)
    for index in indices:
        word = mix(word + (jnp.asarray(index).astype(jnp.uint32) + jnp.uint32(1)) * jnp.uint32(0x9E3779B9))
    return word


def normal_sum(word: Array) -> Array:
    """int32 draw, mean 0, standard deviation SUM_SD, near normal: sum of four 16-bit uniforms, from an address."""
    low = mix(word ^ jnp.uint32(0xB5297A4D))
    half = jnp.uint32(0xFFFF)
    total = (word >> 16) + (word & half) + (low >> 16) + (low & half)
    return total.astype(jnp.int32) - _SUM_MEAN


def normal(word: Array) -> Array:
    """float32 draw of mean 0, standard deviation 1, within +-NORMAL_LIMIT, from an address."""
    return normal_sum(word).astype(jnp.float32) * jnp.float32(1.0 / SUM_SD)


def uniform(word: Array) -> Array:
    """Draw in [0, 1) with 24 bits from an address."""
    return (mix(word ^ jnp.uint32(0x1B56C4E9)) >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)
