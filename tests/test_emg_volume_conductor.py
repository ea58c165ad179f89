"""Promises of the MUAPs in the half space, the analytic check: its law and those of travelling, finite sources."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg import motor_units
from myoloop.emg import volume_conductor as vc
from myoloop.emg.anatomy import FOREARM_LENGTH_MM, MUSCLE_TABLE
from myoloop.emg.armband import armband
from myoloop.emg.conductor import Conductor
from myoloop.emg.config import EmgConfig
from myoloop.emg.half_space import fibre_potential
from myoloop.emg.source import FIBRE_DIAMETER_MM, SIGMA_INTRACELLULAR

LEVEL = 0.5 * FOREARM_LENGTH_MM
FLAT = Conductor("half_space")


def one_channel(**fields):
    return armband("semg_rd16", channels=1, level=0.5, **fields)


def fibre(depth=10.0, end_plate=-25.0, proximal=60.0, distal=60.0, velocity=4.0, angle=0.0, fibres=100.0):
    """One unit whose fibres coincide; end_plate relative to the middle of the band."""
    r = 42.0 - depth
    row = np.ones((1, 2))
    return vc.Units(
        r * math.cos(math.radians(angle)) * row,
        r * math.sin(math.radians(angle)) * row,
        (LEVEL + end_plate) * row,
        proximal * row,
        distal * row,
        np.array([velocity]),
        np.array([fibres]),
    )


def muap(units, band):
    return vc.compute_muaps(units, band, FLAT).waveform[0, 0]


@pytest.mark.parametrize(
    ("front", "radial", "end_plate"), [(12.0, 10.0, -15.0), (33.3, 14.0, -20.0), (68.0, 8.0, -30.0)]
)
def test_half_space_potential_agrees_with_independent_integration(front, radial, end_plate):
    # Independently: membrane current sigma_i A V'' along the fibre plus the point currents that the cut-off leaves at
    # the end plate and the tendon, each times its potential in the half space. SI-free: mm, mV, S/m.
    half = 60.0
    area = math.pi * FIBRE_DIAMETER_MM**2 / 4

    def slope(x):  # dV/dx of V(s - x)
        u = front - x
        return -96.0 * (3 * u**2 - u**3) * math.exp(-u) if u > 0 else 0.0

    def curvature(x):
        u = front - x
        return 96.0 * (6 * u - 6 * u**2 + u**3) * math.exp(-u) if u > 0 else 0.0

    def potential(x):  # of a unit current on the insulated surface
        place = end_plate + x
        k = FLAT.muscle_axial / FLAT.muscle_radial
        return 1.0 / (2 * math.pi * FLAT.muscle_radial * math.sqrt(k * radial**2 + place**2))

    body, _ = integrate.quad(lambda x: curvature(x) * potential(x), 0, min(half, front), limit=400, epsabs=1e-10)
    # d/dx [slope p]: p rises from 0 to 1 at the end plate and falls back at the tendon.
    expected = SIGMA_INTRACELLULAR * area * (body + slope(0.0) * potential(0.0) - slope(half) * potential(half)) * 1e3
    got = fibre_potential(np.array([front]), half, end_plate, +1, radial, FLAT)[0]
    assert got == pytest.approx(expected, rel=0.02, abs=1e-6)


def test_muaps_are_the_sum_of_both_fibre_halves():
    units = fibre(depth=10.0, end_plate=-12.0, proximal=40.0, distal=35.0)
    band = one_channel(montage="monopolar")
    got = muap(units, band)
    front = 4.0 * np.arange(16 * got.size) / 32.0  # mm, at 32 kHz
    exact = 100.0 * (
        fibre_potential(front, 35.0, -12.0, +1, 10.0, FLAT) + fibre_potential(front, 40.0, -12.0, -1, 10.0, FLAT)
    )
    hertz = np.arange(0, 600, 5.0)
    delay = vc.compute_muaps(units, band, FLAT).delay

    def spectrum(wave, rate, late):
        t = np.arange(wave.size) / rate - late
        return np.exp(-2j * np.pi * hertz[:, None] * t) @ wave / rate

    want, made = spectrum(exact, 32000.0, 0.0), spectrum(got, 2000.0, delay / 2000.0)
    assert np.linalg.norm(made - want) < 0.02 * np.linalg.norm(want)


@pytest.mark.parametrize(("spacing", "velocity"), [(20.0, 4.0), (10.0, 4.0), (20.0, 5.0)])
def test_bipolar_null_falls_at_v_over_d(spacing, velocity):
    # End plate and tendons far away: what is left is travelling, and two electrodes d apart cancel what has period d/v.
    units = fibre(depth=5.0, end_plate=-250.0, proximal=60.0, distal=600.0, velocity=velocity)
    wave = muap(units, one_channel(spacing_mm=spacing)) * 1.0
    middle = round(250.0 / velocity * 2) + 4
    part = wave[middle - 40 : middle + 40] * np.hanning(80)
    hertz = np.fft.rfftfreq(4096, 1 / 2000)
    spectrum = np.abs(np.fft.rfft(part, 4096))
    null = velocity / spacing * 1000.0
    near = (hertz > 0.8 * null) & (hertz < 1.2 * null)
    found = hertz[near][np.argmin(spectrum[near])]
    assert found == pytest.approx(null, rel=0.04)
    assert spectrum[near].min() < 0.1 * spectrum[(hertz > 0.3 * null) & (hertz < 0.7 * null)].max()


def test_travelling_part_travels_and_end_of_fibre_part_does_not():
    def time_of_peak(place, sign):
        wave = muap(fibre(depth=6.0, end_plate=-place, proximal=60.0, distal=60.0), one_channel(montage="monopolar"))
        return np.argmax(sign * wave) / 2.0  # ms

    over = [time_of_peak(place, -1) for place in (20.0, 40.0)]  # over the fibre: the negative main phase
    assert over[1] - over[0] == pytest.approx(20.0 / 4.0, abs=0.6)
    beyond = [time_of_peak(place, +1) for place in (70.0, 80.0, 95.0)]  # beyond the tendon at 60 mm
    assert max(beyond) - min(beyond) <= 0.5


def test_amplitude_falls_with_depth_and_with_angle():
    band = one_channel()
    depths = [np.ptp(muap(fibre(depth=d), band)) for d in (5.0, 10.0, 15.0, 20.0, 28.0)]
    assert (np.diff(depths) < 0).all() and depths[0] > 10 * depths[-1]
    angles = [np.ptp(muap(fibre(angle=a), band)) for a in (0.0, 20.0, 45.0, 90.0, 180.0)]
    assert (np.diff(angles) < 0).all() and angles[0] > 10 * angles[-1]


def test_bipolar_sees_less_of_a_far_muscle_than_monopolar():
    far, near = fibre(angle=60.0), fibre(angle=0.0)
    ratio = [np.ptp(muap(far, b)) / np.ptp(muap(near, b)) for b in (one_channel(montage="monopolar"), one_channel())]
    double = one_channel(montage="double_differential", spacing_mm=10.0)
    ratio.append(np.ptp(muap(far, double)) / np.ptp(muap(near, double)))
    assert ratio[0] > ratio[1] > ratio[2]


def test_muap_is_proportional_to_the_number_of_fibres():
    band = one_channel()
    np.testing.assert_allclose(
        muap(fibre(fibres=300.0), band), 3 * muap(fibre(fibres=100.0), band), rtol=1e-4, atol=1e-3
    )


def test_slow_fibres_make_longer_muaps():
    def width(velocity):
        wave = muap(fibre(velocity=velocity), one_channel())
        power = wave**2 / (wave**2).sum()
        t = np.arange(wave.size)
        return math.sqrt((power * t**2).sum() - (power * t).sum() ** 2)

    assert width(3.0) / width(4.5) == pytest.approx(1.5, rel=0.1)


def test_units_lie_inside_their_muscle_and_velocity_grows_with_size():
    config = EmgConfig()
    pool = motor_units.build_pool(config)
    units = vc.place_units(pool, config, 42.0)
    depth = 42.0 - np.hypot(units.x, units.y)
    for m, name in enumerate(FOREARM_MUSCLES):
        own = pool.muscle == m
        low, high = MUSCLE_TABLE[name].depth_mm
        assert depth[own].min() >= low - 1e-6 and depth[own].max() <= high + 1e-6
        start, end = (b * FOREARM_LENGTH_MM for b in MUSCLE_TABLE[name].belly)
        slack = 0.1 * MUSCLE_TABLE[name].fibre_mm
        assert (units.end_plate[own] - units.proximal[own]).min() > start - slack
        assert (units.end_plate[own] + units.distal[own]).max() < end + slack
    assert np.corrcoef(units.velocity, pool.rank)[0, 1] > 0.5
    assert units.velocity.mean() == pytest.approx(4.0, abs=0.05) and units.velocity.std() == pytest.approx(
        0.3, abs=0.05
    )
