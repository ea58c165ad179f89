"""What a learner is told of its participants: in a batch by rollouts, in a live session by steps and answers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jax import Array


class Heard(NamedTuple):
    """What of a rollout is remembered, (T, B, ...) each."""

    obs: Array
    excitation: Array
    odds: Array
    """Log-odds answered; NaN where no answer came, as happens live."""
    labels: Array


class Steps(NamedTuple):
    """Control steps of one participant in the order of time, (n, ...) each."""

    number: np.ndarray
    """int64; the one after it is the next step"""
    time: np.ndarray
    """s: stamp of the step's newest EMG sample"""
    obs: np.ndarray
    command: np.ndarray
    """(n, 39) excitations"""
    labels: np.ndarray
    """(n, 5) asked for at the step's end"""
    fresh: np.ndarray
    """bool: what came before has nothing to do with it (a reset)"""


class Answers(NamedTuple):
    """A decoder's answers, (m, ...) each."""

    time: np.ndarray
    """s: newest EMG sample behind it"""
    values: np.ndarray
    """(m, 5) probability of flexed"""
