"""Where a person's motor units lie: territories, end plates, fibre lengths and conduction velocities, drawn by seed."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import special

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg.anatomy import FOREARM_LENGTH_MM, MUSCLE_TABLE
from myoloop.emg.config import VELOCITY_RANGE, EmgConfig
from myoloop.emg.motor_units import Pool

TERRITORY_FIBRES_PER_MM2 = 20.0  # a unit's own fibres per mm2 of its territory (Fuglevand et al. 1992)
VELOCITY_SIZE_CORRELATION = 0.87  # of conduction velocity with twitch torque (Andreassen & Arendt-Nielsen 1987)

_FIBRES = 10  # fibres that stand for a unit: spread over its territory, end plates and tendons


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
