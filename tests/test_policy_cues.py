"""What a policy is told besides: labels asked for, and the decoder's answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from myoloop.body.engine import Posture
from myoloop.body.model import load_hand
from myoloop.errors import MyoloopError
from myoloop.policy.actions import ActionConfig
from myoloop.policy.learned import LearnedPolicy, excitation, explore, load_policy, save_policy, with_cues
from myoloop.policy.networks import NetworkConfig, make_policy
from myoloop.policy.normaliser import init_normaliser, update
from myoloop.policy.observation import observation_layout, told

AHEAD = (0.02, 0.1)


def _policy(cues=()):
    size = observation_layout(AHEAD, cues).size
    params = make_policy(NetworkConfig((16,)), size, 39).init(jax.random.key(0))
    seen = update(init_normaliser(size), jax.random.normal(jax.random.key(1), (50, size)))
    joint_range = jnp.asarray(load_hand().joint_range, jnp.float32)
    return LearnedPolicy(params, seen, joint_range, NetworkConfig((16,)), ActionConfig(), AHEAD, 50.0, "test", cues)


def _now(participants=3):
    rng = np.random.default_rng(0)
    body = Posture(
        rng.normal(size=(participants, 23)), rng.normal(size=(participants, 23)), rng.random((participants, 39)),
        np.zeros(participants), np.zeros(participants, bool),
    )  # fmt: skip
    return body, jnp.asarray(rng.normal(size=(2, participants, 23)), jnp.float32)


def test_cues_are_the_labels_ahead_and_the_answer_from_minus_one_to_one():
    targets = jnp.array([[[0.0, 1, 0, 1, 1]], [[1.0, 1, 0, 0, 1]]])
    prediction = jnp.array([[0.0, 0.25, 0.5, 0.75, 1.0]])
    flexions = 0.5 * targets
    both = told(("target", "prediction"), targets, flexions, prediction)
    np.testing.assert_allclose(both[0], [-1, 1, -1, 1, 1, 1, 1, -1, -1, 1, -1, -0.5, 0, 0.5, 1])
    np.testing.assert_allclose(told(("prediction",), targets, flexions, prediction)[0], both[0, 10:])
    np.testing.assert_allclose(told(("flexion",), targets, flexions, prediction)[0], both[0, :10] / 2 - 0.5)
    assert told((), targets, flexions, prediction).shape == (1, 0)
    assert observation_layout(AHEAD, ("flexion",)).names[-2:] == ("flexion_20ms", "flexion_100ms")
    assert observation_layout(AHEAD, ("target", "prediction")).size == observation_layout(AHEAD).size + 15
    with pytest.raises(MyoloopError, match="prediction"):
        observation_layout(AHEAD, ("predicton",))


def test_a_policy_that_is_given_cues_acts_as_before_until_it_learns():
    body, wanted = _now()
    old = _policy()
    before, _ = excitation(old, body, wanted, old.start(3))
    cues = ("target", "prediction")
    params, normaliser = with_cues(old, cues)
    new = old.replace(params=params, normaliser=normaliser, cues=cues)
    for value in (-1.0, 1.0):
        after, _ = excitation(new, body, wanted, new.start(3), jnp.full((3, 15), value))
        np.testing.assert_allclose(after, before, rtol=1e-5)
    with pytest.raises(MyoloopError, match="is told"):
        with_cues(_policy(("prediction",)), ("target",))


def test_cues_matter_to_a_policy_that_has_them_and_are_in_its_file(tmp_path):
    body, wanted = _now()
    policy = _policy(("prediction",))
    low, _ = excitation(policy, body, wanted, policy.start(3), jnp.full((3, 5), -1.0))
    high, _ = excitation(policy, body, wanted, policy.start(3), jnp.full((3, 5), 1.0))
    nothing, _ = excitation(policy, body, wanted, policy.start(3))
    unknown, _ = excitation(policy, body, wanted, policy.start(3), jnp.zeros((3, 5)))
    assert np.abs(low - high).max() > 1e-4
    np.testing.assert_array_equal(nothing, unknown)
    save_policy(tmp_path / "policy.safetensors", policy, {})
    again = load_policy(tmp_path / "policy.safetensors").policy
    assert again.cues == ("prediction",)
    np.testing.assert_array_equal(excitation(again, body, wanted, again.start(3), jnp.full((3, 5), 1.0))[0], high)


def test_exploration_is_set_for_all_actions_alike():
    params = explore(_policy().params, -1.5)
    np.testing.assert_array_equal(params["params"]["log_std"], np.full(39, -1.5, np.float32))
