"""The closed loop's one step: reference -> policy -> excitation -> EMG, then excitation -> body."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from myoloop.body.engine import BodyState, in_float32
from myoloop.body.engines import make_engine
from myoloop.body.model import load_hand
from myoloop.body.names import FINGERS, FOREARM_MUSCLES, JOINTS
from myoloop.emg.condition_names import PERSON
from myoloop.emg.conditions import disordered, no_disorder, set_condition
from myoloop.emg.force import ForceParams, ForceState, build_force, init_force, twitch_force
from myoloop.emg.people import sample_people
from myoloop.emg.posture import posture
from myoloop.emg.synthesis import (
    Discharges,
    EmgParams,
    EmgState,
    Spikes,
    discharges,
    healthy,
    init_emg,
    synthesise,
)
from myoloop.errors import MyoloopError
from myoloop.participant_config import ParticipantConfig as ParticipantConfig
from myoloop.participant_config import build_forearms, make_asked, make_mind
from myoloop.policy.baseline import Baseline, baseline_excitation
from myoloop.policy.exploration import Wander, still, wander
from myoloop.policy.learned import LearnedPolicy, decided, perceived
from myoloop.policy.observation import told
from myoloop.task.reference import (
    hold,
    joint_angles,
    labels,
    motion,
    release,
)

UNKNOWN = 0.5
"""A prediction before the first answer of a decoder."""


class Thought(NamedTuple):
    """What a learner needs to know of one control step, for B participants."""

    obs: np.ndarray
    """(B, n) as perceived"""
    command: np.ndarray
    """(B, 39) excitations decided, before what a disorder makes of them"""
    labels: np.ndarray
    """(B, 5) what is asked for when the answer to the step's EMG comes: at its end, or `lag_s` later"""


class Act(NamedTuple):
    """What one control step decided and emitted, for B participants."""

    excitation: np.ndarray
    """(B, 39) 0..1"""
    chunk: np.ndarray
    """(B, samples, channels) microvolts"""
    spikes: Spikes
    """discharges inside the chunk; see `Participants.discharges`"""
    target: np.ndarray
    """(B, 5) labels asked for, 1 = flexed"""
    reference: np.ndarray
    """(B, 5) flexion asked for, 0..1"""
    wanted: np.ndarray
    """(B, 23) joint angles asked for, rad"""
    activation: np.ndarray | None = None
    """(B, 26) 0..1 that the discharges give the forearm muscles; None with force `direct`"""
    thought: Thought | None = None
    """None without `exploration`"""


class _Fixed(NamedTuple):
    """What a step reads and never changes."""

    mind: Baseline | LearnedPolicy
    emg: EmgParams
    force: ForceParams | None
    stance: tuple[np.ndarray, np.ndarray] | None
    """Neutral muscle lengths (39,), m, and the armbands' levels, for `posture`."""
    exploration: tuple[np.float32, np.float32] | None
    """Deviation and persistence."""
    lag_s: np.float32
    """See `ParticipantConfig`."""


class _State(NamedTuple):
    """What a step changes, body apart."""

    mind: Any
    emg: EmgState
    force: ForceState | None
    wander: Wander | None


class Participants:
    """B participants stepped together: the engine, and everything else in one jitted call.

    A step is `act` (what to do, and the EMG of doing it) followed by `move` (the body does it); live sessions send the
    EMG between the two.

    Example:
      people = Participants(ParticipantConfig(), participants=4)
      people.reset(seeds=range(4))
      done = people.act()
      body = people.move()
    """

    def __init__(
        self,
        config: ParticipantConfig,
        participants: int = 1,
        threads: int = 0,
        on_person: Callable[[int], None] = lambda built: None,
    ):
        """
        Args:
          config: see `ParticipantConfig`.
          participants: B.
          threads: for the physics of engine `mujoco`; 0: all cores.
          on_person: called with how many of `people` are built, which takes about half a second each.

        Raises:
          MyoloopError: the armband gives no whole number of samples a control step; not one of `people` each; an armband
            that cannot move as far as it may; an engine that is unknown, not installed or too big for the memory; a
            policy that cannot be used, or acts at another rate.
        """
        self.config = config
        self.participants = participants
        self.control_dt = 1.0 / config.control_hz
        samples = config.armband.rate_hz * self.control_dt
        if abs(samples - round(samples)) > 1e-9 or samples < 1:
            raise MyoloopError(
                f"armband '{config.armband.name}' at {config.armband.rate_hz:g} Hz gives {samples:g} samples a control "
                f"step at {config.control_hz:g} Hz: choose a control_hz that divides the armband's rate."
            )
        self.samples = round(samples)
        """EMG samples a control step"""
        self.hand = load_hand()
        self.engine = make_engine(config.engine, self.hand, participants, self.control_dt, threads)
        self._start = self._reference = make_asked(config, participants)
        mind = make_mind(config, self.hand)
        self.emg_params, worn = build_forearms(config, participants, on_person)
        self.bands = worn * (participants // len(worn))
        """the armband as each of them wears it"""
        force = build_force(self.emg_params) if config.force == "twitch" else None
        self._decide = jax.jit(_decide, static_argnames="samples")
        self._circumstances = healthy(self.emg_params, participants)
        self._disorder = no_disorder(participants)
        self.conditions: dict[str, float] = {}
        """what everybody has now, by name, if not 0"""
        for name, strength in config.conditions.items():
            if name in PERSON:
                self.conditions |= {name: float(strength)} if strength else {}
            else:
                self.set_condition(name, strength)
        for number, own in enumerate(config.own_conditions):
            for name in own.keys() - set(PERSON):
                self.set_condition(name, own[name], number)
        level = np.array([band.level for band in worn], np.float32)
        neutral = self.engine.reset().length[0].astype(np.float32)
        stance = (neutral, level) if config.posture else None
        self._fixed = _Fixed(mind, self.emg_params, force, stance, None, np.float32(config.lag_s))
        if config.exploration:
            self.explore(config.exploration.deviation)
        self.reset(range(participants))

    @classmethod
    def sample(
        cls, seed: int, participants: int, config: ParticipantConfig | None = None, threads: int = 0
    ) -> Participants:
        """A population: people drawn from published ranges, the same for the same seed; `config` says the rest."""
        config = config or ParticipantConfig()
        drawn = sample_people(seed, participants, config.armband, config.anatomy)
        return cls(replace(config, people=drawn), participants, threads)

    def reset(self, seeds: Iterable[int]) -> BodyState:
        """Starts over: bodies at rest, reference from its beginning, EMG noise and discharges from `seeds`, one each."""
        seeds = np.asarray(list(seeds))
        if len(seeds) != self.participants:
            raise MyoloopError(f"{len(seeds)} seeds for {self.participants} participants: give one each.")
        fixed = self._fixed
        self._state = _State(
            mind=fixed.mind.start(self.participants) if isinstance(fixed.mind, LearnedPolicy) else (),
            emg=init_emg(self.emg_params, seeds),
            force=init_force(fixed.force, self.participants) if fixed.force else None,
            wander=still(self.config.exploration.seed, self.participants) if self.config.exploration else None,
        )
        self._reference = self._start
        self._prediction = np.full((self.participants, len(FINGERS)), UNKNOWN, np.float32)
        self.steps = 0
        return self.reset_body()

    def reset_body(self, who: np.ndarray | None = None) -> BodyState:
        """Puts only the bodies to rest, of the participants `who` (numbers, or (B,) bool) or all; reference and EMG go on."""
        self.body = self.engine.reset(ids=who)
        return self.body

    @property
    def time(self) -> float:
        """Participant time of the coming step, seconds."""
        return self.steps * self.control_dt

    def perceive(self, prediction: np.ndarray) -> None:
        """The decoder's newest answer, (5,) or (B, 5), as a policy that is told of it sees it from the next `act` on."""
        self._prediction = np.broadcast_to(np.asarray(prediction, np.float32), self._prediction.shape)

    def act(self) -> Act:
        """Decides the excitations of the coming step and synthesises the EMG that they make."""
        out, self._state = self._decide(
            self._fixed, self._state, self._reference, self._circumstances, self._disorder, in_float32(self.body),
            self._prediction, np.float32(self.time), np.float32(self.control_dt), samples=self.samples,
        )  # fmt: skip
        excitation, chunk, spikes, activation, thought, *asked = out
        target, flexion, wanted = map(np.asarray, asked)
        self._excitation = np.asarray(excitation)
        self._activation = None if activation is None else np.asarray(activation)
        thought = None if thought is None else Thought(*map(np.asarray, thought))
        return Act(self._excitation, np.asarray(chunk), spikes, target, flexion, wanted, self._activation, thought)

    @property
    def policy(self) -> LearnedPolicy | None:
        """Who drives the muscles; None: the baseline controller."""
        return self._fixed.mind if isinstance(self._fixed.mind, LearnedPolicy) else None

    def set_policy(self, params: Any) -> None:
        """Other parameters for the policy's network from the next `act` on; arrays of JAX cost nothing to take over."""
        assert isinstance(self._fixed.mind, LearnedPolicy)
        self._fixed = self._fixed._replace(mind=self._fixed.mind.replace(params=params))  # type: ignore[attr-defined]

    def set_lag(self, lag_s: float) -> None:
        """From the next `act` on, answers are heard so much later: `ParticipantConfig.lag_s`."""
        self._fixed = self._fixed._replace(lag_s=np.float32(lag_s))

    def explore(self, deviation: float) -> None:
        """Explores with this standard deviation of the actions from the next `act` on; 0: not at all."""
        assert self.config.exploration is not None
        sizes = np.float32(deviation), np.float32(self.config.exploration.persistence)
        self._fixed = self._fixed._replace(exploration=sizes)

    @property
    def exploration(self) -> float | None:
        """With which standard deviation of the actions it explores; None: it was built without."""
        return float(self._fixed.exploration[0]) if self._fixed.exploration is not None else None

    @property
    def emg_state(self) -> EmgState:
        """Clocks of the units, and what is still to come of past discharges."""
        return self._state.emg

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told about the reference."""
        return self._start.notes

    def discharges(self, act: Act, participant: int = 0) -> Discharges:
        """Who fired when inside a step's chunk; sample indices count from the start, at the internal rate."""
        return discharges(self.emg_params, act.spikes, participant)

    def set_target(self, target: np.ndarray) -> None:
        """Asks everybody for these labels, (5,) or (B, 5), instead of the reference, until `follow_reference`."""
        self._reference = hold(self._reference, self.time, target)

    def follow_reference(self) -> None:
        """Back to the reference."""
        self._reference = release(self._reference, self.time)

    def set_condition(self, name: str, strength: float, participant: int | None = None) -> None:
        """Changes the recording's circumstances from the next step on.

        Args:
          name: one of `myoloop.emg.conditions.RUN_CONDITIONS`, or "lost_contact:<channel label>".
          strength: 0 (healthy) to 1.
          participant: of whom; None: everybody, and only that is kept in `conditions`.

        Raises:
          MyoloopError: unknown name, a strength outside 0..1, or rotation or displacement without `movable_band`.
        """
        who = None if participant is None else np.array([participant])
        self._circumstances, self._disorder = set_condition(
            self.config.armband, self._circumstances, self._disorder, name, strength, self.emg_params.moves, who
        )
        if participant is not None:
            return
        now = {n: s for n, s in self.conditions.items() if n != name}
        self.conditions = now | ({name: float(strength)} if strength else {})

    def move(self) -> BodyState:
        """The bodies follow the excitations that `act` decided, for one control step."""
        given = self._activation
        if given is not None:  # the hand's own muscles have no motor units here: their activation follows excitation
            own = np.full((self.participants, self._excitation.shape[1] - len(FOREARM_MUSCLES)), np.nan)
            given = np.concatenate([given, own], axis=1)
        self.body = self.engine.step(self._excitation, given)
        self.steps += 1
        return self.body

    def save(self) -> dict[str, Any]:
        """Everything that changes from step to step, as a pytree of NumPy arrays."""
        return {
            "physics": self.engine.save(),
            "body": self.body,
            "state": jax.tree.map(np.asarray, self._state),
            "reference": jax.tree.map(np.asarray, self._reference),
            "circumstances": jax.tree.map(np.asarray, self._circumstances),
            "disorder": jax.tree.map(np.asarray, self._disorder),
            "prediction": self._prediction,
            "conditions": {name: np.asarray(strength) for name, strength in self.conditions.items()},
            "steps": np.asarray(self.steps),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state that `save` gave, bit for bit."""
        self.engine.load(state["physics"])
        self.body = state["body"]
        self._state = jax.tree.map(jnp.asarray, state["state"])
        self._reference = jax.tree.map(jnp.asarray, state["reference"])
        self._circumstances = jax.tree.map(np.array, state["circumstances"])
        self._disorder = jax.tree.map(np.array, state["disorder"])
        self._prediction = np.array(state["prediction"])
        self.conditions = {name: float(strength) for name, strength in state["conditions"].items()}
        self.steps = int(state["steps"])


def _decide(  # type: ignore[no-untyped-def]
    fixed, state, reference, circumstances, disorder, body, prediction, now, control_dt, *, samples
):
    """One step without the body, pure JAX; what it gives is as in `Act`.

    The muscles are told where to be at the end of the step, not where they should have been at its start.
    """
    asked = motion(reference, now)
    mind, mind_state = fixed.mind, state.mind
    wandering, astray, thought = state.wander, None, None
    if isinstance(mind, LearnedPolicy):
        wanted = jnp.stack([joint_angles(reference, now + s) for s in mind.look_ahead_s])
        asked_ahead = jnp.stack([labels(reference, now + s) for s in mind.look_ahead_s])
        flexed_ahead = jnp.stack([reference.flexion(now + s) for s in mind.look_ahead_s])
        obs = perceived(mind, body, wanted, told(mind.cues, asked_ahead, flexed_ahead, prediction))
        if fixed.exploration is not None:
            deviation, persistence = fixed.exploration
            wandering = wander(wandering, persistence)
            astray = deviation * wandering.noise
        excitation, mind_state = decided(mind, obs, mind_state, astray)
        if fixed.exploration is not None:
            wished = reference.flexion if "flexion" in mind.cues else reference.labels
            thought = obs, excitation, wished(now + control_dt + fixed.lag_s)
    else:
        coming = motion(reference, now + control_dt)
        excitation = baseline_excitation(mind, body, coming.qpos, coming.qvel)
    excitation = disordered(disorder, excitation, state.emg.key, now)
    if fixed.stance is not None:
        shifted = posture(body.qpos[:, JOINTS.index("pro_sup")], body.length, *fixed.stance)
        circumstances = circumstances._replace(**shifted._asdict())
    out, emg_state = synthesise(fixed.emg, state.emg, excitation, samples, circumstances)
    activation, force_state = None, state.force
    if fixed.force is not None:
        activation, force_state = twitch_force(fixed.force, force_state, out.spikes, samples)
    asked = (asked.labels, asked.flexion, asked.qpos)
    state = _State(mind_state, emg_state, force_state, wandering)
    return (excitation, out.chunk, out.spikes, activation, thought, *asked), state
