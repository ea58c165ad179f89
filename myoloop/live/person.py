"""From an experiment's description of its participant to the library's."""

from __future__ import annotations

import dataclasses

from myoloop.emg.armband import armband_from
from myoloop.emg.conductor import conductor_from
from myoloop.emg.config import config_from
from myoloop.emg.people import Person, sample_people, sample_person
from myoloop.experiment import Experiment
from myoloop.live.link import lag_s
from myoloop.participant import ParticipantConfig
from myoloop.policy.exploration import Exploration
from myoloop.population_settings import PopulationSettings
from myoloop.sections import ReferenceSettings
from myoloop.task.prompts import PromptsConfig
from myoloop.task.recorded import RecordedConfig
from myoloop.task.reference import PlayableConfig, ReferenceConfig


def participant_config(experiment: Experiment) -> ParticipantConfig:
    """What an experiment says of its participant, as the library takes it."""
    me = experiment.participant
    band, anatomy = armband_from(me.armband), config_from(me.anatomy)
    if me.conductor:
        anatomy = dataclasses.replace(anatomy, conductor=conductor_from(me.conductor))
    return ParticipantConfig(
        armband=band,
        reference=reference_config(me.reference),
        policy=me.policy,
        engine=me.engine,
        person=me.person,
        anatomy=anatomy,
        people=(sample_person(me.person, band, anatomy),) if me.sample else (),
        conditions=me.conditions,
        movable_band=me.movable_band,
        posture=me.posture,
        control_hz=me.control_hz,
        force=me.force,
        exploration=_exploration(experiment),
        lag_s=lag_s(experiment.link, me.control_hz),
    )


def population_config(experiment: Experiment) -> ParticipantConfig:
    """The same for the population: `participant`, but for who the people are."""
    settings = experiment.population
    assert settings is not None
    config = participant_config(
        experiment.model_copy(update={"participant": experiment.participant.model_copy(update={"sample": False})})
    )
    people = _people(settings, config)
    own = tuple(each.conditions for each in settings.persons)
    return dataclasses.replace(config, people=people, own_conditions=own, alike=settings.motion == "same")


def _people(settings: PopulationSettings, config: ParticipantConfig) -> tuple[Person, ...]:
    if settings.persons:
        return tuple(sample_person(each.person, config.armband, config.anatomy) for each in settings.persons)
    return sample_people(settings.seed, settings.count, config.armband, config.anatomy)


def _exploration(experiment: Experiment) -> Exploration | None:
    me = experiment.participant
    deviation = me.adapt.exploration if me.adapt else me.exploration
    return Exploration(deviation, seed=experiment.seed) if me.adapt or deviation else None


def reference_config(settings: ReferenceSettings) -> PlayableConfig:
    """The motion that an experiment file describes."""
    if settings.kind == "prompts":
        return PromptsConfig(
            settings.gestures, settings.repetitions, settings.hold_s, settings.rest_s, seed=settings.seed
        )
    if settings.path is not None:
        return RecordedConfig(settings.path, settings.at_end, settings.seed, settings.clip_deg)
    return ReferenceConfig(kind=settings.kind, seed=settings.seed)
