"""The closed loop's step, without real time: determinism, saving, batches."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from myoloop.emg.armband import armband
from myoloop.errors import MyoloopError
from myoloop.participant import Act, ParticipantConfig, Participants
from myoloop.task.reference import ReferenceConfig

STEPS = 30


def roll(people: Participants, steps: int = STEPS) -> list[Act]:
    acts = []
    for _ in range(steps):
        acts.append(people.act())
        people.move()
    return acts


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.fixture(scope="module")
def pair() -> Participants:
    return Participants(ParticipantConfig(reference=ReferenceConfig(seed=5)), participants=2, threads=1)


def test_same_seed_gives_the_same_numbers(pair: Participants) -> None:
    pair.reset([1, 2])
    first = roll(pair)
    pair.reset([1, 2])
    assert same(first, roll(pair))


def test_another_seed_gives_another_emg_of_the_same_movement(pair: Participants) -> None:
    pair.reset([1, 1])
    first = roll(pair, 5)
    pair.reset([2, 2])
    second = roll(pair, 5)
    assert not np.array_equal(first[-1].chunk, second[-1].chunk)
    assert np.array_equal(first[-1].excitation, second[-1].excitation)


def test_saved_state_goes_on_bit_for_bit(pair: Participants) -> None:
    pair.reset([1, 2])
    roll(pair, 10)
    pair.set_condition("mains_hum", 0.7)
    saved = pair.save()
    first, body = roll(pair), pair.body
    pair.set_condition("mains_hum", 0.0)
    pair.restore(saved)
    assert same(first, roll(pair)) and same(body, pair.body)


def test_participants_of_a_batch_follow_references_of_their_own(pair: Participants) -> None:
    pair.reset([1, 2])
    targets = np.stack([act.target for act in roll(pair, 60)])
    assert not np.array_equal(targets[:, 0], targets[:, 1])


def test_channel_that_loses_contact_carries_hum_instead_of_emg(pair: Participants) -> None:
    pair.reset([1, 2])
    pair.set_condition("mains_hum", 0.0)
    label = pair.config.armband.channel_labels[11]
    pair.set_condition(f"lost_contact:{label}", 1.0)
    emg = np.concatenate([act.chunk[0] for act in roll(pair, 100)])[2000:]
    pair.set_condition(f"lost_contact:{label}", 0.0)
    power = np.abs(np.fft.rfft(emg, axis=0)) ** 2  # 1 s: bins of 1 Hz
    hum = power[49:52].sum(axis=0) / power.sum(axis=0)
    assert hum[11] > 0.6 and np.delete(hum, 11).max() < 0.3


def test_armband_whose_rate_does_not_fit_the_control_rate_is_refused() -> None:
    band = armband("semg_rd16", rate_hz=1025.0)
    with pytest.raises(MyoloopError, match="samples a control step"):
        Participants(ParticipantConfig(armband=band, control_hz=50))


def test_wrong_number_of_seeds_is_refused(pair: Participants) -> None:
    with pytest.raises(MyoloopError, match="3 seeds for 2 participants"):
        pair.reset([1, 2, 3])
