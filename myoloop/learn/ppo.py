"""Proximal policy optimisation (Schulman et al. 2017), readable in one sitting: advantages, loss, update.

The reward comes in K parts, and every action is credited with the parts it can reach, `credit` (K, actions): a thumb muscle
learns nothing from the little finger's luck. The advantage of an action is the sum over its parts only; that leaves out
terms whose mean is zero, if it indeed cannot reach them, and with them their noise (action-dependent baselines: Wu et al. 2018,
Variance reduction for policy gradient with action-dependent factorized baselines). One part that everybody reaches is
ordinary PPO with a clip for every action.

Pure functions. Whoever collects (learn/rollout.py) hands over a `Rollout`; `improve` returns better parameters. An episode cut
off by time is not an end: its value goes on from the observation before the reset (`Rollout.last`); only a participant
whose physics diverged has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from myoloop.errors import MyoloopError
from myoloop.policy.networks import Policy, entropy, log_prob
from myoloop.policy.normaliser import Normaliser, init_normaliser, normalise, update


@dataclass(frozen=True)
class PpoConfig:
    """How the policy is improved from each rollout."""

    discount: float = 0.95
    """Discount of reward a control step: 0.95 at 50 Hz looks 0.4 s ahead, the time of a transition."""
    gae_lambda: float = 0.9
    """Trade of bias against variance in the advantages (Schulman et al. 2016)."""
    clip: float = 0.5
    """A probability ratio further from 1 than this earns nothing more. It is that of all actions together: of n
    actions each may go 1/sqrt(n) of it."""
    epochs: int = 4
    """Passes over each rollout."""
    minibatches: int = 4
    """Parts that each pass is cut into."""
    learning_rate: float = 3e-4
    """Of Adam, at the start."""
    desired_kl: float = 0.06
    """The learning rate is divided by 1.5 after an update that moved the policy more than twice this far (KL divergence, nats),
    and multiplied by it after one that moved less than half; 0: it stays."""
    learning_rate_range: tuple[float, float] = (2e-5, 1.5e-3)
    """Bounds of the adapted learning rate."""
    entropy_cost: float = 1e-2
    """Weight of the entropy bonus: keeps exploration from dying early. At 1e-3 the deviation fell from 0.5 to 0.33 within 1.5 M
    steps, and learning slowed."""
    action_cost: float = 1e-2
    """Weight of the mean squared action: it pulls silent muscles back towards where exploration reaches them; without it their
    actions drift away (thumb extensors at excitation 0.001 after 9 M steps). With it fingers were learned sooner (14.3 deg at
    3.2 M steps, 16.9 without; one seed each), the thumb's extensors not yet."""
    value_cost: float = 1.0
    """Weight of the critic's squared error; returns are scaled by 1 - discount, so they are of the order of a step's reward."""
    max_gradient: float = 1.0
    """Gradients with a longer norm are shortened to it."""

    def __post_init__(self) -> None:
        if not (0 < self.discount < 1 and 0 <= self.gae_lambda <= 1 and self.epochs >= 1 and self.minibatches >= 1):
            raise MyoloopError(
                f"discount {self.discount}, gae_lambda {self.gae_lambda}, epochs {self.epochs}, minibatches "
                f"{self.minibatches}; expected 0 < discount < 1, 0 <= gae_lambda <= 1, at least one epoch and minibatch."
            )


class Rollout(NamedTuple):
    """T control steps of B participants."""

    obs: Array
    """(T, B, n) as perceived, not normalised."""
    privileged: Array
    """(T, B, m) what only the critic sees."""
    action: Array
    """(T, B, actions)"""
    log_prob: Array
    """(T, B, actions) when they were chosen."""
    reward: Array
    """(T, B, K) by parts."""
    ended: Array
    """(T, B) bool: nothing follows this step."""
    last: Array
    """(B, n) observation after the last step, before any reset."""
    last_privileged: Array
    """(B, m)"""
    carry: Any
    """(B, ...) what the policy remembered before the first step."""


class Learned(NamedTuple):
    """All that learning changes."""

    params: Any
    """{"policy": ..., "critic": ...}"""
    optimiser: Any
    learning_rate: Array
    normaliser: Normaliser
    updates: Array
    """() int32"""


class Progress(NamedTuple):
    """What an update was like, () each."""

    kl: Array
    """Divergence of the new policy from the one that acted, nats."""
    first_ratio: Array
    """Largest |ratio - 1| in the first minibatch, before any step: 0 but for rounding."""
    clipped: Array
    """Part of the actions outside the clip in the last epoch."""
    policy_loss: Array
    value_loss: Array
    explained: Array
    """Part of the returns' variance that the critic explains."""
    deviation: Array
    """Mean standard deviation of the actions."""
    learning_rate: Array


CriticFn = Callable[[Any, Array], Array]


def init_learned(
    config: PpoConfig, policy: Policy, critic_init: Callable[[Array], Any], key: Array, observations: int
) -> Learned:
    """Fresh parameters."""
    of_policy, of_critic = jax.random.split(key)
    params = {"policy": policy.init(of_policy), "critic": critic_init(of_critic)}
    return Learned(
        params=params,
        optimiser=_optimiser(config).init(params),
        learning_rate=jnp.float32(config.learning_rate),
        normaliser=init_normaliser(observations),
        updates=jnp.int32(0),
    )


def advantages(reward: Array, value: Array, ended: Array, discount: float, gae_lambda: float) -> tuple[Array, Array]:
    """Generalised advantage estimation.

    Args:
      reward: (T, B, K). value: (T + 1, B, K), the last one of the observation after the last step. ended: (T, B) bool.

    Returns:
      advantages and returns, (T, B, K) each.
    """
    goes_on = 1.0 - ended.astype(value.dtype)[..., None]
    surprise = reward + discount * value[1:] * goes_on - value[:-1]

    def back(later: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        surprise_now, on = now
        total = surprise_now + discount * gae_lambda * on * later
        return total, total

    _, advantage = jax.lax.scan(back, jnp.zeros_like(reward[0]), (surprise, goes_on), reverse=True)
    return advantage, advantage + value[:-1]


def credited(advantage: Array, credit: Array) -> Array:
    """Advantages (T, B, K) by parts -> (T, B, actions): the sum of the parts an action reaches, of mean 0 for each action
    and of variance 1 over all."""
    own = advantage @ credit
    own = own - jnp.mean(own, axis=(0, 1))
    return own / (jnp.sqrt(jnp.mean(own**2)) + 1e-8)


def improve(
    config: PpoConfig, policy: Policy, critic: CriticFn, credit: Array, learned: Learned, rollout: Rollout, key: Array
) -> tuple[Learned, Progress]:
    """Epochs of minibatch steps on one rollout; pure, to be jitted.

    Args:
      critic: parameters, (..., n + m) -> (..., K) values.
      credit: (K, actions) 1 where the action reaches that part of the reward, else 0.
      key: for the order of the samples.

    The observations are normalised as they were when the actions were chosen; the normaliser takes them in afterwards.
    """
    steps, participants, _ = rollout.reward.shape
    seen = jnp.concatenate([rollout.obs, rollout.last[None]])
    obs = normalise(learned.normaliser, seen)
    private = jnp.concatenate([rollout.privileged, rollout.last_privileged[None]])
    critic_obs = jnp.concatenate([obs, private], axis=-1)
    value = critic(learned.params["critic"], critic_obs)
    scaled = rollout.reward * (1.0 - config.discount)
    advantage, returns = advantages(scaled, value, rollout.ended, config.discount, config.gae_lambda)
    together = jnp.sum(returns, axis=-1)
    explained = 1.0 - jnp.var(together - jnp.sum(value[:-1], axis=-1)) / jnp.maximum(jnp.var(together), 1e-12)
    advantage = credited(advantage, credit)
    data = (obs[:-1], critic_obs[:-1], rollout.action, rollout.log_prob, advantage, returns)
    carry = rollout.carry
    if policy.feedforward:  # every sample stands for itself: shuffle them all
        count, axis = steps * participants, 0
        data = jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), data)
    else:  # whole sequences, from the carry they began with
        count, axis = participants, 1
    if count % config.minibatches:
        raise MyoloopError(
            f"{count} {'samples' if axis == 0 else 'participants'} do not divide into {config.minibatches} minibatches: "
            "change environments, unroll or minibatches."
        )
    optimiser = _optimiser(config)

    def step(state: tuple[Any, Any], chosen: Array) -> tuple[tuple[Any, Any], tuple[Array, ...]]:
        params, optimiser_state = state
        part = jax.tree.map(lambda x: jnp.take(x, chosen, axis=axis), data)
        memory = carry if policy.feedforward else jax.tree.map(lambda x: x[chosen], carry)
        gradient, figures = jax.grad(_loss, argnums=3, has_aux=True)(config, policy, critic, params, part, memory)
        updates, optimiser_state = optimiser.update(gradient, optimiser_state)
        updates = jax.tree.map(lambda u: -learned.learning_rate * u, updates)
        return (optax.apply_updates(params, updates), optimiser_state), figures

    orders = [jax.random.permutation(k, count) for k in jax.random.split(key, config.epochs)]
    chosen = jnp.stack(orders).reshape(config.epochs * config.minibatches, -1)
    state, figures = jax.lax.scan(step, (learned.params, learned.optimiser), chosen)
    kl, far, clipped, policy_loss, value_loss = (x.reshape(config.epochs, -1) for x in figures)
    moved = jnp.mean(kl[-1])
    progress = Progress(
        kl=moved,
        first_ratio=far[0, 0],
        clipped=jnp.mean(clipped[-1]),
        policy_loss=jnp.mean(policy_loss),
        value_loss=jnp.mean(value_loss),
        explained=explained,
        deviation=_deviation(policy, state[0]["policy"], obs[0, :1], carry),
        learning_rate=learned.learning_rate,
    )
    after = Learned(
        *state,
        _adapted(config, learned.learning_rate, moved),
        update(learned.normaliser, rollout.obs),
        learned.updates + 1,
    )
    return after, progress


def _loss(
    config: PpoConfig, policy: Policy, critic: CriticFn, params: Any, part: tuple[Array, ...], carry: Any
) -> tuple[Array, tuple[Array, ...]]:
    obs, critic_obs, action, old, advantage, returns = part
    if policy.feedforward:
        dist, _, aux = policy.apply(params["policy"], obs, carry)
    else:

        def along(memory: Any, seen: Array) -> tuple[Any, tuple[Any, Array]]:
            dist, memory, aux = policy.apply(params["policy"], seen, memory)
            return memory, (dist, aux)

        _, (dist, aux) = jax.lax.scan(along, carry, obs)
        dist = dist._replace(log_std=dist.log_std[0])
    change = log_prob(dist, action) - old
    ratio, clip = jnp.exp(change), config.clip / action.shape[-1] ** 0.5
    held = jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
    policy_loss = -jnp.mean(jnp.sum(jnp.minimum(ratio * advantage, held * advantage), axis=-1))
    value_loss = jnp.mean(jnp.sum((critic(params["critic"], critic_obs) - returns) ** 2, axis=-1))
    loss = policy_loss + config.value_cost * value_loss - config.entropy_cost * entropy(dist) + jnp.mean(aux)
    loss = loss + config.action_cost * jnp.mean(dist.mean**2)
    kl = jnp.mean(jnp.sum(ratio - 1.0 - change, axis=-1))  # Schulman's estimate: unbiased, never negative
    clipped = jnp.mean((jnp.abs(ratio - 1.0) > clip).astype(jnp.float32))
    return loss, (kl, jnp.max(jnp.abs(ratio - 1.0)), clipped, policy_loss, value_loss)


def _adapted(config: PpoConfig, rate: Array, kl: Array) -> Array:
    """The learning rate for the next update."""
    if config.desired_kl <= 0:
        return rate
    factor = jnp.where(kl > 2.0 * config.desired_kl, 1 / 1.5, jnp.where(kl < 0.5 * config.desired_kl, 1.5, 1.0))
    return jnp.clip(rate * factor, *config.learning_rate_range)


def _deviation(policy: Policy, params: Any, obs: Array, carry: Any) -> Array:
    one = jax.tree.map(lambda x: x[:1], carry)
    return jnp.mean(jnp.exp(policy.apply(params, obs, one)[0].log_std))


def _optimiser(config: PpoConfig) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(config.max_gradient), optax.scale_by_adam(eps=1e-5))
