"""The amplifier's band-pass as a block recursion: one matrix product a chunk, the same for any chunk length."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import signal

from myoloop.emg.armband import Armband


class BlockFilter(NamedTuple):
    """A linear filter over blocks of S samples: [y, next state] = [x, state] @ matrix."""

    matrix: np.ndarray
    """(S + n, S + n) float32."""
    states: int
    """n, the order of the recursion."""


@lru_cache(maxsize=64)
def band_pass(band: Armband, samples: int) -> BlockFilter:
    """The Butterworth band-pass of the armband for blocks of `samples` at the internal rate, computed in float64."""
    a, b, c, d = _state_space(band)
    states = a.shape[0]
    powers = [np.eye(states)]
    for _ in range(samples):
        powers.append(powers[-1] @ a)
    impulse = np.array([d, *[float(c @ powers[k] @ b) for k in range(samples - 1)]])
    matrix = np.zeros((samples + states, samples + states))
    for i in range(samples):
        matrix[i, i:samples] = impulse[: samples - i]
        matrix[i, samples:] = powers[samples - 1 - i] @ b
    matrix[samples:, :samples] = np.stack([c @ powers[k] for k in range(samples)], axis=1)
    matrix[samples:, samples:] = powers[samples].T
    return BlockFilter(matrix.astype(np.float32), states)


def filter_states(band: Armband) -> int:
    """Number of state variables of the armband's filter per channel."""
    return 2 * int(band.order)


@lru_cache(maxsize=64)
def noise_gain(band: Armband) -> float:
    """RMS of the filter's output for white noise of RMS 1."""
    sos = _sections(band)
    impulse = np.zeros(int(4 * band.internal_rate_hz / band.low_hz) + 64)
    impulse[0] = 1.0
    return float(np.sqrt(np.sum(signal.sosfilt(sos, impulse) ** 2)))


def run_block(block: BlockFilter, x: jnp.ndarray, state: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Filters x (..., S) from state (..., n); returns y (..., S) and the next state."""
    samples = x.shape[-1]
    out = jnp.concatenate([x, state], axis=-1) @ jnp.asarray(block.matrix)
    return out[..., :samples], out[..., samples:]


def _sections(band: Armband) -> np.ndarray:
    edges = [band.low_hz, band.high_hz]
    return np.asarray(signal.butter(int(band.order), edges, "bandpass", fs=band.internal_rate_hz, output="sos"))


def _state_space(band: Armband) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Cascade of the second-order sections: x' = A x + b u, y = c x + d u. Small sections keep float32 well behaved."""
    a, b, c, d = np.zeros((0, 0)), np.zeros(0), np.zeros(0), 1.0
    for section in _sections(band):
        sa, sb, sc, sd = signal.tf2ss(section[:3], section[3:])
        sb, sc, sd = sb[:, 0], sc[0], float(sd[0, 0])
        n = a.shape[0]
        a = np.block([[a, np.zeros((n, 2))], [np.outer(sb, c), sa]])
        b = np.concatenate([b, sb * d])
        c = np.concatenate([sd * c, sc])
        d = sd * d
    return a, b, c, d
