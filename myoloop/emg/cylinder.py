"""The limb as concentric layers: bone (optional), muscle, fat, skin (Farina, Mesin, Martina & Merletti 2004).

In every layer the potential obeys sigma_r Laplacian_across phi + sigma_z d2phi/dz2 = 0. With angular order m and spatial
frequency k along the limb its radial part is a sum of I_m(k r sqrt(sigma_z/sigma_r)) and K_m of the same. Between layers
the potential and the radial current are continuous; nothing flows into the air.

Instead of solving for a current in the fibre and asking at the skin, a current is put into the skin and the potential
asked at the fibre: reciprocity makes both the same, and the solution is then one that grows outwards from the axis. Two
numbers per layer boundary describe it, the logarithm of the potential and the admittance y = sigma r phi'/phi, and both
are carried outwards without any large or small number (`potential_in`). With J the current density into the skin,
phi(r0) = J R exp(log u(r0) - log u(R)) / y(R), and so for a unit current at one point of the fibre

    G(theta, z) = 1/(4 pi^2) sum_m cos(m theta) integral H_m(k) exp(i k z) dk,   H_m(k) = u(r0) / (u(R) y(R)).

The frequencies are half-odd multiples of 2 pi / P: that repeats the limb with alternating sign at distance P, needs no
k = 0 (where an insulated cylinder carries a direct current to infinity) and makes the error fall off exponentially in P.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import special

from myoloop.emg.armband import MONTAGES, Armband
from myoloop.emg.bessel import Bessel, bessel
from myoloop.emg.conductor import Conductor
from myoloop.emg.source import STEP_X

_FALL = 12.0  # spatial frequencies are kept until the field has fallen by exp(-_FALL) between fibre and skin
_DEPTH_RATIO = 1.06  # between neighbouring depths of the table
_KEPT = 3e-4  # error of the table's shapes along the limb, over the field at the same depth


class Field(NamedTuple):
    """dG/dz of one channel (montage and electrode size included): sum_q angular[d, n, q] along[z, q], 1/(S/m mm2)."""

    depths: np.ndarray
    """(D,) mm under the skin, increasing by a constant ratio."""
    angular: np.ndarray
    """(D, N, Q) float32 at angles 2 pi n / N between channel and fibre."""
    along: np.ndarray
    """(Z, Q) float32 at STEP_X from z0 on: place of the fibre's point minus that of the channel."""
    z0: float
    """mm."""
    radius: float
    """Of the limb, mm."""


def tabulate(band: Armband, conductor: Conductor, shallow: float, deep: float, reach: float) -> Field:
    """The field for fibre depths from `shallow` to `deep` and points up to `reach` mm along the limb, either way."""
    radius = conductor.limb_radius(band.radius_mm)
    count = math.ceil(math.log(deep / shallow) / math.log(_DEPTH_RATIO)) + 4
    depths = shallow * _DEPTH_RATIO ** np.arange(-1.0, count - 1)
    orders, k = spectrum_grid(radius, conductor, shallow, reach)
    transfer = potential_in(conductor, radius, np.maximum(radius - depths, 1e-3 * radius), orders, k)
    transfer *= electrode_transfer(band, radius, orders, k)
    z = STEP_X * np.arange(-math.ceil(reach / STEP_X) - 2, math.ceil(reach / STEP_X) + 3)
    wave = sum(weight * np.sin(k[:, None] * (z - place * band.spacing_mm)) for place, weight in MONTAGES[band.montage])
    # d/dz of cos(k z) = -k sin(k z); both signs of k count.
    shapes = transfer.reshape(-1, k.size) @ (-k[:, None] * wave * (k[1] - k[0]) / (2 * math.pi**2))
    angular, along = _compress(shapes.reshape(depths.size, orders, z.size))
    angles = 1 << math.ceil(math.log2(16 * orders))
    angular = np.fft.irfft(angular, angles, axis=1) * angles  # order 0 once, the others twice: cos(m theta), both signs
    return Field(depths, angular.astype(np.float32), along.T.astype(np.float32), float(z[0]), radius)


def spectrum_grid(radius: float, conductor: Conductor, shallow: float, reach: float) -> tuple[int, np.ndarray]:
    """Number of angular orders and the spatial frequencies (rad/mm, half-odd multiples) that a depth needs."""
    orders = math.ceil(_FALL / -math.log1p(-shallow / radius)) + 1
    decay = radius * math.sqrt(conductor.muscle_axial / conductor.muscle_radial) / 1.84  # of order 1, the slowest
    step = 2 * math.pi / (2 * reach + 8 * decay)
    return orders, step * (np.arange(math.ceil(_FALL / shallow / step)) + 0.5)


def potential_in(conductor: Conductor, radius: float, places: np.ndarray, orders: int, k: np.ndarray) -> np.ndarray:
    """H_m(k), (places, orders, K) in 1/(S/m): potential at muscle radii `places` (mm) of a unit current in the skin.

    Args: radius of the limb; places (D,) in the muscle (beyond it: its solution continued); k (K,) rad/mm above 0.
    """
    muscle_radius = radius - conductor.cover_mm
    stretch = math.sqrt(conductor.muscle_axial / conductor.muscle_radial)
    bone = conductor.bone_mm
    core = conductor.bone * bessel(orders, k * bone).slope_i if bone > 0 else None
    start = bessel(orders, stretch * k * bone) if bone > 0 else None

    def in_muscle(place: float) -> tuple[np.ndarray, np.ndarray]:
        at = bessel(orders, stretch * k * place)
        if start is None or core is None:
            return at.log_i, conductor.muscle_radial * at.slope_i
        return _across(start, at, core, conductor.muscle_radial)

    inside = [in_muscle(float(place))[0] for place in places]
    log_u, y = in_muscle(muscle_radius)
    inner = muscle_radius
    for thickness, sigma in ((conductor.fat_mm, conductor.fat), (conductor.skin_mm, conductor.skin)):
        if thickness > 0:
            rise, y = _across(bessel(orders, k * inner), bessel(orders, k * (inner + thickness)), y, sigma)
            log_u = log_u + rise
            inner += thickness
    return np.exp(np.stack(inside) - log_u) / y


def _across(start: Bessel, end: Bessel, y: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Carries a solution through one layer: log of the potential's rise, and the admittance at the end."""
    share = (y / sigma - start.slope_k) / (start.slope_i - start.slope_k)  # of the part that grows outwards
    rise = end.log_i - start.log_i
    fallen = (1.0 - share) * np.exp(end.log_k - start.log_k - rise)
    u = share + fallen
    return rise + np.log(u), sigma * (share * end.slope_i + fallen * end.slope_k) / u


def electrode_transfer(band: Armband, radius: float, orders: int, k: np.ndarray) -> np.ndarray:
    """(orders, K): mean of a wave over an electrode's area (Farina et al. 2004, Dimitrova et al. 1999)."""
    along, around = band.electrode_mm
    turn = np.arange(orders)[:, None] / radius
    if band.electrode_shape == "circle":
        x = np.maximum(np.hypot(k, turn) * along / 2, 1e-9)
        return np.asarray(2 * special.j1(x) / x)
    return np.asarray(np.sinc(k * along / (2 * math.pi)) * np.sinc(turn * around / (2 * math.pi)))


def _compress(shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D, M, Z) as (D, M, Q) times (Q, Z): every depth counts alike, so that far fibres are as exact as near ones."""
    _, orders, z = shapes.shape
    weight = np.where(np.arange(orders) == 0, 1.0, 2.0)[None, :, None]
    energy = (weight * shapes**2).sum(axis=(1, 2), keepdims=True)
    rows = (shapes * np.sqrt(weight / energy)).reshape(-1, z)
    values, vectors = np.linalg.eigh(rows.T @ rows)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    left = np.sqrt(np.maximum(1.0 - np.cumsum(values) / values.sum(), 0.0))
    rank = int(np.nonzero(left <= _KEPT)[0][0]) + 1
    return shapes @ vectors[:, :rank], vectors[:, :rank].T
