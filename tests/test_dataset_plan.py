"""What a dataset will hold: who is recorded for what, drawn by seed and kept apart."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from myoloop.emg.armband import armband
from myoloop.emg.people import sample_people
from myoloop.errors import MyoloopError
from myoloop.learn.dataset_plan import SPLITS, DatasetConfig, figures, participant_config, people_of, plan
from myoloop.task.reference import split_of

CROWD = DatasetConfig(
    people=11,
    recordings=4,
    validation_people=3,
    test_people=5,
    conditions={"fatigue": (0.2, 0.4), "ecg": (1.0, 1.0), "als": (0.1, 0.9)},
)


def test_everybody_gets_the_recordings_asked_for() -> None:
    times = Counter((r.split, r.person.config.seed) for shard in plan(CROWD) for r in shard.recordings)
    people = {split: [seed for s, seed in times if s == split] for split in SPLITS}
    assert [len(people[split]) for split in SPLITS] == [11, 3, 5, 11]
    assert {n for (split, _), n in times.items() if split == "training"} == {4}
    assert {n for (split, _), n in times.items() if split != "training"} == {2}
    assert set(people["test_same_people"]) == set(people["training"])
    kinds = Counter(r.kind for shard in plan(CROWD) for r in shard.recordings)
    assert kinds["discrete"] == kinds["continuous"]
    assert all(len(shard.recordings) <= CROWD.together for shard in plan(CROWD))


def test_held_out_people_and_references_never_appear_in_training() -> None:
    people: dict[str, set[int]] = {split: set() for split in SPLITS}
    references: dict[str, set[int]] = {split: set() for split in SPLITS}
    for shard in plan(CROWD):
        for r in shard.recordings:
            people[r.split].add(r.person.config.seed)
            references[r.split].add(r.reference_seed)
            assert split_of(r.reference_seed) == ("held_out" if r.split.startswith("test") else "training")
    for other in ("validation", "test"):
        assert people["training"].isdisjoint(people[other])
    assert people["validation"].isdisjoint(people["test"])
    for one in SPLITS:
        assert all(references[one].isdisjoint(references[other]) for other in SPLITS if other != one)


def test_a_held_out_reference_cannot_be_recorded_for_training() -> None:
    shard = plan(CROWD)[0]
    odd = shard._replace(recordings=tuple(r._replace(reference_seed=1_000_001) for r in shard.recordings))
    with pytest.raises(MyoloopError, match="seed 1000001 is held_out, but split is 'training'"):
        participant_config(CROWD, odd).reference.make(len(odd.recordings))


def test_a_person_who_is_kept_for_testing_cannot_be_trained_on() -> None:
    kept = people_of(CROWD)["test"][0].config.seed
    with pytest.raises(MyoloopError, match=f"person {kept} would be recorded for more than one"):
        plan(dataclasses.replace(CROWD, person=kept))


def test_equal_settings_give_an_equal_plan_and_another_seed_other_people_and_noise() -> None:
    def drawn(config: DatasetConfig) -> set[tuple[int, int]]:
        return {(r.person.config.seed, r.noise_seed) for shard in plan(config) for r in shard.recordings}

    assert plan(CROWD) == plan(CROWD)
    assert drawn(CROWD).isdisjoint(drawn(dataclasses.replace(CROWD, seed=1)))
    noise = [r.noise_seed for shard in plan(CROWD) for r in shard.recordings]
    assert len(set(noise)) == len(noise)
    more = people_of(dataclasses.replace(CROWD, people=20))["training"]
    assert more[:11] == people_of(CROWD)["training"] == sample_people(0, 11)


def test_conditions_are_drawn_from_the_list_within_their_strengths() -> None:
    shards = plan(dataclasses.replace(CROWD, people=64, healthy=0.4))
    found = [r.conditions for shard in shards for r in shard.recordings]
    assert {name for one in found for name in one} == set(CROWD.conditions)
    for name, (low, high) in CROWD.conditions.items():
        strengths = [one[name] for one in found if name in one]
        assert min(strengths) >= low and max(strengths) <= high
    passing = [sum(name != "als" for name in one) for one in found]
    assert max(passing) == 1 and sum(passing) / len(passing) == pytest.approx(0.6, abs=0.1)
    ill = {r.person.config.seed: r.conditions.get("als") for shard in shards for r in shard.recordings}
    for shard in shards:  # who is ill stays so
        assert all(r.conditions.get("als") == ill[r.person.config.seed] for r in shard.recordings)
    healthy = plan(dataclasses.replace(CROWD, healthy=1.0))
    assert not any(r.conditions for shard in healthy for r in shard.recordings)


def test_one_person_is_recorded_side_by_side_and_built_once() -> None:
    one = DatasetConfig(person=0, recordings=13, validation_people=0, test_people=0, kinds=("discrete",))
    shards = plan(one)
    assert [len(s.recordings) for s in shards if s.recordings[0].split == "training"] == [7, 6]
    config = participant_config(one, shards[0])
    assert config.people == () and config.person == 0 and config.armband == armband("semg_rd16")
    assert {s.recordings[0].split for s in shards} == {"training", "validation", "test_same_people"}


def test_an_armband_put_on_anew_sits_elsewhere_on_the_same_forearm() -> None:
    shards = plan(dataclasses.replace(CROWD, redon=True))
    worn: dict[int, list[dict[str, float]]] = {}
    for shard in shards:
        for r in shard.recordings:
            worn.setdefault(r.person.config.seed, []).append({"donning": r.donning, **figures(r.person)})
    for sittings in worn.values():
        assert len({s["first_angle_deg"] for s in sittings}) == len({s["donning"] for s in sittings}) > 1
        assert len({s["radius_mm"] for s in sittings}) == 1
    assert all(r.donning == 0 for shard in plan(CROWD) for r in shard.recordings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"armband": "myo9"}, "Did you mean 'myo8'"),
        ({"people": 0}, "people is 0; expected 1 or more"),
        ({"kinds": ("discret",)}, "Did you mean 'discrete'"),
        ({"kinds": ()}, "no kinds"),
        ({"seconds": 0.01}, "0.5 control steps"),
        ({"conditions": {"fatig": (0.0, 1.0)}}, "Did you mean 'fatigue'"),
        ({"conditions": {"fatigue": (0.0, 2.0)}}, "strength of fatigue is 2: expected 0 to 1"),
        ({"conditions": {"fatigue": (0.9, 0.1)}}, "its smallest and its largest strength"),
        ({"healthy": 2.0}, "expected a probability"),
        ({"reference_seed": 100_000}, "expected 0 to 99999"),
        ({"test_people": -1}, "expected 0 or more"),
        ({"assignment": "shuffled"}, "unknown reference assignment"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(MyoloopError, match=message):
        DatasetConfig(**settings)


def test_more_shards_than_seeds_are_refused() -> None:
    with pytest.raises(MyoloopError, match="lower reference_seed"):
        plan(DatasetConfig(reference_seed=99_998))
