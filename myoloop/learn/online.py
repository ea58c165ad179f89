"""Learning while a session runs: one participant, fifty control steps a second, whatever decoder answers.

The learner is the internal model's (learn/internal_model.py) with a batch of one. It hears what the participant perceived,
commanded and was asked for, and the decoder's answers with their stamps; it thinks after every stretch, and has a better
policy then. Experience is scarce here and computing is not: it remembers minutes, and goes through them often.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from myoloop.body.leverage import leverage
from myoloop.body.model import load_hand
from myoloop.body.names import MUSCLES
from myoloop.learn.heard import Answers, Heard, Steps
from myoloop.learn.internal_model import ForwardConfig, InternalModelConfig, InternalModelLearner
from myoloop.learn.pairing import Pairing
from myoloop.learn.through_forward import Actor, ObjectiveConfig, unit_leverage
from myoloop.policy.learned import LearnedPolicy, check_habit
from myoloop.policy.networks import make_policy
from myoloop.policy.observation import observation_layout
from myoloop.task.reference import EXTENDED, FLEXED

USUAL = 120
"""Stretches that say what losses of the models are usual: two minutes, in which every gesture was asked for."""
ENOUGH = 20
"""Stretches that must have been heard before anything can be unusual."""


@dataclass(frozen=True)
class OnlineConfig:
    """The learner of one live participant."""

    stretch: int = 48
    """Control steps between two times of thinking, 0.96 s: the 2500 that are remembered are 40 minutes."""
    late_s: float = 0.5
    """How long an answer is waited for, s."""
    seed: int = 0
    """Of models and draws."""
    internal_model: InternalModelConfig = field(
        default_factory=lambda: InternalModelConfig(
            ForwardConfig(remembered=2500, updates=16, stretches=16, first_rollouts=30, learning_rate=1e-3),
            ObjectiveConfig(updates=6, stretches=16, learning_rate=1.5e-4, movement=100.0, effort=6.0),
        )
    )
    forget_at: float = 1.5
    """How many times the largest usual loss the models' must exceed, in two stretches, for all that is remembered to be
    forgotten: the world has changed. The models stay, as a guess to start from."""


class Thinking(NamedTuple):
    """A line of learning.csv: how learning stands after thinking once."""

    time_s: float
    """Participant time heard so far."""
    stretches: int
    model_loss: float
    """How far the models are from the answers to a stretch that they have not learned from, nats a finger."""
    wanted_loss: float
    """Cross-entropy that they expect of the policy, nats a finger."""
    strayed: float
    """Mean squared change of the joints' torques from the habit's (learn/through_forward.py)."""
    paired: int
    """Steps with an answer, so far."""
    unheard: int
    """Steps without one, so far."""
    forgotten: int
    """How many times all that was remembered was forgotten, so far."""
    compute_s: float
    """Of this thinking."""


class OnlineLearner:
    """Hears, thinks, and has a policy.

    Example:
      learner = OnlineLearner(policy)
      learner.hear(steps, answers)
      if (line := learner.think()) is not None:
          people.set_policy(learner.params)
    """

    def __init__(self, policy: LearnedPolicy, config: OnlineConfig | None = None, habit: LearnedPolicy | None = None):
        """
        Args:
          policy: who learns; feed-forward, told all cues (policy.learned.told_all).
          habit: whose movement is kept; None: the policy's as it is now.

        Raises:
          MyoloopError: a habit of another network or with another normaliser.
        """
        if habit is not None:
            check_habit(policy, habit)
        self.config = config = config or OnlineConfig()
        self._start = policy
        size = observation_layout(policy.look_ahead_s, policy.cues).size
        actor = Actor(make_policy(policy.network, size, len(MUSCLES)), policy.action, size, 1)
        turning = unit_leverage(leverage(load_hand(), np.stack([EXTENDED, FLEXED])))
        begin = (policy.params, policy.normaliser)
        forward = config.internal_model.forward
        self._learner = InternalModelLearner(
            config.internal_model, actor, config.stretch, begin, turning, habit and habit.params
        )
        of_start, self._key = jax.random.split(jax.random.key(config.seed))
        self._learned = self._learner.start(of_start)
        self.pairing = Pairing(1.0 / policy.control_hz, config.stretch, forward.history - 1, config.late_s)
        self.lines: list[Thinking] = []
        self.stretches = self.forgotten = 0
        self._usual: deque[float] = deque(maxlen=USUAL)
        self._odd: list[float] = []

    def hear(self, steps: Steps, answers: Answers) -> None:
        """What happened since the last call."""
        self.pairing.take(steps, answers)

    def think(self) -> Thinking | None:
        """Learns from what is complete; None if nothing is. Of several stretches that waited, all are remembered."""
        waiting = self.pairing.complete()
        if not waiting:
            return None
        begun = time.perf_counter()
        self.stretches += len(waiting)
        for heard in waiting[:-1]:
            self._learned = self._learner.watch(self._learned, heard)
        self._key, key = jax.random.split(self._key)
        self._learned, told = self._learner.think(self._learned, waiting[-1], key)
        told = jax.device_get(told)
        self._forget_if_odd(float(told.model_loss))
        counts = self.pairing.counts
        line = Thinking(
            time_s=round(self.stretches * self.config.stretch / self._start.control_hz, 3),
            stretches=self.stretches,
            model_loss=float(told.model_loss),
            wanted_loss=float(told.wanted_loss),
            strayed=float(told.strayed),
            paired=counts["paired"],
            unheard=counts["unheard"],
            forgotten=self.forgotten,
            compute_s=round(time.perf_counter() - begun, 4),
        )
        self.lines.append(line)
        return line

    def _forget_if_odd(self, surprise: float) -> None:
        """Forgets what is remembered once the answers are not at all what they used to be.

        The largest loss is what counts, not a typical one: at rest the models may be right to a thousandth of what they are off
        in a difficult gesture, and a stretch is about one gesture."""
        most = max(self._usual) if len(self._usual) >= ENOUGH else np.inf
        if surprise <= self.config.forget_at * most:
            self._usual.extend([*self._odd, surprise])  # a single odd stretch is an odd gesture
            self._odd.clear()
            return
        self._odd.append(surprise)
        if len(self._odd) < 2:
            return
        self.forgotten += 1
        self._odd.clear()
        self._usual.clear()
        memory = self._learned.memory._replace(filled=jnp.int32(0))
        self._learned = self._learned._replace(memory=memory, updates=jnp.int32(0))

    def warm_up(self) -> None:
        """Compiles, so that the first thinking takes no longer than the others; changes nothing."""
        size, n = self._learner.actor.observations, self.config.stretch
        nothing = [jnp.zeros((n, 1, width), jnp.float32) for width in (size, len(MUSCLES), 5, 5)]
        jax.block_until_ready(self._learner.think(self._learned, Heard(*nothing), self._key))
        jax.block_until_ready(self._learner.watch(self._learned, Heard(*nothing)))

    @property
    def params(self) -> Any:
        """Of the policy's network, as they stand."""
        return self._learned.params["policy"]

    @property
    def policy(self) -> LearnedPolicy:
        """The policy as it stands."""
        minutes = len(self.lines) and self.lines[-1].time_s / 60
        name = f"{self._start.name}, {minutes:.1f} min of a session"
        return self._start.replace(params=self.params, name=name)  # type: ignore[attr-defined, no-any-return]
