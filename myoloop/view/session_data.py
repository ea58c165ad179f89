"""What a film shows, read from a run folder or an XDF recording."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from myoloop.errors import MyoloopError
from myoloop.streams.rowlog import read_rows
from myoloop.streams.xdf import SESSION_FILE, XdfSession, XdfStream, read_xdf

STRETCH = "emg_stretch.npz"
"""The last seconds of EMG that a session keeps anyway."""

PAUSE_S = 0.4
"""Steps further apart lie on both sides of a pause."""


class SessionData(NamedTuple):
    """A session, one row a control step; times in s from its first step."""

    name: str
    time: np.ndarray
    """(steps,) s, pauses left out"""
    joints_deg: np.ndarray
    """(steps, 23)"""
    wanted_deg: np.ndarray | None
    """(steps, 23) asked for; None: not recorded"""
    excitation: np.ndarray
    """(steps, 39)"""
    target: np.ndarray
    """(steps, 5)"""
    prediction: np.ndarray
    """(steps, 5)"""
    emg_time: np.ndarray
    """(samples,) s; empty: no EMG was kept"""
    emg_uv: np.ndarray
    """(samples, channels)"""


def read_session(path: Path) -> SessionData:
    """Reads a run folder, or an .xdf file alone.

    Raises:
      MyoloopError: there is no session in it, or it made no step.
    """
    if path.suffix == ".xdf":
        return _from_xdf(path)
    rows = read_rows(path / "steps")
    if not len(rows):
        raise MyoloopError(f"the session in {path} made no step: nothing to show.")
    stamps, emg = _emg_of(path)
    time = without_pauses(rows["time"], rows["time"])
    return SessionData(
        path.resolve().name, time, rows["joints_deg"], rows["wanted_deg"], rows["excitation"],
        rows["target"], rows["prediction"], without_pauses(rows["time"], stamps), emg,
    )  # fmt: skip


def without_pauses(steps: np.ndarray, stamps: np.ndarray) -> np.ndarray:
    """Seconds from the first step for stamps (n,), as if the steps, of the stamps `steps`, had never paused."""
    apart = np.diff(steps, prepend=steps[0])
    left_out = np.cumsum(np.where(apart > PAUSE_S, apart - np.median(apart), 0.0))
    step = np.searchsorted(steps, stamps, side="left").clip(0, len(steps) - 1)  # the one that made the sample
    return np.asarray(stamps - steps[0] - left_out[step])


def _emg_of(run_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Stamps and samples: of the recording if there is one, else of the stretch that every session keeps."""
    if (run_dir / SESSION_FILE).is_file():
        with contextlib.suppress(MyoloopError):
            emg = read_xdf(run_dir).streams["emg"]
            return emg.stamps, emg.samples
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(run_dir / STRETCH) as kept:
        return np.asarray(kept["time"]), np.asarray(kept["emg_uv"])
    return np.zeros(0), np.zeros((0, 0))


def _from_xdf(path: Path) -> SessionData:
    session = read_xdf(path)
    needed = {name: _stream(session, name, path) for name in ("kinematics", "target", "excitation", "feedback")}
    time = needed["kinematics"].stamps
    said = _at(needed["feedback"], time)[:, :5]
    wanted = session.streams.get("reference")
    emg = session.streams["emg"]
    return SessionData(
        path.stem, without_pauses(time, time), needed["kinematics"].samples, None if wanted is None else _at(wanted, time),
        _at(needed["excitation"], time), _at(needed["target"], time), said, without_pauses(time, emg.stamps), emg.samples,
    )  # fmt: skip


def _stream(session: XdfSession, name: str, path: Path) -> XdfStream:
    found = session.streams.get(name)
    if found is None or not len(found.stamps):
        raise MyoloopError(f"{path} holds no samples of '{session.participant}_{name}': a film needs them.")
    return found


def _at(stream: XdfStream, time: np.ndarray) -> np.ndarray:
    """The stream's newest sample at each time; its first before that."""
    return stream.samples[np.searchsorted(stream.stamps, time + 1e-6, side="right").clip(1) - 1]
