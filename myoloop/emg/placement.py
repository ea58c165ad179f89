"""The armband turned on the limb, also during a run: MUAPs are interpolated on the ring, not computed again.

An armband is a ring, so that all its channels at all rotations share one periodic set of places around the limb
(volume_conductor.ring_muaps). A rotation reads it between places with cubic (4-point Lagrange) weights; at rest an even
band falls on places exactly.

    weights = ring_weights(band, rotation_deg)          # (C, rows * places), four numbers a row
    coefficients = turn(ring, weights)                  # (U, C*R) of the turned armband
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from myoloop.emg.armband import Armband
from myoloop.emg.volume_conductor import ring_places


def ring_weights(band: Armband, rotation_deg: float | Array) -> Array:
    """Weights (..., C, rows * places) of the ring's places in each channel of the armband turned by rotation_deg (...).

    Positive turns towards volar. Any angle will do. Pure JAX.
    """
    node, part = _nodes(band, rotation_deg)
    places = ring_places(band)
    row = jnp.arange(band.channels) // band.columns
    index = row[:, None] * places + (node[..., None] + jnp.arange(-1, 3)) % places
    return jnp.sum(_cubic(part)[..., None] * (index[..., None] == jnp.arange(band.rows * places)), axis=-2)


def turn(ring: Array, band: Armband, rotation_deg: float | Array) -> Array:
    """Coefficients (..., U, C*R) of the turned armband from those of the ring (U, rows*places*R). Pure JAX.

    rotation_deg may have a shape (...): one armband each. Reads four places a channel, whatever the ring's size.
    """
    node, part = _nodes(band, rotation_deg)
    places = ring_places(band)
    units = ring.shape[0]
    by_place = ring.reshape(units, band.rows * places, -1)
    row = jnp.arange(band.channels) // band.columns
    weight = _cubic(part)
    total: Array | float = 0.0
    for n, offset in enumerate(range(-1, 3)):
        index = row * places + (node + offset) % places
        total = total + weight[..., None, :, n, None] * jnp.moveaxis(by_place[:, index], 0, -3)
    return jnp.asarray(total).reshape(*node.shape[:-1], units, -1)


def _nodes(band: Armband, rotation_deg: float | Array) -> tuple[Array, Array]:
    """The place before each channel (..., C), int32, and how far it is on towards the next, 0..1."""
    places = ring_places(band)
    rest = (np.asarray(band.angles_deg) - band.first_angle_deg) % 360.0 * places / 360.0
    whole = np.round(rest)
    rest = np.where(np.abs(rest - whole) < 1e-6, whole, rest)
    base = np.floor(rest)
    moved = jnp.asarray(rotation_deg, jnp.float32)[..., None] * (places / 360.0) + jnp.asarray(rest - base, jnp.float32)
    step = jnp.floor(moved)
    return (jnp.asarray(base, jnp.int32) + step.astype(jnp.int32)) % places, moved - step


def _cubic(t: Array) -> Array:
    """(..., 4) Lagrange weights of the nodes -1, 0, 1, 2 for a place t between nodes 0 and 1."""
    return jnp.stack(
        [
            -t * (t - 1) * (t - 2) / 6,
            (t + 1) * (t - 1) * (t - 2) / 2,
            -(t + 1) * t * (t - 2) / 2,
            (t + 1) * t * (t - 1) / 6,
        ],
        axis=-1,
    )
