"""PPO by itself: advantages worked by hand, the first ratio, and a toy task that it must solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from myoloop.errors import MyoloopError
from myoloop.learn.ppo import PpoConfig, Rollout, advantages, credited, improve, init_learned
from myoloop.policy.networks import Critic, NetworkConfig, log_prob, make_policy, sample, seeded
from myoloop.policy.normaliser import init_normaliser, normalise, update

B, T, N, A = 64, 16, 3, 2
EVERYBODY, ITS_OWN = jnp.ones((2, A)), jnp.eye(2)


def test_advantages_are_those_worked_by_hand():
    # discount .5, lambda .5: surprises 1 + .5*2 - 1 = 1 and 2 + .5*4 - 2 = 2; the first adds .25 of the second
    # the second part of the reward has a value of 0 throughout: 3 + .25 * 4, and 4
    reward = jnp.array([[[1.0, 3.0]], [[2.0, 4.0]]])
    value = jnp.array([[[1.0, 0.0]], [[2.0, 0.0]], [[4.0, 0.0]]])
    advantage, returns = advantages(reward, value, jnp.zeros((2, 1), bool), 0.5, 0.5)
    np.testing.assert_allclose(advantage[:, 0], [[1.5, 4.0], [2.0, 4.0]])
    np.testing.assert_allclose(returns[:, 0], [[2.5, 4.0], [4.0, 4.0]])


def test_nothing_is_expected_after_an_end_but_a_cut_goes_on():
    reward, value = jnp.array([[[1.0]], [[2.0]]]), jnp.array([[[1.0]], [[2.0]], [[4.0]]])
    ended = jnp.array([[True], [False]])
    advantage, _ = advantages(reward, value, ended, 0.5, 0.5)
    # the first step ended: 1 - 1 = 0, and nothing of the second; the second is cut off by time: its value goes on
    np.testing.assert_allclose(advantage[:, 0, 0], [0.0, 2.0])


def test_an_action_is_credited_with_the_parts_it_reaches_and_no_others():
    advantage = jax.random.normal(jax.random.key(0), (50, 40, 3)) * jnp.array([1.0, 2.0, 100.0])
    credit = jnp.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    own = credited(advantage, credit)
    np.testing.assert_allclose(own.mean(axis=(0, 1)), 0.0, atol=1e-6)
    np.testing.assert_allclose(jnp.mean(own**2), 1.0, rtol=1e-5)
    assert np.corrcoef(own[..., 0].ravel(), advantage[..., 0].ravel())[0, 1] > 0.9999
    assert np.corrcoef(own[..., 1].ravel(), advantage[..., :2].sum(axis=-1).ravel())[0, 1] > 0.9999
    # the scale is one for all actions: the ratio of their spreads stays, sqrt(1 + 4) to 1
    np.testing.assert_allclose(own[..., 1].std() / own[..., 0].std(), 5**0.5, rtol=0.1)


def _rollout(policy, learned, key, carry):
    """Half the task is remembering nothing: reward is -(action - target(obs))^2, a new observation every step."""
    obs = jax.random.normal(key, (T + 1, B, N)) * 3.0 + 1.0
    actions, logs, memory = [], [], carry
    for t in range(T):
        dist, memory, _ = policy.apply(learned.params["policy"], normalise(learned.normaliser, obs[t]), memory)
        actions.append(sample(dist, jax.random.normal(jax.random.fold_in(key, t), dist.mean.shape)))
        logs.append(log_prob(dist, actions[-1]))
    action = jnp.stack(actions)
    reward = -((action - wanted(obs[:T])) ** 2) / A  # by parts: each is one action's
    nothing = jnp.zeros((T, B, 0))
    return Rollout(
        obs[:T], nothing, action, jnp.stack(logs), reward, jnp.zeros((T, B), bool), obs[T], nothing[0], carry
    ), obs


def wanted(obs):
    return jnp.stack([0.5 * obs[..., 0], jnp.tanh(obs[..., 1])], axis=-1)


def _learner(network, config, credit=EVERYBODY):
    policy, critic = make_policy(network, N, A), Critic((16,), parts=2)
    learned = init_learned(config, policy, lambda key: critic.init(key, jnp.zeros((1, N))), jax.random.key(0), N)
    step = jax.jit(lambda learned, rollout, key: improve(config, policy, critic.apply, credit, learned, rollout, key))
    collect = jax.jit(lambda learned, key, carry: _rollout(policy, learned, key, carry)[0])
    return policy, learned, step, collect


@pytest.mark.parametrize(
    "network",
    [NetworkConfig((16,)), NetworkConfig((16,), recurrent=8), NetworkConfig((16, 16), bottleneck=4)],
    ids=["feed-forward", "recurrent", "bottleneck"],
)
def test_the_ratio_is_one_before_the_first_step(network):
    policy, learned, step, collect = _learner(network, PpoConfig(epochs=1, minibatches=2))
    learned = learned._replace(normaliser=update(learned.normaliser, jax.random.normal(jax.random.key(3), (50, N)) * 3))
    carry = seeded(policy.start(B), jax.random.key(1))
    after, progress = step(learned, collect(learned, jax.random.key(2), carry), jax.random.key(4))
    assert float(progress.first_ratio) < 1e-5
    assert int(after.updates) == 1
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after.params, learned.params)
    assert all(change > 0 for change in jax.tree.leaves(moved["policy"]))


@pytest.mark.parametrize("credit", [EVERYBODY, ITS_OWN], ids=["everybody", "its-own"])
@pytest.mark.parametrize("network", [NetworkConfig((32,)), NetworkConfig((32,), recurrent=8)], ids=["mlp", "gru"])
def test_a_toy_task_is_learned(network, credit):
    config = PpoConfig(discount=0.5, learning_rate=3e-3, learning_rate_range=(1e-4, 1e-2), desired_kl=0.02)
    policy, learned, step, collect = _learner(network, config, credit)
    carry = seeded(policy.start(B), jax.random.key(1))
    errors = []
    for number in range(120):
        rollout = collect(learned, jax.random.fold_in(jax.random.key(5), number), carry)
        learned, _ = step(learned, rollout, jax.random.fold_in(jax.random.key(6), number))
        errors.append(-float(jnp.mean(jnp.sum(rollout.reward, axis=-1))))
    assert errors[0] > 1.0
    assert np.mean(errors[-10:]) < 0.25 * errors[0], errors[::10]


def test_the_learning_rate_follows_the_divergence():
    policy, learned, step, collect = _learner(NetworkConfig((16,)), PpoConfig(desired_kl=1e-9, learning_rate=1e-3))
    after, progress = step(learned, collect(learned, jax.random.key(2), policy.start(B)), jax.random.key(4))
    assert float(progress.kl) > 2e-9
    np.testing.assert_allclose(after.learning_rate, 1e-3 / 1.5, rtol=1e-5)


def test_samples_that_do_not_divide_are_refused():
    policy, learned, step, collect = _learner(NetworkConfig((16,)), PpoConfig(minibatches=7))
    with pytest.raises(MyoloopError, match="do not divide into 7 minibatches"):
        step(learned, collect(learned, jax.random.key(2), policy.start(B)), jax.random.key(4))


def test_the_normaliser_joins_batches_as_if_they_were_one():
    data = np.random.default_rng(0).normal(3.0, 2.0, (90, 4)).astype(np.float32)
    joined = init_normaliser(4)
    for part in np.split(data, [20, 50]):
        joined = update(joined, jnp.asarray(part))
    np.testing.assert_allclose(joined.mean, data.mean(0), rtol=1e-5)
    np.testing.assert_allclose(joined.variance, data.var(0), rtol=1e-4)
