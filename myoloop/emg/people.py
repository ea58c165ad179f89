"""A population: people drawn from published ranges, each by a seed, and put side by side in one batch.

params = build_person(sample_person(7))
crowd = build_people(sample_people(seed=1, count=16))      # stacked: the 16 participants of a batch
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from myoloop.emg.anatomy import DEEPEST_MM
from myoloop.emg.armband import Armband, armband
from myoloop.emg.conditions import apply_conditions
from myoloop.emg.config import EmgConfig
from myoloop.emg.params import EmgParams, build_emg, stack_params
from myoloop.emg.person_seeds import person_seeds
from myoloop.emg.placement import Moves

RADIUS_MM = (42.0, 3.5, 34.0, 52.0)  # forearm (circumference 264 +- 22 mm, both sexes; from memory of ANSUR 1988)
FAT_MM = (3.5, 1.5, 1.0, 9.0)  # forearm subcutaneous fat (estimate: 2-6 mm; Kuiken et al. 2003 take 3-18)
VELOCITY = (4.0, 0.2, 3.4, 4.6)  # a person's mean conduction velocity, m/s (spread between people: estimate)
UNITS_SCALE = (0.7, 1.0)  # part of the table's counts (MUNE varies by 30 % between healthy people; estimate)
ZONE_SPREAD = (0.05, 0.15)  # of the fibre length (around 0.1; estimate)
RECRUITMENT_RANGE = (30.0, 50.0)  # RR (Fuglevand et al. 1993)
LAST_RECRUITED = (0.6, 0.75)  # of the maximal excitation (Fuglevand et al. 1993, De Luca & Hostage 2010)
MIN_RATE_HZ = (6.0, 10.0)  # at recruitment (Fuglevand et al. 1993: 8; Enoka & Duchateau 2017: 5-10)
ANGLE_DEG = 8.0  # standard deviation of donning, about 6 mm of arc (Young et al. 2011 try 10 mm; estimate)
LEVEL = 0.03  # standard deviation of the place along the forearm, 7 mm (same)


class Person(NamedTuple):
    """One person and how the armband sits."""

    config: EmgConfig
    """Physiology; its seed places the units and end plates."""
    band: Armband
    """The armband on this forearm: radius, level, first angle."""


def sample_person(seed: int, band: Armband | None = None, config: EmgConfig | None = None) -> Person:
    """The person of this seed: forearm radius, fat, unit counts, conduction velocity, innervation zones, recruitment,
    placement. Same seed, same person. What the ranges do not name is as in `band` (semg_rd16) and `config`."""
    rng = np.random.default_rng([seed, 9001])
    band, config = band or armband("semg_rd16"), config or EmgConfig()

    def normal(mean: float, sd: float, low: float, high: float) -> float:
        return float(np.clip(rng.normal(mean, sd), low, high))

    radius = max(normal(*RADIUS_MM), DEEPEST_MM + 1.0)
    conductor = dataclasses.replace(config.conductor, fat_mm=normal(*FAT_MM))
    drawn = {
        "velocity_mean": normal(*VELOCITY),
        "units_scale": config.units_scale * float(rng.uniform(*UNITS_SCALE)),
        "zone_spread": float(rng.uniform(*ZONE_SPREAD)),
        "recruitment_range": float(rng.uniform(*RECRUITMENT_RANGE)),
        "last_recruited": float(rng.uniform(*LAST_RECRUITED)),
        "min_rate_hz": float(rng.uniform(*MIN_RATE_HZ)),
    }
    person = dataclasses.replace(config, seed=seed, conductor=conductor, **drawn)  # type: ignore[arg-type]
    worn = dataclasses.replace(
        band,
        radius_mm=radius,
        first_angle_deg=band.first_angle_deg + float(rng.normal(0.0, ANGLE_DEG)),
        level=float(np.clip(band.level + rng.normal(0.0, LEVEL), 0.0, 1.0)),
    )
    return Person(person, worn)


def sample_people(
    seed: int, count: int, band: Armband | None = None, config: EmgConfig | None = None
) -> tuple[Person, ...]:
    """A population: `count` people, the same for the same seed. More of them begin with the same ones."""
    return tuple(sample_person(each, band, config) for each in person_seeds(seed, count))


def build_person(
    person: Person, conditions: Mapping[str, float] | None = None, moves: Moves | None = None
) -> EmgParams:
    """The person's units and MUAPs, with conditions of the motor units (conditions.py); moves: see build_emg."""
    return apply_conditions(build_emg(person.band, person.config, moves), conditions or {})


def build_people(
    people: Sequence[Person],
    conditions: Mapping[str, float] | Sequence[Mapping[str, float]] | None = None,
    moves: Moves | None = None,
    on_person: Callable[[int], None] = lambda built: None,
) -> EmgParams:
    """These people side by side in one batch: `build_people(sample_people(seed=1, count=16))`; conditions: of all, or one
    mapping each; on_person: called with how many are built."""
    each = [conditions or {}] * len(people) if conditions is None or isinstance(conditions, Mapping) else conditions
    built = []
    for person, ill in zip(people, each, strict=True):
        built.append(build_person(person, ill, moves))
        on_person(len(built))
    return stack_params(built)
