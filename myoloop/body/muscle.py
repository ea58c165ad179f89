"""MuJoCo's muscle model in JAX: force from length and velocity (MuJoCo manual, "Muscle actuators").

    force = gain(length, velocity) * activation + passive(length)

Forces are positive when the muscle pulls, the opposite of MuJoCo's sign. Everything broadcasts over leading axes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct


@struct.dataclass
class MuscleParameters:
    """Constants of every muscle, each of shape (muscles,)."""

    peak_force: jax.Array
    """Largest isometric force, N."""
    length_from: jax.Array
    """Musculotendon length at the lower end of the operating range, m."""
    optimal_length: jax.Array
    """Musculotendon length that one unit of normalised length stands for, m."""
    range_from: jax.Array
    """Normalised length at the lower end of the operating range."""
    shortest: jax.Array
    """Normalised length below which the muscle cannot pull (lmin)."""
    longest: jax.Array
    """Normalised length above which it cannot pull actively (lmax)."""
    speed: jax.Array
    """Shortening velocity at which force vanishes, optimal lengths per second (vmax)."""
    passive_force: jax.Array
    """Passive force at `longest`, in units of peak force (fpmax)."""
    eccentric_force: jax.Array
    """Active force when lengthening fast, in units of peak force (fvmax)."""


class MuscleForce(NamedTuple):
    """The two parts of muscle force at one length and velocity."""

    gain: jax.Array
    """(..., muscles) N at full activation, without the passive part."""
    passive: jax.Array
    """(..., muscles) N without activation."""


def muscle_parameters(model: mujoco.MjModel) -> MuscleParameters:
    """Read the constants of a compiled model whose actuators are all muscles."""
    low, high, peak, scale, shortest, longest, speed, passive, eccentric = model.actuator_gainprm[:, :9].T
    peak = np.where(peak > 0, peak, scale / np.maximum(model.actuator_acc0, 1e-15))
    span = model.actuator_lengthrange
    values = dict(
        peak_force=peak,
        length_from=span[:, 0],
        optimal_length=(span[:, 1] - span[:, 0]) / np.maximum(high - low, 1e-15),
        range_from=low,
        shortest=shortest,
        longest=longest,
        speed=speed,
        passive_force=passive,
        eccentric_force=eccentric,
    )
    return MuscleParameters(**{name: jnp.asarray(value, jnp.float32) for name, value in values.items()})


def muscle_force(p: MuscleParameters, length: jax.Array, velocity: jax.Array) -> MuscleForce:
    """Gain and passive force, both N and at least 0, of muscles at `length` (..., muscles) m and `velocity` m/s."""
    stretch = p.range_from + (length - p.length_from) / p.optimal_length
    rate = velocity / (p.optimal_length * p.speed)
    gain = p.peak_force * _force_length(p, stretch) * _force_velocity(p, rate)
    return MuscleForce(gain, p.peak_force * _passive(p, stretch))


def muscle_resistance(p: MuscleParameters, length: jax.Array, velocity: jax.Array) -> jax.Array:
    """By how much a fully active muscle pulls harder, N, per m/s that it lengthens faster: d gain / d velocity, >= 0.

    Written out: automatic differentiation halves it at rest, where the two branches of the relation meet.
    """
    stretch = p.range_from + (length - p.length_from) / p.optimal_length
    rate = velocity / (p.optimal_length * p.speed)
    extra = p.eccentric_force - 1.0
    shortening = 2.0 * (jnp.clip(rate, -1.0, 0.0) + 1.0)
    lengthening = 2.0 * (1.0 - jnp.clip(rate, 0.0, extra) / extra)
    slope = jnp.where(rate <= 0.0, shortening, lengthening) / (p.optimal_length * p.speed)
    return p.peak_force * _force_length(p, stretch) * slope


def _force_length(p: MuscleParameters, stretch: jax.Array) -> jax.Array:
    """A bump: 0 at both ends of the range, 1 at optimal length, pieces of parabolas between."""

    def side(distance):  # 0 at optimal length, 1 at the end of the range
        return jnp.where(distance < 0.5, 1.0 - 2.0 * distance**2, 2.0 * (1.0 - distance) ** 2)

    below = (1.0 - stretch) / (1.0 - p.shortest)
    above = (stretch - 1.0) / (p.longest - 1.0)
    return side(jnp.clip(jnp.maximum(below, above), 0.0, 1.0))


def _force_velocity(p: MuscleParameters, rate: jax.Array) -> jax.Array:
    """0 at the fastest shortening, 1 at rest, `eccentric_force` when lengthening."""
    extra = p.eccentric_force - 1.0
    shortening = (jnp.clip(rate, -1.0, 0.0) + 1.0) ** 2
    lengthening = p.eccentric_force - (extra - jnp.clip(rate, 0.0, extra)) ** 2 / extra
    return jnp.where(rate <= 0.0, shortening, lengthening)


def _passive(p: MuscleParameters, stretch: jax.Array) -> jax.Array:
    """0 up to optimal length, then a parabola up to half-way to `longest`, then a line."""
    bend = 0.5 * (1.0 + p.longest)
    x = jnp.maximum(stretch - 1.0, 0.0) / (bend - 1.0)
    return p.passive_force * jnp.where(x <= 1.0, 0.5 * x**2, x - 0.5)
