"""The analytic check: finite fibres under the flat, insulated surface of anisotropic muscle, with point electrodes.

The potential of a unit current is G = 2 / (4 pi sigma_r sqrt(K r^2 + z^2)), K = sigma_z/sigma_r, where r is the straight
distance between fibre and electrode in the cross-section and z that along the fibre; the factor 2 is the insulating air
above the electrode. Left out: bone, fat, skin, the curvature of the surface behind each electrode, electrode size.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from myoloop.emg.conductor import Conductor
from myoloop.emg.source import (
    OVERSAMPLE,
    STEP_S,
    STEP_X,
    TAIL_MM,
    decimator,
    muap_samples,
    points_along,
    source_kernel,
)
from myoloop.emg.units import Units

_BLOCK = 64  # units computed at once


def half_space_muaps(
    units: Units, positions: np.ndarray, weights: np.ndarray, conductor: Conductor, rate_hz: float
) -> np.ndarray:
    """MUAPs (U, C, L) in microvolts at the internal rate.

    Args: positions (C, M, 3) mm and weights (C, M) of the electrodes of each channel.
    """
    reach = float(max(units.proximal.max(), units.distal.max()))
    along = points_along(reach)
    kernel = source_kernel(np.arange(0.0, reach + TAIL_MM, STEP_S), along)
    length = muap_samples(reach, float(units.velocity.min()), rate_hz)
    count = units.velocity.size
    padded = -(-count // _BLOCK) * _BLOCK
    arrays = [
        jnp.asarray(np.pad(a, [(0, padded - count)] + [(0, 0)] * (a.ndim - 1), mode="edge"), jnp.float32) for a in units
    ]
    waveform = _all_muaps(
        tuple(a.reshape(-1, _BLOCK, *a.shape[1:]) for a in arrays),
        jnp.asarray(positions, jnp.float32),
        jnp.asarray(weights, jnp.float32),
        jnp.asarray(along, jnp.float32),
        jnp.asarray(kernel, jnp.float32),
        jnp.asarray(decimator(length), jnp.float32),
        jnp.float32(_green_scale(conductor)),
        jnp.float32(conductor.muscle_axial / conductor.muscle_radial),
        rate_hz,
    )
    return np.asarray(waveform).reshape(padded, positions.shape[0], length)[:count]


def fibre_potential(
    fronts: np.ndarray, half_length: float, end_plate: float, direction: int, radial: float, conductor: Conductor
) -> np.ndarray:
    """Potential (uV) at an electrode at 0 along the fibre and `radial` mm beside it, of one half of one fibre.

    Args: fronts: (S,) mm, how far the front has travelled; end_plate: its place; direction: +1 or -1; all mm.
    """
    along = points_along(half_length)
    place = end_plate + direction * along
    inside = np.clip((half_length - along) / STEP_X + 0.5, 0.0, 1.0)
    ratio = conductor.muscle_axial / conductor.muscle_radial
    slope = -direction * place * _green_scale(conductor) / (ratio * radial**2 + place**2) ** 1.5
    return np.asarray(source_kernel(fronts, along) @ (slope * inside))


def _green_scale(conductor: Conductor) -> float:
    """2 / (4 pi sigma_r) in 1/(S/m)."""
    return 2.0 / (4.0 * math.pi * conductor.muscle_radial)


@partial(jax.jit, static_argnames="rate")
def _all_muaps(
    units: tuple[Array, ...],
    electrodes: Array,
    weights: Array,
    along: Array,
    kernel: Array,
    resample: Array,
    scale: Array,
    ratio: Array,
    rate: float,
) -> Array:
    """(N, block, C, L) from units stacked in blocks."""
    fine = resample.shape[0]

    def of_block(block: tuple[Array, ...]) -> Array:
        x, y, end_plate, proximal, distal, velocity, fibres = block
        slopes = jnp.zeros((x.shape[0], electrodes.shape[0], along.shape[0]), jnp.float32)

        def add_fibre(j: Array, total: Array) -> Array:
            for direction, half in ((-1.0, proximal), (1.0, distal)):
                inside = jnp.clip((half[:, j, None] - along) / STEP_X + 0.5, 0.0, 1.0)
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
        # Time grid: `fine` samples at OVERSAMPLE times the rate; the front is at velocity * time (mm = m/s * ms).
        time = jnp.arange(fine, dtype=jnp.float32) * (1000.0 / (rate * OVERSAMPLE))
        place = velocity[:, None] * time / STEP_S
        low = jnp.clip(place.astype(jnp.int32), 0, by_front.shape[-1] - 2)
        part = jnp.minimum(place - low, 1.0)[:, None, :]
        left = jnp.take_along_axis(by_front, low[:, None, :], axis=2)
        right = jnp.take_along_axis(by_front, low[:, None, :] + 1, axis=2)
        return jnp.matmul(left + part * (right - left), resample, precision="highest")

    return jax.lax.map(of_block, units)
