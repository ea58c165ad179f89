"""Who the participants of a batch are: the settings, and what is made of them before the first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from myoloop.assets import POLICY, find_file
from myoloop.body.model import Hand
from myoloop.emg.armband import Armband, armband
from myoloop.emg.condition_names import PERSON, check_conditions
from myoloop.emg.config import EmgConfig
from myoloop.emg.people import Person, build_people, build_person
from myoloop.emg.placement import Moves
from myoloop.emg.synthesis import EmgParams
from myoloop.errors import MyoloopError, unknown_name
from myoloop.policy import BASELINE
from myoloop.policy.baseline import Baseline, BaselineConfig, make_baseline
from myoloop.policy.exploration import Exploration
from myoloop.policy.learned import LearnedPolicy, load_policy, told_all
from myoloop.task.reference import PlayableConfig, ReferenceConfig, make_reference

Force = Literal["direct", "twitch"]
"""Where the activation of the forearm muscles comes from."""


@dataclass(frozen=True)
class ParticipantConfig:
    """Who the participants are and what they are asked to do."""

    armband: Armband = field(default_factory=lambda: armband("semg_rd16"))
    """the EMG device they wear; where it sits on them, if they are not `people`"""
    reference: PlayableConfig = field(default_factory=ReferenceConfig)
    """the motion asked for, by templates or from a file; each participant of a batch gets a different one"""
    person: int = 0
    """seed of the anatomy: motor units, fibres"""
    anatomy: EmgConfig = field(default_factory=EmgConfig)
    """physiology of the forearm; its seed is `person`"""
    people: tuple[Person, ...] = ()
    """different people side by side, one a participant (`sample_people`); none: all are the person above"""
    conditions: Mapping[str, float] = field(default_factory=dict)
    """what everybody has from the start: names of myoloop.emg.condition_names, strengths 0..1"""
    own_conditions: tuple[Mapping[str, float], ...] = ()
    """what each of `people` has besides, one mapping a participant; none: nothing"""
    alike: bool = False
    """whether all participants of a batch are asked the same motion, that of a single participant"""
    movable_band: bool = False
    """whether `rotation` and `displacement` may move the armband during a run (half a minute to build, then cached)"""
    posture: bool = False
    """whether the body's posture shifts muscles under the electrodes and stretches their fibres (needs a movable band)"""
    control_hz: float = 50.0
    """control steps per second"""
    engine: str = "mujoco"
    """who integrates the physics: `mujoco`, `mjx` or `warp`"""
    policy: str = POLICY
    """who drives the muscles: a policy's file, or "baseline", the controller without learning"""
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    """habits of that controller"""
    force: Force = "direct"
    """direct: the body's muscles follow the excitation; twitch: the forearm's follow the discharges of their motor units"""
    exploration: Exploration | None = None
    """of participants who learn while they act: told all cues, they say by `Act.thought` what a learner needs"""
    lag_s: float = 0.0
    """s by which they hear the answer to a step's EMG later than at its end: what is asked then is what they learn from"""

    def __post_init__(self) -> None:
        if self.force not in get_args(Force):
            raise unknown_name("force", self.force, get_args(Force), "ParticipantConfig")
        movable = self.movable_band or self.posture
        check_conditions(self.conditions, self.armband.channel_labels, movable, "ParticipantConfig.conditions")
        for n, own in enumerate(self.own_conditions):
            check_conditions(own, self.armband.channel_labels, movable, f"ParticipantConfig.own_conditions[{n}]")


def make_mind(config: ParticipantConfig, hand: Hand) -> Baseline | LearnedPolicy:
    """Who drives the muscles."""
    if config.policy == BASELINE:
        if config.exploration:
            raise MyoloopError("the baseline controller does not learn: give the participant a policy's file.")
        return make_baseline(hand, config.baseline)
    policy = load_policy(find_file(config.policy, kind="policy")).policy
    if abs(policy.control_hz - config.control_hz) > 1e-6:
        raise MyoloopError(
            f"policy {config.policy} was trained to act at {policy.control_hz:g} Hz, control_hz is {config.control_hz:g}: set "
            f"control_hz to {policy.control_hz:g}, or train one."
        )
    if not config.exploration:
        return policy
    if policy.network.recurrent or policy.network.bottleneck:
        raise MyoloopError(
            f"policy {config.policy} has recurrent {policy.network.recurrent}, bottleneck {policy.network.bottleneck}: only "
            "feed-forward policies learn while they act. Choose another policy, or leave out participant.adapt."
        )
    return told_all(policy)


def build_forearms(
    config: ParticipantConfig, participants: int, on_person: Callable[[int], None]
) -> tuple[EmgParams, list[Armband]]:
    """The EMG of the participants, and the armband as each wears it (one if all are the same person)."""
    moves = Moves() if config.movable_band or config.posture else None
    ill = _of_units(config.conditions)
    if not config.people:
        person = Person(replace(config.anatomy, seed=config.person), config.armband)
        return build_person(person, ill, moves), [config.armband]
    each = [{**ill, **_of_units(own)} for own in config.own_conditions] or [ill] * participants
    for what, count in (("people", len(config.people)), ("own_conditions", len(each))):
        if count != participants:
            raise MyoloopError(f"{count} {what} for {participants} participants: give one each.")
    bands = [person.band for person in config.people]
    if participants == 1:
        return build_person(config.people[0], each[0], moves), bands
    return build_people(config.people, each, moves, on_person), bands


def _of_units(conditions: Mapping[str, float]) -> dict[str, float]:
    """Those of the motor units, which are built into the person."""
    return {name: strength for name, strength in conditions.items() if name in PERSON}


def make_asked(config: ParticipantConfig, participants: int) -> Any:
    """The motion asked for: of each its own, or the same of all."""
    if not config.alike:
        return make_reference(config.reference, participants=participants)
    one = make_reference(config.reference, participants=1)
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, participants, axis=0), one)
