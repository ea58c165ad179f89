"""EMG and the answers to it, as pairs that a model can learn from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from myoloop.body.names import FINGERS
from myoloop.errors import MyoloopError

HELD_S = 0.5
"""s for which an answer counts as given; EMG that is older than that when the next one comes has no answer."""
SAME_S = 1e-5
"""s by which stamps of one sample may differ: the fastest device has 100 us between samples."""


class Pairs(NamedTuple):
    """What a session said."""

    emg: np.ndarray
    """(samples, channels) float32, microvolts"""
    stamps: np.ndarray
    """(samples,) s"""
    answered: np.ndarray
    """(answers,) s: time of the newest EMG sample behind each"""
    answers: np.ndarray
    """(answers, 5) probability of flexed"""
    rate_hz: float


def save_pairs(pairs: Pairs, path: Path) -> None:
    """Writes it as compressed NPZ."""
    partial = path.with_name(path.name + ".part.npz")
    np.savez_compressed(partial, **pairs._asdict())
    partial.replace(path)


def load_pairs(path: Path) -> Pairs:
    """Reads what `save_pairs` wrote.

    Raises:
      MyoloopError: no such file, or another one.
    """
    try:
        with np.load(path) as saved:
            values = {name: saved[name] for name in Pairs._fields}
            return Pairs(**values | {"rate_hz": float(values["rate_hz"])})
    except (OSError, ValueError, KeyError) as error:
        raise MyoloopError(f"{path} holds no EMG with answers ({error}): record again.") from error


def stretches(pairs: Pairs, frame: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole stretches of EMG without a gap, each with the answers that came to it.

    Args:
      pairs: a session.
      frame: samples of a frame, a control step's.
      frames: frames of a stretch.

    Returns:
      EMG (n, frames * frame, channels) and answers (n, frames, 5): of each frame the last one about EMG inside it, NaN if there
      is none, as with software that answers less often. Stretches in which no answer comes for HELD_S are left out.
    """
    found_emg, found_answers = [], []
    order = np.argsort(pairs.answered, kind="stable")
    answered, answers = pairs.answered[order], pairs.answers[order]
    breaks = np.flatnonzero(np.abs(np.diff(pairs.stamps) * pairs.rate_hz - 1.0) > 0.5) + 1
    for part in np.split(np.arange(len(pairs.stamps)), breaks):
        for first in range(0, len(part) - frame * frames + 1, frame * frames):
            here = part[first : first + frame * frames]
            ends = pairs.stamps[here[frame - 1 :: frame]]
            newest = np.searchsorted(answered, ends + SAME_S, side="right") - 1
            if newest[0] < 0 or np.max(ends - answered[newest]) > HELD_S:
                continue
            inside = ends - answered[newest] < frame / pairs.rate_hz - SAME_S
            found_emg.append(pairs.emg[here])
            found_answers.append(np.where(inside[:, None], answers[newest], np.float32(np.nan)))
    channels = pairs.emg.shape[1] if pairs.emg.ndim == 2 else 0
    if not found_emg:
        return np.zeros((0, frame * frames, channels), np.float32), np.zeros((0, frames, len(FINGERS)), np.float32)
    return np.stack(found_emg), np.stack(found_answers)
