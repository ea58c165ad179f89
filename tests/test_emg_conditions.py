"""Each condition shows its clinical signature; strengths compose; unknown names and strengths are refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from myoloop.body.names import FOREARM_MUSCLES, MUSCLES
from myoloop.emg import conditions, ground_truth, noise
from myoloop.emg.armband import armband
from myoloop.emg.conductor import Conductor
from myoloop.emg.config import EmgConfig
from myoloop.emg.placement import Moves
from myoloop.emg.rate_laws import NEVER
from myoloop.emg.synthesis import build_emg, discharges, healthy, init_emg, synthesise
from myoloop.errors import MyoloopError

FLEXOR, EXTENSOR = MUSCLES.index("FDS3"), MUSCLES.index("EDC3")
KEYS = noise.address(jnp.uint32(4), jnp.arange(40, dtype=jnp.uint32))


@pytest.fixture(scope="module")
def person():
    config = EmgConfig(units_scale=0.2, conductor=Conductor(kind="half_space"))
    return build_emg(armband("semg_rd16"), config)


@pytest.fixture(scope="module")
def movable(person):
    return build_emg(person.band, person.config, Moves(turn_deg=10.0, elbow_mm=0.0, wrist_mm=5.0))


def record(params, level, seconds=3.0, seed=2, **changed):
    """(samples, C) of one participant at one excitation of all muscles, and the discharges; the first 0.2 s cut."""
    now = healthy(params, 1)._replace(**{k: np.full(1, v, np.float32) for k, v in changed.items()})
    samples = round(seconds * params.band.rate_hz)
    out, _ = synthesise(params, init_emg(params, [seed]), np.full((1, 26), level), samples, now)
    return np.asarray(out.chunk[0])[round(0.2 * params.band.rate_hz) :], discharges(params, out.spikes)


def mean_frequency(x):
    hertz, power = signal.welch(x, 2000, nperseg=1024, axis=0)
    return float(((hertz[:, None] * power).sum(0) / power.sum(0)).mean())


def drive(strengths, excitation, seconds=10.0):
    """(T, B, 39) excitations that reach the muscles, at 50 Hz."""
    ill = conditions.no_disorder(len(KEYS))._replace(
        **{k: np.full(len(KEYS), v, np.float32) for k, v in strengths.items()}
    )
    row = jnp.broadcast_to(jnp.asarray(excitation, jnp.float32), (len(KEYS), 39))
    times = np.arange(0.0, seconds, 0.02, dtype=np.float32)
    step = jax.jit(lambda t: conditions.disordered(ill, row, KEYS, t))
    return np.stack([np.asarray(step(t)) for t in times])


def peak_hz(x):
    """Strongest frequency of (T, B) at 50 Hz."""
    power = np.abs(np.fft.rfft(x - x.mean(0), axis=0))
    return np.fft.rfftfreq(len(x), 0.02)[power.argmax(0)]


def test_parkinsonian_rest_tremor_is_4_to_6_hz_and_alternates_between_antagonists():
    shaken = drive({"parkinsonian_tremor": 1.0}, 0.0)
    flexor, extensor = shaken[..., FLEXOR], shaken[..., EXTENSOR]
    hz = peak_hz(flexor)
    assert (hz > 3.9).all() and (hz < 6.1).all() and np.ptp(hz) > 0.5
    assert (flexor * extensor).max() == 0.0 and flexor.max() > 0.2 and extensor.max() > 0.2
    np.testing.assert_array_equal(shaken[..., 26:], 0.0)  # forearm muscles only
    active = drive({"parkinsonian_tremor": 1.0}, 0.5)[..., FLEXOR]
    assert active.std(0).mean() < 0.5 * flexor.std(0).mean()  # a rest tremor fades with action


def test_essential_tremor_swings_the_muscles_own_excitation_at_4_to_12_hz():
    assert drive({"essential_tremor": 1.0}, 0.0).max() == 0.0
    shaken = drive({"essential_tremor": 1.0}, 0.2)[..., FLEXOR]
    hz = peak_hz(shaken)
    assert (hz > 3.9).all() and (hz < 12.1).all()
    half = drive({"essential_tremor": 0.5}, 0.2)[..., FLEXOR]
    assert half.std() == pytest.approx(0.5 * shaken.std(), rel=0.02)


def test_co_contraction_brings_the_antagonists_along():
    only_flexors = np.array([0.5 if m in conditions.FLEXORS else 0.0 for m in MUSCLES])
    shaken = drive({"co_contraction": 1.0}, only_flexors, 0.1)
    assert shaken[..., EXTENSOR] == pytest.approx(conditions.STROKE_CO_CONTRACTION * 0.5)
    assert shaken[..., FLEXOR] == pytest.approx(0.5)


def test_a_healthy_drive_is_left_exactly_as_it_is():
    row = np.random.default_rng(0).uniform(0, 1, 39).astype(np.float32)
    np.testing.assert_array_equal(drive({}, row, 0.1), np.broadcast_to(row, (5, 40, 39)))


def test_ageing_leaves_60_percent_of_the_units_half_as_large_again(person, movable):
    old = conditions.apply_conditions(person, {"ageing": 1.0})
    alive = np.asarray(old.pool.threshold) < NEVER
    assert alive.mean() == pytest.approx(0.6, abs=0.03)
    np.testing.assert_allclose(old.coefficients[alive], 1.5 * person.coefficients[alive], rtol=1e-5)
    both = movable, conditions.apply_conditions(movable, {"ageing": 1.0})
    there = [ground_truth.muaps(p, rotation_deg=7.0, displacement_mm=4.0)[alive] for p in both[::-1]]
    assert np.linalg.norm(there[0] - 1.5 * there[1]) < 1e-3 * np.linalg.norm(there[0])  # wherever the armband is
    _, spikes = record(old, 0.8)
    assert alive[spikes.unit].all()


def test_als_loses_units_makes_giant_ones_and_fasciculates(person):
    sick = conditions.apply_conditions(person, {"als": 1.0})
    alive = np.asarray(sick.pool.threshold) < NEVER
    assert alive.mean() == pytest.approx(0.3, abs=0.05)
    before = np.linalg.norm(ground_truth.muaps(person), axis=(1, 2))[alive]
    after = np.linalg.norm(ground_truth.muaps(sick), axis=(1, 2))[alive]
    growth = after / before
    assert np.percentile(growth, 90) > 2.0 and growth.min() > 0.9
    _, rest = record(sick, 0.0, 20.0)
    assert rest.unit.size > 10  # fasciculations at rest...
    assert np.bincount(rest.unit).max() / 20.0 < 2.0  # ...single ones, far apart
    assert record(person, 0.0, 20.0)[1].unit.size == 0
    mild = conditions.apply_conditions(person, {"als": 0.3})
    lost_mild = np.asarray(mild.pool.threshold) >= NEVER
    assert 0 < lost_mild.sum() < (~alive).sum() and not (lost_mild & alive).any()  # one by one, the same units


def test_stroke_lowers_peak_rates_and_compresses_recruitment(person):
    ill = conditions.apply_conditions(person, {"stroke": 1.0})
    _, spikes = record(ill, 1.0)
    _, sound = record(person, 1.0)
    rate = [np.bincount(s.unit, minlength=person.units) / 3.0 for s in (spikes, sound)]
    assert np.median(rate[0]) == pytest.approx(0.6 * np.median(rate[1]), rel=0.1)
    own = np.asarray(person.muscle) == FOREARM_MUSCLES.index("FCU")
    spans = [np.ptp(np.asarray(p.pool.threshold)[own]) for p in (ill, person)]
    assert spans[0] == pytest.approx(0.5 * spans[1], rel=0.02)


def test_conditions_of_strength_0_change_nothing_and_compose(person):
    same = conditions.apply_conditions(person, {"als": 0.0, "ageing": 0.0, "stroke": 0.0})
    np.testing.assert_array_equal(same.coefficients, person.coefficients)
    np.testing.assert_array_equal(same.pool.threshold, person.pool.threshold)
    both = conditions.apply_conditions(person, {"ageing": 1.0, "als": 1.0})
    alive = (np.asarray(both.pool.threshold) < NEVER).mean()
    assert alive == pytest.approx(0.6 * 0.3, abs=0.05)


def test_fatigue_slows_the_spectrum_and_raises_the_amplitude(person):
    rested, tired, half = (record(person, 0.5, fatigue=f)[0] for f in (0.0, 1.0, 0.5))
    ratio = mean_frequency(tired) / mean_frequency(rested)
    assert 0.5 < ratio < 0.7  # towards 60 of 115 Hz
    assert ratio < mean_frequency(half) / mean_frequency(rested) < 0.95
    assert rested.std() < half.std() < tired.std()


def test_fatigue_stretches_every_muap_in_time(person):
    fresh, tired = ground_truth.muaps(person), ground_truth.muaps(person, fatigue=1.0)
    loud = np.argsort(-np.abs(fresh).max(axis=(1, 2)))[:50]
    channel = np.abs(fresh[loud]).max(axis=2).argmax(axis=1)

    def duration(waves):
        energy = waves[loud, channel] ** 2
        t = np.arange(waves.shape[2])
        centre = (energy * t).sum(1) / energy.sum(1)
        return np.sqrt((energy * (t - centre[:, None]) ** 2).sum(1) / energy.sum(1))

    np.testing.assert_allclose(duration(tired) / duration(fresh), 115 / 60, rtol=0.05)


def test_rotation_during_a_run_equals_an_armband_worn_rotated(movable):
    now = healthy(movable, 1)._replace(rotation_deg=np.array([5.625], np.float32))
    first = init_emg(movable, [2])
    out, _ = synthesise(movable, first, np.full((1, 26), 0.4), 400, now)
    worn = build_emg(armband("semg_rd16", first_angle_deg=5.625), movable.config)
    again, _ = synthesise(worn, first._replace(overhang=init_emg(worn, [2]).overhang), np.full((1, 26), 0.4), 400)
    error = np.asarray(out.chunk - again.chunk)
    assert error.std() < 0.05 * np.asarray(again.chunk).std()
    still, _ = synthesise(movable, first, np.full((1, 26), 0.4), 400)
    assert np.asarray(out.chunk - still.chunk).std() > 0.3 * np.asarray(still.chunk).std()


def test_motion_artefact_has_its_power_below_20_hz(person):
    quiet, moved = record(person, 0.0)[0], record(person, 0.0, artefact_uv=500.0)[0]
    hertz, power = signal.welch(moved - quiet, 2000, nperseg=4096, axis=0)
    assert (power[hertz < 20].sum(0) / power.sum(0)).min() > 0.9
    assert moved.std() > 3 * quiet.std()


def test_ecg_beats_at_the_heart_rate_and_alike_on_all_channels(person):
    beat = record(person, 0.0, ecg_uv=200.0)[0] - record(person, 0.0)[0]
    peaks = signal.find_peaks(beat[:, 0], height=0.5 * beat[:, 0].max(), distance=1000)[0]
    assert np.diff(peaks).mean() / 2000 == pytest.approx(60 / 70, rel=0.01)
    np.testing.assert_allclose(beat[:, 1], beat[:, 0], atol=1e-2)


def test_disturbances_do_not_depend_on_chunking(person):
    now = healthy(person, 1)._replace(
        **{k: np.full(1, v, np.float32) for k, v in {"artefact_uv": 300, "ecg_uv": 50, "fatigue": 0.4}.items()}
    )
    row, state, parts = np.full((1, 26), 0.3), init_emg(person, [2]), []
    whole, _ = synthesise(person, state, row, 120, now)
    for n in (60, 60):
        out, state = synthesise(person, state, row, n, now)
        parts.append(out.chunk)
    got = np.concatenate(parts, axis=1)
    assert np.abs(got - whole.chunk).max() < 1e-3 * np.std(whole.chunk)


def test_unknown_conditions_and_strengths_are_refused(person):
    with pytest.raises(MyoloopError, match="Did you mean 'ageing'"):
        conditions.apply_conditions(person, {"aging": 0.5})
    with pytest.raises(MyoloopError, match=r"strength of als is 1\.5: expected 0 to 1"):
        conditions.apply_conditions(person, {"als": 1.5})
    now, drive = healthy(person, 1), conditions.no_disorder(1)
    with pytest.raises(MyoloopError, match="Did you mean 'parkinsonian_tremor'"):
        conditions.set_condition(person.band, now, drive, "parkinson_tremor", 0.5)
    for wrong in (-0.1, float("nan")):
        with pytest.raises(MyoloopError, match="strength of fatigue"):
            conditions.set_condition(person.band, now, drive, "fatigue", wrong)
    with pytest.raises(MyoloopError, match="ageing belongs to the person"):
        conditions.set_condition(person.band, now, drive, "ageing", 0.5)
    for name in conditions.MOVING:
        with pytest.raises(MyoloopError, match=f"{name}: this armband stays where it is. Set movable_band: true"):
            conditions.set_condition(person.band, now, drive, name, 0.5)


@pytest.mark.parametrize("name", [*conditions.RUN_CONDITIONS, "lost_contact:EMG3"])
def test_every_run_time_condition_is_set_by_name_and_taken_back(person, name):
    now, drive = healthy(person, 2), conditions.no_disorder(2)
    changed = conditions.set_condition(person.band, now, drive, name, 1.0, Moves())
    leaves = [np.asarray(x) for part in changed for x in part]
    before = [np.asarray(x) for part in (now, drive) for x in part]
    assert sum(not np.array_equal(a, b) for a, b in zip(leaves, before, strict=True)) == 1
    back = conditions.set_condition(person.band, *changed, name, 0.0, Moves())
    assert all(np.array_equal(a, b) for a, b in zip([x for part in back for x in part], before, strict=True))
