"""References from files of joint angles: played as recorded, and refused by name when they cannot be a hand's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from myoloop.body.model import load_hand
from myoloop.body.names import JOINTS
from myoloop.errors import MyoloopError
from myoloop.task.motion_file import load_motion
from myoloop.task.recorded import RecordedConfig, RecordedReference
from myoloop.task.reference import (
    EXTENDED,
    FLEXED,
    Motion,
    Reference,
    ReferenceConfig,
    flexion,
    hold,
    labels,
    make_reference,
    motion,
    release,
)

INDEX = JOINTS.index("mcp2_flexion"), JOINTS.index("pm2_flexion")


def bend(t: np.ndarray) -> np.ndarray:
    """Two joints of the index finger, degrees: whole periods in 4 s."""
    return np.stack([45 + 30 * np.sin(2 * np.pi * 0.5 * t), 40 - 35 * np.cos(2 * np.pi * 0.25 * t)], axis=1)


def write_csv(path: Path, t: np.ndarray, angles: np.ndarray, header: str = "time_s,mcp2_flexion,pm2_flexion_r") -> Path:
    np.savetxt(path, np.column_stack([t, angles]), delimiter=",", header=header, comments="")
    return path


def played(ref: RecordedReference | Reference, t: np.ndarray) -> Motion:
    return jax.jit(jax.vmap(lambda when: motion(ref, when)))(jnp.asarray(t, jnp.float32))


@pytest.mark.parametrize("rate_hz", [25.0, 60.0, 100.0, 1000.0, 2048.0])
def test_motion_is_followed_at_any_rate(tmp_path: Path, rate_hz: float) -> None:
    t = np.arange(round(4 * rate_hz)) / rate_hz
    ref = make_reference(RecordedConfig(str(write_csv(tmp_path / "m.csv", t, bend(t)))))
    asked = np.arange(0.2, 3.8, 0.013)  # between frames, and away from the ends, where the way back begins
    found = np.asarray(played(ref, asked).qpos)[:, 0]
    assert np.abs(np.degrees(found[:, INDEX]) - bend(asked)).max() < 0.3


def test_uneven_frames_with_a_gap_below_the_limit_are_followed(tmp_path: Path) -> None:
    t = np.sort(np.random.default_rng(0).uniform(0, 4, 300))
    t = t[(t < 1.5) | (t > 1.6)]
    ref = make_reference(RecordedConfig(str(write_csv(tmp_path / "m.csv", t, bend(t)))))
    asked = np.arange(0.2, 3.6, 0.013)
    found = np.degrees(np.asarray(played(ref, asked).qpos)[:, 0, INDEX])
    assert np.abs(found - bend(asked + t[0])).max() < 1.0


def test_noise_above_the_movement_is_removed_without_delay_or_aliases(tmp_path: Path) -> None:
    t = np.arange(4000) / 1000
    angles = bend(t) + 3 * np.sin(2 * np.pi * 98 * t)[:, None]  # 98 Hz would alias to 2 Hz on a grid of 100 Hz
    ref = make_reference(RecordedConfig(str(write_csv(tmp_path / "m.csv", t, angles))))
    asked = np.arange(0.2, 3.8, 0.01)
    found = np.degrees(np.asarray(played(ref, asked).qpos)[:, 0, INDEX])
    assert np.abs(found - bend(asked)).max() < 0.3


def test_velocity_is_the_derivative_of_the_angles(tmp_path: Path) -> None:
    t = np.arange(200) / 50
    ref = make_reference(RecordedConfig(str(write_csv(tmp_path / "m.csv", t, bend(t)))))
    asked = np.arange(0.0, 10.0, 0.004)  # over the loop's joints, too
    m = played(ref, asked)
    slope = np.diff(np.asarray(m.qpos)[:, 0], axis=0) / 0.004
    between = (np.asarray(m.qvel)[1:, 0] + np.asarray(m.qvel)[:-1, 0]) / 2
    assert np.abs(np.asarray(m.qvel)).max() > 1.0
    assert np.abs(slope - between).max() < 0.1


def test_csv_and_npz_with_times_or_rate_are_the_same_motion(tmp_path: Path) -> None:
    t = np.arange(300) / 100
    joints = np.array(["mcp2_flexion", "pm2_flexion"])
    csv = write_csv(tmp_path / "a.csv", t + 17.5, bend(t), "time_s, mcp2_flexion_r ,pm2_flexion")
    np.savez(tmp_path / "b.npz", time_s=t - 3, joints=joints, angles_deg=bend(t))
    np.savez(tmp_path / "c.npz", rate_hz=100, joints=joints[::-1], angles_deg=bend(t)[:, ::-1])
    wanted = [np.asarray(played(make_reference(RecordedConfig(str(p))), t).qpos) for p in (csv, tmp_path / "b.npz")]
    other = np.asarray(played(make_reference(RecordedConfig(str(tmp_path / "c.npz"))), t).qpos)
    np.testing.assert_allclose(wanted[0], wanted[1], atol=1e-5)
    np.testing.assert_allclose(wanted[0], other, atol=1e-5)


def test_joints_that_the_file_lacks_stay_neutral(tmp_path: Path) -> None:
    t = np.arange(200) / 50
    m = played(make_reference(RecordedConfig(str(write_csv(tmp_path / "m.csv", t, bend(t))))), t)
    others = [j for j in range(len(JOINTS)) if j not in INDEX]
    np.testing.assert_allclose(np.asarray(m.qpos)[:, 0, others], np.tile(EXTENDED[others], (len(t), 1)), atol=1e-6)
    assert not np.asarray(m.flexion)[:, 0, [0, 2, 3, 4]].any()


def test_flexion_and_labels_of_a_recorded_template_are_the_templates(tmp_path: Path) -> None:
    template = make_reference(ReferenceConfig(kind="continuous", seed=4))
    t = np.arange(1000) / 100
    wanted = played(template, t)
    np.savez(tmp_path / "m.npz", time_s=t, joints=JOINTS, angles_deg=np.rad2deg(wanted.qpos[:, 0]))
    found = played(make_reference(RecordedConfig(str(tmp_path / "m.npz"))), t[30:-30])
    np.testing.assert_allclose(found.flexion, wanted.flexion[30:-30], atol=0.005)
    np.testing.assert_allclose(found.qvel, wanted.qvel[30:-30], atol=0.05)  # rad/s; up to 4.7
    clear = np.abs(np.asarray(wanted.flexion[30:-30]) - 0.5) > 0.01
    np.testing.assert_array_equal(np.asarray(found.labels)[clear], np.asarray(wanted.labels[30:-30])[clear])
    assert 0.2 < np.asarray(found.labels).mean() < 0.8


def test_loop_comes_back_smoothly_and_within_the_joints_ranges(tmp_path: Path) -> None:
    t = np.arange(300) / 100
    ramp = np.stack([25 * t, 80 - 20 * t], axis=1)  # ends far from where it begins
    ref = make_reference(RecordedConfig(str(write_csv(tmp_path / "m.csv", t, ramp))))
    assert 3.2 < ref.length_s < 4.5
    asked = np.arange(0, 3 * ref.length_s, 0.002)
    qpos = np.asarray(played(ref, asked).qpos)[:, 0]
    low, high = load_hand().joint_range.T
    assert (qpos >= low - 1e-3).all() and (qpos <= high + 1e-3).all()
    assert np.abs(np.diff(qpos, axis=0)).max() / 0.002 < 8.0  # rad/s: no jump; a template reaches 6
    again = np.asarray(played(ref, asked[:500] + ref.length_s).qpos)[:, 0]
    np.testing.assert_allclose(again, qpos[:500], atol=2e-3)


def test_a_file_that_is_a_cycle_loops_without_a_detour(tmp_path: Path) -> None:
    t = np.arange(400) / 100
    ref = make_reference(RecordedConfig(str(write_csv(tmp_path / "m.csv", t, bend(t)))))
    assert ref.length_s == pytest.approx(4.0)


def test_hold_at_the_end_stays_there_at_rest(tmp_path: Path) -> None:
    t = np.arange(300) / 100
    ramp = np.stack([25 * t, 80 - 20 * t], axis=1)
    ref = make_reference(RecordedConfig(str(write_csv(tmp_path / "m.csv", t, ramp)), at_end="hold"), participants=3)
    m = played(ref, np.array([0.0, 3.0, 50.0]))
    np.testing.assert_allclose(np.degrees(m.qpos[0, :, INDEX[0]]), 0.0, atol=0.5)
    np.testing.assert_allclose(np.degrees(m.qpos[1:, :, INDEX[0]]), 74.75, atol=0.5)
    assert not np.asarray(m.qvel[1:]).any()


def test_participants_begin_at_places_of_their_own(tmp_path: Path) -> None:
    t = np.arange(400) / 100
    path = str(write_csv(tmp_path / "m.csv", t, bend(t)))
    few, many = (make_reference(RecordedConfig(path, seed=5), participants=n) for n in (2, 6))
    assert float(many.offset[0]) == 0.0 and len(set(np.asarray(many.offset).tolist())) == 6
    np.testing.assert_array_equal(few.offset, many.offset[:2])
    now = np.asarray(motion(many, 1.0).qpos)
    alone = np.asarray(played(few, 1.0 + np.asarray(many.offset)).qpos)
    np.testing.assert_allclose(now, alone[:, 0], atol=1e-4)


def test_every_leaf_belongs_to_participants(tmp_path: Path) -> None:
    t = np.arange(400) / 100
    ref = make_reference(RecordedConfig(str(write_csv(tmp_path / "m.csv", t, bend(t)))), participants=6)
    assert all(leaf.shape[0] == 6 for leaf in jax.tree.leaves(ref))
    part = jax.tree.map(lambda leaf: leaf[2:4], ref)
    now = np.array([0.7])
    np.testing.assert_allclose(played(part, now).qpos, played(ref, now).qpos[:, 2:4], atol=1e-6)


def test_hold_moves_smoothly_to_the_target_and_release_back(tmp_path: Path) -> None:
    t = np.arange(400) / 100
    ref = make_reference(RecordedConfig(str(write_csv(tmp_path / "m.csv", t, bend(t)))), participants=2)
    asked = np.array([1, 0, 1, 0, 1.0])
    held = hold(ref, 1.0, asked, who=np.array([True, False]))
    np.testing.assert_allclose(motion(held, 1.0).qpos, motion(ref, 1.0).qpos, atol=1e-5)
    np.testing.assert_allclose(flexion(held, 1.6)[0], asked, atol=1e-5)
    np.testing.assert_array_equal(labels(held, 1.01)[0], asked)
    np.testing.assert_allclose(motion(held, 1.6).qpos[0, 15:19], FLEXED[15:19] * 0 + EXTENDED[15:19], atol=1e-5)
    np.testing.assert_array_equal(motion(held, 1.6).qpos[1], motion(ref, 1.6).qpos[1])
    freed = release(held, 2.0)
    np.testing.assert_allclose(motion(freed, 2.0).qpos, motion(held, 2.0).qpos, atol=1e-5)
    np.testing.assert_allclose(motion(freed, 2.5).qpos, motion(ref, 2.5).qpos, atol=1e-5)


def test_angles_a_little_beyond_the_range_are_clipped_and_counted(tmp_path: Path) -> None:
    t = np.arange(200) / 50
    angles = bend(t)
    angles[20:23, 0] = -4.0
    path = write_csv(tmp_path / "m.csv", t, angles)
    found = load_motion(path)
    assert found.clipped == 3 and found.beyond_deg == pytest.approx(4.0, abs=1e-3) and found.angles_deg.min() > -1e-6
    (note,) = make_reference(RecordedConfig(str(path))).notes
    assert "3 of 400 angles" in note and "4.0 deg" in note


T = np.arange(200) / 50


def _frame(values: np.ndarray, frame: int, value: float) -> np.ndarray:
    values = values.copy()
    values[frame] = value
    return values


@pytest.mark.parametrize(
    ("t", "angles", "header", "message"),
    [
        (T, bend(T), "time_s,mcp2_flexin,pm2_flexion", r"unknown joint 'mcp2_flexin'. Did you mean 'mcp2_flexion'"),
        (T, bend(T), "time,mcp2_flexion,pm2_flexion", "no column 'time_s'"),
        (T, bend(T), "time_s,mcp2_flexion,mcp2_flexion_r", "holds mcp2_flexion more than once"),
        (T, _frame(bend(T), 7, np.nan), None, "2 of 400 angles are missing .* mcp2_flexion in frame 7"),
        (T, np.deg2rad(bend(T)), None, "are these radians"),
        (T, _frame(bend(T), 9, 97.5), None, r"mcp2_flexion is 97.5 deg in frame 9 \(0.18 s\); its range is 0 to 90 deg"),
        (T, -bend(T), None, "mcp2_flexion is -75.0 deg .* Too far out as well: pm2_flexion.* Check sign"),
        (_frame(T, 7, 0.12), bend(T), None, "does not increase from frame 6 to 7"),
        (T + (np.arange(200) > 80), bend(T), None, r"1.02 s without a frame after frame 80 \(1.6 s\)"),
        (_frame(T, 7, np.nan), bend(T), None, "time_s is missing or not finite in frame 7"),
        (1000 * T, bend(T), None, "Are the times in milliseconds"),
        (1e-6 * T, bend(T), None, "frames/s; expected at most 10000"),
        (T / 10, bend(T), None, "200 frame.s. over 0.398 s; expected 0.5 to 1800 s"),
        (T[:1], bend(T)[:1], None, "1 frame.s. over 0 s"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_a_hands_motion_are_refused(
    tmp_path: Path, t: np.ndarray, angles: np.ndarray, header: str | None, message: str
) -> None:
    path = write_csv(tmp_path / "m.csv", t, angles, header or "time_s,mcp2_flexion,pm2_flexion")
    with pytest.raises(MyoloopError, match=message):
        load_motion(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time_s,mcp2_flexion\n0,10\n0.1,ten\n", "line 3, column mcp2_flexion: 'ten' is no number"),
        ("# glove\n\ntime_s;mcp2_flexion\n0;10,5\n", "line 4, column mcp2_flexion: '10,5' is no number"),
        ("time_s,mcp2_flexion\n0,10\n0.1\n", "line 3: 1 values; the header names 2 columns"),
        ("time_s,mcp2_flexion\n0,10\n0.1,\n0.7,20\n", "1 of 3 angles are missing"),
        ("time_s\n0\n1\n", "holds no joint"),
        ("", "expected a header and rows of numbers"),
    ],
)
def test_damaged_csv_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(MyoloopError, match=message):
        load_motion(tmp_path / "m.csv")


def _npz(**change: object) -> Callable[[Path], None]:
    arrays = dict(rate_hz=50.0, joints=["mcp2_flexion", "pm2_flexion"], angles_deg=bend(T)) | change
    kept = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
    return lambda path: np.savez(path, **kept)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_npz(joints=None), "no array 'joints'; found angles_deg, rate_hz"),
        (_npz(joints=["mcp2_flexion"]), r"angles_deg is float64 \(200, 2\); expected numbers \(frames, 1\)"),
        (_npz(rate_hz=-1.0), "rate_hz is -1.0; expected one number above 0"),
        (_npz(rate_hz=None), "expected one of the arrays 'time_s' and 'rate_hz'"),
        (_npz(time_s=T), "expected one of the arrays 'time_s' and 'rate_hz'"),
        (_npz(rate_hz=None, time_s=T[:9]), r"time_s is float64 \(9,\); expected one time for each of 200 frames"),
        (lambda path: path.write_bytes(b"PK nothing"), "not a readable NPZ file"),
    ],
)
def test_damaged_npz_is_refused(tmp_path: Path, write: Callable[[Path], None], message: str) -> None:
    write(tmp_path / "m.npz")
    with pytest.raises(MyoloopError, match=message):
        load_motion(tmp_path / "m.npz")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RecordedConfig("nowhere.csv"), "'nowhere.csv' not found"),
        (RecordedConfig(__file__), "read from .csv or .npz, found '.py'"),
        (RecordedConfig("m.csv", at_end="repeat"), "unknown at_end 'repeat'"),
        (RecordedConfig("m.csv", clip_deg=90), "clip_deg is 90; expected 0 to 30"),
        (RecordedConfig("m.csv", lowpass_hz=0), "lowpass_hz is 0; expected 1 to 30 Hz"),
    ],
)
def test_bad_settings_are_refused_by_name(config: RecordedConfig, message: str) -> None:
    with pytest.raises(MyoloopError, match=message):
        make_reference(config)
