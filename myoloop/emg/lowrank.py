"""A few temporal shapes shared by all MUAPs: the cheap way to add thousands of units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline


class LowRank(NamedTuple):
    """waveform[u, c, l] = sum_r coefficients[u, c*R + r] shapes[l, r], up to `error`."""

    coefficients: np.ndarray
    """(U, C*R) float32, microvolts."""
    shapes: np.ndarray
    """(L, R) float32, orthonormal."""
    error: float
    """RMS of what is left out over the RMS of all waveforms."""


def decompose(waveform: np.ndarray, tolerance: float) -> LowRank:
    """The fewest shapes that keep the error within `tolerance`. waveform: (U, C, L) microvolts.

    A signal is a sum of MUAPs at independent times, so its energy, and that of the error, is the sum of theirs.
    """
    units, channels, length = waveform.shape
    flat = waveform.reshape(-1, length).astype(np.float64)
    values, vectors = np.linalg.eigh(flat.T @ flat)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    left = np.sqrt(np.maximum(1.0 - np.cumsum(values) / values.sum(), 0.0))
    rank = int(np.nonzero(left <= tolerance)[0][0]) + 1
    shapes = vectors[:, :rank]
    coefficients = (flat @ shapes).reshape(units, channels * rank)
    return LowRank(coefficients.astype(np.float32), shapes.astype(np.float32), float(left[rank - 1]))


def toeplitz(shapes: np.ndarray, samples: int) -> np.ndarray:
    """(samples*R, samples+L-1): row s*R + r is shape r starting at sample s. Its top-left part serves
    shorter blocks."""
    length, rank = shapes.shape
    out = np.zeros((samples, rank, samples + length - 1), np.float32)
    for s in range(samples):
        out[s, :, s : s + length] = shapes.T
    return out.reshape(samples * rank, -1)


def stretch(shapes: np.ndarray, factors: Sequence[float], start: int) -> np.ndarray:
    """(F, R, L'): the shapes (L, R) as they are when they take `factors` times as long, from sample `start` on."""
    length, rank = shapes.shape
    longest = start + math.ceil((length - start) * max(factors)) + 1
    out = np.zeros((len(factors), rank, longest), np.float32)
    curve = CubicSpline(np.arange(-1, length + 1), np.pad(shapes.astype(np.float64), ((1, 1), (0, 0))), axis=0)
    for k, factor in enumerate(factors):
        at = start + (np.arange(longest) - start) / factor
        inside = (at > -1) & (at < length)
        out[k, :, inside] = curve(at[inside])
    return out
