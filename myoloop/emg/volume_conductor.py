"""Motor-unit action potentials (MUAPs) at the electrodes: finite fibres in an anisotropic half space.

A fibre carries Rosenfalck's intracellular potential V(z) = 96 z^3 exp(-z) - 90 mV (z in mm behind the front; Rosenfalck
1969) from its end plate to both tendons. Its membrane current per length is the derivative of the axial current, cut
off at the end plate and at the tendons (Farina & Merletti 2001), so each half carries no net current at any time and
the end of the fibre radiates without travelling. With the front at s and x the distance from the end plate, integration
by parts gives the potential of one half as

    phi(s) = sigma_i A integral_0^L V'(s - x) dG/dx dx,   G = 2 / (4 pi sigma_r sqrt(K r^2 + z^2)),  K = sigma_z/sigma_r

where r is the straight distance between fibre and electrode in the cross-section and z that along the fibre; the factor
2 is the insulating air above the electrode. The kernel V' is the same for all fibres, so the weights dG/dx of a unit's
fibres, directions and electrodes are added first and one matrix product makes all MUAPs.

Left out here: bone, the conductivities of fat and skin, the curvature of the surface behind each electrode.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import signal, special

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg.anatomy import FOREARM_LENGTH_MM, MUSCLE_TABLE
from myoloop.emg.armband import MONTAGES, Armband
from myoloop.emg.config import VELOCITY_RANGE, EmgConfig
from myoloop.emg.motor_units import Pool

SIGMA_RADIAL = 0.09  # S/m, muscle across the fibres (Botelho et al. 2019)
SIGMA_AXIAL = 0.4  # S/m, muscle along the fibres (Botelho et al. 2019)
SIGMA_INTRACELLULAR = 1.01  # S/m, myoplasm (Andreassen & Rosenfalck 1981)
FIBRE_DIAMETER_MM = 0.055  # 55 um, human limb muscle (Andreassen & Rosenfalck 1981)
TERRITORY_FIBRES_PER_MM2 = 20.0  # a unit's own fibres per mm2 of its territory (Fuglevand et al. 1992)
VELOCITY_SIZE_CORRELATION = 0.8  # larger units conduct faster (Andreassen & Arendt-Nielsen 1987; value estimated)

_FIBRES = 10  # fibres that stand for a unit: spread over its territory, end plates and tendons
_STEP_X = 0.5  # mm between points along a fibre; the source's features are 1 mm and more
_STEP_S = 0.25  # mm between positions of the front
_TAIL_MM = 18.0  # V' is below 1e-4 of its peak that far behind the front
_OVERSAMPLE = 4
_FIR_HALF = 4  # internal samples of delay by the anti-alias filter


class Units(NamedTuple):
    """Where each unit's representative fibres are. Arrays (U, J) in mm unless noted."""

    x: np.ndarray
    """Cross-section, towards radial (angle 0)."""
    y: np.ndarray
    """Cross-section, towards volar (angle +90)."""
    end_plate: np.ndarray
    """Place along the forearm, from the elbow."""
    proximal: np.ndarray
    """Length from the end plate to the proximal tendon."""
    distal: np.ndarray
    """Length from the end plate to the distal tendon."""
    velocity: np.ndarray
    """(U,) m/s."""
    fibres: np.ndarray
    """(U,) number of muscle fibres."""


class Muaps(NamedTuple):
    """Potentials of every unit at every channel."""

    waveform: np.ndarray
    """(U, C, L) float32, microvolts, at the internal rate, from the discharge on; delayed by `delay` samples."""
    delay: int
    """Samples that the anti-alias filter adds before the end plate's first effect."""


def place_units(pool: Pool, config: EmgConfig, radius_mm: float) -> Units:
    """Draws unit centres, territories, end plates, fibre lengths and velocities from config.seed."""
    rng = np.random.default_rng([config.seed, 7301])
    columns: list[tuple[np.ndarray, ...]] = []
    for index, name in enumerate(FOREARM_MUSCLES):
        muscle = MUSCLE_TABLE[name]
        own = pool.muscle == index
        fibres, rank = pool.fibres[own], pool.rank[own]
        n = fibres.size
        angle = np.deg2rad(muscle.angle_deg + muscle.half_width_deg * rng.uniform(-1, 1, n))[:, None]
        depth = rng.uniform(*muscle.depth_mm, n)[:, None]
        territory = np.sqrt(fibres / (math.pi * TERRITORY_FIBRES_PER_MM2))[:, None]
        away = territory * np.sqrt(rng.uniform(0, 1, (n, _FIBRES)))
        turn = rng.uniform(0, 2 * math.pi, (n, _FIBRES))
        fibre_depth = np.clip(depth + away * np.sin(turn), *muscle.depth_mm)
        height = radius_mm - fibre_depth
        fibre_angle = angle + away * np.cos(turn) / height
        # A fibre is shorter than the belly: units are stacked along it, with their end plates in the fibres' middle.
        low, high = (level * FOREARM_LENGTH_MM for level in muscle.belly)
        half = min(muscle.fibre_mm, high - low) / 2
        middle = rng.uniform(low + half, high - half, n)[:, None]
        spread = config.zone_spread * muscle.fibre_mm
        jitter = spread * rng.uniform(-0.5, 0.5, (3, n, _FIBRES))
        z_score = special.ndtri(rank)
        rest = math.sqrt(1 - VELOCITY_SIZE_CORRELATION**2) * rng.standard_normal(n)
        velocity = config.velocity_mean + config.velocity_sd * (VELOCITY_SIZE_CORRELATION * z_score + rest)
        columns.append(
            (
                height * np.cos(fibre_angle),
                height * np.sin(fibre_angle),
                middle + jitter[0],
                half + jitter[0] + jitter[1],
                half - jitter[0] + jitter[2],
                np.clip(velocity, *VELOCITY_RANGE),
                fibres,
            )
        )
    return Units(*[np.concatenate(column) for column in zip(*columns, strict=True)])


def compute_muaps(units: Units, band: Armband) -> Muaps:
    """MUAPs of all units at all channels of the armband; a few seconds for 3,000 units and 16 channels."""
    electrodes, weights = electrode_positions(band)
    reach = float(max(units.proximal.max(), units.distal.max()))
    along = np.arange(_STEP_X / 2, reach + _STEP_X, _STEP_X)
    fronts = np.arange(0.0, reach + _TAIL_MM, _STEP_S)
    kernel = source_kernel(fronts, along)
    rate = band.internal_rate_hz
    longest = (reach + _TAIL_MM) / float(units.velocity.min())  # ms
    length = math.ceil(longest * rate / 1000.0) + 2 * _FIR_HALF
    resample = _decimator(length)

    block = 64
    count = units.velocity.size
    padded = -(-count // block) * block
    arrays = [
        jnp.asarray(np.pad(a, [(0, padded - count)] + [(0, 0)] * (a.ndim - 1), mode="edge"), jnp.float32) for a in units
    ]
    arrays = [a.reshape(-1, block, *a.shape[1:]) for a in arrays]
    waveform = _all_muaps(
        tuple(arrays),
        jnp.asarray(electrodes, jnp.float32),
        jnp.asarray(weights, jnp.float32),
        jnp.asarray(along, jnp.float32),
        jnp.asarray(kernel, jnp.float32),
        jnp.asarray(resample, jnp.float32),
        rate,
    )
    waveform = np.asarray(waveform).reshape(padded, band.channels, length)[:count]
    peak = np.abs(waveform).max(axis=(0, 1))
    used = int(np.nonzero(peak > 1e-4 * peak.max())[0][-1]) + 1
    return Muaps(np.ascontiguousarray(waveform[:, :, :used]), _FIR_HALF)


def electrode_positions(band: Armband) -> tuple[np.ndarray, np.ndarray]:
    """Positions (C, M, 3) mm (x, y, along the forearm) and weights (C, M) of the electrodes of each channel."""
    angles = np.deg2rad(np.asarray(band.angles_deg))
    montage = MONTAGES[band.montage]
    ring = np.stack([band.radius_mm * np.cos(angles), band.radius_mm * np.sin(angles)], axis=1)
    level = band.level * FOREARM_LENGTH_MM
    positions = np.zeros((band.channels, len(montage), 3))
    positions[:, :, :2] = ring[:, None]
    positions[:, :, 2] = level + np.array([place * band.spacing_mm for place, _ in montage])
    return positions, np.tile([weight for _, weight in montage], (band.channels, 1))


def rosenfalck_slope(z: np.ndarray) -> np.ndarray:
    """V'(z) in mV/mm for z mm behind the front (Rosenfalck 1969); 0 before it."""
    z = np.maximum(z, 0.0)
    return 96.0 * (3.0 * z**2 - z**3) * np.exp(-z)


def source_kernel(fronts: np.ndarray, along: np.ndarray) -> np.ndarray:
    """sigma_i A V'(s - x) dx, (S, X): microvolt-weights of the points along a fibre when the front is at s."""
    area = math.pi * FIBRE_DIAMETER_MM**2 / 4
    return SIGMA_INTRACELLULAR * area * rosenfalck_slope(fronts[:, None] - along[None, :]) * _STEP_X * 1000.0


def fibre_potential(
    fronts: np.ndarray, half_length: float, end_plate: float, direction: int, radial: float
) -> np.ndarray:
    """Potential (uV) at an electrode at 0 along the fibre and `radial` mm beside it, of one half of one fibre.

    Args: fronts: (S,) mm, how far the front has travelled; end_plate: its place; direction: +1 or -1; all mm.
    """
    along = np.arange(_STEP_X / 2, half_length + _STEP_X, _STEP_X)
    place = end_plate + direction * along
    inside = np.clip((half_length - along) / _STEP_X + 0.5, 0.0, 1.0)
    slope = -direction * place * _green_scale() / (SIGMA_AXIAL / SIGMA_RADIAL * radial**2 + place**2) ** 1.5
    return np.asarray(source_kernel(fronts, along) @ (slope * inside))


def _green_scale() -> float:
    """2 / (4 pi sigma_r) in 1/(S/m)."""
    return 2.0 / (4.0 * math.pi * SIGMA_RADIAL)


@partial(jax.jit, static_argnames="rate")
def _all_muaps(
    units: tuple[Array, ...],
    electrodes: Array,
    weights: Array,
    along: Array,
    kernel: Array,
    resample: Array,
    rate: float,
) -> Array:
    """(N, block, C, L) from units stacked in blocks."""
    scale = jnp.float32(_green_scale())
    ratio = jnp.float32(SIGMA_AXIAL / SIGMA_RADIAL)
    fine = resample.shape[0]

    def of_block(block: tuple[Array, ...]) -> Array:
        x, y, end_plate, proximal, distal, velocity, fibres = block
        slopes = jnp.zeros((x.shape[0], electrodes.shape[0], along.shape[0]), jnp.float32)

        def add_fibre(j: Array, total: Array) -> Array:
            for direction, half in ((-1.0, proximal), (1.0, distal)):
                inside = jnp.clip((half[:, j, None] - along) / _STEP_X + 0.5, 0.0, 1.0)
                for m in range(electrodes.shape[1]):
                    e = electrodes[:, m]
                    radial = (x[:, j, None] - e[:, 0]) ** 2 + (y[:, j, None] - e[:, 1]) ** 2
                    place = (end_plate[:, j, None] - e[:, 2])[..., None] + direction * along
                    inverse = jax.lax.rsqrt(ratio * radial[..., None] + place**2)
                    weight = weights[:, m, None] * inside[:, None, :]
                    total = total - direction * scale * weight * place * inverse**3
            return total

        slopes = jax.lax.fori_loop(0, x.shape[1], add_fibre, slopes)
        slopes = slopes * (fibres / x.shape[1])[:, None, None]
        by_front = jnp.matmul(slopes, kernel.T, precision="highest")
        # Time grid: `fine` samples at _OVERSAMPLE times the rate; the front is at velocity * time (mm = m/s * ms).
        time = jnp.arange(fine, dtype=jnp.float32) * (1000.0 / (rate * _OVERSAMPLE))
        place = velocity[:, None] * time / _STEP_S
        low = jnp.clip(place.astype(jnp.int32), 0, by_front.shape[-1] - 2)
        part = jnp.minimum(place - low, 1.0)[:, None, :]
        left = jnp.take_along_axis(by_front, low[:, None, :], axis=2)
        right = jnp.take_along_axis(by_front, low[:, None, :] + 1, axis=2)
        return jnp.matmul(left + part * (right - left), resample, precision="highest")

    return jax.lax.map(of_block, units)


def _decimator(length: int) -> np.ndarray:
    """(fine, length): anti-alias low-pass and decimation by _OVERSAMPLE, delayed by _FIR_HALF internal samples."""
    taps = signal.firwin(2 * _FIR_HALF * _OVERSAMPLE + 1, 0.9, window=("kaiser", 6.0), fs=2.0 * _OVERSAMPLE)
    fine = length * _OVERSAMPLE
    matrix = np.zeros((fine, length))
    for n in range(length):
        index = n * _OVERSAMPLE - np.arange(taps.size)
        inside = index >= 0
        matrix[index[inside], n] = taps[inside]
    return matrix
