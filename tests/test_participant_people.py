"""Who takes part: populations, conditions, movable armbands and posture, in the closed loop's step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from myoloop.emg.armband import armband
from myoloop.emg.conductor import Conductor
from myoloop.emg.config import EmgConfig
from myoloop.emg.people import sample_people
from myoloop.emg.rate_laws import NEVER
from myoloop.errors import MyoloopError
from myoloop.experiment import load_experiment
from myoloop.live.person import participant_config
from myoloop.participant import Act, ParticipantConfig, Participants

QUICK = EmgConfig(units_scale=0.05, conductor=Conductor(kind="half_space"))
SILENT = armband("semg_rd16", noise_uv=0.0)


def roll(people: Participants, steps: int) -> list[Act]:
    acts = []
    for _ in range(steps):
        acts.append(people.act())
        people.move()
    return acts


def chunks(acts: list[Act]) -> np.ndarray:
    return np.concatenate([act.chunk for act in acts], axis=1)


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_a_population_in_one_line_is_reproducible_and_everybody_differs() -> None:
    config = ParticipantConfig(armband=SILENT, anatomy=QUICK)
    crowd = Participants.sample(seed=3, participants=3, config=config, threads=1)
    drawn = sample_people(3, 3, SILENT, QUICK)
    assert crowd.config.people == drawn and sample_people(3, 2, SILENT, QUICK) == drawn[:2]
    assert len({p.band.radius_mm for p in drawn}) == 3
    crowd.reset([5, 5, 5])
    emg = chunks(roll(crowd, 25))
    rms = emg.std(axis=1)
    assert (rms > 0).any() and not np.allclose(rms[0], rms[1], rtol=0.2)
    with pytest.raises(MyoloopError, match="3 people for 2 participants"):
        Participants(ParticipantConfig(people=drawn), participants=2)


def test_conditions_are_there_from_the_start_and_told() -> None:
    config = ParticipantConfig(armband=SILENT, anatomy=QUICK, conditions={"ageing": 1.0, "mains_hum": 1.0, "als": 0.0})
    ill = Participants(config, threads=1)
    assert ill.conditions == {"ageing": 1.0, "mains_hum": 1.0}
    lost = (np.asarray(ill.emg_params.pool.threshold) >= NEVER).mean()
    assert lost == pytest.approx(0.4, abs=0.1)
    emg = chunks(roll(ill, 25))[0]
    power = np.abs(np.fft.rfft(emg[:1000], axis=0)) ** 2
    assert (power[25] > 0.3 * power.sum(axis=0)).any()  # 50 Hz
    ill.set_condition("mains_hum", 0.0)
    assert ill.conditions == {"ageing": 1.0}
    with pytest.raises(MyoloopError, match="Did you mean 'ageing'"):
        ParticipantConfig(conditions={"aging": 1.0})
    with pytest.raises(MyoloopError, match="movable_band: true"):
        ParticipantConfig(conditions={"rotation": 1.0})


def test_an_armband_moves_during_a_run_and_posture_shows_in_the_signal() -> None:
    config = ParticipantConfig(armband=SILENT, anatomy=QUICK, posture=True)
    still = Participants(ParticipantConfig(armband=SILENT, anatomy=QUICK), threads=1)
    people = Participants(config, threads=1)
    for each in (still, people):
        each.set_target(np.ones(5))
    first, flexed = (chunks(roll(each, 40))[0] for each in (still, people))
    np.testing.assert_allclose(first[:40], flexed[:40], atol=1e-3)  # at the neutral posture
    late = slice(1000, None)
    assert 0.05 < (flexed - first)[late].std() / first[late].std() < 1.0
    saved = people.save()
    people.set_condition("displacement", 1.0)
    people.set_condition("rotation", 0.5)
    moved = chunks(roll(people, 5))
    people.restore(saved)
    stays = chunks(roll(people, 5))
    assert (moved - stays).std() > 0.3 * stays.std()
    people.restore(saved)
    assert same(stays, chunks(roll(people, 5))) and people.conditions == {}
    with pytest.raises(MyoloopError, match="rotation: this armband stays where it is"):
        still.set_condition("rotation", 0.5)


def test_an_experiment_describes_the_participant_that_runs(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "participant: {person: 12, sample: true, anatomy: {law: deluca}, conductor: {skin: 0.01}, "
        "conditions: {stroke: 0.5}, posture: true, force: twitch, armband: {preset: myo8, level: 0.4}}"
    )
    config = participant_config(load_experiment(tmp_path / "mine.yaml"))
    (person,) = config.people
    assert person.config.seed == 12 and person.config.law == "deluca" and person.config.conductor.skin == 0.01
    assert person.band.name == "myo8" and person.band.level != 0.4 and person.band.radius_mm != 42.0
    assert config.conditions == {"stroke": 0.5} and config.posture and config.force == "twitch"
