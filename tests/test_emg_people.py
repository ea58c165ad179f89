"""A population: reproducible, within its ranges, different people side by side; ground truth adds up to the recording."""

from __future__ import annotations

import numpy as np
import pytest

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg import ground_truth, people
from myoloop.emg.armband import armband
from myoloop.emg.conductor import Conductor
from myoloop.emg.config import EmgConfig
from myoloop.emg.synthesis import build_emg, discharges, healthy, init_emg, stack_params, synthesise
from myoloop.errors import MyoloopError

QUICK = EmgConfig(units_scale=0.15, conductor=Conductor(kind="half_space"))
SILENT = armband("semg_rd16", noise_uv=0.0)


def test_same_seed_same_person_and_seeds_differ():
    assert people.sample_person(3) == people.sample_person(3)
    drawn = [people.sample_person(s) for s in range(200)]
    radius = np.array([p.band.radius_mm for p in drawn])
    velocity = np.array([p.config.velocity_mean for p in drawn])
    fat = np.array([p.config.conductor.fat_mm for p in drawn])
    assert radius.mean() == pytest.approx(42.0, abs=1.0) and radius.std() == pytest.approx(3.5, abs=0.6)
    assert velocity.min() >= 3.4 and velocity.max() <= 4.6 and velocity.std() > 0.1
    assert fat.min() >= 1.0 and fat.max() <= 9.0
    angle = np.array([p.band.first_angle_deg for p in drawn])
    assert angle.std() == pytest.approx(people.ANGLE_DEG, rel=0.2)


def test_a_population_in_one_batch_is_each_persons_own_signal():
    crowd = people.build_people([people.sample_person(s, SILENT, QUICK) for s in (1, 2, 3)])
    assert crowd.coefficients.shape[0] == 3
    start = init_emg(crowd, [5, 6, 7])
    out, _ = synthesise(crowd, start, np.full((3, 26), 0.4), 400)
    for b, seed in enumerate((1, 2, 3)):
        alone = people.build_person(people.sample_person(seed, SILENT, QUICK))
        spikes = discharges(crowd, out.spikes, b)
        own = np.bincount(np.asarray(alone.muscle), minlength=26)
        place = np.concatenate([np.arange(n) for n in np.bincount(np.asarray(crowd.muscle), minlength=26)])
        assert (place[spikes.unit] < own[spikes.muscle]).all()  # nobody has a discharge of a unit he does not have
        first = np.concatenate([[0], np.cumsum(own)[:-1]])
        parts = ground_truth.muscle_signals(alone, first[spikes.muscle] + place[spikes.unit], spikes.sample, 400)
        expected = ground_truth.amplified(alone, parts.sum(axis=0)).T
        error = np.asarray(out.chunk[b]) - expected
        assert error.std() < 1e-4 * expected.std()
    assert not np.allclose(out.chunk[0], out.chunk[1], rtol=0.1)


def test_people_with_other_devices_or_noise_laws_do_not_share_a_batch():
    one = build_emg(SILENT, QUICK)
    with pytest.raises(MyoloopError, match="same armband model"):
        stack_params([one, build_emg(armband("semg_rd16", spacing_mm=10.0), QUICK)])
    other = EmgConfig(units_scale=0.15, conductor=Conductor(kind="half_space"), isi_cov=0.1)
    with pytest.raises(MyoloopError, match="isi_cov"):
        stack_params([one, build_emg(SILENT, other)])


@pytest.mark.parametrize("fatigue", [0.0, 0.7])
def test_muscle_signals_add_up_to_the_recording_and_float32_suffices(fatigue):
    params = build_emg(SILENT, QUICK)
    row = np.random.default_rng(0).uniform(0, 0.6, (1, 26))
    state, chunks, units, samples = init_emg(params, [8]), [], [], []
    now = healthy(params, 1)._replace(fatigue=np.full(1, fatigue, np.float32))
    for n in (55, 945):
        out, state = synthesise(params, state, row, n, now)
        chunks.append(np.asarray(out.chunk[0]))
        spikes = discharges(params, out.spikes)
        units.append(spikes.unit)
        samples.append(spikes.sample)
    waves = ground_truth.muaps(params, fatigue=fatigue)
    parts = ground_truth.muscle_signals(params, np.concatenate(units), np.concatenate(samples), 1000, waves)
    assert parts.shape == (len(FOREARM_MUSCLES), 16, 1000)
    reference = ground_truth.amplified(params, parts.sum(axis=0)).T  # float64 from the discharges on
    error = np.concatenate(chunks) - reference
    assert np.abs(error).max() < 1e-4 * reference.std()
    loudest = FOREARM_MUSCLES.index("FCU")
    assert np.abs(parts[loudest]).max() > 0
