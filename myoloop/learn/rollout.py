"""Collecting experience: a batch of participants acts, moves and is judged, on any engine.

The pure part of a step is `turn`: judge what the body did, perceive, decide, and, where asked, synthesise the EMG and let a
frozen decoder answer. Around it, `HostCollector` steps MuJoCo in C between jitted turns, and `DeviceCollector` runs engine
and turn in one compiled scan.
Both give the same `Rollout` from the same state.

Episodes end with the rollout in which their time is up: so nothing is reset in mid-rollout, and the observation before the
reset is always there to bootstrap from. A body whose physics diverges is put to rest by its engine at once.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from myoloop.body.engine import Engine, Posture, in_float32
from myoloop.body.mjx_physics import MjxPhysics
from myoloop.body.names import FINGERS, FOREARM_MUSCLES, MUSCLES
from myoloop.decoder import networks
from myoloop.decoder.contract import TARGETS
from myoloop.emg.circumstances import Circumstances
from myoloop.emg.synthesis import EmgParams, EmgState, init_emg, synthesise
from myoloop.learn.ppo import Rollout
from myoloop.policy.actions import ActionConfig, to_excitation
from myoloop.policy.networks import NetworkConfig, Policy, log_prob, make_policy, sample, seeded
from myoloop.policy.normaliser import Normaliser, normalise
from myoloop.policy.observation import observation, observation_layout, told
from myoloop.task.tracking import (
    Figures,
    Tracking,
    TrackingState,
    asked_flexion,
    asked_labels,
    finished,
    judge,
    push,
    restart,
    start,
    starting_posture,
    wanted_ahead,
)

PRIVILEGED = 18
"""How many numbers only a critic is told: the six forces that push on the hand."""


@struct.dataclass
class Interface:
    """The decoder that the participants use, frozen, and what its right answers are worth."""

    params: networks.Params
    network: networks.Config = struct.field(pytree_node=False)
    worth: float = struct.field(pytree_node=False, default=1.0)
    """Reward of a step in which the decoder is sure of all that was asked."""
    target: str = struct.field(pytree_node=False, default=TARGETS[0])
    """What its five values are: one of decoder.contract.TARGETS."""


@struct.dataclass
class Loop:
    """The parts of the loop that stay the same: arrays and settings of everything but the engine."""

    task: Tracking
    emg: EmgParams | None
    """None: no EMG is made, as in phase 1."""
    network: NetworkConfig = struct.field(pytree_node=False)
    action: ActionConfig = struct.field(pytree_node=False)
    samples: int = struct.field(pytree_node=False, default=0)
    """EMG samples of the device a control step."""
    interface: Interface | None = None
    """None: nobody reads the EMG, as in phase 1."""
    cues: tuple[str, ...] = struct.field(pytree_node=False, default=())
    """What the policy is told besides, of policy.observation.CUES."""
    circumstances: Circumstances | None = None
    """Of the recording; None: good ones."""
    persistence: float = struct.field(pytree_node=False, default=0.0)
    """Correlation of the exploration from step to step; PPO's must be 0."""
    delay: int = struct.field(pytree_node=False, default=0)
    """Control steps by which an answer is heard later than at the end of the step whose EMG it answers."""

    @property
    def policy(self) -> Policy:
        """Who decides."""
        size = observation_layout(self.task.config.look_ahead_s, self.cues).size
        return make_policy(self.network, size, len(MUSCLES))

    @property
    def credit(self) -> Array:
        """(K, 39) which muscles reach which parts of the reward: those of the task, and, with a decoder, its answers, which the
        forearm's muscles reach, and the hand's own, silent at the armband, do not."""
        if self.interface is None:
            return self.task.reach
        seen = jnp.arange(len(MUSCLES)) < len(FOREARM_MUSCLES)
        return jnp.concatenate([self.task.reach, seen[None].astype(jnp.float32)])


class Learned(Protocol):
    """What of a learner's knowledge acts."""

    @property
    def params(self) -> Any:
        """{"policy": parameters of the policy's network, ...}"""

    @property
    def normaliser(self) -> Normaliser:
        """Of its observations."""


class LoopState(NamedTuple):
    """What changes from step to step; with the engine's state, all that the future depends on."""

    task: TrackingState
    carry: Any
    """What the policies remember."""
    emg: EmgState | None
    decoder: networks.State | None
    odds: Array
    """(B, 5) log-odds of the answer heard last; 0 before."""
    coming: Array | None
    """(B, delay, 5) log-odds of the answers on their way, the next to be heard first; None without delay."""
    noise: Array
    """(B, 39) exploration of the last step, in standard deviations."""
    key: Array


class Decision(NamedTuple):
    """What the participants do next."""

    obs: Array
    privileged: Array
    action: Array
    log_prob: Array
    excitation: Array
    """(B, 39)"""
    forces: Array
    """(B, 6, 3) N that push meanwhile."""
    emg_uv: Array
    """(B,) RMS of the step's EMG over all channels, microvolts; 0 without EMG."""
    odds: Array
    """(B, 5) log-odds that the decoder answers to the step's EMG, heard at its end or `Loop.delay` steps later; 0 without
    decoder."""
    labels: Array
    """(B, 5) what is asked for when that is heard, see `wished`."""


class Experience(NamedTuple):
    """A rollout and how it went."""

    rollout: Rollout
    figures: Figures
    """(T, B) each."""
    emg_uv: Array
    """() RMS over everything, microvolts."""
    excitation: Array
    """(T, B, 39)"""
    odds: Array
    """(T, B, 5) the decoder's answers to each step's EMG, log-odds."""
    labels: Array
    """(T, B, 5) what was asked for when these were heard."""


def init_loop(loop: Loop, key: Array, progress: float) -> LoopState:
    """Everybody at the start of an episode."""
    of_task, of_carry, of_steps = jax.random.split(key, 3)
    b = loop.task.participants
    return LoopState(
        task=start(loop.task, of_task, progress),
        carry=seeded(loop.policy.start(b), of_carry),
        emg=None if loop.emg is None else init_emg(loop.emg, np.arange(b)),
        decoder=None if loop.interface is None else networks.init_state(loop.interface.network, b),
        odds=jnp.zeros((b, len(FINGERS))),
        coming=jnp.zeros((b, loop.delay, len(FINGERS))) if loop.delay else None,
        noise=jnp.zeros((b, len(MUSCLES))),
        key=of_steps,
    )


def begin(loop: Loop, state: LoopState, diverged: Array, progress: Array) -> tuple[LoopState, Array, Array]:
    """Between rollouts: new episodes for those whose time is up or whose physics diverged, (B,) bool.

    Returns the state, who begins, (B,) bool, and in which posture, (B, 23) rad.
    """
    over = finished(loop.task, state.task) | diverged
    task = restart(loop.task, state.task, over, progress)
    key, of_carry = jax.random.split(state.key)
    fresh = seeded(loop.policy.start(loop.task.participants), of_carry)
    carry = jax.tree.map(lambda a, b: jnp.where(over.reshape(-1, *[1] * (a.ndim - 1)), a, b), fresh, state.carry)
    return state._replace(task=task, carry=carry, key=key), over, starting_posture(loop.task, task)


def decide(
    loop: Loop, params: Any, normaliser: Normaliser, state: LoopState, body: Posture
) -> tuple[LoopState, Decision]:
    """Perceive and act."""
    obs, private = perceive(loop, state, body)
    key, draw = jax.random.split(state.key)
    dist, carry, _ = loop.policy.apply(params, normalise(normaliser, obs), state.carry)
    noise = loop.persistence * state.noise + (1.0 - loop.persistence**2) ** 0.5 * jax.random.normal(
        draw, dist.mean.shape
    )
    action = sample(dist, noise)
    excitation = to_excitation(loop.action, action)
    emg_state, decoder, odds, emg_uv = state.emg, state.decoder, jnp.zeros_like(state.odds), jnp.zeros(obs.shape[0])
    if loop.emg is not None and state.emg is not None:
        out, emg_state = synthesise(loop.emg, state.emg, excitation, loop.samples, loop.circumstances)
        emg_uv = jnp.sqrt(jnp.mean(out.chunk**2, axis=(1, 2)))
        if loop.interface is not None and decoder is not None:
            answers, decoder = networks.logits(loop.interface.network, loop.interface.params, decoder, out.chunk)
            odds = answers[:, -1]
    asked = wished(loop, state.task, (1 + loop.delay) * loop.task.control_dt)
    made = Decision(obs, private, action, log_prob(dist, action), excitation, push(state.task), emg_uv, odds, asked)
    heard, coming = next_heard(state.coming, odds)
    return LoopState(state.task, carry, emg_state, decoder, heard, coming, noise, key), made


def next_heard(coming: Array | None, odds: Array) -> tuple[Array, Array | None]:
    """Another answer (B, 5) sets out; the one that is heard now, and those on their way then, see `LoopState`."""
    if coming is None:
        return odds, None
    queue = jnp.concatenate([coming, odds[:, None]], axis=1)
    return queue[:, 0], queue[:, 1:]


def perceive(loop: Loop, state: LoopState, body: Posture) -> tuple[Array, Array]:
    """The observation (B, n), and what only a critic is told, (B, m): what pushes on the hand, in units of 5 N."""
    task, cues = loop.task, None
    if loop.cues:
        targets, flexions = (
            jnp.stack([of(task, state.task, ahead) for ahead in task.config.look_ahead_s])
            for of in (asked_labels, asked_flexion)
        )
        cues = told(loop.cues, targets, flexions, jax.nn.sigmoid(state.odds))
    obs = observation(task.joint_range, body, wanted_ahead(task, state.task), cues)
    return obs, push(state.task).reshape(obs.shape[0], -1) / 5.0


def turn(
    loop: Loop, params: Any, normaliser: Normaliser, state: LoopState, body: Posture, excitation: Array
) -> tuple[LoopState, Decision, Array, Figures, Array]:
    """After the body has moved: judge that step, decide the next. Returns state, decision, reward, figures, ended."""
    task, reward, figures = judged(loop, state, body, excitation)
    state, made = decide(loop, params, normaliser, state._replace(task=task), body)
    return state, made, reward, figures, jnp.asarray(body.diverged)


def wished(loop: Loop, state: TrackingState, ahead: float) -> Array:
    """(B, 5) what the decoder should answer `ahead` s from now: labels, or flexions for one of flexion."""
    flexion = loop.interface is not None and loop.interface.target == "flexion"
    return (asked_flexion if flexion else asked_labels)(loop.task, state, ahead)


def judged(loop: Loop, state: LoopState, body: Posture, excitation: Array) -> tuple[TrackingState, Array, Figures]:
    """The task's judgement and, with a decoder, one more part of the reward: how near the answer heard at the step's end comes
    to what is asked for then, 0..1, mean over the fingers; of labels this is the probability that it gives to them."""
    task, reward, figures = judge(loop.task, state.task, body, excitation)
    if loop.interface is None:
        return task, reward, figures
    right = 1.0 - jnp.mean(jnp.abs(jax.nn.sigmoid(state.odds) - wished(loop, task, 0.0)), axis=1)
    paid = jnp.where(jnp.asarray(body.diverged), 0.0, loop.interface.worth * right)
    return task, jnp.concatenate([reward, paid[:, None]], axis=1), figures


class HostCollector:
    """For an engine that steps outside JAX (`mujoco`): one compiled turn a control step."""

    def __init__(self, loop: Loop, engine: Engine):
        self.loop, self.engine = loop, engine
        self.physics_s = 0.0
        """s spent in the engine; whoever measures sets it to 0"""
        self._begin = jax.jit(begin)
        self._decide = jax.jit(decide)
        self._turn = jax.jit(turn)
        self._perceive = jax.jit(perceive)

    def start(self, key: Array, progress: float) -> LoopState:
        """Everybody at the start of an episode, bodies too."""
        state = init_loop(self.loop, key, progress)
        self.engine.reset(np.asarray(starting_posture(self.loop.task, state.task)))
        return state

    def collect(self, learned: Learned, state: LoopState, steps: int, progress: float) -> tuple[LoopState, Experience]:
        """`steps` control steps of everybody."""
        engine, loop = self.engine, self.loop
        params, normaliser = learned.params["policy"], learned.normaliser
        state, over, qpos = self._begin(loop, state, engine.posture().diverged, jnp.float32(progress))
        over = np.asarray(over)
        if over.any():
            engine.reset(np.asarray(qpos)[over], ids=np.flatnonzero(over))
        carry = state.carry
        state, made = self._decide(loop, params, normaliser, state, in_float32(engine.posture()))
        rows = []
        for step in range(steps):
            forces, excitation = np.asarray(made.forces), np.asarray(made.excitation)
            begun = time.perf_counter()
            engine.push(forces)
            body = in_float32(engine.advance(excitation))
            self.physics_s += time.perf_counter() - begun
            if step + 1 < steps:
                state, following, reward, figures, ended = self._turn(
                    loop, params, normaliser, state, body, made.excitation
                )
            else:
                state, reward, figures, ended = _last(loop, state, body, made.excitation)
                following = made
            rows.append((made, reward, figures, ended))
            made = following
        last = self._perceive(loop, state, body)
        return state, _gather(rows, last, carry)

    def save(self) -> Any:
        """The bodies."""
        return self.engine.save()

    def load(self, saved: Any) -> None:
        """The bodies back, bit for bit."""
        self.engine.load(np.asarray(saved))


class DeviceCollector:
    """For an engine in JAX (`mjx`, `warp`): the whole rollout is one compiled scan, on as many devices as there are.

    With several devices the participants are divided among them, where their number allows it (`mjx` only: Warp's kernels
    run on the first).
    """

    def __init__(self, loop: Loop, physics: MjxPhysics, devices: int = 1):
        """devices: how many to use; the number of participants must be a multiple of it."""
        self.physics = physics
        self._sharding = None
        if devices > 1:
            mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("participants",))
            self._sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("participants"))
        self.loop = self._spread(loop)
        self.physics_s = 0.0
        """always 0: physics cannot be told apart inside one program"""
        self._bodies = physics.start()
        self._run = jax.jit(self._scan, static_argnames="steps")

    def start(self, key: Array, progress: float) -> LoopState:
        """Everybody at the start of an episode, bodies too."""
        state = init_loop(self.loop, key, progress)
        qpos = starting_posture(self.loop.task, state.task)
        everybody = jnp.ones(self.physics.participants, bool)
        self._bodies = self._spread(self.physics.placed(self.physics.start(), qpos, everybody))
        return self._spread(state)  # type: ignore[no-any-return]

    def collect(self, learned: Learned, state: LoopState, steps: int, progress: float) -> tuple[LoopState, Experience]:
        """`steps` control steps of everybody."""
        self._bodies, state, experience = self._run(
            self.loop,
            learned.params["policy"],
            learned.normaliser,
            state,
            self._bodies,
            jnp.float32(progress),
            steps=steps,
        )
        return state, experience

    def save(self) -> Any:
        """The bodies."""
        return self._bodies

    def load(self, saved: Any) -> None:
        """The bodies back, bit for bit."""
        self._bodies = self._spread(jax.tree.map(jnp.asarray, saved))

    def _scan(self, loop, params, normaliser, state, bodies, progress, steps):  # type: ignore[no-untyped-def]
        physics = self.physics
        state, over, qpos = begin(loop, state, bodies.diverged, progress)
        bodies, carry = physics.placed(bodies, qpos, over), state.carry

        def step(now, _):  # type: ignore[no-untyped-def]
            state, bodies = now
            state, made = decide(loop, params, normaliser, state, physics.posture(bodies))
            bodies = physics.advance(bodies, made.excitation, made.forces)
            body = physics.posture(bodies)
            task, reward, figures = judged(loop, state, body, made.excitation)
            return (state._replace(task=task), bodies), (made, reward, figures, body.diverged)

        (state, bodies), rows = jax.lax.scan(step, (state, bodies), length=steps)
        last = perceive(loop, state, physics.posture(bodies))
        return bodies, state, _experience(rows, last, carry)

    def _spread(self, tree: Any) -> Any:
        """What belongs to participants divided among the devices, the rest on all of them."""
        if self._sharding is None:
            return tree
        everywhere = jax.sharding.NamedSharding(self._sharding.mesh, jax.sharding.PartitionSpec())
        count = self.physics.participants

        def place(leaf: Any) -> Any:
            per_participant = getattr(leaf, "ndim", 0) > 0 and leaf.shape[0] == count
            return jax.device_put(leaf, self._sharding if per_participant else everywhere)

        return jax.tree.map(place, tree)


@jax.jit
def _last(loop: Loop, state: LoopState, body: Posture, excitation: Array) -> tuple[LoopState, Array, Figures, Array]:
    """The turn after which the policy may change: judge only; the next rollout decides."""
    task, reward, figures = judged(loop, state, body, excitation)
    return state._replace(task=task), reward, figures, jnp.asarray(body.diverged)


@jax.jit
def _gather(rows: list[Any], last: tuple[Array, Array], carry: Any) -> Experience:
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *rows)
    return _experience(stacked, last, carry)


def _experience(stacked: Any, last: tuple[Array, Array], carry: Any) -> Experience:
    made, reward, figures, ended = stacked
    rollout = Rollout(made.obs, made.privileged, made.action, made.log_prob, reward, ended, last[0], last[1], carry)
    emg_uv = jnp.sqrt(jnp.mean(made.emg_uv**2))
    return Experience(rollout, figures, emg_uv, made.excitation, made.odds, made.labels)
