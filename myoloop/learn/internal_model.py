"""The internal model: a participant learns what its muscles make the decoder say, and thinks its movements over with it.

It hears its own excitations (efference copy: Wolpert, Ghahramani & Jordan 1995, An internal model for sensorimotor
integration) and the decoder's answers, and fits a forward model to the pairs it has experienced. Through the model it improves
its policy (learn/through_forward.py) while it goes on exploring. Of the decoder it needs nothing but its answers: so it learns
to use software that nobody can differentiate, live as well as in a batch.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from myoloop.body.names import FINGERS, FOREARM_MUSCLES, MUSCLES
from myoloop.learn.rollout import Experience
from myoloop.learn.through_forward import (
    Actor,
    Heard,
    Memory,
    ObjectiveConfig,
    choose,
    chosen,
    empty_memory,
    heard,
    improve_policy,
    optimiser,
    remember,
)
from myoloop.policy.learned import explore
from myoloop.policy.normaliser import Normaliser, init_normaliser, update

SILENT = 0.003
"""Excitation at which the model's logarithm flattens: a fifth of the first unit's threshold (emg/motor_units.py)."""
USUAL = 0.05
"""Excitation around which it is centred."""


@dataclass(frozen=True)
class ForwardConfig:
    """The forward model and how it is fitted."""

    windows: tuple[int, ...] = (1, 1, 2, 4, 8)
    """Control steps whose mean excitation it hears, the coming one first, then farther back and coarser: 320 ms in all, about
    as far back as the decoder looks."""
    hidden: tuple[int, ...] = (128, 64)
    """Width of its layers; the first reads the whole history."""
    members: int = 3
    """Models that learn side by side from different draws; the policy must please them all."""
    updates: int = 20
    """Steps of Adam after each rollout."""
    stretches: int = 64
    """Remembered stretches in each of them."""
    learning_rate: float = 3e-3
    """Of Adam."""
    remembered: int = 24
    """Rollouts that are remembered."""
    first_rollouts: int = 6
    """Rollouts that are only watched before the policy changes."""

    @property
    def history(self) -> int:
        """Control steps that it hears in all, the coming one included."""
        return sum(self.windows)


@dataclass(frozen=True)
class InternalModelConfig:
    """The learner."""

    forward: ForwardConfig = field(default_factory=ForwardConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)


class _Model(nn.Module):
    """Excitations (B, past + T, 39) -> log-odds (B, T, 5)."""

    config: ForwardConfig

    @nn.compact
    def __call__(self, excitation: Array) -> Array:
        drive = excitation[..., : len(FOREARM_MUSCLES)]
        steps = drive.shape[-2] - self.config.history + 1
        # side by side, not a convolution: many of those are slow on a CPU
        lags = [drive[..., k : k + steps, :] for k in reversed(range(self.config.history))]
        edges = [0, *itertools.accumulate(self.config.windows)]
        heard = [sum(lags[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
        x = 0.5 * jnp.log((jnp.concatenate(heard, axis=-1) + SILENT) / USUAL)  # about -1 silent, 1 in full drive
        for width in self.config.hidden:
            x = nn.silu(nn.Dense(width)(x))
        return nn.Dense(len(FINGERS))(x)


class InternalModelState(NamedTuple):
    """All that learning changes."""

    params: Any
    """{"policy": ..., "model": stacked (members, ...)}"""
    optimisers: Any
    """{"policy": ..., "model": ...}"""
    habit: Any
    """Parameters of the policy whose movement is kept."""
    normaliser: Normaliser
    memory: Memory
    updates: Array
    """() int32"""


class Progress(NamedTuple):
    """What an update was like, () each."""

    model_loss: Array
    """How far the models are from the decoder's answers in the rollout that they have not seen, nats a finger."""
    deviation: Array
    """Standard deviation of the actions."""
    learning_rate: Array
    wanted_loss: Array
    strayed: Array


class InternalModelLearner:
    """See learn.learner.Learner."""

    def __init__(
        self,
        config: InternalModelConfig,
        actor: Actor,
        unroll: int,
        begin: tuple[Any, Normaliser] | None,
        leverage: Array,
        habit: Any = None,
    ):
        """begin: parameters and normaliser of the policy to start from; None: from nothing. leverage: (P, 23, 39), see
        `improve_policy`. habit: parameters of the policy whose movement is kept; None: those it starts from."""
        self.config, self.actor, self.unroll, self.begin = config, actor, unroll, begin
        self._leverage, self._habit = leverage, habit
        self._model = _Model(config.forward)
        self._improve, self._watch = jax.jit(self._improved), jax.jit(self._taken)

    def start(self, key: Array) -> InternalModelState:
        """Fresh models, the policy it begins with, nothing remembered."""
        of_policy, of_model = jax.random.split(key)
        actor, forward = self.actor, self.config.forward
        if self.begin is None:
            policy, normaliser = actor.policy.init(of_policy), init_normaliser(actor.observations)
        else:
            policy, normaliser = self.begin
        policy = explore(policy, self.config.objective.exploration)
        stretch = jnp.zeros((1, forward.history, len(MUSCLES)))
        members = jax.vmap(lambda k: self._model.init(k, stretch))(jax.random.split(of_model, forward.members))
        optimisers = {
            "policy": optimiser(self.config.objective).init(policy),
            "model": optax.adam(forward.learning_rate).init(members),
        }
        memory = empty_memory(
            forward.remembered, actor.participants, self.unroll, forward.history - 1, actor.observations, len(MUSCLES)
        )
        habit = policy if self._habit is None else self._habit
        return InternalModelState(
            {"policy": policy, "model": members}, optimisers, habit, normaliser, memory, jnp.int32(0)
        )

    def improve(
        self, learned: InternalModelState, experience: Experience, key: Array
    ) -> tuple[InternalModelState, Progress]:
        """Takes the rollout in, fits the models, improves the policy through them."""
        return self.think(learned, heard(experience), key)

    def think(self, learned: InternalModelState, rollout: Heard, key: Array) -> tuple[InternalModelState, Progress]:
        """The same from what was heard of the rollout: all that is needed."""
        return self._improve(learned, rollout, key)  # type: ignore[no-any-return]

    def watch(self, learned: InternalModelState, rollout: Heard) -> InternalModelState:
        """Only remembers the rollout."""
        return learned._replace(memory=self._watch(learned, rollout), updates=learned.updates + 1)

    def _taken(self, learned: InternalModelState, rollout: Heard) -> Memory:
        habitual = chosen(self.actor, learned.habit, learned.normaliser, rollout.obs)
        return remember(learned.memory, rollout, habitual)

    def _improved(self, learned: InternalModelState, rollout: Heard, key: Array) -> tuple[InternalModelState, Progress]:
        config = self.config
        of_model, of_policy = jax.random.split(key)
        memory = self._taken(learned, rollout)
        fresh = self._surprise(learned.params["model"], learned.memory, rollout)
        model, model_state = self._fitted(learned, memory, of_model)
        normaliser = learned.normaliser
        if self.begin is None:
            normaliser = update(normaliser, rollout.obs)
        policy, policy_state, told = improve_policy(
            config.objective, self.actor, self._forward, model, memory, normaliser, self._leverage,
            learned.params["policy"], learned.optimisers["policy"], of_policy,
        )  # fmt: skip
        wait = learned.updates < config.forward.first_rollouts
        policy, policy_state = jax.tree.map(
            lambda old, new: jnp.where(wait, old, new),
            (learned.params["policy"], learned.optimisers["policy"]),
            (policy, policy_state),
        )
        policy = explore(policy, config.objective.exploration)
        after = InternalModelState(
            {"policy": policy, "model": model}, {"policy": policy_state, "model": model_state}, learned.habit,
            normaliser, memory, learned.updates + 1,
        )  # fmt: skip
        deviation, rate = jnp.exp(config.objective.exploration), jnp.float32(config.objective.learning_rate)
        return after, Progress(fresh, deviation, rate, told.wanted_loss, told.strayed)

    def _forward(self, members: Any, excitation: Array) -> Array:
        return jax.vmap(self._model.apply, in_axes=(0, None))(members, excitation)  # type: ignore[arg-type, return-value]

    def _surprise(self, members: Any, memory: Memory, rollout: Heard) -> Array:
        """() how far the models' mean answers are from the decoder's, in a rollout they have not learned from."""
        whole = jnp.concatenate([memory.tail, jnp.swapaxes(rollout.excitation, 0, 1)], axis=1)
        odds = jnp.mean(self._forward(members, whole), axis=0)
        return mean_divergence(odds, jnp.swapaxes(rollout.odds, 0, 1))

    def _fitted(self, learned: InternalModelState, memory: Memory, key: Array) -> tuple[Any, Any]:
        """The models after some steps on what is remembered; each member draws for itself."""
        config = self.config.forward
        steps = optax.adam(config.learning_rate)

        def loss(member: Any, key: Array) -> Array:
            known = choose(memory, key, config.stretches)
            return mean_divergence(self._model.apply(member, known.excitation), known.odds)  # type: ignore[arg-type]

        def step(now: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], None]:
            members, state = now
            gradient = jax.vmap(jax.grad(loss))(members, jax.random.split(key, config.members))
            change, state = steps.update(gradient, state, members)
            return (optax.apply_updates(members, change), state), None

        start = (learned.params["model"], learned.optimisers["model"])
        (model, state), _ = jax.lax.scan(step, start, jax.random.split(key, config.updates))
        return model, state


def divergence(odds: Array, answered: Array) -> Array:
    """KL divergence of Bernoulli distributions, nats: how much less the log-odds `odds` expect what has the log-odds
    `answered`; 0 where they agree."""
    p = jax.nn.sigmoid(answered)
    return optax.sigmoid_binary_cross_entropy(odds, p) - optax.sigmoid_binary_cross_entropy(answered, p)


def mean_divergence(odds: Array, answered: Array) -> Array:
    """() the mean over all answers that came: NaN stands for one that did not; 0 if none came."""
    came = jnp.isfinite(answered)
    apart = jnp.where(came, divergence(odds, jnp.where(came, answered, 0.0)), 0.0)
    return jnp.sum(apart) / jnp.maximum(jnp.sum(came), 1)
