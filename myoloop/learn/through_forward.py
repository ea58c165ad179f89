"""Improve a policy through a forward model: something that says what the decoder answers to a stretch of excitations.

The distal teacher (Jordan & Rumelhart 1992, Forward models: supervised learning with a distal teacher): the error is known
where the answers are, and carried back through the forward model to the muscles. The policy is run again over remembered
stretches of observations; the body is not differentiated, the observations stay what they were. What else counts is in the
same loss: effort, smoothness, and staying close to the movement that the policy made before it met the decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from myoloop.learn.rollout import Experience, Loop
from myoloop.policy.actions import to_excitation
from myoloop.policy.normaliser import Normaliser, normalise

Forward = Callable[[Any, Array], Array]
"""Knowledge, excitations (B, past + T, 39) -> log-odds (members, B, T, 5): the answers to each of the last T steps."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is wanted of the policy, in nats of the decoder's cross-entropy a finger."""

    effort: float = 2.0
    """Cost of the mean squared excitation (39 muscles): phase 1 spends about 0.01 of it."""
    smoothness: float = 1.0
    """Cost of the mean squared change of excitation from step to step."""
    habit: float = 0.02
    """Cost of the mean squared difference of the actions from those of the policy it began with: keeps the movement plausible.
    0 where it begins from nothing."""
    learning_rate: float = 5e-4
    """Of Adam, for the policy."""
    updates: int = 24
    """Steps of Adam after each rollout."""
    stretches: int = 64
    """Remembered stretches (one participant, one rollout) in each of them."""
    exploration: float = -1.2
    """Log standard deviation of the actions while experience is made."""
    max_gradient: float = 1.0
    """Gradients with a longer norm are shortened to it."""


class Memory(NamedTuple):
    """The newest rollouts, N stretches of T steps; rings."""

    obs: Array
    """(N, T, n) as perceived."""
    excitation: Array
    """(N, past + T, 39) with what was done before."""
    odds: Array
    """(N, T, 5) what the decoder answered."""
    labels: Array
    """(N, T, 5) what was asked for."""
    tail: Array
    """(B, past, 39) the newest excitations."""
    filled: Array
    """() int32: rollouts taken in."""


def empty_memory(rollouts: int, participants: int, steps: int, past: int, observations: int, muscles: int) -> Memory:
    """Room for so many rollouts."""
    n = rollouts * participants
    return Memory(
        obs=jnp.zeros((n, steps, observations)),
        excitation=jnp.zeros((n, past + steps, muscles)),
        odds=jnp.zeros((n, steps, 5)),
        labels=jnp.zeros((n, steps, 5)),
        tail=jnp.zeros((participants, past, muscles)),
        filled=jnp.int32(0),
    )


def remember(memory: Memory, experience: Experience) -> Memory:
    """With one more rollout, in the place of the oldest."""
    by_participant = [
        jnp.swapaxes(x, 0, 1)
        for x in (experience.rollout.obs, experience.excitation, experience.odds, experience.labels)
    ]
    obs, excitation, odds, labels = by_participant
    whole = jnp.concatenate([memory.tail, excitation], axis=1)
    participants = obs.shape[0]
    first = memory.filled % (memory.obs.shape[0] // participants) * participants

    def put(ring: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(ring, new.astype(ring.dtype), first, axis=0)

    return Memory(
        obs=put(memory.obs, obs),
        excitation=put(memory.excitation, whole),
        odds=put(memory.odds, odds),
        labels=put(memory.labels, labels),
        tail=whole[:, whole.shape[1] - memory.tail.shape[1] :],
        filled=memory.filled + 1,
    )


def choose(memory: Memory, participants: int, key: Array, count: int) -> tuple[Array, Array, Array, Array]:
    """`count` remembered stretches, drawn with replacement: obs, excitation, odds, labels."""
    known = jnp.minimum(memory.filled * participants, memory.obs.shape[0])
    which = jax.random.randint(key, (count,), 0, known)
    return memory.obs[which], memory.excitation[which], memory.odds[which], memory.labels[which]


def optimiser(config: ObjectiveConfig) -> optax.GradientTransformation:
    """Of the policy."""
    return optax.chain(optax.clip_by_global_norm(config.max_gradient), optax.adam(config.learning_rate))


class Told(NamedTuple):
    """How the policy stands, () each."""

    wanted_loss: Array
    """Cross-entropy that the forward model expects of the policy's excitations, nats a finger."""
    effort: Array
    """Mean squared excitation of the policy's own, without exploration."""
    strayed: Array
    """Mean squared difference of the actions from the habit's."""


def improve_policy(
    config: ObjectiveConfig,
    loop: Loop,
    forward: Forward,
    knowledge: Any,
    memory: Memory,
    normaliser: Normaliser,
    habit: Any,
    params: Any,
    state: Any,
    key: Array,
) -> tuple[Any, Any, Told]:
    """`config.updates` steps of Adam on the policy's parameters; pure, to be jitted.

    Args:
      forward: and its `knowledge`, which stays as it is.
      habit: parameters of the policy it began with; the same network.
      params, state: of the policy, and of `optimiser`.

    Returns:
      parameters, optimiser's state, figures of the last step.
    """
    steps = optimiser(config)
    participants = memory.tail.shape[0]

    def act(of: Any, obs: Array) -> Array:
        dist, _, _ = loop.policy.apply(of, obs, loop.policy.start(obs.shape[0]))
        return dist.mean

    def loss(params: Any, key: Array) -> tuple[Array, Told]:
        seen, before, _, labels = choose(memory, participants, key, config.stretches)
        obs = normalise(normaliser, seen)
        action = act(params, obs)
        excitation = to_excitation(loop.action, action)
        past = before[:, : before.shape[1] - excitation.shape[1]]
        odds = forward(knowledge, jnp.concatenate([past, excitation], axis=1))
        wanted = jnp.mean(optax.sigmoid_binary_cross_entropy(odds, labels[None]))
        effort = jnp.mean(excitation**2)
        jerk = jnp.mean(jnp.diff(excitation, axis=1) ** 2)
        strayed = jnp.mean((action - jax.lax.stop_gradient(act(habit, obs))) ** 2)
        total = wanted + config.effort * effort + config.smoothness * jerk + config.habit * strayed
        return total, Told(wanted, effort, strayed)

    def step(now: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], Told]:
        params, state = now
        gradient, told = jax.grad(loss, has_aux=True)(params, key)
        change, state = steps.update(gradient, state, params)
        return (optax.apply_updates(params, change), state), told

    (params, state), told = jax.lax.scan(step, (params, state), jax.random.split(key, config.updates))
    return params, state, jax.tree.map(lambda x: x[-1], told)
