"""Networks that decide: observation -> a Gaussian over actions.

    policy = make_policy(NetworkConfig(), observations=154, actions=39)
    params, carry = policy.init(key), policy.start(4)
    action, carry, aux = policy.apply(params, observation, carry)      # observation (4, 154), normalised

Every policy keeps this interface; `carry` is what it remembers from step to step, a pytree with leaves (B, ...), empty for
a feed-forward one. Whatever chance an inner stage needs is in the carry too, so that going through a sequence again
from the same carry gives the same numbers: the ratio of PPO's first epoch is exactly 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from myoloop.errors import MyoloopError

LOG_STD = (-2.5, 0.0)
"""Bounds of the log standard deviation: unbounded, it has run away from 1 to 5.8 in others' trainings."""


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the policy's network."""

    hidden: tuple[int, ...] = (256, 128)
    """Width of the hidden layers."""
    recurrent: int = 0
    """Units of a GRU between the hidden layers and the action; 0: none."""
    bottleneck: int = 0
    """Size of a stochastic latent between encoder (the first hidden layer) and the rest; 0: none. The decoder behind it sees
    proprioception only through it."""
    bottleneck_cost: float = 1e-3
    """Weight of the latent's KL divergence from a standard normal in the loss."""
    log_std: float = -0.7
    """Log standard deviation of the actions at the start: half a unit of action."""


class Gaussian(NamedTuple):
    """A diagonal normal distribution over actions."""

    mean: Array
    """(..., actions)"""
    log_std: Array
    """(actions,)"""


class Policy(NamedTuple):
    """Three pure functions."""

    init: Callable[[Array], Any]
    """key -> parameters"""
    start: Callable[[int], Any]
    """B -> carry of participants that begin"""
    apply: Callable[[Any, Array, Any], tuple[Gaussian, Any, Array]]
    """parameters, observations (B, n), carry -> distribution, carry, auxiliary loss (B,)"""
    feedforward: bool
    """Nothing is carried: observations may come with any leading axes."""


def sample(dist: Gaussian, noise: Array) -> Array:
    """An action for every mean; noise: standard normal, of the means' shape."""
    return dist.mean + jnp.exp(dist.log_std) * noise


def log_prob(dist: Gaussian, action: Array) -> Array:
    """(..., actions) log density of every action by itself; they are independent, so that of all is the sum."""
    z = (action - dist.mean) * jnp.exp(-dist.log_std)
    return -0.5 * z**2 - dist.log_std - 0.5 * jnp.log(2 * jnp.pi)


def entropy(dist: Gaussian) -> Array:
    """() nats."""
    return jnp.sum(dist.log_std + 0.5 * jnp.log(2 * jnp.pi * jnp.e))


class _Network(nn.Module):
    config: NetworkConfig
    actions: int

    @nn.compact
    def __call__(self, obs: Array, carry: dict[str, Array], noise: Array | None) -> tuple[Gaussian, Any, Array]:
        config, aux = self.config, jnp.zeros(obs.shape[:-1])
        x = obs
        for index, width in enumerate(config.hidden):
            x = nn.silu(_dense(width, 2**0.5)(x))
            if index == 0 and config.bottleneck:
                centre = _dense(config.bottleneck, 1.0)(x)
                spread = jnp.clip(_dense(config.bottleneck, 0.1)(x), -5.0, 2.0)
                aux = 0.5 * jnp.sum(centre**2 + jnp.exp(2 * spread) - 2 * spread - 1.0, axis=-1)
                x = centre if noise is None else centre + jnp.exp(spread) * noise
        if config.recurrent:
            memory, x = nn.GRUCell(config.recurrent)(carry["memory"], x)
            carry = carry | {"memory": memory}
        mean = _dense(self.actions, 0.01)(x)
        log_std = self.param("log_std", nn.initializers.constant(config.log_std), (self.actions,))
        return Gaussian(mean, jnp.clip(log_std, *LOG_STD)), carry, config.bottleneck_cost * aux


class Critic(nn.Module):
    """Observation (..., n) -> value (..., parts) of every part of the reward. It may see more than the policy."""

    hidden: tuple[int, ...] = (256, 128)
    parts: int = 1

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        x = obs
        for width in self.hidden:
            x = nn.silu(_dense(width, 2**0.5)(x))
        return _dense(self.parts, 1.0)(x)


def make_policy(config: NetworkConfig, observations: int, actions: int) -> Policy:
    """A policy for observations (B, `observations`) and actions (B, `actions`).

    Raises:
      MyoloopError: a layer without a positive width.
    """
    if not config.hidden or min(config.hidden) < 1 or config.recurrent < 0 or config.bottleneck < 0:
        raise MyoloopError(f"network {config}: expected at least one hidden layer, and widths above 0.")
    network = _Network(config, actions)

    def start(participants: int) -> dict[str, Array]:
        carry: dict[str, Array] = {}
        if config.recurrent:
            carry["memory"] = jnp.zeros((participants, config.recurrent))
        if config.bottleneck:
            # 0: no chance, the latent's mean; a learner gives each participant a seed (`seeded`)
            carry["chance"] = jnp.zeros(participants, jnp.uint32)
        return carry

    def apply(params: Any, obs: Array, carry: dict[str, Array]) -> tuple[Gaussian, Any, Array]:
        noise = None
        if config.bottleneck:
            seeds = carry["chance"]
            keys = jax.vmap(jax.random.key)(seeds)
            drawn = jax.vmap(lambda key: jax.random.normal(key, (config.bottleneck,)))(keys)
            noise = jnp.where((seeds > 0)[:, None], drawn, 0.0)
            carry = carry | {"chance": jnp.where(seeds > 0, _next_seed(seeds), seeds)}
        return network.apply(params, obs, carry, noise)  # type: ignore[return-value]

    def init(key: Array) -> Any:
        carry = start(1)
        noise = jnp.zeros((1, config.bottleneck)) if config.bottleneck else None
        return network.init(key, jnp.zeros((1, observations)), carry, noise)

    return Policy(init, start, apply, feedforward=not (config.recurrent or config.bottleneck))


def seeded(carry: dict[str, Array], key: Array) -> dict[str, Array]:
    """A carry whose inner chance is drawn from `key`: what a learner that explores starts with."""
    if "chance" not in carry:
        return carry
    seeds = jax.random.bits(key, carry["chance"].shape, jnp.uint32)
    return carry | {"chance": jnp.maximum(seeds, 1)}


def _next_seed(seeds: Array) -> Array:
    """Another number above 0 for each: a linear congruential step (Knuth's MMIX multiplier's low word)."""
    return jnp.maximum(seeds * jnp.uint32(1664525) + jnp.uint32(1013904223), 1)


def _dense(width: int, scale: float) -> nn.Dense:
    return nn.Dense(width, kernel_init=nn.initializers.orthogonal(scale))
