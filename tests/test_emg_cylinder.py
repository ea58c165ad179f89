"""Promises of the layered cylinder: its equations, its limits, its symmetries, and what is known of fat and pick-up."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
from scipy import special

from myoloop.emg import cylinder, motor_units, store
from myoloop.emg import volume_conductor as vc
from myoloop.emg.anatomy import FOREARM_LENGTH_MM
from myoloop.emg.armband import armband
from myoloop.emg.bessel import bessel
from myoloop.emg.conductor import STANDARD_COVER_MM, Conductor, conductor_from
from myoloop.emg.config import EmgConfig
from myoloop.errors import MyoloopError

MIDDLE = 0.5 * FOREARM_LENGTH_MM


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


def one_channel(**fields):
    return armband("semg_rd16", channels=1, level=0.5, **fields)


def fibres(height, angle, end_plate=-25.0, proximal=60.0, distal=60.0, velocity=4.0):
    """Units of one fibre each at a distance (mm) from the axis and an angle (rad); end plates relative to the band."""
    height, angle, end_plate = np.broadcast_arrays(np.atleast_1d(height), angle, end_plate)
    column = np.ones((height.size, 1))
    return vc.Units(
        (height * np.cos(angle))[:, None],
        (height * np.sin(angle))[:, None],
        (MIDDLE + end_plate)[:, None] * column,
        proximal * column,
        distal * column,
        velocity * np.ones(height.size),
        np.full(height.size, 100.0),
    )


def at_depth(depth, angle_deg=0.0, **fields):
    return fibres(42.0 - depth, math.radians(angle_deg), **fields)


def muap(units, band, conductor=None):
    return vc.compute_muaps(units, band, conductor).waveform[0, 0]


def energy(units, band, conductor=None, angles=(0.0,)):
    """(units, angles) sum of squares of every MUAP."""
    waveform = vc._muaps(units, band, conductor or Conductor(), tuple(angles)).waveform
    return (waveform.astype(float) ** 2).sum(axis=2)


def full_system(c, radius, place, m, k):
    """H by the full set of boundary conditions: a source in the muscle, five parts, nine unknowns (Farina et al. 2004)."""
    q = k * math.sqrt(c.muscle_axial / c.muscle_radial)
    bone, muscle = c.bone_mm, radius - c.cover_mm
    fat = muscle + c.fat_mm
    rows, right = np.zeros((9, 9)), np.zeros(9)

    def pair(x):
        return np.array([special.iv(m, x), special.kv(m, x)])

    def slopes(sigma, frequency, r):
        x = frequency * r
        return sigma * frequency * np.array([special.ivp(m, x), special.kvp(m, x)])

    if bone > 0:
        rows[0, 0], rows[0, 1:3] = special.iv(m, k * bone), -pair(q * bone)
        rows[1, 0], rows[1, 1:3] = slopes(c.bone, k, bone)[0], -slopes(c.muscle_radial, q, bone)
    else:
        rows[0, 0] = rows[1, 2] = 1.0
    rows[2, 1:5] = *pair(q * place), *-pair(q * place)
    rows[3, 1:5] = *slopes(c.muscle_radial, q, place), *-slopes(c.muscle_radial, q, place)
    right[3] = 1.0 / place  # the radial current jumps by a unit of current, per radian of the circle it is spread on
    rows[4, 3:7] = *pair(q * muscle), *-pair(k * muscle)
    rows[5, 3:7] = *slopes(c.muscle_radial, q, muscle), *-slopes(c.fat, k, muscle)
    rows[6, 5:9] = *pair(k * fat), *-pair(k * fat)
    rows[7, 5:9] = *slopes(c.fat, k, fat), *-slopes(c.skin, k, fat)
    rows[8, 7:9] = slopes(c.skin, k, radius)
    scale = np.abs(rows).max(axis=0)
    return (np.linalg.solve(rows / scale, right) / scale)[7:9] @ pair(k * radius)


@pytest.mark.parametrize("conductor", [Conductor(), Conductor(bone_mm=8.0), Conductor(skin=1.0, fat_mm=9.0)])
def test_transfer_function_solves_all_boundary_conditions(conductor):
    # Reciprocity at work: the source in the muscle here, the current in the skin there.
    k = np.array([0.01, 0.1, 0.5, 1.5])
    places = np.array([30.0, 20.0])
    got = cylinder.potential_in(conductor, 48.0, places, 21, k)
    for m in (0, 1, 5, 15, 16, 20):
        want = [[full_system(conductor, 48.0, place, m, each) for each in k] for place in places]
        np.testing.assert_allclose(got[:, m], want, rtol=1e-6)


def test_bessel_logarithms_join_and_never_overflow():
    x = np.array([1e-3, 0.3, 5.0, 60.0, 2000.0])
    b = bessel(900, x)
    assert all(np.isfinite(part).all() for part in b)
    for m in (16, 20):  # from the expansion, compared with scipy where that does not overflow
        np.testing.assert_allclose(b.log_i[m, 1:], np.log(special.ive(m, x[1:])) + x[1:], atol=1e-7)
        np.testing.assert_allclose(b.log_k[m, 1:], np.log(special.kve(m, x[1:])) - x[1:], atol=1e-7)
    # Wronskian: I K' - I' K = -1/x, for every order.
    product = np.exp(b.log_i + b.log_k) * (b.slope_i - b.slope_k)
    np.testing.assert_allclose(product, 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("depth", "lateral", "k"), [(5.0, 0.0, 0.2), (10.0, 5.0, 0.1), (10.0, 0.0, 0.4), (8.0, 12.0, 0.2)]
)
def test_wide_cylinder_of_muscle_is_the_half_space_line_source(depth, lateral, k):
    radius, bare = 2000.0, Conductor(skin_mm=0.0, fat_mm=0.0)
    orders = math.ceil(12 * radius / depth)
    height = math.hypot(radius - depth, lateral)
    transfer = cylinder.potential_in(bare, radius, np.array([height]), orders, np.array([k]))[0, :, 0]
    m = np.arange(orders)
    angle = math.atan2(lateral, radius - depth)
    got = (np.where(m == 0, 1.0, 2.0) * np.cos(m * angle) * transfer).sum() / (4 * math.pi**2)
    stretch = math.sqrt(bare.muscle_axial / bare.muscle_radial)
    want = special.k0(k * stretch * math.hypot(depth, lateral)) / (2 * math.pi**2 * bare.muscle_radial)
    assert got == pytest.approx(want, rel=0.01)


@pytest.mark.parametrize("montage", ["monopolar", "bipolar"])
def test_muaps_of_a_wide_cylinder_of_muscle_are_those_of_the_half_space(montage):
    band = one_channel(radius_mm=300.0, montage=montage, electrode_mm=(0.1, 0.1))
    bare = Conductor(skin_mm=0.0, fat_mm=0.0)
    radius = bare.limb_radius(300.0)
    units = fibres(radius - np.array([8.0, 12.0]), np.array([0.0, 0.02]))
    got = vc.compute_muaps(units, band, bare).waveform
    want = vc.compute_muaps(units, band, Conductor("half_space")).waveform  # fat and skin count for nothing
    want = vc.half_space_muaps(
        units, *vc.electrode_positions(band, radius, (0.0,)), Conductor("half_space"), band.internal_rate_hz
    )
    length = min(got.shape[2], want.shape[2])
    error = np.linalg.norm(got[..., :length] - want[..., :length], axis=2) / np.linalg.norm(want, axis=2)
    assert error.max() < 0.04


def test_tabulation_error_is_below_a_thousandth(monkeypatch):
    config, band = EmgConfig(units_scale=0.05), armband("semg_rd16")
    units = vc.place_units(motor_units.build_pool(config), config, band.radius_mm)
    table = vc.compute_muaps(units, band).waveform
    for name, value in (("_FALL", 24.0), ("_DEPTH_RATIO", 1.02), ("_KEPT", 1e-6)):
        monkeypatch.setattr(cylinder, name, value)
    monkeypatch.setattr(vc, "stored", lambda kind, key, make: {n: np.asarray(a) for n, a in make().items()})
    fine = vc.compute_muaps(units, band).waveform
    length = min(table.shape[2], fine.shape[2])
    error = table[..., :length] - fine[..., :length]
    assert np.linalg.norm(error) < 1e-3 * np.linalg.norm(fine)
    of_unit = np.linalg.norm(error, axis=(1, 2)) / np.linalg.norm(fine, axis=(1, 2))
    assert of_unit.max() < 0.01


@pytest.mark.parametrize(("spacing", "velocity"), [(20.0, 4.0), (10.0, 4.0), (20.0, 5.0)])
def test_bipolar_null_falls_at_v_over_d(spacing, velocity):
    units = at_depth(7.0, end_plate=-250.0, distal=600.0, velocity=velocity)
    wave = muap(units, one_channel(spacing_mm=spacing))
    middle = round(250.0 / velocity * 2) + 4
    part = wave[middle - 40 : middle + 40] * np.hanning(80)
    hertz = np.fft.rfftfreq(4096, 1 / 2000)
    spectrum = np.abs(np.fft.rfft(part, 4096))
    null = velocity / spacing * 1000.0
    near = (hertz > 0.8 * null) & (hertz < 1.2 * null)
    assert hertz[near][np.argmin(spectrum[near])] == pytest.approx(null, rel=0.04)
    assert spectrum[near].min() < 0.1 * spectrum[(hertz > 0.3 * null) & (hertz < 0.7 * null)].max()


def test_travelling_part_travels_and_end_of_fibre_part_does_not():
    def time_of_peak(place, sign):
        return np.argmax(sign * muap(at_depth(7.0, end_plate=-place), one_channel(montage="monopolar"))) / 2.0  # ms

    over = [time_of_peak(place, -1) for place in (20.0, 40.0)]
    assert over[1] - over[0] == pytest.approx(20.0 / 4.0, abs=0.6)
    beyond = [time_of_peak(place, +1) for place in (70.0, 80.0, 95.0)]  # beyond the tendon at 60 mm
    assert max(beyond) - min(beyond) <= 0.5


@pytest.mark.parametrize("skin", [4.9e-4, 1.0])
def test_amplitude_falls_with_depth_and_with_angle(skin):
    band, conductor = one_channel(), Conductor(skin=skin)
    depths = [np.ptp(muap(at_depth(d), band, conductor)) for d in (5.0, 10.0, 15.0, 20.0, 28.0)]
    assert (np.diff(depths) < 0).all() and depths[0] > 10 * depths[-1]
    angles = [np.ptp(muap(at_depth(10.0, a), band, conductor)) for a in (0.0, 20.0, 45.0, 90.0)]
    assert (np.diff(angles) < 0).all() and angles[0] > 10 * angles[-1]


def test_limb_and_armband_turned_together_change_nothing_and_the_mirror_image_is_equal():
    band = armband("semg_rd16", level=0.5)
    still, mirrored = at_depth(9.0, 33.0), at_depth(9.0, -33.0)
    turned = at_depth(9.0, 33.0 + 71.0)
    here = vc.compute_muaps(still, band).waveform
    there = vc.compute_muaps(turned, armband("semg_rd16", level=0.5, first_angle_deg=71.0)).waveform
    np.testing.assert_allclose(there, here, atol=2e-3 * np.abs(here).max())
    image = vc.compute_muaps(mirrored, band).waveform
    np.testing.assert_allclose(image[0, (-np.arange(16)) % 16], here[0], atol=2e-3 * np.abs(here).max())


def test_fat_lowers_rms_and_widens_crosstalk_as_kuiken_2003():
    # An upper arm as theirs: active muscle of +-20 deg, fat added outside, electrodes 20 mm apart. Published: RMS -31.3,
    # -80.2, -90.0 % over the muscle; 5 % of it reached 14, 17 and 34 deg from its edge with fat of 0, 3 and 9 mm.
    height, angle = np.meshgrid(np.arange(33.25, 45.5), np.deg2rad(np.arange(-19.0, 20.0, 2.0)))  # muscle to 47 mm
    units = fibres(height.ravel(), angle.ravel(), end_plate=-30.0)
    band = one_channel(radius_mm=47.0 + STANDARD_COVER_MM)
    beside = np.arange(20.0, 76.0)
    rms, edge = [], []
    for fat in (0.0, 3.0, 9.0, 18.0):
        wave = np.sqrt(energy(units, band, Conductor(fat_mm=fat), (0.0, *beside)).sum(axis=0))
        rms.append(wave[0])
        below = wave[1:] < 0.05 * wave[0]
        edge.append(beside[np.argmax(below)] - 20.0 if below.any() else 90.0)
    change = 100 * (np.array(rms[1:]) / rms[0] - 1)
    np.testing.assert_allclose(change, [-31.3, -80.2, -90.0], atol=10.0)
    np.testing.assert_allclose(edge[:3], [14, 17, 34], atol=5.0)
    assert edge[3] > edge[2]


@pytest.mark.parametrize(
    ("montage", "skin", "radius"), [("bipolar", 4.9e-4, 20.0), ("monopolar", 4.9e-4, 25.0), ("bipolar", 1.0, 25.0)]
)
def test_nine_tenths_of_the_energy_come_from_within_the_published_pick_up(montage, skin, radius):
    # Fibres evenly all over the muscle; 15-25 mm are published for bipolar electrodes.
    rng = np.random.default_rng(1)
    height = np.maximum(37.4 * np.sqrt(rng.uniform(0, 1, 600)), 3.0)
    units = fibres(height, rng.uniform(-np.pi, np.pi, 600), rng.uniform(-60, 60, 600), proximal=30.0, distal=30.0)
    share = energy(units, one_channel(montage=montage), Conductor(skin=skin))[:, 0]
    near = np.hypot(units.x[:, 0] - 42.0, units.y[:, 0]) < radius
    assert share[near].sum() > 0.9 * share.sum()


def test_conductive_skin_weakens_and_blurs_the_signal():
    band = armband("semg_rd16", level=0.5)
    dry, wet = (energy(at_depth(9.0), band, Conductor(skin=s), band.angles_deg)[0] for s in (4.9e-4, 1.0))
    assert wet[0] < 0.5 * dry[0]
    assert wet[1] / wet[0] > 1.5 * dry[1] / dry[0]


def test_bone_pushes_current_outwards():
    deep, band = at_depth(25.0), one_channel()
    plain, bony = (energy(deep, band, Conductor(bone_mm=b))[0, 0] for b in (0.0, 14.0))
    assert 1.05 * plain < bony < 4 * plain
    shallow = at_depth(7.0)
    assert energy(shallow, band, Conductor(bone_mm=14.0))[0, 0] == pytest.approx(energy(shallow, band)[0, 0], rel=0.05)


def test_larger_electrodes_smooth():
    unit = at_depth(7.0)
    peaks = [np.ptp(muap(unit, one_channel(electrode_mm=(size, size)))) for size in (1.0, 5.0, 10.0, 15.0)]
    assert (np.diff(peaks) < 0).all() and peaks[1] > 0.85 * peaks[0]
    circle, square = (
        np.ptp(muap(unit, one_channel(electrode_mm=(10.0, 10.0), electrode_shape=shape)))
        for shape in ("circle", "rectangle")
    )
    assert square == pytest.approx(circle, rel=0.1) and square != circle


def test_rows_of_a_grid_see_the_action_potential_one_after_the_other():
    band = armband("hd_grid", level=0.5, first_angle_deg=-48.0)
    wave = vc.compute_muaps(at_depth(8.0, 0.0, end_plate=-45.0, distal=120.0), band).waveform[0].reshape(8, 8, -1)
    peak = np.argmin(wave[:, 4], axis=1) / 2.0  # ms; rows 10 mm apart at 4 m/s
    np.testing.assert_allclose(np.diff(peak), 2.5, atol=0.51)
    assert np.abs(band.angles_deg[3] + band.angles_deg[4]) < 8


def test_cache_is_used_and_a_damaged_one_is_remade(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []

    def make():
        made.append(1)
        return {"a": np.arange(5.0)}

    for _ in range(2):
        np.testing.assert_array_equal(store.stored("thing", ("key", np.ones(3)), make)["a"], np.arange(5.0))
    assert len(made) == 1
    (file,) = tmp_path.glob("myoloop/*")
    file.write_bytes(file.read_bytes()[:40])
    np.testing.assert_array_equal(store.stored("thing", ("key", np.ones(3)), make)["a"], np.arange(5.0))
    assert len(made) == 2
    store.stored("thing", ("key", np.zeros(3)), make)
    assert len(made) == 3 and len(list(tmp_path.glob("myoloop/*"))) == 2


def test_cache_forgets_the_oldest_and_never_keeps_giants(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(store, "KEEP_BYTES", 50_000)
    for n in range(12):
        store.stored("thing", n, lambda: {"a": np.ones(1000)})  # 8 kB and a header
        for age, file in enumerate(sorted(tmp_path.glob("myoloop/*"), key=lambda f: f.stat().st_mtime, reverse=True)):
            os.utime(file, (0, 1e9 - age))  # file systems tell times apart only so finely
    assert 5 <= len(list(tmp_path.glob("myoloop/*"))) <= 6
    made = []
    for _ in range(2):
        store.stored("giant", 0, lambda: made.append(1) or {"a": np.ones(4000)})
    assert len(made) == 2


def test_without_a_writable_folder_there_is_no_cache_and_no_error(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    np.testing.assert_array_equal(store.stored("thing", "key", lambda: {"a": np.ones(2)})["a"], np.ones(2))


def test_impossible_limbs_are_refused():
    with pytest.raises(MyoloopError, match="Did you mean 'half_space'"):
        Conductor("halfspace")
    with pytest.raises(MyoloopError, match=r"fat_mm is -1; expected mm, 0 or more"):
        Conductor(fat_mm=-1)
    with pytest.raises(MyoloopError, match=r"skin is 0; expected S/m, above 0"):
        Conductor(skin=0)
    with pytest.raises(MyoloopError, match="Did you mean 'fat_mm'"):
        conductor_from({"fat": 0.04, "fat_m": 3})
    with pytest.raises(MyoloopError, match=r"fibre lies 41\.0 mm from the axis.*reaches from 0 to 37\.7"):
        vc.compute_muaps(at_depth(1.0), one_channel())
    with pytest.raises(MyoloopError, match=r"fibre lies 12\.0 mm.*bone 15"):
        vc.compute_muaps(at_depth(30.0), one_channel(), Conductor(bone_mm=15.0))
    assert conductor_from("half_space") == Conductor("half_space")
    assert conductor_from({"fat_mm": 9.0}).limb_radius(42.0) == pytest.approx(48.0)
