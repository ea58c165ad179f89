"""Read joint angles from a CSV or NPZ file, and refuse what cannot be a motion of the hand.

CSV: a header `time_s` and names of joints (body/names.py; the model's suffix `_r` is accepted), then a row a frame;
times in seconds, angles in degrees, at any rate, even or uneven. Lines that begin with # are comments.
NPZ: arrays `angles_deg` (frames, joints), `joints` (names), and `time_s` (frames,) or `rate_hz`.

    motion = load_motion("my_motion.csv")
"""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from myoloop.body.model import SUFFIX, load_hand
from myoloop.body.names import JOINTS
from myoloop.errors import MyoloopError, unknown_name

TIME = "time_s"
SHORTEST_S = 0.5  # s: less than one transition from extended to flexed and some rest
LONGEST_S = 1800.0  # s: half an hour is 33 MB of angles and velocities at 100 Hz
GAP_S = 0.5  # s: a finger can flex and extend again within it, so what happened in a longer gap cannot be guessed
FASTEST_HZ = 10_000.0  # Hz: no motion capture is faster; such a rate is a wrong unit of time
MOST_FRAMES = 1_000_000
RADIANS = 3.5  # a file of degrees whose angles all stay below this holds a hand that does not move; pi is 3.14 rad
CLIP_DEG = 5.0  # deg: about the error of a data glove or of markers on skin; more is another sign or another zero


class RecordedMotion(NamedTuple):
    """The checked content of a file."""

    name: str
    """Where it came from, for messages."""
    time_s: np.ndarray
    """(frames,) s, from 0, increasing."""
    joints: tuple[str, ...]
    """Names of the joints it holds, as in JOINTS."""
    angles_deg: np.ndarray
    """(frames, len(joints)) degrees, within the joints' ranges."""
    clipped: int
    """How many angles lay a little outside their range and were put on its end."""
    beyond_deg: float
    """By how much the worst of them did, degrees."""


def load_motion(path: str | Path, clip_deg: float = CLIP_DEG) -> RecordedMotion:
    """Read and check a file.

    Args:
      path: a .csv or .npz file.
      clip_deg: angles up to this far beyond their joint's range are put on its end, degrees; more is refused.

    Raises:
      MyoloopError: the file is missing, damaged, or of another kind; unknown or repeated joints; missing values; times that
        do not increase, gaps of more than 0.5 s, an absurd rate or length; radians; an angle beyond its joint's range.
    """
    path, name = Path(path), str(path)
    if not path.is_file():
        raise MyoloopError(f"file of joint angles '{name}' not found.")
    readers = {".csv": _read_csv, ".npz": _read_npz}
    if path.suffix.lower() not in readers:
        raise MyoloopError(f"{name}: joint angles are read from .csv or .npz, found '{path.suffix}'.")
    time, joints, angles = readers[path.suffix.lower()](path, name)
    _check_values(name, joints, angles)
    time = _checked_times(name, time)
    low, high = np.rad2deg(load_hand().joint_range)[[JOINTS.index(joint) for joint in joints]].T
    beyond = np.maximum(low - angles, angles - high)
    if beyond.max() > clip_deg:
        frame, column = np.unravel_index(beyond.argmax(), beyond.shape)
        others = sorted({joints[c] for c in np.flatnonzero((beyond > clip_deg).any(axis=0))} - {joints[column]})
        raise MyoloopError(
            f"{name}: {joints[column]} is {angles[frame, column]:.1f} deg in frame {frame} ({time[frame]:.2f} s); its range "
            f"is {low[column]:.0f} to {high[column]:.0f} deg, and up to {clip_deg:g} deg beyond is clipped."
            + (f" Too far out as well: {', '.join(others)}." if others else "")
            + " Check sign and zero (all joints 0: straight fingers, thumb up; the thumb's joints flex to negative "
            "angles), or allow more with clip_deg."
        )
    return RecordedMotion(
        name=name,
        time_s=time,
        joints=joints,
        angles_deg=np.clip(angles, low, high),
        clipped=int((beyond > 1e-6).sum()),
        beyond_deg=max(float(beyond.max()), 0.0),
    )


def _read_csv(path: Path, name: str) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise MyoloopError(f"{name}: not a text file ({error}); expected CSV in UTF-8.") from error
    numbered = [(i, line) for i, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")]
    if len(numbered) < 2:
        raise MyoloopError(f"{name}: expected a header and rows of numbers, found {len(numbered)} line(s).")
    delimiter = max(",;\t", key=numbered[0][1].count)
    header, *rows = csv.reader((line for _, line in numbered), delimiter=delimiter)
    header = [cell.strip() for cell in header]
    if TIME not in header:
        raise MyoloopError(f"{name}: no column '{TIME}' (seconds); found {', '.join(header[:8])}.")
    values = np.empty((len(rows), len(header)))
    for (number, _), row, out in zip(numbered[1:], rows, values, strict=True):
        if len(row) != len(header):
            raise MyoloopError(f"{name}, line {number}: {len(row)} values; the header names {len(header)} columns.")
        for column, cell in enumerate(row):
            try:
                out[column] = float(cell) if cell.strip() else np.nan
            except ValueError:
                raise MyoloopError(f"{name}, line {number}, column {header[column]}: '{cell}' is no number.") from None
    at = header.index(TIME)
    names = [cell for i, cell in enumerate(header) if i != at]
    return values[:, at], _known_joints(name, names), np.delete(values, at, axis=1)


def _read_npz(path: Path, name: str) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise MyoloopError(f"{name}: not a readable NPZ file: {error}.") from error
    for key in ("angles_deg", "joints"):
        if key not in content:
            raise MyoloopError(f"{name}: no array '{key}'; found {', '.join(sorted(content)) or 'none'}.")
    angles, names = content["angles_deg"], [str(joint) for joint in np.atleast_1d(content["joints"])]
    if angles.ndim != 2 or angles.shape[1] != len(names) or angles.dtype.kind not in "fiu":
        raise MyoloopError(
            f"{name}: angles_deg is {angles.dtype} {angles.shape}; expected numbers (frames, {len(names)}): 'joints' has "
            f"{len(names)} names."
        )
    time = content.get(TIME)
    if (time is None) == ("rate_hz" not in content):
        raise MyoloopError(f"{name}: expected one of the arrays '{TIME}' and 'rate_hz'; found {', '.join(content)}.")
    if time is None:
        rate = np.asarray(content["rate_hz"])
        if rate.size != 1 or rate.dtype.kind not in "fiu" or not 0 < rate.item() < np.inf:
            raise MyoloopError(f"{name}: rate_hz is {rate.tolist()}; expected one number above 0.")
        time = np.arange(len(angles)) / rate.item()
    if time.shape != (len(angles),) or time.dtype.kind not in "fiu":
        raise MyoloopError(
            f"{name}: {TIME} is {time.dtype} {time.shape}; expected one time for each of {len(angles)} frames."
        )
    return time.astype(float), _known_joints(name, names), angles.astype(float)


def _known_joints(name: str, names: list[str]) -> tuple[str, ...]:
    """The names without the model's suffix, each known and there once."""
    plain = [joint.strip().removesuffix(SUFFIX) for joint in names]
    for joint in plain:
        if joint not in JOINTS:
            raise unknown_name("joint", joint, JOINTS, name)
    twice = sorted({joint for joint in plain if plain.count(joint) > 1})
    if twice or not plain:
        what = f"{', '.join(twice)} more than once" if twice else "no joint"
        raise MyoloopError(f"{name}: holds {what}; expected one or more of the joints {', '.join(JOINTS)}.")
    return tuple(plain)


def _check_values(name: str, joints: tuple[str, ...], angles: np.ndarray) -> None:
    bad = ~np.isfinite(angles)
    if bad.any():
        frame, column = np.argwhere(bad)[0]
        raise MyoloopError(
            f"{name}: {bad.sum()} of {bad.size} angles are missing or not finite, the first is {joints[column]} in frame "
            f"{frame}. Fill short gaps yourself, or cut the file there: what the hand did cannot be guessed."
        )
    largest = np.abs(angles).max(initial=0.0)
    if largest < RADIANS:
        raise MyoloopError(
            f"{name}: the largest angle is {largest:.3g}; in degrees, that hand does not move. Expected degrees: are these "
            "radians? Convert with numpy.rad2deg."
        )


def _checked_times(name: str, time: np.ndarray) -> np.ndarray:
    """The times from 0 on."""
    if not np.isfinite(time).all():
        raise MyoloopError(f"{name}: {TIME} is missing or not finite in frame {np.flatnonzero(~np.isfinite(time))[0]}.")
    if len(time) > MOST_FRAMES:
        raise MyoloopError(f"{name}: {len(time)} frames; expected at most {MOST_FRAMES}. Lower its rate, or cut it.")
    time = time - (time[0] if len(time) else 0.0)
    steps = np.diff(time)
    if (steps <= 0).any():
        frame = int(np.flatnonzero(steps <= 0)[0]) + 1
        raise MyoloopError(
            f"{name}: {TIME} does not increase from frame {frame - 1} to {frame} (by {steps[frame - 1]:g} s). Sort the rows, "
            "and leave repeated ones out."
        )
    if (steps > GAP_S).any():
        frame = int(np.flatnonzero(steps > GAP_S)[0])
        usual = float(np.median(steps))
        hint = " Are the times in milliseconds? Expected seconds." if usual > GAP_S else " Cut the file there."
        raise MyoloopError(
            f"{name}: {steps[frame]:g} s without a frame after frame {frame} ({time[frame]:g} s); expected at most {GAP_S} s."
            f"{hint}"
        )
    length = float(time[-1]) if len(time) else 0.0
    if length > 0 and (len(time) - 1) / length > FASTEST_HZ:
        rate = (len(time) - 1) / length
        raise MyoloopError(f"{name}: {rate:.4g} frames/s; expected at most {FASTEST_HZ:g}. Are the times in seconds?")
    if not SHORTEST_S <= length <= LONGEST_S:
        raise MyoloopError(
            f"{name}: {len(time)} frame(s) over {length:.3g} s; expected {SHORTEST_S} to {LONGEST_S:g} s of motion."
        )
    return time
