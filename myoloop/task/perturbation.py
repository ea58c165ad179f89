"""Disturbances a participant meets while it follows a reference: pushes on fingertips, and loads on the palm.

Pure functions of a small state, so that they run inside a jitted step; all numbers come from the key given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


@dataclass(frozen=True)
class PerturbationConfig:
    """How often, how hard and how long."""

    pushes_per_s: float = 0.2
    """Pushes a participant meets in a second, on average: one every five seconds leaves time to settle between them."""
    push_n: float = 3.0
    """N: the hardest push on a fingertip; each is drawn between 0 and this. A key is pressed with about 0.5 to 3 N
    (Rempel et al. 1997: peaks of 1.6 to 5.3 N while typing)."""
    push_s: tuple[float, float] = (0.1, 0.3)
    """s: shortest and longest push."""
    loaded: float = 0.3
    """Part of the episodes that carry a load on the palm from beginning to end."""
    load_n: float = 3.0
    """N: the heaviest load, in a random direction; a cup in the hand."""


class Perturbation(NamedTuple):
    """What pushes on B participants now."""

    finger: Array
    """(B, 5, 3) N on the fingertips, world axes; it acts while `left` is above 0."""
    palm: Array
    """(B, 3) N on the palm."""
    left: Array
    """(B,) s: what is left of the push."""


def no_perturbation(participants: int) -> Perturbation:
    """Nothing pushes."""
    return Perturbation(jnp.zeros((participants, 5, 3)), jnp.zeros((participants, 3)), jnp.zeros(participants))


def forces(now: Perturbation) -> Array:
    """(B, 6, 3) N as an engine's `push` takes them: five fingertips, then the palm."""
    finger = jnp.where((now.left > 1e-6)[:, None, None], now.finger, 0.0)
    return jnp.concatenate([finger, now.palm[:, None]], axis=1)


def next_perturbation(config: PerturbationConfig, now: Perturbation, key: Array, dt: float) -> Perturbation:
    """One control step of `dt` s later: pushes end, and new ones begin at random."""
    participants = now.left.shape[0]
    begin, which, direction, size, length = jax.random.split(key, 5)
    left = jnp.maximum(now.left - dt, 0.0)
    starts = (left <= 1e-6) & (jax.random.uniform(begin, (participants,)) < config.pushes_per_s * dt)
    shortest, longest = config.push_s
    duration = shortest + (longest - shortest) * jax.random.uniform(length, (participants,))
    force = config.push_n * jax.random.uniform(size, (participants, 1)) * _directions(direction, participants)
    finger = jax.nn.one_hot(jax.random.randint(which, (participants,), 0, 5), 5)[:, :, None] * force[:, None]
    return Perturbation(
        finger=jnp.where(starts[:, None, None], finger, now.finger),
        palm=now.palm,
        left=jnp.where(starts, duration, left),
    )


def fresh_perturbation(config: PerturbationConfig, participants: int, key: Array) -> Perturbation:
    """For the start of an episode: no push yet; some carry a load."""
    who, size, direction = jax.random.split(key, 3)
    loaded = jax.random.uniform(who, (participants, 1)) < config.loaded
    weight = config.load_n * jax.random.uniform(size, (participants, 1))
    return no_perturbation(participants)._replace(
        palm=jnp.where(loaded, weight, 0.0) * _directions(direction, participants)
    )


def _directions(key: Array, count: int) -> Array:
    """(count, 3) unit vectors, evenly over the sphere."""
    arrows = jax.random.normal(key, (count, 3))
    return arrows / jnp.maximum(jnp.linalg.norm(arrows, axis=1, keepdims=True), 1e-6)
