"""Promises of the streaming synthesis: the same for any chunking, batching and restart; amplitudes; bad input."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from myoloop.body.names import FOREARM_MUSCLES, MUSCLES
from myoloop.emg import lowrank, motor_units
from myoloop.emg import volume_conductor as vc
from myoloop.emg.armband import armband
from myoloop.emg.config import EmgConfig
from myoloop.emg.synthesis import Circumstances, build_emg, discharges, init_emg, stack_params, synthesise
from myoloop.errors import MyoloopError

SMALL = EmgConfig(units_scale=0.1)
CHUNKS = {"semg_rd16": (7, 55), "myo8": (1, 7)}  # each size is compiled anew: within a block, and across blocks
TOTAL = {"semg_rd16": 220, "myo8": 40}


@pytest.fixture(scope="module", params=["semg_rd16", "myo8"])
def small(request):
    params = build_emg(armband(request.param), SMALL)
    excitation = np.random.default_rng(0).uniform(0, 1, (2, 39))
    start = init_emg(params, [11, 12])
    whole, end = synthesise(params, start, excitation, TOTAL[request.param])
    return request.param, params, excitation, start, whole, end


@pytest.fixture(scope="module")
def person():
    return build_emg(armband("semg_rd16"), EmgConfig())


def six(params, rows):
    """(6, samples, C): two seconds at each row of excitations of the forearm, the first 0.2 s cut; compiled once."""
    out, _ = synthesise(params, init_emg(params, [3] * 6), rows, 4000)
    return np.asarray(out.chunk)[:, 400:]


@pytest.fixture(scope="module")
def together(person):
    """All muscles at 0.1, 0.5 and 1 of their excitation."""
    return six(person, np.repeat([0.1, 0.5, 1.0, 0.0, 0.0, 0.0], 26).reshape(6, 26))


def make(params, excitation, seconds=2.0, seed=3, circumstances=None):
    """One participant's chunk (samples, C) at constant excitation, the first 0.2 s cut."""
    row = np.zeros((1, 39))
    row[0, :26] = excitation
    samples = round(seconds * params.band.rate_hz)
    out, _ = synthesise(params, init_emg(params, [seed]), row, samples, circumstances)
    return np.asarray(out.chunk[0])[round(0.2 * params.band.rate_hz) :]


def equal_trees(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_any_chunking_gives_the_same_discharges_and_signal(small, data):
    name, params, excitation, state, whole, _ = small
    chunks, spikes, done = [], [], 0
    while True:
        samples = data.draw(st.sampled_from(CHUNKS[name]))
        if done + samples > TOTAL[name]:
            break
        out, state = synthesise(params, state, excitation, samples)
        chunks.append(np.asarray(out.chunk))
        spikes.append(discharges(params, out.spikes, 1))
        done += samples
    got, want = np.concatenate(chunks, axis=1), np.asarray(whole.chunk)[:, :done]
    if name == "myo8":  # a value half-way between counts may round either way
        assert (np.abs(got - want) <= params.band.lsb_uv * 1.001).all()
        assert (got != want).mean() < 0.01
    else:
        assert np.abs(got - want).max() <= 1e-4 * want.std()
    every = discharges(params, whole.spikes, 1)
    before = every.sample < done * params.band.decimation
    wanted = set(zip(every.unit[before].tolist(), every.sample[before].tolist(), strict=True))
    had = {(int(u), int(t)) for s in spikes for u, t in zip(s.unit, s.sample, strict=True)}
    assert had == wanted and len(wanted) > 100


def test_same_seed_same_numbers_and_other_seed_other_numbers(small):
    name, params, excitation, _, whole, _ = small
    again, _ = synthesise(params, init_emg(params, [11, 12]), excitation, TOTAL[name])
    assert equal_trees(again, whole)
    other, _ = synthesise(params, init_emg(params, [13, 12]), excitation, TOTAL[name])
    assert not np.array_equal(other.chunk[0], whole.chunk[0]) and np.array_equal(other.chunk[1], whole.chunk[1])
    rebuilt = build_emg(params.band, SMALL)
    assert equal_trees(rebuilt, params)
    other_person = build_emg(params.band, EmgConfig(units_scale=0.1, seed=1))
    assert not np.array_equal(other_person.coefficients[:, 0], params.coefficients[:, 0])


@pytest.mark.parametrize("small", ["semg_rd16"], indirect=True)
def test_batch_equals_single_participants(small):
    name, params, excitation, _, whole, _ = small
    for b, seed in enumerate((11, 12)):
        alone, _ = synthesise(params, init_emg(params, seed), excitation[b : b + 1], TOTAL[name])
        np.testing.assert_allclose(alone.chunk[0], whole.chunk[b], atol=1e-4 * np.std(whole.chunk) + params.band.lsb_uv)
        assert np.array_equal(alone.spikes.when[0], whole.spikes.when[b])


def test_saved_state_goes_on_bit_for_bit(small):
    _, params, excitation, _, _, end = small
    saved = [np.asarray(leaf).copy() for leaf in jax.tree.leaves(end)]
    restored = jax.tree.unflatten(jax.tree.structure(end), saved)
    assert equal_trees(synthesise(params, end, excitation, 7), synthesise(params, restored, excitation, 7))


def test_myo8_chunk_is_whole_signed_8_bit_counts_at_200_hz():
    params = build_emg(armband("myo8"), SMALL)
    chunk = make(params, 1.0)
    assert params.band.rate_hz == 200 and params.band.internal_rate_hz == 2000 and chunk.shape == (360, 8)
    counts = chunk / params.band.lsb_uv
    assert np.array_equal(counts, np.round(counts)) and counts.min() >= -128 and counts.max() <= 127
    loud = build_emg(armband("myo8", lsb_uv=0.5), SMALL)
    clipped = make(loud, 1.0) / 0.5
    assert clipped.min() == -128 and clipped.max() == 127


def test_different_people_side_by_side_equal_each_alone():
    scales = {0: 0.1, 5: 0.12}  # so that the smaller pool is filled up with silent units
    people = [build_emg(armband("semg_rd16"), EmgConfig(units_scale=u, seed=s)) for s, u in scales.items()]
    excitation = np.full((2, 26), 0.4)
    both = stack_params(people)
    out, _ = synthesise(both, init_emg(both, [4, 4]), excitation, 80)
    for n, person in enumerate(people):
        alone, _ = synthesise(person, init_emg(person, [4]), excitation[:1], 80)
        assert np.abs(out.chunk[n] - alone.chunk[0]).max() < 1e-4 * np.std(alone.chunk)
    assert not np.allclose(out.chunk[0], out.chunk[1])


def test_amplitudes_lie_in_the_published_windows(together):
    rms = together.std(axis=1)
    assert 10 <= np.median(rms[0]) <= 50  # uV at 10 % MVC
    assert 100 <= np.median(rms[2]) <= 500  # uV at MVC


def test_median_frequency_is_that_of_surface_emg(together):
    hertz, power = signal.welch(together[1], 2000, nperseg=1024, axis=0)
    share = np.cumsum(power, axis=0) / power.sum(axis=0)
    median = hertz[np.argmax(share >= 0.5, axis=0)]
    assert 60 <= np.median(median) <= 150
    assert (power[(hertz > 20) & (hertz < 450)].sum(0) / power.sum(0)).min() > 0.9


@pytest.mark.parametrize("noise", [2.5, 8.0])
def test_noise_floor_at_rest_is_the_one_asked(noise):
    params = build_emg(armband("semg_rd16", noise_uv=noise), SMALL)
    rest = make(params, 0.0)
    assert rest.std(axis=0) == pytest.approx(noise, rel=0.1)
    assert rest.std() == pytest.approx(noise, rel=0.02)
    assert np.abs(np.corrcoef(rest.T) - np.eye(16)).max() < 0.15


@pytest.mark.parametrize("small", ["semg_rd16"], indirect=True)
def test_intrinsic_hand_muscles_are_silent_at_the_forearm(small):
    name, person, *_ = small
    excitation = np.zeros((1, len(MUSCLES)))
    excitation[0, len(FOREARM_MUSCLES) :] = 1.0
    both = np.concatenate([excitation, 0 * excitation])
    out, _ = synthesise(person, init_emg(person, [3, 3]), both, TOTAL[name])
    np.testing.assert_array_equal(out.chunk[0], out.chunk[1])
    assert discharges(person, out.spikes).unit.size == 0


def test_each_superficial_muscle_shows_most_under_its_own_electrode(person):
    muscles = {"ECU": -143, "FCR": 80, "FCU": 159, "ECRL": -48, "EDC3": -96, "PL": 100}
    rows = np.zeros((6, 26))
    rows[range(6), [FOREARM_MUSCLES.index(name) for name in muscles]] = 0.5
    for rms, (name, angle) in zip(six(person, rows).std(axis=1), muscles.items(), strict=True):
        loudest = person.band.angles_deg[int(np.argmax(rms))]
        assert abs((loudest - angle + 180) % 360 - 180) <= 22.5, name


def test_emg_grows_with_excitation_of_one_muscle(person):
    row = np.zeros((6, 26))
    row[:, FOREARM_MUSCLES.index("FCR")] = [0.0, 0.05, 0.1, 0.3, 0.6, 1.0]
    assert (np.diff(six(person, row).std(axis=1).max(axis=1)) > 0).all()


def test_low_rank_error_is_below_3_percent_and_as_reported():
    band, config = armband("semg_rd16"), EmgConfig(units_scale=0.2)
    pool = motor_units.build_pool(config)
    waveform = vc.compute_muaps(vc.place_units(pool, config, band.radius_mm), band).waveform
    low = lowrank.decompose(waveform, config.lowrank_error)
    units, channels, length = waveform.shape
    again = low.coefficients.reshape(units, channels, -1) @ low.shapes.T
    error = np.sqrt(((again - waveform) ** 2).sum() / (waveform**2).sum())
    assert error == pytest.approx(low.error, rel=0.01) and error <= 0.03
    assert low.shapes.shape[1] < length / 2


def test_signal_is_the_sum_of_the_units_muaps_at_their_discharges():
    # Directly: filter the sum of full MUAPs placed at the discharges that the stream reports.
    band, config = armband("semg_rd16", noise_uv=0.0), EmgConfig(units_scale=0.1, lowrank_error=0.001)
    params = build_emg(band, config)
    pool = motor_units.build_pool(config)
    waveform = vc.compute_muaps(vc.place_units(pool, config, band.radius_mm), band).waveform
    out, _ = synthesise(params, init_emg(params, [8]), np.full((1, 26), 0.3), 1000)
    raw = np.zeros((1000 + waveform.shape[2], 16))
    for unit, t in zip(*discharges(params, out.spikes)[::2], strict=True):
        raw[t : t + waveform.shape[2]] += waveform[unit].T
    sos = signal.butter(2, [20, 850], "bandpass", fs=2000, output="sos")
    expected = signal.sosfilt(sos, raw[:1000], axis=0)
    error = np.asarray(out.chunk[0]) - expected
    assert np.sqrt((error**2).mean()) < 0.003 * expected.std()


def test_lost_contact_silences_a_channel_and_lets_noise_and_hum_in():
    params = build_emg(armband("semg_rd16"), SMALL)
    contact = np.ones((1, 16), np.float32)
    contact[0, 4] = 0.0
    lost = Circumstances(np.zeros(1, np.float32), contact)
    rest = make(params, 0.0, circumstances=lost)
    assert rest[:, 4].std() > 20 and np.delete(rest, 4, axis=1).std() < 3
    loud, same = make(params, 0.8, circumstances=lost), make(params, 0.8)
    np.testing.assert_allclose(loud[:, 4], rest[:, 4], atol=1e-2)
    np.testing.assert_array_equal(np.delete(loud, 4, axis=1), np.delete(same, 4, axis=1))


def test_mains_hum_has_its_frequency_and_strength():
    params = build_emg(armband("semg_rd16", noise_uv=0.0), EmgConfig(units_scale=0.1, mains_hz=60.0))
    hum = make(params, 0.0, circumstances=Circumstances(np.full(1, 20.0, np.float32), np.ones((1, 16), np.float32)))
    hertz = np.fft.rfftfreq(hum.shape[0], 1 / 2000)
    assert hertz[np.argmax(np.abs(np.fft.rfft(hum[:, 0])))] == pytest.approx(60.0, abs=0.5)
    assert np.mean(hum.std(axis=0)) == pytest.approx(20.0, rel=0.25)


@pytest.mark.parametrize(
    ("value", "words"), [(1.2, "1.2"), (-0.1, "-0.1"), (float("nan"), "nan"), (float("inf"), "inf")]
)
def test_excitation_outside_0_to_1_is_refused_by_muscle(value, words):
    params = build_emg(armband("semg_rd16"), SMALL)
    excitation = np.zeros((2, 39))
    excitation[1, MUSCLES.index("FPL")] = value
    with pytest.raises(MyoloopError, match=rf"FPL \(participant 1\) is {words}; expected 0 to 1"):
        synthesise(params, init_emg(params, [1, 2]), excitation, 40)


def test_wrong_shapes_are_refused_with_what_was_expected():
    params = build_emg(armband("semg_rd16"), SMALL)
    state = init_emg(params, [1, 2])
    with pytest.raises(MyoloopError, match=r"\(2, 38\); expected \(2, 39\)"):
        synthesise(params, state, np.zeros((2, 38)), 40)
    with pytest.raises(MyoloopError, match=r"\(3, 39\); expected \(2, 39\)"):
        synthesise(params, state, np.zeros((3, 39)), 40)
    with pytest.raises(MyoloopError, match="whole number"):
        synthesise(params, state, np.zeros((2, 39)), 0)


def test_inside_jit_bad_excitation_is_clipped():
    params = build_emg(armband("semg_rd16"), SMALL)
    state = init_emg(params, [1])
    step = jax.jit(lambda e: synthesise(params, state, e, 40)[0].chunk)
    bad = np.full((1, 39), np.nan, np.float32)
    bad[:, ::2] = 7.0
    good = np.where(np.isnan(bad), 0.0, 1.0).astype(np.float32)
    np.testing.assert_array_equal(step(bad), step(good))
    assert np.isfinite(step(bad)).all()
