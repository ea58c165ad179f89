"""The ceiling: the policy is improved through the expected EMG and the decoder itself.

No person can do it, and no decoder that cannot be differentiated allows it. It shows what could be learned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from myoloop.body.names import MUSCLES
from myoloop.decoder import tcn
from myoloop.errors import MyoloopError
from myoloop.learn.expected_power import ExpectedPower, power, tabulate, tcn_only
from myoloop.learn.rollout import Experience, Loop
from myoloop.learn.through_forward import (
    Memory,
    ObjectiveConfig,
    actor_of,
    chosen,
    empty_memory,
    heard,
    improve_policy,
    optimiser,
    remember,
)
from myoloop.policy.learned import explore
from myoloop.policy.normaliser import Normaliser, init_normaliser, update
from myoloop.policy.observation import observation_layout


@dataclass(frozen=True)
class GradientConfig:
    """The learner."""

    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    past: int = 24
    """Control steps before a stretch that the decoder hears first: as far back as it looks."""
    remembered: int = 8
    """Rollouts that are remembered."""


class GradientState(NamedTuple):
    """All that learning changes."""

    params: Any
    """{"policy": ...}"""
    optimiser: Any
    habit: Any
    """Parameters of the policy whose movement is kept."""
    normaliser: Normaliser
    memory: Memory


class Progress(NamedTuple):
    """What an update was like, () each."""

    deviation: Array
    """Standard deviation of the actions."""
    learning_rate: Array
    model_loss: Array
    """Cross-entropy that is expected through the table, nats a finger."""
    strayed: Array


class GradientLearner:
    """See learn.learner.Learner."""

    def __init__(
        self,
        config: GradientConfig,
        loop: Loop,
        unroll: int,
        begin: tuple[Any, Normaliser] | None,
        leverage: Array,
        habit: Any = None,
    ):
        """As learn.internal_model.InternalModelLearner.

        Raises:
          MyoloopError: a loop without decoder, or with one that is no TCN, or several people side by side.
        """
        if loop.interface is None or loop.emg is None:
            raise MyoloopError("the learner 'gradient' needs a decoder of this project (a .safetensors file).")
        network = tcn_only(loop.interface.network)
        self.config, self.loop, self.unroll, self.begin = config, loop, unroll, begin
        self._network = network
        self._leverage, self._habit = leverage, habit
        self._table = tabulate(loop.emg, network, loop.interface.params)
        self._improve = jax.jit(self._improved)

    def start(self, key: Array) -> GradientState:
        """The policy it begins with, nothing remembered."""
        task = self.loop.task
        size = observation_layout(task.config.look_ahead_s, self.loop.cues).size
        policy, normaliser = self.begin or (self.loop.policy.init(key), init_normaliser(size))
        policy = explore(policy, self.config.objective.exploration)
        memory = empty_memory(
            self.config.remembered, task.participants, self.unroll, self.config.past, size, len(MUSCLES)
        )
        habit = policy if self._habit is None else self._habit
        return GradientState(
            {"policy": policy}, optimiser(self.config.objective).init(policy), habit, normaliser, memory
        )

    def improve(self, learned: GradientState, experience: Experience, key: Array) -> tuple[GradientState, Progress]:
        """Takes the rollout in and improves the policy on what is remembered."""
        return self._improve(learned, experience, key)  # type: ignore[no-any-return]

    def _improved(self, learned: GradientState, experience: Experience, key: Array) -> tuple[GradientState, Progress]:
        objective = self.config.objective
        obs, actor = experience.rollout.obs, actor_of(self.loop)
        habitual = chosen(actor, learned.habit, learned.normaliser, obs)
        memory = remember(learned.memory, heard(experience), habitual)
        normaliser = learned.normaliser
        if self.begin is None:
            normaliser = update(normaliser, obs)
        policy, state, told = improve_policy(
            objective, actor, self._forward, self._table, memory, normaliser, self._leverage,
            learned.params["policy"], learned.optimiser, key,
        )  # fmt: skip
        policy = explore(policy, objective.exploration)
        after = GradientState({"policy": policy}, state, learned.habit, normaliser, memory)
        deviation, rate = jnp.exp(objective.exploration), jnp.float32(objective.learning_rate)
        return after, Progress(deviation, rate, told.wanted_loss, told.strayed)

    def _forward(self, table: ExpectedPower, excitation: Array) -> Array:
        assert self.loop.interface is not None
        odds = tcn.logits_of_power(self._network, self.loop.interface.params, power(table, excitation))
        return odds[None, :, self.config.past :]
