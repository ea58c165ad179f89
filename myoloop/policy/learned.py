"""A learned policy as a file, and as something that drives muscles.

The file holds everything needed to use it: parameters, normaliser, the mapping of actions, the layout of the
observation with its look-ahead times, the control rate, and the muscles' names.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from myoloop import checkpoint
from myoloop.body.engine import Posture
from myoloop.body.names import JOINTS, MUSCLES
from myoloop.errors import MyoloopError
from myoloop.policy.actions import ActionConfig, to_excitation
from myoloop.policy.networks import NetworkConfig, Policy, make_policy
from myoloop.policy.normaliser import Normaliser, init_normaliser, normalise
from myoloop.policy.observation import observation, observation_layout

KIND = "policy"
VERSION = 1


@struct.dataclass
class LearnedPolicy:
    """Ready to decide."""

    params: Any
    normaliser: Normaliser
    joint_range: Array
    """(23, 2) rad: the observation's joint angles are relative to it."""
    network: NetworkConfig = struct.field(pytree_node=False)
    action: ActionConfig = struct.field(pytree_node=False)
    look_ahead_s: tuple[float, ...] = struct.field(pytree_node=False)
    control_hz: float = struct.field(pytree_node=False)
    name: str = struct.field(pytree_node=False)
    cues: tuple[str, ...] = struct.field(pytree_node=False, default=())
    """What it is told besides, of policy.observation.CUES."""

    def start(self, participants: int) -> Any:
        """What participants that begin remember."""
        return self._policy.start(participants)

    @property
    def _policy(self) -> Policy:
        return make_policy(self.network, observation_layout(self.look_ahead_s, self.cues).size, len(MUSCLES))


class Loaded(NamedTuple):
    """A policy and where it comes from."""

    policy: LearnedPolicy
    made_by: dict[str, str]
    about: dict[str, Any]
    """The training's configuration."""


def excitation(
    policy: LearnedPolicy, body: Posture, wanted: Array, carry: Any, cues: Array | None = None
) -> tuple[Array, Any]:
    """The policy's choice without exploration, pure JAX.

    Args:
      body: posture now, (B, ...).
      wanted: (looks, B, 23) rad, the postures asked for `policy.look_ahead_s` from now.
      carry: from `start` or the last call.
      cues: (B, n) of `policy.cues`, from `told`; None: it is told nothing, and nothing is expected of it (0).

    Returns:
      excitation (B, 39) and the carry.
    """
    return decided(policy, perceived(policy, body, wanted, cues), carry)


def perceived(policy: LearnedPolicy, body: Posture, wanted: Array, cues: Array | None = None) -> Array:
    """(B, n) what the policy is told, as `excitation` tells it; not normalised yet."""
    if cues is None and policy.cues:
        missing = (
            observation_layout(policy.look_ahead_s, policy.cues).size - observation_layout(policy.look_ahead_s).size
        )
        cues = jnp.zeros((wanted.shape[1], missing))
    return observation(policy.joint_range, body, wanted, cues)


def decided(policy: LearnedPolicy, obs: Array, carry: Any, astray: Array | None = None) -> tuple[Array, Any]:
    """Excitation (B, 39) and carry after an observation; astray: (B, 39) what exploration adds to the actions."""
    dist, carry, _ = policy._policy.apply(policy.params, normalise(policy.normaliser, obs), carry)
    return to_excitation(policy.action, dist.mean if astray is None else dist.mean + astray), carry


def explore(params: Any, log_std: float) -> Any:
    """A policy's parameters with this log standard deviation of all its actions."""
    inner = params["params"]
    return {**params, "params": {**inner, "log_std": jnp.full_like(inner["log_std"], log_std)}}


def with_cues(policy: LearnedPolicy, cues: tuple[str, ...]) -> tuple[Any, Normaliser]:
    """Parameters and normaliser of a policy that is told more and does not heed it yet: it acts as before.

    Raises:
      MyoloopError: it is told something already that `cues` does not begin with.
    """
    if cues[: len(policy.cues)] != policy.cues:
        raise MyoloopError(f"policy '{policy.name}' is told {policy.cues}; it cannot be given {cues} instead.")
    now = observation_layout(policy.look_ahead_s, policy.cues).size
    more = observation_layout(policy.look_ahead_s, cues).size - now
    first = policy.params["params"]["Dense_0"]
    kernel = jnp.pad(first["kernel"], ((0, more), (0, 0)))
    params = {**policy.params, "params": {**policy.params["params"], "Dense_0": {**first, "kernel": kernel}}}
    known = policy.normaliser
    mean, variance = jnp.pad(known.mean, (0, more)), jnp.pad(known.variance, (0, more), constant_values=1.0)
    return params, known._replace(mean=mean, variance=variance)


def told_all(policy: LearnedPolicy) -> LearnedPolicy:
    """The same policy, told what is asked of it and what the decoder answers; what it was not told before it does not heed
    yet."""
    return told_as(policy, ("flexion" if "flexion" in policy.cues else "target", "prediction"))


def told_as(policy: LearnedPolicy, cues: tuple[str, ...]) -> LearnedPolicy:
    """The same policy, told these cues; those that it was not told before it does not heed yet.

    Raises:
      MyoloopError: it is told something already that `cues` does not begin with.
    """
    params, normaliser = with_cues(policy, cues)
    return policy.replace(params=params, normaliser=normaliser, cues=cues)  # type: ignore[attr-defined, no-any-return]


def check_habit(policy: LearnedPolicy, habit: LearnedPolicy) -> None:
    """Refuses, by MyoloopError, a habit that does not perceive and act as the policy does."""
    same = (policy.network, policy.action, policy.look_ahead_s, policy.cues, policy.control_hz) == (
        habit.network, habit.action, habit.look_ahead_s, habit.cues, habit.control_hz
    )  # fmt: skip
    if not same or not all(np.array_equal(a, b) for a, b in zip(policy.normaliser, habit.normaliser, strict=True)):
        raise MyoloopError(
            f"habit '{habit.name}' does not perceive and act as policy '{policy.name}' does (network, action, normaliser): "
            "give the policy that this one began with, or none."
        )


def save_policy(path: str | Path, policy: LearnedPolicy, about: dict[str, Any]) -> None:
    """Write it; `about`: how it was trained, JSON-able."""
    config = {
        "network": dataclasses.asdict(policy.network),
        "action": dataclasses.asdict(policy.action),
        "observation": observation_layout(policy.look_ahead_s, policy.cues).describe(),
        "cues": list(policy.cues),
        "look_ahead_s": list(policy.look_ahead_s),
        "control_hz": policy.control_hz,
        "muscles": list(MUSCLES),
        "joints": list(JOINTS),
        "name": policy.name,
        "training": about,
    }
    tree = {"params": policy.params, "normaliser": policy.normaliser, "joint_range": policy.joint_range}
    checkpoint.save(path, tree, kind=KIND, version=VERSION, config=config)


def load_policy(path: str | Path) -> Loaded:
    """Read what `save_policy` wrote.

    Raises:
      MyoloopError: not a policy, damaged, of another version, or made for another observation or other muscles.
    """
    found = checkpoint.load(path, kind=KIND, version=VERSION)
    try:
        config = found.config
        network = NetworkConfig(**{**config["network"], "hidden": tuple(config["network"]["hidden"])})
        action = ActionConfig(**config["action"])
        look_ahead = tuple(float(s) for s in config["look_ahead_s"])
        control_hz, name, layout = float(config["control_hz"]), str(config["name"]), config["observation"]
        cues = tuple(str(cue) for cue in config.get("cues", ()))
        muscles, joints = tuple(config["muscles"]), tuple(config["joints"])
    except (KeyError, TypeError, ValueError) as error:
        raise MyoloopError(
            f"{path}: its description does not fit this version's policies ({error}). Use the myoloop that made it, or "
            "train again."
        ) from error
    expected = observation_layout(look_ahead, cues).describe()
    if layout != expected:
        raise MyoloopError(
            f"{path}: made for the observation {_words(layout)}; this myoloop gives {_words(expected)}. Use the myoloop "
            f"that made it ({found.made_by.get('myoloop', '?')}, git {found.made_by.get('git', '?')}), or train again."
        )
    if muscles != MUSCLES or joints != JOINTS:
        odd = sorted(set(muscles) ^ set(MUSCLES) | set(joints) ^ set(JOINTS)) or ["their order"]
        raise MyoloopError(f"{path}: made for another body; these differ: {', '.join(odd)}. Train again.")
    size = observation_layout(look_ahead, cues).size
    shapes = jax.eval_shape(  # nothing is drawn, and nothing compiled
        lambda: {
            "params": make_policy(network, size, len(MUSCLES)).init(jax.random.key(0)),
            "normaliser": init_normaliser(size),
            "joint_range": jnp.zeros((len(JOINTS), 2)),
        }
    )
    like = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    tree = jax.tree.map(jnp.asarray, checkpoint.load(path, kind=KIND, version=VERSION, like=like).tree)
    policy = LearnedPolicy(
        tree["params"], tree["normaliser"], tree["joint_range"], network, action, look_ahead, control_hz, name, cues
    )
    return Loaded(policy, found.made_by, dict(config.get("training", {})))


def _words(layout: list) -> str:
    return ", ".join(f"{name} ({size})" for name, size in layout)
