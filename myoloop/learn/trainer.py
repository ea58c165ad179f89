"""Phase 1: a policy learns to follow references, from nothing, by PPO. A run that can be stopped and gone on with.

The run folder holds `config.json`, `state.safetensors` (everything, to go on bit for bit), `policy.safetensors` (what others
use),
`curves.csv` and `curves.png`.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from myoloop import checkpoint
from myoloop.body.engines import make_engine
from myoloop.body.mjx_engine import MjxEngine
from myoloop.body.model import load_hand
from myoloop.body.names import MUSCLES
from myoloop.emg.armband import armband
from myoloop.emg.config import EmgConfig
from myoloop.emg.synthesis import build_emg
from myoloop.errors import MyoloopError
from myoloop.learn.ppo import CriticFn, PpoConfig, improve, init_learned
from myoloop.learn.rollout import DeviceCollector, HostCollector, Loop
from myoloop.policy.actions import ActionConfig
from myoloop.policy.learned import LearnedPolicy, save_policy
from myoloop.policy.networks import Critic, NetworkConfig, make_policy
from myoloop.policy.observation import observation_layout
from myoloop.task.tracking import TrackingConfig, make_tracking

KIND = "phase1_state"
VERSION = 1


@dataclass(frozen=True)
class Phase1Config:
    """Everything that decides what is learned. Same configuration, same seed, same machine: same numbers."""

    steps: int = 20_000_000
    """Control steps of all participants together, 20 ms of participant time each."""
    environments: int = 256
    """Participants side by side."""
    unroll: int = 16
    """Control steps of each between two updates."""
    seed: int = 0
    """Seed of everything random."""
    engine: str = "mujoco"
    """Who integrates the physics: mujoco (C, CPU), mjx (JAX) or warp."""
    threads: int = 0
    """Threads of engine mujoco; 0: all cores."""
    physics_dt: float = 0.005
    """s: step of the physics; see docs/physics-settings.md."""
    control_hz: float = 50.0
    """Control steps a second."""
    emg: str = ""
    """Armband preset whose EMG is synthesised at every step (nobody listens in phase 1; to measure its price); empty: none."""
    task: TrackingConfig = field(default_factory=TrackingConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    critic: tuple[int, ...] = (256, 128)
    """Width of the critic's hidden layers."""
    action: ActionConfig = field(default_factory=ActionConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)


class Row(NamedTuple):
    """A line of curves.csv: one update, means over its rollout, while exploring."""

    steps: int
    seconds: float
    """of computing so far, those of earlier lives of the run included"""
    reward: float
    joint_error_deg: float
    tip_error_mm: float
    effort: float
    diverged: float
    """Part of the steps without physics."""
    kl: float
    clipped: float
    value_loss: float
    explained: float
    deviation: float
    learning_rate: float
    steps_per_s: float
    physics_share: float
    """Part of the time in which the physics was integrated (engine mujoco; 0: not known)."""


class Trainer:
    """One phase 1 run.

    Example:
      trainer = Trainer(Phase1Config(steps=100_000))
      while not trainer.done:
          row = trainer.update()
      trainer.save(Path("runs/phase1"))
    """

    def __init__(self, config: Phase1Config):
        """
        Raises:
          MyoloopError: settings that do not fit together.
        """
        self.config = config
        _check(config)
        hand = load_hand(physics_dt=config.physics_dt)
        dt = 1.0 / config.control_hz
        task = make_tracking(hand, config.task, config.environments, dt)
        size = observation_layout(config.task.look_ahead_s).size
        self._policy = make_policy(config.network, size, len(MUSCLES))
        emg = build_emg(armband(config.emg), EmgConfig()) if config.emg else None
        samples = round(emg.band.rate_hz * dt) if emg else 0
        loop = Loop(task, emg, self._policy, config.action, samples)
        engine = make_engine(config.engine, hand, config.environments, control_dt=dt, threads=config.threads)
        self.collector: HostCollector | DeviceCollector
        if isinstance(engine, MjxEngine):
            self.collector = DeviceCollector(loop, engine.physics, _devices(config))
        else:
            self.collector = HostCollector(loop, engine)
        critic = Critic(config.critic)
        critic_fn = cast(CriticFn, critic.apply)
        init_key, loop_key, self._key = jax.random.split(jax.random.key(config.seed), 3)
        privileged = 18  # six forces
        self.learned = init_learned(
            config.ppo,
            self._policy,
            lambda key: critic.init(key, jnp.zeros((1, size + privileged))),
            init_key,
            size,
        )
        self._state = self.collector.start(loop_key, 0.0)
        self._improve = jax.jit(
            lambda learned, rollout, key: improve(config.ppo, self._policy, critic_fn, learned, rollout, key)
        )
        self.steps = 0
        self.seconds = 0.0
        self.rows: list[Row] = []

    @property
    def done(self) -> bool:
        return self.steps >= self.config.steps

    @property
    def progress(self) -> float:
        """Part of the run that is over, 0..1."""
        return min(self.steps / self.config.steps, 1.0)

    def update(self) -> Row:
        """One rollout and one improvement."""
        config, begun = self.config, time.perf_counter()
        self.collector.physics_s = 0.0
        self._state, experience = self.collector.collect(self.learned, self._state, config.unroll, self.progress)
        self._key, key = jax.random.split(self._key)
        self.learned, progress = self._improve(self.learned, experience.rollout, key)
        told = {name: float(x) for name, x in progress._asdict().items()}  # waits for the result
        took = time.perf_counter() - begun
        self.steps += config.environments * config.unroll
        self.seconds += took
        figures = {name: float(jnp.mean(x)) for name, x in experience.figures._asdict().items()}
        row = Row(
            steps=self.steps,
            seconds=round(self.seconds, 2),
            reward=float(jnp.mean(experience.rollout.reward)),
            **figures,
            diverged=float(jnp.mean(experience.rollout.ended)),
            **{name: told[name] for name in Row._fields if name in told},
            steps_per_s=config.environments * config.unroll / took,
            physics_share=self.collector.physics_s / took,
        )
        if not np.isfinite([row.reward, row.kl, row.value_loss]).all():
            raise MyoloopError(
                f"training broke down at step {self.steps}: reward {row.reward}, KL {row.kl}, value loss "
                f"{row.value_loss}. The last checkpoint is good: resume with a smaller --ppo.learning-rate."
            )
        self.rows.append(row)
        return row

    @property
    def policy(self) -> LearnedPolicy:
        """The policy as it stands."""
        config = self.config
        return LearnedPolicy(
            params=self.learned.params["policy"],
            normaliser=self.learned.normaliser,
            joint_range=self.collector.loop.task.joint_range,
            network=config.network,
            action=config.action,
            look_ahead_s=config.task.look_ahead_s,
            control_hz=config.control_hz,
            name=f"phase 1, {self.steps / 1e6:.1f} M steps, seed {config.seed}",
        )

    # --- folders ---------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Everything into the run folder, each file whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        about = {"steps": self.steps, "seconds": self.seconds, "config": as_json(self.config)}
        checkpoint.write_atomically(
            folder / "config.json", (json.dumps(as_json(self.config), indent=1) + "\n").encode()
        )
        checkpoint.save(folder / "state.safetensors", self._tree(), kind=KIND, version=VERSION, config=about)
        save_policy(folder / "policy.safetensors", self.policy, about)
        lines = [",".join(Row._fields)] + [",".join(f"{x:.6g}" for x in row) for row in self.rows]
        checkpoint.write_atomically(folder / "curves.csv", ("\n".join(lines) + "\n").encode())

    def restore(self, folder: Path) -> None:
        """Goes on from what `save` wrote, bit for bit.

        Raises:
          MyoloopError: no such run, or one with other settings (`steps` may differ: a run can be prolonged).
        """
        path = folder / "state.safetensors"
        about = checkpoint.load(path, kind=KIND, version=VERSION).config
        then, now = about["config"] | {"steps": 0}, as_json(self.config) | {"steps": 0}
        if then != now:
            differing = sorted(key for key in now if then.get(key) != now[key])
            raise MyoloopError(
                f"{path}: the run was begun with other settings of {', '.join(differing)}: resume without them, or begin "
                "another run."
            )
        tree = checkpoint.load(path, kind=KIND, version=VERSION, like=self._tree()).tree
        on_device = jax.tree.map(jnp.asarray, {key: tree[key] for key in ("learned", "state", "key")})
        self.learned, self._state, self._key = on_device["learned"], on_device["state"], on_device["key"]
        self.collector.load(tree["bodies"])
        self.steps, self.seconds = int(about["steps"]), float(about["seconds"])
        with (folder / "curves.csv").open() as file:
            rows = [[float(x) for x in line.values()] for line in csv.DictReader(file)]
        self.rows = [Row(int(steps), *rest) for steps, *rest in rows if steps <= self.steps]

    def _tree(self) -> dict[str, Any]:
        return {
            "learned": self.learned,
            "state": self._state,
            "key": self._key,
            "bodies": self.collector.save(),
        }


def train(
    trainer: Trainer,
    folder: Path,
    on_update: Callable[[Row], None],
    save_every_s: float = 60.0,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Until the steps are done or `stop` says so, which is asked after every update; saves now and then and at the end.

    What goes wrong inside an update is not saved: the checkpoint before it stays.
    """
    saved = time.monotonic()
    while not trainer.done and not stop():
        on_update(trainer.update())
        if time.monotonic() - saved > save_every_s:
            trainer.save(folder)
            saved = time.monotonic()
    trainer.save(folder)


def as_json(config: Phase1Config) -> dict[str, Any]:
    """The configuration as JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(dataclasses.asdict(config)))  # type: ignore[no-any-return]


def saved_config(folder: Path) -> Phase1Config:
    """The configuration of the run in a folder.

    Raises:
      MyoloopError: no run there, a damaged one, or one of another version.
    """
    return from_json(checkpoint.load(folder / "state.safetensors", kind=KIND, version=VERSION).config["config"])


def from_json(values: dict[str, Any]) -> Phase1Config:
    """A configuration from `as_json`'s.

    Raises:
      MyoloopError: it has fields that this version does not know.
    """
    try:
        return _rebuilt(Phase1Config, values)  # type: ignore[no-any-return]
    except (TypeError, KeyError) as error:
        raise MyoloopError(f"the run's configuration is of another version ({error}): begin another run.") from error


def _rebuilt(kind: Any, values: dict[str, Any]) -> Any:
    default = kind()
    made = {}
    for name, value in values.items():
        now = getattr(default, name, None)
        if dataclasses.is_dataclass(now):
            value = _rebuilt(type(now), value)
        elif isinstance(now, tuple):
            value = tuple(value)
        made[name] = value
    return kind(**made)


def _devices(config: Phase1Config) -> int:
    """How many of JAX's devices the participants are divided among."""
    found = len(jax.devices())
    return found if config.engine == "mjx" and config.environments % found == 0 else 1


def _check(config: Phase1Config) -> None:
    if config.environments < 1 or config.unroll < 1 or config.steps < 1:
        raise MyoloopError(
            f"environments {config.environments}, unroll {config.unroll}, steps {config.steps}; expected at least 1 each."
        )
    count = config.environments * config.unroll
    if count % config.ppo.minibatches:
        raise MyoloopError(
            f"{config.environments} environments x {config.unroll} steps = {count} samples do not divide into "
            f"{config.ppo.minibatches} minibatches: change --environments, --unroll or --ppo.minibatches."
        )
