"""The source: a transmembrane potential that travels along a finite fibre, and the sampling of what it causes.

A fibre carries Rosenfalck's intracellular potential V(z) = 96 z^3 exp(-z) - 90 mV (z in mm behind the front; Rosenfalck
1969) from its end plate to both tendons. Its membrane current per length is the derivative of the axial current, cut
off at the end plate and at the tendons (Farina & Merletti 2001), so each half carries no net current at any time and
the end of the fibre radiates without travelling. With the front at s and x the distance from the end plate, integration
by parts gives the potential of one half as

    phi(s) = sigma_i A integral_0^L V'(s - x) dG/dx dx

where G is the potential at the electrode of a unit current at x: the volume conductor's part. The kernel V' is the same
for all fibres, so the weights dG/dx of a unit's fibres, directions and electrodes are added first.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import signal

SIGMA_INTRACELLULAR = 1.01  # S/m, myoplasm (Andreassen & Rosenfalck 1981)
FIBRE_DIAMETER_MM = 0.055  # 55 um, human limb muscle (Andreassen & Rosenfalck 1981)

STEP_X = 0.5  # mm between points along a fibre; the source's features are 1 mm and more
STEP_S = 0.25  # mm between positions of the front
TAIL_MM = 18.0  # V' is below 1e-4 of its peak that far behind the front
OVERSAMPLE = 4
FIR_HALF = 4  # internal samples of delay by the anti-alias filter


def rosenfalck_slope(z: np.ndarray) -> np.ndarray:
    """V'(z) in mV/mm for z mm behind the front (Rosenfalck 1969); 0 before it."""
    z = np.maximum(z, 0.0)
    return 96.0 * (3.0 * z**2 - z**3) * np.exp(-z)


def source_kernel(fronts: np.ndarray, along: np.ndarray) -> np.ndarray:
    """sigma_i A V'(s - x) dx, (..., X): microvolt-weights of the points along a fibre when the front is at s (...)."""
    area = math.pi * FIBRE_DIAMETER_MM**2 / 4
    return SIGMA_INTRACELLULAR * area * rosenfalck_slope(fronts[..., None] - along) * STEP_X * 1000.0


def points_along(reach: float) -> np.ndarray:
    """(X,) mm from the end plate: middles of the steps up to the farthest tendon."""
    return np.arange(STEP_X / 2, reach + STEP_X, STEP_X)


def muap_samples(reach: float, slowest: float, rate_hz: float) -> int:
    """Samples at rate_hz that hold the MUAP of the longest fibre at the slowest velocity (m/s)."""
    return math.ceil((reach + TAIL_MM) / slowest * rate_hz / 1000.0) + 2 * FIR_HALF


def decimator(length: int) -> np.ndarray:
    """(fine, length): anti-alias low-pass and decimation by OVERSAMPLE, delayed by FIR_HALF internal samples."""
    taps = signal.firwin(2 * FIR_HALF * OVERSAMPLE + 1, 0.9, window=("kaiser", 6.0), fs=2.0 * OVERSAMPLE)
    fine = length * OVERSAMPLE
    matrix = np.zeros((fine, length))
    for n in range(length):
        index = n * OVERSAMPLE - np.arange(taps.size)
        inside = index >= 0
        matrix[index[inside], n] = taps[inside]
    return matrix


def time_kernels(velocities: np.ndarray, along: np.ndarray, rate_hz: float, length: int) -> np.ndarray:
    """(V, X, length) float32: what a unit weight at each point of a fibre adds to the sampled MUAP, per velocity."""
    resample = decimator(length)
    time = np.arange(resample.shape[0]) * (1000.0 / (rate_hz * OVERSAMPLE))
    return np.stack([(source_kernel(v * time, along).T @ resample) for v in velocities]).astype(np.float32)
