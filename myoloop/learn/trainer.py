"""A run of training: collect, improve, again; one that can be stopped and gone on with.

What is learned, and by whom, the run's configuration says (learn/phase1.py, learn/phase2.py). The run folder holds
`config.json`, `state.safetensors` (everything, to go on bit for bit), `policy.safetensors` (what others use), `curves.csv` and
`curves.png`.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from myoloop import checkpoint
from myoloop.body.engines import make_engine
from myoloop.body.mjx_engine import MjxEngine
from myoloop.body.model import Hand, load_hand
from myoloop.errors import MyoloopError
from myoloop.learn.learner import Learner
from myoloop.learn.metrics import cross_entropy
from myoloop.learn.rollout import DeviceCollector, Experience, HostCollector, Loop
from myoloop.policy.learned import LearnedPolicy, save_policy

VERSION = 4


class Run(Protocol):
    """The configuration of a run, a frozen dataclass whose fields all have defaults: these and more."""

    steps: int
    environments: int
    unroll: int
    seed: int
    engine: str
    threads: int
    physics_dt: float
    control_hz: float
    KIND: ClassVar[str]
    """What its checkpoints are."""

    def build(self, hand: Hand, control_dt: float) -> Parts:
        """What is run, for `environments` participants; refuses settings that do not fit together."""


class Parts(NamedTuple):
    """What a run consists of, the physics apart."""

    loop: Loop
    learner: Learner
    name: str
    """Of the phase, for the policy's file."""


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
    accuracy: float
    """Part of the decoder's answers that were right, mean over fingers and steps; not a number without a decoder."""
    loss: float
    """Cross-entropy of its answers, nats a finger; not a number without a decoder."""
    model_loss: float
    """How far an internal model is from the decoder's answers, nats a finger; not a number for learners without one."""
    steps_per_s: float
    physics_share: float
    """Part of the time in which the physics was integrated (engine mujoco; 0: not known)."""


LEARNERS_OWN = ("kl", "clipped", "value_loss", "explained", "deviation", "learning_rate", "model_loss")
"""Fields of a row that a learner fills, as far as it has them."""
C = TypeVar("C", bound="Run")


class Trainer:
    """One run.

    Example:
      trainer = Trainer(Phase1Config(steps=100_000))
      while not trainer.done:
          row = trainer.update()
      trainer.save(Path("runs/phase1"))
    """

    def __init__(self, config: Run):
        """
        Raises:
          MyoloopError: settings that do not fit together.
        """
        self.config = config
        if config.environments < 1 or config.unroll < 1 or config.steps < 1:
            raise MyoloopError(
                f"environments {config.environments}, unroll {config.unroll}, steps {config.steps}; expected at least 1 "
                "each."
            )
        hand, dt = load_hand(physics_dt=config.physics_dt), 1.0 / config.control_hz
        loop, self.learner, self._name = config.build(hand, dt)
        engine = make_engine(config.engine, hand, config.environments, control_dt=dt, threads=config.threads)
        self.collector: HostCollector | DeviceCollector
        if isinstance(engine, MjxEngine):
            self.collector = DeviceCollector(loop, engine.physics, _devices(config))
        else:
            self.collector = HostCollector(loop, engine)
        init_key, loop_key, self._key = jax.random.split(jax.random.key(config.seed), 3)
        self.learned = self.learner.start(init_key)
        self._state = self.collector.start(loop_key, 0.0)
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
        self.learned, progress = self.learner.improve(self.learned, experience, key)
        told = {name: float(x) for name, x in progress._asdict().items()}  # waits for the result
        took = time.perf_counter() - begun
        self.steps += config.environments * config.unroll
        self.seconds += took
        figures = {name: float(jnp.mean(x)) for name, x in experience.figures._asdict().items()}
        row = Row(
            steps=self.steps,
            seconds=round(self.seconds, 2),
            reward=float(jnp.mean(jnp.sum(experience.rollout.reward, axis=-1))),
            **figures,
            diverged=float(jnp.mean(experience.rollout.ended)),
            **{name: told.get(name, float("nan")) for name in LEARNERS_OWN},
            **self._answers(experience),
            steps_per_s=config.environments * config.unroll / took,
            physics_share=self.collector.physics_s / took,
        )
        if not np.isfinite([row.reward, *told.values()]).all():
            listed = ", ".join(f"{name} {value:g}" for name, value in told.items())
            raise MyoloopError(
                f"training broke down at step {self.steps}: reward {row.reward}, {listed}. The last checkpoint is good: begin "
                "another run with a smaller learning rate."
            )
        self.rows.append(row)
        return row

    def _answers(self, experience: Experience) -> dict[str, float]:
        """How good the decoder's answers were."""
        if self.collector.loop.interface is None:
            return {"accuracy": float("nan"), "loss": float("nan")}
        odds, labels = np.asarray(experience.odds, np.float64), np.asarray(experience.labels)
        return {"accuracy": float(((odds > 0) == (labels > 0.5)).mean()), "loss": cross_entropy(odds, labels)}

    @property
    def policy(self) -> LearnedPolicy:
        """The policy as it stands."""
        loop, config = self.collector.loop, self.config
        return LearnedPolicy(
            params=self.learned.params["policy"],
            normaliser=self.learned.normaliser,
            joint_range=loop.task.joint_range,
            network=loop.network,
            action=loop.action,
            look_ahead_s=loop.task.config.look_ahead_s,
            control_hz=config.control_hz,
            name=f"{self._name}, {self.steps / 1e6:.1f} M steps, seed {config.seed}",
            cues=loop.cues,
        )

    # --- folders ---------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Everything into the run folder, each file whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        about = {"steps": self.steps, "seconds": self.seconds, "config": as_json(self.config)}
        checkpoint.write_atomically(
            folder / "config.json", (json.dumps(as_json(self.config), indent=1) + "\n").encode()
        )
        checkpoint.save(
            folder / "state.safetensors", self._tree(), kind=self.config.KIND, version=VERSION, config=about
        )
        save_policy(folder / "policy.safetensors", self.policy, about)
        lines = [",".join(Row._fields)] + [",".join(f"{x:.6g}" for x in row) for row in self.rows]
        checkpoint.write_atomically(folder / "curves.csv", ("\n".join(lines) + "\n").encode())

    def restore(self, folder: Path) -> None:
        """Goes on from what `save` wrote, bit for bit.

        Raises:
          MyoloopError: no such run, or one with other settings (`steps` may differ: a run can be prolonged).
        """
        path, kind = folder / "state.safetensors", self.config.KIND
        about = checkpoint.load(path, kind=kind, version=VERSION).config
        then, now = about["config"] | {"steps": 0}, as_json(self.config) | {"steps": 0}
        if then != now:
            differing = sorted(key for key in now if then.get(key) != now[key])
            raise MyoloopError(
                f"{path}: the run was begun with other settings of {', '.join(differing)}: resume without them, or begin "
                "another run."
            )
        tree = checkpoint.load(path, kind=kind, version=VERSION, like=self._tree()).tree
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


def as_json(config: Run) -> dict[str, Any]:
    """The configuration as JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(dataclasses.asdict(config)))  # type: ignore[no-any-return, call-overload]


def saved_config(kind: type[C], folder: Path) -> C:
    """The configuration of the run in a folder.

    Raises:
      MyoloopError: no run of this kind there, a damaged one, or one of another version.
    """
    return from_json(
        kind, checkpoint.load(folder / "state.safetensors", kind=kind.KIND, version=VERSION).config["config"]
    )


def from_json(kind: type[C], values: dict[str, Any]) -> C:
    """A configuration from `as_json`'s.

    Raises:
      MyoloopError: it has fields that this version does not know.
    """
    try:
        return _rebuilt(kind, values)  # type: ignore[no-any-return]
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
            value = _tuples(value)
        made[name] = value
    return kind(**made)


def _tuples(value: Any) -> Any:
    """Lists as tuples, those inside them too."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _devices(config: Run) -> int:
    """How many of JAX's devices the participants are divided among."""
    found = len(jax.devices())
    return found if config.engine == "mjx" and config.environments % found == 0 else 1
