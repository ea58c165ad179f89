"""EMG and the answers to it, as pairs that a model can learn from."""

from __future__ import annotations

import itertools
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
      is none, as with software that answers less often. EMG to which no answer came for HELD_S is in none of them.
    """
    found_emg, found_answers = [], []
    order = np.argsort(pairs.answered, kind="stable")
    answered, answers = pairs.answered[order], pairs.answers[order]
    breaks = np.flatnonzero(np.abs(np.diff(pairs.stamps) * pairs.rate_hz - 1.0) > 0.5) + 1
    for part in np.split(np.arange(len(pairs.stamps)), breaks):
        ends = pairs.stamps[part[frame - 1 :: frame]]
        newest = np.searchsorted(answered, ends + SAME_S, side="right") - 1
        age = np.where(newest >= 0, ends - answered[newest], np.inf) if len(answered) else np.full(len(ends), np.inf)
        inside = age < frame / pairs.rate_hz - SAME_S
        silent = (
            np.flatnonzero(np.r_[True, age > HELD_S, True]) - 1
        )  # frames, and one before and behind, that end a run
        for before, behind in itertools.pairwise(silent):
            for first in range(before + 1, behind - frames + 1, frames):
                here = slice(first, first + frames)
                found_emg.append(pairs.emg[part[first * frame : (first + frames) * frame]])
                found_answers.append(np.where(inside[here, None], answers[newest[here]], np.float32(np.nan)))
    channels = pairs.emg.shape[1] if pairs.emg.ndim == 2 else 0
    if not found_emg:
        return np.zeros((0, frame * frames, channels), np.float32), np.zeros((0, frames, len(FINGERS)), np.float32)
    return np.stack(found_emg), np.stack(found_answers)
