"""The armband that moves on the limb: interpolated MUAPs against computed ones, and what stays the same."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from myoloop.emg import ground_truth, motor_units
from myoloop.emg.anatomy import FOREARM_LENGTH_MM
from myoloop.emg.armband import armband
from myoloop.emg.conductor import Conductor
from myoloop.emg.config import EmgConfig
from myoloop.emg.placement import Moves, locate, moved_table, ring
from myoloop.emg.synthesis import build_emg, healthy, init_emg, stack_params, synthesise
from myoloop.emg.volume_conductor import compute_muaps, place_units
from myoloop.errors import MyoloopError

CONFIG = EmgConfig(lowrank_error=0.02, units_scale=0.1)
SILENT = armband("semg_rd16", noise_uv=0.0)
LEVEL = np.full((1, 26), 0.4)


@pytest.fixture(scope="module")
def movable():
    return build_emg(SILENT, CONFIG, Moves(elbow_mm=2.5, wrist_mm=10.0))


def computed(band, rotation, shift, length):
    """MUAPs of an armband put on right there, every one computed by the volume conductor."""
    moved = dataclasses.replace(
        band, first_angle_deg=band.first_angle_deg + rotation, level=band.level + shift / FOREARM_LENGTH_MM
    )
    units = place_units(motor_units.build_pool(CONFIG), CONFIG, band.radius_mm)
    wave = compute_muaps(units, moved, CONFIG.conductor).waveform[..., :length]
    return np.pad(wave, ((0, 0), (0, 0), (0, length - wave.shape[2])))


def moved(params, batch=1, **fields):
    return healthy(params, batch)._replace(**{k: np.full(batch, v, np.float32) for k, v in fields.items()})


# Half-way between the table's places around (2.25 deg) and along the limb (1.25 mm), and anywhere.
@pytest.mark.parametrize(("rotation", "shift"), [(2.25, 1.25), (-20.25, 8.75), (24.75, 3.75), (11.0, -2.0)])
def test_interpolated_muaps_are_those_of_an_armband_put_on_there(movable, rotation, shift):
    got = ground_truth.muaps(movable, rotation_deg=rotation, displacement_mm=shift)
    want = computed(SILENT, rotation, shift, got.shape[2])
    assert np.linalg.norm(got - want) < 0.05 * np.linalg.norm(want)


def test_at_one_of_the_tables_places_only_the_shared_shapes_are_wrong(movable):
    got = ground_truth.muaps(movable, rotation_deg=9.0, displacement_mm=5.0)
    want = computed(SILENT, 9.0, 5.0, got.shape[2])
    assert np.linalg.norm(got - want) < 0.03 * np.linalg.norm(want)
    home = ground_truth.muaps(movable)
    assert np.linalg.norm(home - computed(SILENT, 0.0, 0.0, got.shape[2])) < 0.02 * np.linalg.norm(home)


def test_an_armband_that_may_move_but_stays_gives_the_same_signal_bit_for_bit(movable):
    fixed = build_emg(SILENT, CONFIG)
    start = init_emg(fixed, [3, 4])
    want, _ = synthesise(fixed, start, np.repeat(LEVEL, 2, axis=0), 80)
    for now in (None, moved(movable, 2)):
        got, _ = synthesise(movable, start, np.repeat(LEVEL, 2, axis=0), 80, now)
        np.testing.assert_array_equal(got.chunk, want.chunk)
    one_moves = moved(movable, 2)._replace(displacement_mm=np.array([0.0, 7.0], np.float32))
    got, _ = synthesise(movable, start, np.repeat(LEVEL, 2, axis=0), 80, one_moves)
    np.testing.assert_array_equal(got.chunk[0], want.chunk[0])
    assert not np.allclose(got.chunk[1], want.chunk[1], rtol=0.1)


def test_a_moving_armband_sees_no_jumps(movable):
    path = [(r, 0.6 * r) for r in np.arange(-1.0, 13.0, 0.5)]  # across places in both directions, and home
    seen = np.stack([ground_truth.muaps(movable, rotation_deg=r, displacement_mm=s) for r, s in path])
    steps = np.linalg.norm((seen[1:] - seen[:-1]).reshape(len(path) - 1, -1), axis=1)
    assert 0 < steps.max() < 2.5 * np.median(steps)
    tiny = ground_truth.muaps(movable, rotation_deg=1e-4, displacement_mm=1e-4) - ground_truth.muaps(movable)
    assert np.linalg.norm(tiny) < 1e-3 * np.linalg.norm(seen[0])


def test_turning_by_one_channel_hands_the_signal_to_the_neighbour(movable):
    rest, turned = (ground_truth.muaps(movable, rotation_deg=d) for d in (0.0, 22.5))
    assert np.abs(turned - np.roll(rest, -1, axis=1)).max() < 2e-3 * np.abs(rest).max()


def test_placements_beyond_the_table_are_held_at_its_edge(movable):
    edge, beyond = (ground_truth.muaps(movable, rotation_deg=d, displacement_mm=s) for d, s in ((30, 20), (99, 77)))
    np.testing.assert_array_equal(edge, beyond)


def test_muscles_may_shift_each_by_itself(movable):
    fcu = 4
    own = np.asarray(movable.muscle) == fcu
    got = ground_truth.muaps(movable, displacement_mm=np.where(np.arange(26) == fcu, 5.0, 0.0))
    np.testing.assert_array_equal(got[~own], ground_truth.muaps(movable)[~own])
    np.testing.assert_array_equal(got[own], ground_truth.muaps(movable, displacement_mm=5.0)[own])
    # Its fibres drawn towards the elbow are the armband moved as far towards the wrist.
    only, shift = np.zeros((2, 26)), np.zeros((2, 26), np.float32)
    only[:, fcu], shift[0, fcu] = 0.5, -5.0
    now = healthy(movable, 2)._replace(muscle_shift_mm=shift, displacement_mm=np.array([0.0, 5.0], np.float32))
    out, _ = synthesise(movable, init_emg(movable, [2, 2]), only, 80, now)
    np.testing.assert_allclose(out.chunk[0], out.chunk[1], atol=1e-3)
    assert np.std(out.chunk[0]) > 1.0


def test_a_moving_armband_does_not_depend_on_chunking_or_batch(movable):
    now = healthy(movable, 2)._replace(
        rotation_deg=np.array([4.0, -13.0], np.float32), displacement_mm=np.array([-2.0, 9.0], np.float32)
    )
    both = np.repeat(LEVEL, 2, axis=0)
    whole, _ = synthesise(movable, init_emg(movable, [5, 6]), both, 80, now)
    state, parts = init_emg(movable, [5, 6]), []
    for _ in range(2):
        out, state = synthesise(movable, state, both, 40, now)
        parts.append(np.asarray(out.chunk))
    assert np.abs(np.concatenate(parts, axis=1) - whole.chunk).max() < 1e-3 * np.std(whole.chunk)
    swapped, _ = synthesise(movable, init_emg(movable, [6, 5]), both, 80, jax.tree.map(lambda x: x[::-1], now))
    np.testing.assert_allclose(swapped.chunk[::-1], whole.chunk, atol=1e-3)


def test_people_of_one_batch_move_each_on_his_own_arm():
    flat = EmgConfig(units_scale=0.03, conductor=Conductor(kind="half_space"))
    moves = Moves(turn_deg=8.0, elbow_mm=0.0, wrist_mm=2.5)
    grid = armband("hd_grid", noise_uv=0.0, channels=8, rows=2)
    arms = [dataclasses.replace(grid, radius_mm=r) for r in (38.0, 45.0)]
    people = [build_emg(a, dataclasses.replace(flat, seed=n), moves) for n, a in enumerate(arms)]
    crowd = stack_params(people)
    for b, one in enumerate(people):
        here = [ground_truth.muaps(p, 5.0, 0.0, b, 1.5) for p in (crowd, one)]
        real = np.linalg.norm(here[0], axis=(1, 2)) > 0
        length = min(h.shape[2] for h in here)
        np.testing.assert_allclose(here[0][real][..., :length], here[1][..., :length], rtol=1e-3, atol=1e-2)
    with pytest.raises(MyoloopError, match="same `moves`"):
        stack_params([people[0], build_emg(arms[1], flat)])


def test_rows_of_a_grid_turn_together():
    flat = EmgConfig(units_scale=0.03, conductor=Conductor(kind="half_space"))
    grid = armband("hd_grid", noise_uv=0.0, channels=8, rows=2)
    params = build_emg(grid, flat, Moves(turn_deg=14.0, elbow_mm=0.0, wrist_mm=10.0))
    step = ring(grid, params.moves).step_deg
    turned = ground_truth.muaps(params, rotation_deg=3 * step)  # by one column
    rest = ground_truth.muaps(params)
    columns = (slice(None), slice(None), slice(1, None)), (slice(None), slice(None), slice(None, -1))
    shaped = [x.reshape(len(x), 2, 4, -1) for x in (rest, turned)]
    assert np.abs(shaped[0][columns[0]] - shaped[1][columns[1]]).max() < 2e-3 * np.abs(rest).max()
    along = ground_truth.muaps(params, displacement_mm=10.0).reshape(shaped[0].shape)  # by one row
    assert np.abs(along[:, :-1] - shaped[0][:, 1:]).max() < 0.05 * np.abs(rest).max()


def test_impossible_moves_are_refused_with_the_reason():
    with pytest.raises(MyoloopError, match="wrist_mm is -3; expected 0 to 100"):
        Moves(wrist_mm=-3)
    units = place_units(motor_units.build_pool(EmgConfig()), EmgConfig(), 42.0)
    shapes = np.zeros((33, 14), np.float32)
    with pytest.raises(MyoloopError, match=r"level 0\.98 cannot move by 20 mm: the forearm ends at 250"):
        moved_table(units, armband("semg_rd16", level=0.98), Conductor(), Moves(), shapes)
    with pytest.raises(MyoloopError, match="Lower units_scale"):
        moved_table(units, armband("hd_grid"), Conductor(), Moves(turn_deg=90.0, wrist_mm=60.0), shapes)


def test_every_placement_lies_between_two_of_the_table():
    for moves in (Moves(), Moves(turn_deg=0.0, elbow_mm=0.0, wrist_mm=0.0), Moves(7.0, 1.0, 3.0)):
        around = ring(SILENT, moves)
        rotation = np.linspace(-40, 40, 161, dtype=np.float32)
        shift = np.linspace(-15, 25, 161, dtype=np.float32)[:, None]
        place = locate(moves, around, np.float32(around.step_deg), rotation, shift)
        assert place.phase.min() >= 0 and place.phase.max() < around.phases
        assert place.column.min() >= 0 and place.column.max() <= 2 * around.margin
        assert place.shift.min() >= 0 and place.shift.max() + 1 < len(moves.shifts_mm)
        for part in (place.turned, place.shifted):
            assert part.min() >= 0 and part.max() <= 1
