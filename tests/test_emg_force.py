"""Promises of the causal force: twitches add up exactly, steady excitation gives its own activation, losses weaken. And
of the fatigue of single muscles."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg.armband import armband
from myoloop.emg.conditions import apply_conditions
from myoloop.emg.config import EmgConfig
from myoloop.emg.force import ForceState, build_force, init_force, twitch_force
from myoloop.emg.motor_units import build_pool
from myoloop.emg.synthesis import Spikes, build_emg, healthy, init_emg, stack_params, synthesise
from myoloop.emg.twitches import DOUBLET_GAIN, build_twitches, gain
from myoloop.errors import MyoloopError

CONFIG = EmgConfig(units_scale=0.1)
FCU = FOREARM_MUSCLES.index("FCU")
LARGE = 15  # units: muscles with fewer are too coarse for statistics
BATCH = 4
TOTAL = 400  # internal samples


@pytest.fixture(scope="module")
def person():
    return build_emg(armband("semg_rd16"), CONFIG)


@pytest.fixture(scope="module")
def trains(person):
    """Discharge samples of each of two participants' units: random, every fourth unit starts with a doublet."""
    rng = np.random.default_rng(4)

    def train(unit: int) -> np.ndarray:
        first = [rng.integers(0, 60)] + [rng.integers(4, 11)] * (unit % 4 == 0)
        times = np.cumsum(np.concatenate([first, rng.integers(23, 160, 20)]))
        return times[times < TOTAL]

    return [[train(unit) for unit in range(person.units)] for _ in range(2)]


def spikes_of(trains, start, samples, block=40):
    """`Spikes` of one chunk, written by hand."""
    blocks = -(-samples // block)
    when = np.full((len(trains), blocks, 3, len(trains[0])), -1, np.int8)
    for b, participant in enumerate(trains):
        for unit, times in enumerate(participant):
            own = times[(times >= start) & (times < start + samples)] - start
            for n, at in enumerate(own):
                nth = int((own[:n] // block == at // block).sum())
                when[b, at // block, nth, unit] = at % block
    return Spikes(jnp.asarray(when), jnp.full(len(trains), start, jnp.int32))


def steady(params, excitation, seconds=5.0, linearised=False):
    """(T, BATCH, 26) force every 20 ms at BATCH excitations, the first second left out."""
    force = build_force(params, linearised)
    state, twitching = init_emg(params, [3] * BATCH), init_force(force, BATCH)
    drive = np.broadcast_to(np.asarray(excitation, np.float32)[:, None], (BATCH, 26))
    rows = []
    for _ in range(round(50 * (seconds + 1))):
        out, state = synthesise(params, state, drive, 40)
        activation, twitching = twitch_force(force, twitching, out.spikes, 40)
        rows.append(np.asarray(activation))
    return np.stack(rows)[50:]


def test_force_is_the_sum_of_the_published_twitches(person, trains):
    # Directly, in float64: every discharge's own twitch with the gain of the interval before it, spike by spike.
    force = build_force(person, linearised=False)
    got, _ = twitch_force(force, init_force(force, 2), spikes_of(trains, 0, TOTAL), TOTAL)
    fine = (np.arange(4 * TOTAL) + 0.5) / (4 * 2000.0)  # s
    peak, time_s = (np.asarray(x, np.float64) for x in person.twitches[:2])
    muscle, total = np.asarray(person.muscle), np.zeros((2, 26))
    for b in range(2):
        for unit, times in enumerate(trains[b]):
            for before, at in pairwise([-np.inf, *times]):
                interval = (at - before) / 2000.0
                weight = DOUBLET_GAIN if interval <= 0.005 else float(gain(np.array(time_s[unit] / interval)))
                t = np.maximum(fine - at / 2000.0, 0.0) / time_s[unit]
                total[b, muscle[unit]] += (weight * peak[unit] * t * np.exp(1.0 - t)).mean()
    assert 0.1 < total.mean() < 0.9
    np.testing.assert_allclose(np.asarray(got), np.minimum(total, 1.0), rtol=3e-4)


def test_gain_is_the_published_sigmoid():
    x = np.array([0.1, 0.4, 0.8, 2.0])
    s = 1 - np.exp(-2 * x**3)
    np.testing.assert_allclose(gain(x)[1:], (s / x)[1:] / (s / x)[1])
    assert gain(x)[0] == 1.0 and gain(np.array([0.4 + 1e-9]))[0] == pytest.approx(1.0)


def test_twitches_span_the_published_ranges(person):
    own = np.asarray(person.muscle) == FCU
    peak, time_ms = np.asarray(person.twitches.peak)[own], 1e3 * np.asarray(person.twitches.time_s)[own]
    n = own.sum()
    assert peak[-1] / peak[0] == pytest.approx(100 ** ((n - 1) / n), rel=1e-4)  # P_i = exp(ln RP i/n), i from 1
    assert time_ms[-1] == pytest.approx(30.0, rel=1e-4) and 85 < time_ms[0] < 90
    assert (np.diff(peak) > 0).all() and (np.diff(time_ms) < 0).all()


@pytest.mark.parametrize("law", ["fuglevand", "deluca"])
def test_force_of_the_healthy_pool_rises_with_excitation_to_1(law):
    config = dataclasses.replace(CONFIG, law=law)
    curve = build_twitches(build_pool(config), config).curve
    assert (np.diff(curve, axis=1) > 0).all() and (curve[:, 0] == 0).all() and (curve[:, -1] == 1).all()
    assert 0.2 < curve[FCU, 128] < 0.8  # convex at first, then steeper, then flat: no line


@pytest.mark.parametrize("cut", [(40,) * 10, (7, 193, 200)])
def test_any_chunking_gives_the_same_force(person, trains, cut):
    force = build_force(person, linearised=False)
    force = force.replace(peak=force.peak * 0.3)  # far from 1, where each chunk's force would be cut off
    want, want_end = twitch_force(force, init_force(force, 2), spikes_of(trains, 0, TOTAL), TOTAL)
    mean, state, start = np.zeros(()), init_force(force, 2), 0
    for samples in cut:
        part, state = twitch_force(force, state, spikes_of(trains, start, samples), samples)
        mean, start = mean + np.asarray(part) * samples / TOTAL, start + samples
    np.testing.assert_allclose(mean, np.asarray(want), rtol=1e-4)
    np.testing.assert_allclose(state.force, want_end.force, rtol=1e-3, atol=1e-8)
    assert np.array_equal(state.since, want_end.since)


def test_batch_equals_single_participants_and_goes_on_bit_for_bit(person, trains):
    force = build_force(person)
    _, state = twitch_force(force, init_force(force, 2), spikes_of(trains, 0, 40), 40)
    later = spikes_of(trains, 40, 40)
    both, _ = twitch_force(force, state, later, 40)
    restored = ForceState(*(jnp.asarray(np.asarray(leaf).copy()) for leaf in state))
    assert np.array_equal(both, twitch_force(force, restored, later, 40)[0])
    for b in range(2):
        one = jax.tree.map(lambda leaf, b=b: leaf[b : b + 1], (state, later))
        np.testing.assert_allclose(twitch_force(force, *one, 40)[0][0], both[b], rtol=1e-5)


def test_slower_devices_of_the_same_internal_rate_give_the_same_force(person, trains):
    force = build_force(person)
    state, spikes = init_force(force, 2), spikes_of(trains, 0, 40)
    slow = force.replace(decimation=10)
    assert np.array_equal(twitch_force(slow, state, spikes, 4)[0], twitch_force(force, state, spikes, 40)[0])


def test_steady_excitation_gives_its_own_activation_and_full_drive_the_largest_force(person):
    levels = np.array([0.1, 0.4, 0.7, 1.0])
    large = np.bincount(np.asarray(person.muscle)) >= LARGE
    found = steady(person, levels, linearised=True)[:, :, large].mean(axis=0)
    assert large.sum() > 5
    np.testing.assert_allclose(found[:3].mean(axis=1), levels[:3], rtol=0.03)
    np.testing.assert_allclose(found[:3], np.broadcast_to(levels[:3, None], found[:3].shape), rtol=0.2)
    assert found[3].min() > 0.93  # the curve is flat at the top and activation ends at 1
    raw = steady(person, levels)[:, :, large].mean(axis=0)
    assert raw[3].mean() == pytest.approx(1.0, abs=0.02)
    assert (raw[:2].mean(axis=1) < levels[:2]).all()  # what the linearisation undoes


def test_force_follows_the_excitation_with_the_delay_of_twitches(person):
    force = build_force(person, linearised=False)
    state, twitching = init_emg(person, [5] * BATCH), init_force(force, BATCH)
    course = []
    for step in range(100):
        drive = np.full((BATCH, 26), 0.6 if step < 50 else 0.0)
        out, state = synthesise(person, state, drive, 40)
        activation, twitching = twitch_force(force, twitching, out.spikes, 40)
        course.append(float(np.asarray(activation).mean()))
    held = np.mean(course[25:50])
    up = 0.02 * np.argmax(np.array(course) > 0.63 * held)
    down = 0.02 * np.argmax(np.array(course[50:]) < 0.37 * held)
    assert 0.02 <= up <= 0.15 and 0.04 <= down <= 0.2  # contraction times are 30 to 90 ms
    assert course[-1] < 1e-3 * held


def test_lost_units_weaken_and_adopted_fibres_make_up_for_a_part(person):
    large = np.bincount(np.asarray(person.muscle)) >= LARGE
    levels = np.array([0.3, 0.5, 0.8, 1.0])
    healthy = steady(person, levels, 2.0)[..., large].mean(axis=(0, 2))
    for name, least, most in (("ageing", 0.75, 1.0), ("als", 0.5, 0.97), ("stroke", 0.4, 0.9)):
        ill = steady(apply_conditions(person, {name: 1.0}), levels, 2.0)[..., large].mean(axis=(0, 2))
        assert least < ill[3] / healthy[3] < most, name
    old = apply_conditions(person, {"ageing": 1.0})
    kept = np.asarray(old.twitches.peak) > 0
    ratio = np.asarray(old.twitches.peak)[kept] / np.asarray(person.twitches.peak)[kept]
    np.testing.assert_allclose(ratio, 1.5, rtol=1e-5)
    sick = np.asarray(apply_conditions(person, {"als": 1.0}).twitches.peak)
    assert (sick <= 6.001 * np.asarray(person.twitches.peak)).all()  # nobody adopts more than five times its own


def test_force_is_less_steady_with_fewer_units(person):
    course = steady(person, np.full(BATCH, 0.3))
    cov = (course.std(axis=0) / course.mean(axis=0)).mean(axis=0)
    count = np.bincount(np.asarray(person.muscle))
    assert np.corrcoef(np.log(count[count > 5]), np.log(cov[count > 5]))[0, 1] < -0.7
    assert cov[FCU] < 0.06


def test_different_people_side_by_side_equal_each_alone(person, trains):
    other = build_emg(armband("semg_rd16"), dataclasses.replace(CONFIG, units_scale=0.08, contraction_ms=110.0))
    both = stack_params([person, other])
    force, chunk = build_force(both), spikes_of(trains, 0, 80)
    when = np.full((2, 2, 3, both.units), -1, np.int8)
    real = [np.asarray(both.twitches.peak[b]) > 0 for b in range(2)]
    for b, params in enumerate((person, other)):
        assert real[b].sum() == params.units
        when[b][..., real[b]] = chunk.when[b, :, :, : params.units]
    got, _ = twitch_force(force, init_force(force, 2), Spikes(jnp.asarray(when), chunk.start), 80)
    for b, params in enumerate((person, other)):
        own = build_force(params)
        alone = Spikes(jnp.asarray(when[b : b + 1][..., real[b]]), chunk.start[:1])
        np.testing.assert_allclose(got[b], twitch_force(own, init_force(own, 1), alone, 80)[0][0], rtol=1e-5)


def test_spikes_of_other_people_or_lengths_are_refused(person, trains):
    force, chunk = build_force(person), spikes_of(trains, 0, 80)
    with pytest.raises(MyoloopError, match=r"expected .* for a chunk of 40 samples"):
        twitch_force(force, init_force(force, 2), chunk, 40)
    with pytest.raises(MyoloopError, match="take all three from the same people"):
        twitch_force(force, init_force(force, 3), chunk, 80)


def test_synthesis_and_force_are_jit_and_vmap_clean(person):
    force = build_force(person)
    drives = np.random.default_rng(3).uniform(0, 1, (3, BATCH, 26)).astype(np.float32)
    states = [init_emg(person, np.arange(BATCH) + 10 * k) for k in range(3)]

    def step(state, twitching, drive):
        out, state = synthesise(person, state, drive, 40)
        activation, twitching = twitch_force(force, twitching, out.spikes, 40)
        return out.chunk, out.spikes.when, activation, state.pool.ticks_left

    start = init_force(force, BATCH)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    together = jax.jit(jax.vmap(step, in_axes=(0, None, 0)))(stacked, start, drives)
    for k in range(3):
        one = step(states[k], start, drives[k])
        assert np.array_equal(together[1][k], one[1]) and np.array_equal(together[3][k], one[3])
        np.testing.assert_allclose(together[0][k], one[0], atol=1e-4 * float(np.std(one[0])))
        np.testing.assert_allclose(together[2][k], one[2], rtol=1e-5, atol=1e-7)


def test_fatigue_of_one_muscle_slows_its_signal_and_no_other(person):
    flexor, extensor = FOREARM_MUSCLES.index("FCR"), FOREARM_MUSCLES.index("ECU")
    rested, all_tired, one = np.zeros(26), np.ones(26), np.zeros(26)
    one[flexor] = 1.0
    cases = [([flexor], one), ([flexor], all_tired), ([extensor], one), ([extensor], rested)]
    cases += [([flexor, extensor], tired) for tired in (all_tired, one, rested)]
    drive = np.zeros((len(cases), 26), np.float32)
    for row, (active, _) in zip(drive, cases, strict=True):
        row[active] = 0.5
    now = healthy(person, len(cases))._replace(fatigue=np.array([tired for _, tired in cases], np.float32))
    chunk = np.asarray(synthesise(person, init_emg(person, [2] * len(cases)), drive, 400, now)[0].chunk)
    np.testing.assert_allclose(chunk[0], chunk[1], atol=0.01)
    np.testing.assert_allclose(chunk[2], chunk[3], atol=0.01)
    power = np.abs(np.fft.rfft(chunk[4:], axis=1)) ** 2
    slow, between, fast = (np.fft.rfftfreq(400, 1 / 2000.0)[:, None] * power).sum((1, 2)) / power.sum((1, 2))
    assert slow < between < fast
    assert slow == pytest.approx(fast * 60 / 115, rel=0.1)
