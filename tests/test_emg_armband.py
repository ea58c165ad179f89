"""Promises of the armbands: presets, your own, refused nonsense; and their filter."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from myoloop.emg import filters
from myoloop.emg.anatomy import MUSCLE_TABLE
from myoloop.emg.armband import PRESETS, Armband, armband, armband_from
from myoloop.errors import MyoloopError


def test_presets_are_the_published_devices():
    big, small = armband("semg_rd16"), armband("myo8")
    assert (big.channels, big.rate_hz, big.spacing_mm, big.low_hz, big.high_hz) == (16, 2000, 20, 20, 850)
    assert (small.channels, small.rate_hz, small.bits, small.decimation) == (8, 200, 8, 10)
    assert len(big.channel_labels) == 16 and len(set(big.angles_deg)) == 16
    assert max(np.diff(sorted(big.angles_deg))) == pytest.approx(22.5)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_says_where_it_is_from_and_streams_at_control_rate(name):
    band = armband(name)
    assert band.name == name and len(band.source) > 30
    assert band.rate_hz % 50 == 0  # whole samples in a control step of 20 ms
    assert len(band.angles_deg) == len(band.channel_labels) == band.channels
    assert band.internal_rate_hz >= 2000 and band.noise_uv > 0


def test_published_numbers_of_the_presets():
    trigno, muovi, gforce = armband("trigno16"), armband("muovi32"), armband("gforce8")
    assert (trigno.channels, trigno.rate_hz, trigno.spacing_mm, trigno.low_hz, trigno.high_hz) == (
        16,
        2000,
        10,
        20,
        450,
    )
    assert trigno.lsb_uv * 2**trigno.bits == pytest.approx(22e3, rel=0.01)
    assert (muovi.channels, muovi.rate_hz, muovi.montage, muovi.bits) == (32, 2000, "monopolar", 16)
    assert muovi.lsb_uv == pytest.approx(0.2861)
    assert (gforce.channels, gforce.rate_hz, gforce.bits, gforce.decimation) == (8, 1000, 8, 2)


def test_a_grid_covers_a_patch_row_by_row():
    band = armband("hd_grid", first_angle_deg=0.0)
    angles = np.array(band.angles_deg).reshape(8, 8)
    assert (angles == angles[0]).all()
    np.testing.assert_allclose(np.diff(np.deg2rad(angles[0])) * band.radius_mm, 10.0)
    assert armband("muovi32").angles_deg[:16] == armband("muovi32").angles_deg[16:]


def test_slow_devices_are_synthesised_at_2_khz_or_more():
    for rate in (200.0, 500.0, 1000.0, 1926.0, 2000.0, 2148.0):
        band = armband("semg_rd16", rate_hz=rate)
        assert band.internal_rate_hz >= 2000 and band.internal_rate_hz == pytest.approx(rate * band.decimation)


def test_unknown_preset_and_field_say_what_was_meant():
    with pytest.raises(MyoloopError, match="Did you mean 'semg_rd16'"):
        armband("semg_rd61")
    with pytest.raises(MyoloopError, match="Did you mean 'spacing_mm'"):
        armband("semg_rd16", spacing=10)
    with pytest.raises(MyoloopError, match=r"mine\.yaml: unknown field 'chanels'\. Did you mean 'channels'"):
        armband_from({"name": "mine", "chanels": 4, "rate_hz": 1000}, "mine.yaml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spacing_mm": 0}, "spacing_mm"),
        ({"spacing_mm": -3}, "spacing_mm"),
        ({"channels": 0}, "channels"),
        ({"channels": 2.5}, "channels"),
        ({"rate_hz": float("nan")}, "rate_hz"),
        ({"rate_hz": "fast"}, "rate_hz"),
        ({"high_hz": 1000}, "high_hz"),
        ({"low_hz": 900}, "band"),
        ({"noise_uv": -1}, "noise_uv"),
        ({"level": 1.5}, "level"),
        ({"montage": "bipolr"}, "Did you mean 'bipolar'"),
        ({"first_angle_deg": float("inf")}, "first_angle_deg"),
        ({"radius_mm": 20}, "radius_mm"),
        (
            {"electrode_mm": (25.0, 5.0), "electrode_shape": "rectangle"},
            "wider than the 20 mm between the electrodes of a",
        ),
        (
            {"electrode_mm": (5.0, 17.0), "electrode_shape": "rectangle"},
            "wider than the 16.4934 mm between neighbouring",
        ),
        ({"electrode_mm": (20.0, 20.0)}, "they would touch"),
        ({"rows": 2, "row_spacing_mm": 3.0}, "row_spacing_mm"),
        ({"rows": 3}, "16 channels do not make 3 equal rows"),
        ({"column_spacing_mm": 30.0}, "do not fit around a limb of 264 mm"),
        ({"column_spacing_mm": -1.0}, "column_spacing_mm"),
        ({"electrode_mm": (5.0,)}, "electrode_mm"),
        ({"electrode_mm": "big"}, "electrode_mm"),
        ({"electrode_shape": "cirle"}, "Did you mean 'circle'"),
    ],
)
def test_impossible_values_are_refused_by_name(change, words):
    with pytest.raises(MyoloopError, match=words):
        armband("semg_rd16", **change)


def test_own_armband_from_a_mapping():
    band = armband_from({"name": "mine", "channels": 4, "rate_hz": 1000, "montage": "monopolar", "first_angle_deg": 45})
    assert isinstance(band, Armband) and band.angles_deg == (45.0, 135.0, -135.0, -45.0) and band.decimation == 2
    assert armband_from({"preset": "myo8", "noise_uv": 3.0}) == armband("myo8", noise_uv=3.0)
    assert armband_from("myo8") == armband("myo8")
    file = {"name": "grid", "channels": 6, "rate_hz": 500, "rows": 2, "row_spacing_mm": 12, "column_spacing_mm": 15}
    grid = armband_from({**file, "electrode_mm": [4, 4]})
    assert grid.electrode_mm == (4, 4) and hash(grid) and len(grid.angles_deg) == 6 and grid.columns == 3
    with pytest.raises(MyoloopError, match="channels, rate_hz missing"):
        armband_from({"name": "mine"})
    with pytest.raises(MyoloopError, match="expected a preset's name or a mapping"):
        armband_from(7)


@pytest.mark.parametrize("samples", [1, 7, 40])
def test_block_filter_equals_scipy_for_any_block_length(samples):
    band = armband("semg_rd16", low_hz=5.0)
    x = np.random.default_rng(1).standard_normal((2, 280)).astype(np.float32)
    sos = signal.butter(2, [5, 850], "bandpass", fs=2000, output="sos")
    state = jnp.zeros((2, filters.filter_states(band)))
    parts = []
    for i in range(0, 280, samples):
        y, state = filters.run_block(filters.band_pass(band, samples), jnp.asarray(x[:, i : i + samples]), state)
        parts.append(np.asarray(y))
    np.testing.assert_allclose(np.concatenate(parts, axis=1), signal.sosfilt(sos, x), atol=2e-5)


def test_every_muscle_row_names_its_sources_and_lies_inside_the_arm():
    for name, row in MUSCLE_TABLE.items():
        assert len(row.source) == 6 and set(row.source) <= set("NCLME"), name
        assert 0 < row.depth_mm[0] < row.depth_mm[1] < 42 and 0 <= row.belly[0] < row.belly[1] <= 1, name
        assert (row.units is None) == (row.source[5] == "E"), name


def test_cross_sections_and_fibres_are_those_of_the_cadavers():
    # Lieber et al. 1990, 1992 as the OpenSim wrist model holds them: force (N) over 45 or 30 N/cm2, fibre length (mm) at 2.7
    # um of sarcomere over 2.7/2.2.
    model = {"ECRB": (122.9, 45, 58.5), "FCU": (102.6, 30, 50.9), "FDS2": (51.3, 30, None), "FDP3": (66.9, 30, 83.5)}
    model |= {"EDC3": (45.9, 45, 72.4), "EDM": (28.8, 45, 67.5), "FPL": (62.4, 30, 55.2), "APL": (57.9, 30, 71.3)}
    for name, (force, tension, fibre) in model.items():
        row = MUSCLE_TABLE[name]
        assert row.pcsa_cm2 == pytest.approx(force / tension, abs=0.01), name
        assert fibre is None or row.fibre_mm == pytest.approx(fibre * 2.2 / 2.7, abs=1.0), name
