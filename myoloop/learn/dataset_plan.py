"""What a dataset will hold, decided before anything is recorded: who, with the armband where, in which condition, following
what. Everything is drawn from seeds: equal settings give an equal plan, and any shard of it can be recorded alone.

    shards = plan(DatasetConfig(people=16, recordings=4))
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from myoloop.assets import POLICY
from myoloop.emg.armband import Armband, armband
from myoloop.emg.condition_names import MOVING, PERSON, check_conditions
from myoloop.emg.config import EmgConfig
from myoloop.emg.people import ANGLE_DEG, LEVEL, Person, sample_people
from myoloop.errors import MyoloopError, unknown_name
from myoloop.participant import ParticipantConfig
from myoloop.participant_config import Force
from myoloop.task.reference import ASSIGNMENTS, HELD_OUT_FROM, KINDS, ReferenceConfig

SPLITS = ("training", "validation", "test", "test_same_people")
"""What a recording is for. test: people and references that nothing has learned from; test_same_people: the people of
training with the references of testing."""

VALIDATION_FROM = 900_000
"""Seeds of references and populations from here up to HELD_OUT_FROM choose between decoders; below is for training."""

_FIRST_SEED = {
    "training": 0,
    "validation": VALIDATION_FROM,
    "test": HELD_OUT_FROM,
    "test_same_people": HELD_OUT_FROM,
}
_MOST_SEEDS = HELD_OUT_FROM - VALIDATION_FROM


@dataclass(frozen=True)
class DatasetConfig:
    """What to record."""

    seed: int = 0
    """Seed of people, placements, conditions, noise and discharges."""
    armband: str = "semg_rd16"
    """Armband preset that everybody wears."""
    policy: str = POLICY
    """Who drives the muscles: a policy's file, or "baseline"."""
    people: int = 16
    """People to train on, drawn from the population of `seed`."""
    person: int | None = None
    """Train on this one person instead: the seed of an anatomy that is not drawn (0: the default participant)."""
    recordings: int = 4
    """Recordings of each of them with training references."""
    validation_people: int = 4
    """Other people to choose between decoders; 0: the people of training, with other references."""
    validation_recordings: int = 2
    """Recordings of each of those."""
    test_people: int = 8
    """People that nothing learns from."""
    test_recordings: int = 2
    """Recordings with held-out references of each of those, and of each person of training."""
    seconds: float = 60.0
    """Length of each recording, s."""
    kinds: tuple[str, ...] = ("discrete", "continuous")
    """Kinds of reference that each person's recordings take in turn; name one twice to have more of it."""
    assignment: str = "permuted"
    """How templates are given to fingers: permuted, or projected, which also asks for half-flexed fingers."""
    reference_seed: int = 1000
    """Seed of the first reference of training; validation and test begin as far into their own seeds."""
    conditions: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Conditions that may be drawn, each with its smallest and largest strength: fatigue 0.2 1.0 ecg 0.5 1.0."""
    healthy: float = 0.5
    """Probability of drawing none of them. Otherwise one is drawn for each recording, and one of the motor units
    (ageing, als, stroke) for people who are recorded together."""
    redon: bool = False
    """Whether the armband is put on anew for every shard, a little elsewhere (then MUAPs are computed for every shard)."""
    posture: bool = False
    """Whether posture moves muscles under the electrodes."""
    force: Force = "direct"
    """Where the forearm muscles' activation comes from: excitation (direct) or discharges (twitch)."""
    together: int = 8
    """Most participants stepped together: the recordings of a shard."""
    engine: str = "mujoco"
    """Who integrates the physics: mujoco, mjx or warp."""
    control_hz: float = 50.0
    """Control steps per second."""
    anatomy: EmgConfig = field(default_factory=EmgConfig)
    """Physiology where the population does not draw it; its seed is the person's."""

    @property
    def steps(self) -> int:
        """Control steps of a recording."""
        return round(self.seconds * self.control_hz)

    def __post_init__(self) -> None:
        """Refuses what cannot be recorded, by MyoloopError."""
        band = armband(self.armband)
        for name in ("people", "recordings", "together"):
            if getattr(self, name) < 1:
                raise MyoloopError(f"dataset: {name} is {getattr(self, name)}; expected 1 or more.")
        for name in ("validation_people", "validation_recordings", "test_people", "test_recordings"):
            if getattr(self, name) < 0:
                raise MyoloopError(f"dataset: {name} is {getattr(self, name)}; expected 0 or more.")
        for name in ("seed", "reference_seed"):
            if not 0 <= getattr(self, name) < _MOST_SEEDS:
                raise MyoloopError(f"dataset: {name} is {getattr(self, name)}; expected 0 to {_MOST_SEEDS - 1}.")
        if not self.kinds:
            raise MyoloopError(f"dataset: no kinds of reference; name one or more of {', '.join(KINDS)}.")
        for kind in self.kinds:
            if kind not in KINDS:
                raise unknown_name("reference kind", kind, KINDS, "dataset")
        if self.assignment not in ASSIGNMENTS:
            raise unknown_name("reference assignment", self.assignment, ASSIGNMENTS, "dataset")
        if not 0.0 <= self.healthy <= 1.0:
            raise MyoloopError(f"dataset: healthy is {self.healthy:g}; expected a probability, 0 to 1.")
        steps = self.seconds * self.control_hz
        if self.steps < 1 or abs(steps - self.steps) > 1e-6:
            raise MyoloopError(
                f"dataset: {self.seconds:g} s are {steps:g} control steps at {self.control_hz:g} Hz; expected a whole "
                "number, 1 or more."
            )
        for name, bounds in self.conditions.items():
            for strength in bounds:
                check_conditions({name: strength}, band.channel_labels, where="dataset, conditions")
            if len(bounds) != 2 or bounds[0] > bounds[1]:
                raise MyoloopError(
                    f"dataset, conditions: {name} has {list(bounds)}; expected its smallest and its largest strength."
                )


class Planned(NamedTuple):
    """One recording."""

    split: str
    """One of SPLITS."""
    person: Person
    """Who, and how the armband sits."""
    donning: int
    """How often this person has put the armband on anew before; 0: as the person was drawn."""
    kind: str
    """Of the reference."""
    reference_seed: int
    reference_index: int
    """Which of the references that this seed gives: the recording's place in its shard."""
    noise_seed: int
    """Of noise and discharges; no other recording of the dataset has it."""
    conditions: Mapping[str, float]
    """Name -> strength, 0..1; empty: healthy."""


class Shard(NamedTuple):
    """Recordings made together."""

    name: str
    """Of its file."""
    recordings: tuple[Planned, ...]

    @property
    def people(self) -> tuple[Person, ...]:
        """One a recording."""
        return tuple(recording.person for recording in self.recordings)

    @property
    def illness(self) -> dict[str, float]:
        """Conditions of the motor units: everybody's."""
        return {name: s for name, s in self.recordings[0].conditions.items() if name in PERSON}


class _Visit(NamedTuple):
    """People who come to be recorded once."""

    split: str
    people: tuple[Person, ...]
    kind: str
    copies: int
    """Recordings of each of them, made side by side."""


def plan(config: DatasetConfig) -> tuple[Shard, ...]:
    """All shards. Those that need the same people built follow each other.

    Raises MyoloopError: more shards than there are seeds, or `person` is among the people kept apart.
    """
    shards: list[Shard] = []
    references: Counter[int] = Counter()
    donnings: Counter[int] = Counter()
    noise = int(np.random.default_rng([config.seed, 9101]).integers(2**31))
    count = 0
    for visit in _visits(config):
        first, leader = _FIRST_SEED[visit.split], visit.people[0].config.seed
        seed = first + config.reference_seed + references[first]
        if seed - first >= _MOST_SEEDS:
            raise MyoloopError(
                f"dataset: more than {references[first]} shards of references from seed {config.reference_seed} on; record "
                "several datasets, or lower reference_seed."
            )
        illness = _drawn(config, [config.seed, 9102, leader], PERSON, within=True)
        donning = donnings[leader] if config.redon else 0
        recordings = []
        for index in range(visit.copies * len(visit.people)):
            passing = _drawn(config, [config.seed, 9103, count], PERSON, within=False)
            recordings.append(
                Planned(
                    split=visit.split,
                    person=donned(visit.people[index % len(visit.people)], donning, armband(config.armband)),
                    donning=donning,
                    kind=visit.kind,
                    reference_seed=seed,
                    reference_index=index,
                    noise_seed=(noise + count) % 2**31,
                    conditions=illness | passing,
                )
            )
            count += 1
        shards.append(Shard(f"shard-{len(shards):04d}.h5", tuple(recordings)))
        references[first] += 1
        donnings[leader] += 1
    return tuple(shards)


def people_of(config: DatasetConfig) -> dict[str, tuple[Person, ...]]:
    """The people of training, validation and test, nobody twice. More of them begin with the same ones."""
    band = armband(config.armband)

    def drawn(split: str, count: int) -> tuple[Person, ...]:
        return sample_people(_FIRST_SEED[split] + config.seed, count, band, config.anatomy) if count else ()

    one = config.person
    known = drawn("training", config.people)
    if one is not None:
        known = (Person(dataclasses.replace(config.anatomy, seed=one), band),)
    found = {
        "training": known,
        "validation": drawn("validation", config.validation_people),
        "test": drawn("test", config.test_people),
    }
    times = Counter(person.config.seed for people in found.values() for person in people)
    twice = [seed for seed, count in times.items() if count > 1]
    if twice:
        raise MyoloopError(
            f"dataset: person {twice[0]} would be recorded for more than one of training, validation and test. Choose "
            f"another {'seed' if one is None else 'person or seed'}."
        )
    return found


def donned(person: Person, donning: int, band: Armband) -> Person:
    """The person with the armband put on for the n-th time after the first: turned and moved as people.py spreads it
    between people."""
    if donning == 0:
        return person
    rng = np.random.default_rng([person.config.seed, 9104, donning])
    angle = band.first_angle_deg + float(rng.normal(0.0, ANGLE_DEG))
    level = float(np.clip(band.level + rng.normal(0.0, LEVEL), 0.0, 1.0))
    return person._replace(band=dataclasses.replace(person.band, first_angle_deg=angle, level=level))


def figures(person: Person) -> dict[str, float]:
    """What was drawn of a person, by the names of EmgConfig, Conductor and Armband."""
    config, band = person.config, person.band
    return {
        "radius_mm": band.radius_mm,
        "fat_mm": config.conductor.fat_mm,
        "first_angle_deg": band.first_angle_deg,
        "level": band.level,
        "velocity_mean": config.velocity_mean,
        "units_scale": config.units_scale,
        "zone_spread": config.zone_spread,
        "recruitment_range": config.recruitment_range,
        "last_recruited": config.last_recruited,
        "min_rate_hz": config.min_rate_hz,
    }


def attributes(planned: Planned, policy: str) -> dict[str, Any]:
    """What a shard says of a recording: RECORDING_ATTRIBUTES but for diverged. policy: who drove the muscles."""
    return {
        "split": planned.split,
        "person": planned.person.config.seed,
        **figures(planned.person),
        "donning": planned.donning,
        "conditions": json.dumps(dict(planned.conditions)),
        "kind": planned.kind,
        "reference_seed": planned.reference_seed,
        "reference_index": planned.reference_index,
        "noise_seed": planned.noise_seed,
        "policy": policy,
    }


def participant_config(config: DatasetConfig, shard: Shard) -> ParticipantConfig:
    """Who steps together in a shard, following its reference; run-time conditions are each recording's own."""
    people = shard.people
    who: dict[str, Any] = {"armband": armband(config.armband), "anatomy": config.anatomy, "people": people}
    if all(person == people[0] for person in people):  # built once
        who = {"armband": people[0].band, "anatomy": people[0].config, "person": people[0].config.seed}
    return ParticipantConfig(
        **who,
        reference=reference_config(config, shard),
        conditions=shard.illness,
        movable_band=any(name in MOVING for name in config.conditions),
        posture=config.posture,
        control_hz=config.control_hz,
        engine=config.engine,
        policy=config.policy,
        force=config.force,
    )


def reference_config(config: DatasetConfig, shard: Shard) -> ReferenceConfig:
    """The references of a shard; a held-out one cannot be recorded for training."""
    one = shard.recordings[0]
    split = "held_out" if one.split.startswith("test") else "training"
    return ReferenceConfig(one.kind, config.assignment, one.reference_seed, split)


def _visits(config: DatasetConfig) -> Iterator[_Visit]:
    people = people_of(config)
    for block in _blocks(people["training"], config.together):
        yield from _sessions(config, "training", block, config.recordings)
        if not config.validation_people:
            yield from _sessions(config, "validation", block, config.validation_recordings)
        yield from _sessions(config, "test_same_people", block, config.test_recordings)
    for split, recordings in (("validation", config.validation_recordings), ("test", config.test_recordings)):
        for block in _blocks(people[split], config.together):
            yield from _sessions(config, split, block, recordings)


def _blocks(people: tuple[Person, ...], most: int) -> list[tuple[Person, ...]]:
    """As few blocks as possible, of about one size."""
    return [tuple(people[i] for i in part) for part in _parts(len(people), most)]


def _sessions(config: DatasetConfig, split: str, people: tuple[Person, ...], recordings: int) -> Iterator[_Visit]:
    """Few people are recorded several times side by side."""
    kinds = Counter(config.kinds[n % len(config.kinds)] for n in range(recordings))
    for kind, count in kinds.items():
        for part in _parts(count, max(1, config.together // len(people))):
            yield _Visit(split, people, kind, len(part))


def _parts(count: int, most: int) -> list[np.ndarray]:
    """0..count-1 in as few parts as possible, of about one size, each at most `most`."""
    return np.array_split(np.arange(count), math.ceil(count / most)) if count else []


def _drawn(config: DatasetConfig, seed: Sequence[int], names: Sequence[str], within: bool) -> dict[str, float]:
    """One condition at a strength, or none: of those that are among `names`, or of the others."""
    known = [name for name in config.conditions if (name in names) == within]
    rng = np.random.default_rng(seed)
    if not known or rng.uniform() < config.healthy:
        return {}
    name = known[int(rng.integers(len(known)))]
    low, high = config.conditions[name]
    return {name: float(rng.uniform(low, high))}
