"""The closed loop's one step: reference -> policy -> excitation -> EMG, then excitation -> body."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from myoloop.body.engine import BodyState
from myoloop.body.engines import make_engine
from myoloop.body.model import load_hand
from myoloop.emg.armband import Armband, armband
from myoloop.emg.conditions import disordered, no_disorder, set_condition
from myoloop.emg.config import EmgConfig
from myoloop.emg.synthesis import Discharges, Spikes, build_emg, discharges, healthy, init_emg, synthesise
from myoloop.errors import MyoloopError
from myoloop.policy.baseline import BaselineConfig, baseline_excitation, make_baseline
from myoloop.task.reference import PlayableConfig, ReferenceConfig, hold, make_reference, motion, release


@dataclass(frozen=True)
class ParticipantConfig:
    """Who the participants are and what they are asked to do."""

    armband: Armband = field(default_factory=lambda: armband("semg_rd16"))
    """the EMG device they wear"""
    reference: PlayableConfig = field(default_factory=ReferenceConfig)
    """the motion asked for, by templates or from a file; each participant of a batch gets a different one"""
    person: int = 0
    """seed of the anatomy: motor units, fibres"""
    control_hz: float = 50.0
    """control steps per second"""
    engine: str = "mujoco"
    """who integrates the physics: `mujoco`, `mjx` or `warp`"""
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    """the controller that drives the muscles"""


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

    def __init__(self, config: ParticipantConfig, participants: int = 1, threads: int = 0):
        """
        Args:
          config: see `ParticipantConfig`.
          participants: B.
          threads: for the physics of engine `mujoco`; 0: all cores.

        Raises:
          MyoloopError: the armband gives no whole number of samples a control step, or an engine that is unknown, not
            installed or too big for the memory.
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
        self._start = self._reference = make_reference(config.reference, participants=participants)
        self._controller = make_baseline(self.hand, config.baseline)
        self.emg_params = build_emg(config.armband, EmgConfig(seed=config.person))
        self._decide = jax.jit(_decide, static_argnames="samples")
        self._circumstances = healthy(self.emg_params, participants)
        self._disorder = no_disorder(participants)
        self.reset(range(participants))

    def reset(self, seeds: Iterable[int]) -> BodyState:
        """Starts over: bodies at rest, reference from its beginning, EMG noise and discharges from `seeds`, one each."""
        seeds = np.asarray(list(seeds))
        if len(seeds) != self.participants:
            raise MyoloopError(f"{len(seeds)} seeds for {self.participants} participants: give one each.")
        self._emg_state = init_emg(self.emg_params, jnp.asarray(seeds))
        self._reference = self._start
        self.steps = 0
        return self.reset_body()

    def reset_body(self) -> BodyState:
        """Puts only the bodies to rest; reference and EMG go on."""
        self.body = self.engine.reset()
        return self.body

    @property
    def time(self) -> float:
        """Participant time of the coming step, seconds."""
        return self.steps * self.control_dt

    def act(self) -> Act:
        """Decides the excitations of the coming step and synthesises the EMG that they make."""
        now, ahead = np.float32(self.time), np.float32(self.time + self.control_dt)
        out, self._emg_state = self._decide(
            self._reference, self._controller, self.emg_params, self._emg_state, self._circumstances,
            self._disorder, _float32(self.body), now, ahead, samples=self.samples,
        )  # fmt: skip
        excitation, chunk, spikes, *asked = out
        self._excitation = np.asarray(excitation)
        return Act(self._excitation, np.asarray(chunk), spikes, *map(np.asarray, asked))

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

    def set_condition(self, name: str, strength: float) -> None:
        """Changes the recording's circumstances for everybody from the next step on.

        Args:
          name: one of `myoloop.emg.conditions.RUN_CONDITIONS`, or "lost_contact:<channel label>".
          strength: 0 (healthy) to 1.

        Raises:
          MyoloopError: unknown name, or a strength outside 0..1.
        """
        self._circumstances, self._disorder = set_condition(
            self.config.armband, self._circumstances, self._disorder, name, strength, max(self.emg_params.turns_deg)
        )

    def move(self) -> BodyState:
        """The bodies follow the excitations that `act` decided, for one control step."""
        self.body = self.engine.step(self._excitation)
        self.steps += 1
        return self.body

    def save(self) -> dict[str, Any]:
        """Everything that changes from step to step, as a pytree of NumPy arrays."""
        return {
            "physics": self.engine.save(),
            "body": self.body,
            "emg": jax.tree.map(np.asarray, self._emg_state),
            "reference": jax.tree.map(np.asarray, self._reference),
            "circumstances": jax.tree.map(np.asarray, self._circumstances),
            "disorder": jax.tree.map(np.asarray, self._disorder),
            "steps": np.asarray(self.steps),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state that `save` gave, bit for bit."""
        self.engine.load(state["physics"])
        self.body = state["body"]
        self._emg_state = jax.tree.map(jnp.asarray, state["emg"])
        self._reference = jax.tree.map(jnp.asarray, state["reference"])
        self._circumstances = jax.tree.map(np.array, state["circumstances"])
        self._disorder = jax.tree.map(np.array, state["disorder"])
        self.steps = int(state["steps"])


def _float32(body: BodyState) -> BodyState:
    return BodyState(*(np.asarray(x, np.float32) if np.asarray(x).dtype.kind == "f" else x for x in body))


def _decide(  # type: ignore[no-untyped-def]
    reference, controller, emg_params, emg_state, circumstances, disorder, body, now, ahead, *, samples
):
    """One step without the body, pure JAX; shapes as in `Act`.

    The muscles are told where to be at the end of the step (`ahead`), not where they should have been at its start.
    """
    asked, coming = motion(reference, now), motion(reference, ahead)
    excitation = baseline_excitation(controller, body, coming.qpos, coming.qvel)
    excitation = disordered(disorder, excitation, emg_state.key, now)
    out, emg_state = synthesise(emg_params, emg_state, excitation, samples, circumstances)
    return (excitation, out.chunk, out.spikes, asked.labels, asked.flexion, asked.qpos), emg_state
