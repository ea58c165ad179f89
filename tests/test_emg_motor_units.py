"""Promises of the motor-unit pools: rates, variability, recruitment, exactness."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg import motor_units, noise
from myoloop.emg.config import EmgConfig
from myoloop.errors import MyoloopError

RATE = 2000.0
STEADY = EmgConfig(units_scale=0.3, common_drive_cov=0.0, doublet_probability=0.0)


@functools.cache
def compiled(config: EmgConfig, blocks: int):
    """(state, start), key, drive -> (blocks, K, U): discharges of one participant, compiled once a configuration."""
    pool = motor_units.build_pool(config)
    params, muscle = motor_units.pool_params(pool, RATE), jnp.asarray(pool.muscle)

    @jax.jit
    def scan(start, key, drive):
        def step(carry, _):
            state, start = carry
            when, state = motor_units.discharge(params, muscle, config, RATE, state, key, start, drive, 40)
            return (state, start + 40), when[0]

        return jax.lax.scan(step, start, None, length=blocks)[1]

    return scan


def run(config: EmgConfig, excitation: float, seconds: float, seed: int = 1) -> list[np.ndarray]:
    """Discharge samples of every unit at constant excitation."""
    pool = motor_units.build_pool(config)
    key = noise.address(jnp.uint32(9), jnp.array([seed], jnp.uint32))
    drive = jnp.full((1, len(FOREARM_MUSCLES)), excitation, jnp.float32)
    start = (motor_units.init_pool(key, jnp.arange(pool.muscle.size)), jnp.zeros(1, jnp.int32))
    when = np.asarray(compiled(config, round(seconds * RATE / 40))(start, key, drive))
    block, _, unit = np.nonzero(when >= 0)
    sample = block * 40 + when[when >= 0]
    return [np.sort(sample[unit == u]) for u in range(pool.muscle.size)]


@pytest.fixture(scope="module")
def steady():
    return {level: run(STEADY, level, 20.0) for level in (0.1, 0.5, 1.0)}


@pytest.mark.parametrize("level", [0.1, 0.5, 1.0])
def test_units_discharge_at_the_rate_that_was_asked(steady, level):
    want = motor_units.rates(motor_units.build_pool(STEADY), level)
    got = np.array([len(t) / 20.0 for t in steady[level]])
    active = want > 0
    assert 0.3 < active.mean() <= 1.0
    # CoV 0.2 over n intervals leaves 0.2 sqrt(n) discharges of counting error: 5 sd, and one discharge.
    np.testing.assert_allclose(got[active], want[active], atol=0.05 + 5 * 0.2 * np.sqrt(want.max() / 20))
    assert abs(got[active].sum() / want[active].sum() - 1) < 0.01
    assert got[~active].sum() == 0


@pytest.mark.parametrize("cov", [0.1, 0.2, 0.3])
def test_interval_variability_is_the_one_asked(cov):
    config = EmgConfig(units_scale=0.1, common_drive_cov=0.0, isi_cov=cov, isi_cov_onset=0.0, refractory_ms=5.0)
    ratios = [np.diff(t).std() / np.diff(t).mean() for t in run(config, 0.5, 20.0) if len(t) > 100]
    assert len(ratios) > 100
    assert np.mean(ratios) == pytest.approx(cov, rel=0.05)


def test_no_interval_is_shorter_than_the_refractory_time(steady):
    shortest = min(np.diff(t).min() for t in steady[1.0])
    assert shortest >= int(STEADY.refractory_ms * RATE / 1000)


def test_small_units_are_recruited_before_large_ones():
    pool = motor_units.build_pool(EmgConfig())
    for m in range(len(FOREARM_MUSCLES)):
        own = pool.muscle == m
        assert (np.diff(pool.threshold[own]) > 0).all()
        assert (np.diff(pool.fibres[own]) > 0).all()
    active = [len(t) > 0 for t in run(STEADY, 0.2, 20.0)]
    small = motor_units.build_pool(STEADY)
    for m in range(len(FOREARM_MUSCLES)):
        own = np.asarray(active)[small.muscle == m]
        assert (np.diff(own.astype(int)) <= 0).all() and own[0] and not own[-1]


def test_peak_rates_fall_from_first_to_last_unit(steady):
    pool = motor_units.build_pool(STEADY)
    own = pool.muscle == FOREARM_MUSCLES.index("FCU")
    got = np.array([len(t) / 20.0 for t in steady[1.0]])[own]
    assert got[0] == pytest.approx(35.0, abs=1.5)
    assert got[-1] == pytest.approx(25.0, abs=1.5)


def test_no_unit_discharges_at_rest():
    assert sum(len(t) for t in run(STEADY, 0.0, 20.0)) == 0


def test_full_pool_has_2500_units_and_counts_follow_the_table():
    pool = motor_units.build_pool(EmgConfig())
    assert pool.muscle.size >= 2500
    assert (pool.muscle == FOREARM_MUSCLES.index("FCU")).sum() == 422
    assert (pool.muscle == FOREARM_MUSCLES.index("ECRL")).sum() == 204


def test_common_drive_is_shared_slow_and_of_unit_variance():
    key = noise.address(jnp.uint32(3), jnp.arange(20, dtype=jnp.uint32))
    drive_of = jax.jit(lambda b: motor_units.common_drive(key, jnp.full(20, b, jnp.int32), 26))
    blocks = [drive_of(b) for b in range(300)]
    drive = np.stack([np.asarray(b) for b in blocks], axis=-1) / noise.SUM_SD
    assert drive.std() == pytest.approx(1.0, abs=0.03)
    power = (np.abs(np.fft.rfft(drive - drive.mean(-1, keepdims=True), axis=-1)) ** 2).mean((0, 1))
    hertz = np.fft.rfftfreq(300, 0.02)
    assert power[hertz < 5].sum() / power.sum() > 0.9
    between = np.mean([np.corrcoef(d) for d in drive], axis=0)
    assert np.abs(between - np.eye(26)).max() < 0.2  # muscles fluctuate on their own: chance correlation only


def test_units_of_one_muscle_fluctuate_together_through_the_common_drive():
    def shared(config: EmgConfig) -> float:
        units = [t for t in run(config, 0.5, 20.0) if len(t) > 100][-60:]
        counts = np.stack([np.histogram(t, bins=100, range=(0, 40000))[0] for t in units])
        return float(counts.sum(0).var() / counts.var(1).sum())  # 1 when independent

    config = EmgConfig(units_scale=0.3, common_drive_cov=0.2)
    assert shared(config) > 2 * shared(STEADY)


def test_no_block_holds_more_discharges_than_provided_for():
    for cov in (0.0, 0.2, 0.3):
        config = EmgConfig(units_scale=0.05, isi_cov=cov)
        most = motor_units.most_discharges(config, 40, RATE)
        params = motor_units.pool_params(motor_units.build_pool(config), RATE)
        ticks = 40 * int(np.max(params.peak_ticks))
        assert 1 + (ticks - 1) // motor_units.shortest_interval(config) <= most <= 4


def test_addressed_draws_are_normal_and_uncorrelated():
    words = noise.address(jnp.uint32(5), jnp.arange(400, dtype=jnp.int32)[:, None], jnp.arange(500, dtype=jnp.int32))
    x = np.asarray(noise.normal(words))
    assert x.mean() == pytest.approx(0, abs=0.01) and x.std() == pytest.approx(1, abs=0.01)
    assert (x**3).mean() == pytest.approx(0, abs=0.03)
    assert (x**4).mean() == pytest.approx(2.7, abs=0.05)  # sum of four uniforms: kurtosis 3 - 1.2/4
    for a, b in ((x[1:], x[:-1]), (x[:, 1:], x[:, :-1])):
        assert abs((a * b).mean()) < 0.01
    u = np.asarray(noise.uniform(words))
    assert np.histogram(u, bins=10, range=(0, 1))[0] == pytest.approx(20000, rel=0.05)


def test_ceil_division_equals_integer_division():
    rng = np.random.default_rng(0)
    step = rng.integers(1, 700_000, 100_000)
    due = np.minimum(rng.integers(1, 2**25, 100_000), step * 40)
    edge = step * rng.integers(1, 41, 100_000)
    for value in (due, edge, np.maximum(edge - 1, 1)):
        got = motor_units._ceil_div(jnp.asarray(value, jnp.int32), jnp.asarray(step, jnp.int32))
        np.testing.assert_array_equal(np.asarray(got), -(-value // step))


@pytest.mark.parametrize(
    ("field", "value"),
    [("units_scale", 0.0), ("isi_cov", -0.1), ("recruitment_range", float("nan")), ("peak_rate_first_hz", 20.0)],
)
def test_impossible_physiology_is_refused_by_name(field, value):
    with pytest.raises(MyoloopError, match=field):
        EmgConfig(**{field: value})


def test_onion_skin_law_keeps_early_units_faster_at_every_level():
    config = EmgConfig(units_scale=0.3, common_drive_cov=0.0, doublet_probability=0.0, law="deluca")
    pool = motor_units.build_pool(config)
    own = pool.muscle == FOREARM_MUSCLES.index("FCU")
    for level in (0.3, 0.8):
        want = motor_units.rates(pool, level, "deluca")
        got = np.array([len(t) / 20.0 for t in run(config, level, 20.0)])
        active = want > 0
        np.testing.assert_allclose(got[active], want[active], atol=0.05 + 5 * 0.3 * np.sqrt(want.max() / 20))
        assert abs(got[active].sum() / want[active].sum() - 1) < 0.01 and got[~active].sum() == 0
        ordered = got[own & active]
        assert np.corrcoef(np.arange(ordered.size), ordered)[0, 1] < -0.9
    # Equation of De Luca & Hostage 2010 by hand, at excitation 0.8 and threshold 0.4.
    by_hand = 6.93 * 0.8 + (-23.0 - 85.0 * np.exp(-0.8 / 0.32)) * 0.4 + 20.9
    at = np.argmin(np.abs(pool.threshold - 0.4))
    assert motor_units.rates(pool, 0.8, "deluca")[at] == pytest.approx(by_hand, abs=0.4)


def test_unknown_law_is_refused_with_the_nearest_name():
    with pytest.raises(MyoloopError, match="Did you mean 'fuglevand'"):
        EmgConfig(law="fuglevant")


def test_intervals_of_just_recruited_units_vary_more():
    config = EmgConfig(units_scale=0.3, common_drive_cov=0.0, isi_cov=0.15, isi_cov_onset=0.3)
    pool = motor_units.build_pool(config)
    trains = run(config, 0.5, 30.0)
    cov = np.array([np.diff(t).std() / np.diff(t).mean() if len(t) > 100 else np.nan for t in trains])
    over = 0.5 - pool.threshold
    assert np.nanmean(cov[(over > 0) & (over < 0.02)]) == pytest.approx(0.285, rel=0.08)
    assert np.nanmean(cov[over > 0.15]) == pytest.approx(0.15, rel=0.05)


def test_fast_onsets_start_with_doublets_and_slow_ones_do_not():
    config = EmgConfig(units_scale=0.3, common_drive_cov=0.0, doublet_probability=0.3)
    pool = motor_units.build_pool(config)
    params = motor_units.pool_params(pool, RATE)
    key = noise.address(jnp.uint32(9), jnp.array([1], jnp.uint32))

    def first_intervals(rise_s: float) -> np.ndarray:
        state, when = motor_units.init_pool(key, jnp.arange(pool.muscle.size)), []
        step = jax.jit(
            lambda s, start, e: motor_units.discharge(
                params, jnp.asarray(pool.muscle), config, RATE, s, key, start, jnp.full((1, 26), e), 40
            )
        )
        for block in range(100):
            level = min(0.6, 0.6 * block * 0.02 / rise_s) if rise_s else 0.6
            found, state = step(state, jnp.full(1, 40 * block, jnp.int32), jnp.float32(level))
            at = np.asarray(found[0]).astype(int)
            when += zip(np.nonzero(at >= 0)[1], at[at >= 0] + 40 * block, strict=True)
        unit, sample = np.array(when).T
        trains = [np.sort(sample[unit == i]) for i in range(0, pool.muscle.size, 5)]
        return np.array([np.diff(t[:3]).min() / 2.0 for t in trains if len(t) > 2])

    fast, slow = first_intervals(0.0), first_intervals(2.0)
    assert 0.1 < (fast <= 5.0).mean() < 0.6 and fast.min() >= 2.0
    assert (slow <= 5.0).mean() == 0.0


def test_conduction_velocity_size_and_threshold_grow_together():
    from myoloop.emg.units import place_units

    pool = motor_units.build_pool(EmgConfig())
    units = place_units(pool, EmgConfig(), 42.0)
    for muscle in range(26):
        own = pool.muscle == muscle
        assert np.corrcoef(np.log(pool.threshold[own]), np.log(pool.fibres[own]))[0, 1] > 0.99
        assert np.corrcoef(pool.rank[own], units.velocity[own])[0, 1] > 0.4
