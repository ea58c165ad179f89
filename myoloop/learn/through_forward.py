"""Improve a policy through a forward model: something that says what the decoder answers to a stretch of excitations.

The distal teacher (Jordan & Rumelhart 1992, Forward models: supervised learning with a distal teacher): the error is known
where the answers are, and carried back through the forward model to the muscles. The policy is run again over remembered
stretches of observations; the body is not differentiated, the observations stay what they were. What else counts is in the
same loss: effort, smoothness, and the movement. For the movement the policy's habit is kept, the policy it was before it
met the decoder: wherever the hand is, the muscles should turn the joints as the habit would, by whatever excitations; what
no joint feels is free (the uncontrolled manifold of Scholz & Schoner 1999).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from myoloop.learn.heard import Heard
from myoloop.learn.rollout import Experience, Loop
from myoloop.policy.actions import ActionConfig, to_excitation
from myoloop.policy.networks import Policy
from myoloop.policy.normaliser import Normaliser, normalise
from myoloop.policy.observation import observation_layout

Forward = Callable[[Any, Array], Array]
"""Knowledge, excitations (B, past + T, 39) -> log-odds (members, B, T, 5): the answers to each of the last T steps."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is wanted of the policy, in nats of the decoder's cross-entropy a finger."""

    effort: float = 4.0
    """Cost of the mean squared excitation (39 muscles): phase 1 spends about 0.01 of it."""
    smoothness: float = 1.0
    """Cost of the mean squared change of excitation from step to step."""
    movement: float = 30.0
    """Cost of the mean squared change of the joints' torques from the habit's, each joint's in units of what all its muscles
    can do. Without it the labels are learned faster and the movement is lost (docs/adaptation.md)."""
    learning_rate: float = 1e-3
    """Of Adam, for the policy."""
    updates: int = 12
    """Steps of Adam after each rollout."""
    stretches: int = 64
    """Remembered stretches (one participant, one rollout) in each of them."""
    exploration: float = -1.6
    """Log standard deviation of the actions while experience is made."""
    balanced: bool = False
    """Whether every combination of labels counts the same, however often it is asked for: for named gestures, of which the rest
    takes most of the time, and which are judged by balanced accuracy."""
    max_gradient: float = 1.0
    """Gradients with a longer norm are shortened to it."""


class Actor(NamedTuple):
    """Whose policy is improved: what a learner must know of those who act, in a batch or in a live session."""

    policy: Policy
    action: ActionConfig
    observations: int
    """Numbers in an observation."""
    participants: int


def actor_of(loop: Loop) -> Actor:
    """The participants of a batch."""
    size = observation_layout(loop.task.config.look_ahead_s, loop.cues).size
    return Actor(loop.policy, loop.action, size, loop.task.participants)


def heard(experience: Experience) -> Heard:
    """Of a rollout in the batch: everything."""
    return Heard(experience.rollout.obs, experience.excitation, experience.odds, experience.labels)


class Memory(NamedTuple):
    """The newest rollouts, N stretches of T steps; rings."""

    obs: Array
    """(N, T, n) as perceived."""
    excitation: Array
    """(N, past + T, 39) with what was done before."""
    odds: Array
    """(N, T, 5) what the decoder answered; NaN where it did not."""
    labels: Array
    """(N, T, 5) what was asked for."""
    habitual: Array
    """(N, T, 39) the excitations that the habit would have chosen there."""
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
        habitual=jnp.zeros((n, steps, muscles)),
        tail=jnp.zeros((participants, past, muscles)),
        filled=jnp.int32(0),
    )


def remember(memory: Memory, rollout: Heard, habitual: Array) -> Memory:
    """With one more rollout, in the place of the oldest; `habitual` (T, B, 39), see Memory."""
    obs, excitation, odds, labels, habitual = (jnp.swapaxes(x, 0, 1) for x in (*rollout, habitual))
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
        habitual=put(memory.habitual, habitual),
        tail=whole[:, whole.shape[1] - memory.tail.shape[1] :],
        filled=memory.filled + 1,
    )


class Stretches(NamedTuple):
    """Some remembered ones, n of them, as in Memory."""

    obs: Array
    excitation: Array
    odds: Array
    labels: Array
    habitual: Array


def choose(memory: Memory, key: Array, count: int) -> Stretches:
    """`count` remembered stretches, drawn with replacement."""
    known = jnp.minimum(memory.filled * memory.tail.shape[0], memory.obs.shape[0])
    which = jax.random.randint(key, (count,), 0, known)
    return Stretches(*(getattr(memory, name)[which] for name in Stretches._fields))


def optimiser(config: ObjectiveConfig) -> optax.GradientTransformation:
    """Of the policy."""
    return optax.chain(optax.clip_by_global_norm(config.max_gradient), optax.adam(config.learning_rate))


def chosen(actor: Actor, params: Any, normaliser: Normaliser, obs: Array) -> Array:
    """(..., 39) excitations that a feed-forward policy chooses, without exploration, where it perceives `obs` (..., n)."""
    dist, _, _ = actor.policy.apply(params, normalise(normaliser, obs), actor.policy.start(obs.shape[0]))
    return to_excitation(actor.action, dist.mean)


def unit_leverage(leverage: np.ndarray) -> Array:
    """(P, 23, 39) torques by excitations (body.leverage) in units of each joint's own: the root of the sum of its squares."""
    return jnp.asarray(leverage / np.linalg.norm(leverage, axis=2, keepdims=True), jnp.float32)


def rarity(labels: Array) -> Array:
    """(n, T) weights, 1 on average, with which all combinations of labels (n, T, 5) that occur weigh the same together."""
    fingers = labels.shape[-1]
    number = jnp.sum((labels > 0.5) * 2 ** jnp.arange(fingers), axis=-1)
    count = jnp.bincount(number.reshape(-1), length=2**fingers)
    return number.size / (jnp.sum(count > 0) * count[number])


class Told(NamedTuple):
    """How the policy stands, () each."""

    wanted_loss: Array
    """Cross-entropy that the forward model expects of the policy's excitations, nats a finger."""
    effort: Array
    """Mean squared excitation of the policy's own, without exploration."""
    strayed: Array
    """Mean squared change of torque, as `ObjectiveConfig.movement` weighs it."""


def improve_policy(
    config: ObjectiveConfig,
    actor: Actor,
    forward: Forward,
    knowledge: Any,
    memory: Memory,
    normaliser: Normaliser,
    leverage: Array,
    params: Any,
    state: Any,
    key: Array,
) -> tuple[Any, Any, Told]:
    """`config.updates` steps of Adam on the policy's parameters; pure, to be jitted.

    Args:
      forward: and its `knowledge`, which stays as it is.
      leverage: (P, 23, 39) torques by excitations at some postures, from `unit_leverage`.
      params, state: of the policy, and of `optimiser`.

    Returns:
      parameters, optimiser's state, figures of the last step.
    """
    steps = optimiser(config)

    def loss(params: Any, key: Array) -> tuple[Array, Told]:
        known = choose(memory, key, config.stretches)
        excitation = chosen(actor, params, normaliser, known.obs)
        past = known.excitation[:, : known.excitation.shape[1] - excitation.shape[1]]
        odds = forward(knowledge, jnp.concatenate([past, excitation], axis=1))
        apart = optax.sigmoid_binary_cross_entropy(odds, known.labels[None])
        wanted = jnp.mean(apart * rarity(known.labels)[..., None] if config.balanced else apart)
        effort = jnp.mean(excitation**2)
        jerk = jnp.mean(jnp.diff(excitation, axis=1) ** 2)
        change = excitation - known.habitual
        strayed = jnp.mean(jnp.einsum("pjm,btm->pbtj", leverage, change) ** 2)
        total = wanted + config.effort * effort + config.smoothness * jerk + config.movement * strayed
        return total, Told(wanted, effort, strayed)

    def step(now: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], Told]:
        params, state = now
        gradient, told = jax.grad(loss, has_aux=True)(params, key)
        change, state = steps.update(gradient, state, params)
        return (optax.apply_updates(params, change), state), told

    (params, state), told = jax.lax.scan(step, (params, state), jax.random.split(key, config.updates))
    return params, state, jax.tree.map(lambda x: x[-1], told)
