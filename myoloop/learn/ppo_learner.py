"""PPO as a learner: the reward of the task, and nothing else, improves the policy."""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array

from myoloop.errors import MyoloopError
from myoloop.learn.ppo import CriticFn, Learned, PpoConfig, Progress, improve, init_learned
from myoloop.learn.rollout import PRIVILEGED, Experience, Loop
from myoloop.policy.networks import Critic
from myoloop.policy.normaliser import Normaliser
from myoloop.policy.observation import observation_layout


class PpoLearner:
    """See learn.learner.Learner."""

    def __init__(
        self, config: PpoConfig, loop: Loop, critic: tuple[int, ...], begin: tuple[Any, Normaliser] | None = None
    ):
        """critic: widths of its hidden layers. begin: parameters and normaliser of the policy to start from; None: from
        nothing."""
        self._begin = begin
        credit, policy = loop.credit, loop.policy
        network = Critic(critic, credit.shape[0])
        size = observation_layout(loop.task.config.look_ahead_s, loop.cues).size
        self._start = lambda key: init_learned(
            config, policy, lambda key: network.init(key, jnp.zeros((1, size + PRIVILEGED))), key, size
        )
        self._improve = jax.jit(
            lambda learned, rollout, key: improve(
                config, policy, cast(CriticFn, network.apply), credit, learned, rollout, key
            )
        )

    def start(self, key: Array) -> Learned:
        """Fresh parameters, but for the policy that it begins with."""
        fresh = self._start(key)
        if self._begin is None:
            return fresh
        policy, normaliser = self._begin
        return fresh._replace(params={**fresh.params, "policy": policy}, normaliser=normaliser)

    def improve(self, learned: Learned, experience: Experience, key: Array) -> tuple[Learned, Progress]:
        """Epochs of minibatch steps on one rollout."""
        return self._improve(learned, experience.rollout, key)  # type: ignore[no-any-return]


def check_minibatches(config: PpoConfig, environments: int, unroll: int) -> None:
    """Raises MyoloopError where a rollout does not divide into minibatches."""
    count = environments * unroll
    if count % config.minibatches:
        raise MyoloopError(
            f"{environments} environments x {unroll} steps = {count} samples do not divide into {config.minibatches} "
            "minibatches: change --environments, --unroll or --ppo.minibatches."
        )
