"""What a discharge does to force: the twitch of every unit, and the force of a healthy pool at steady excitation.

Fuglevand, Winter & Patla 1993 (equations and constants from memory of the paper); i/n is a unit's place in the
recruitment order of its muscle, ISI the interval before the discharge:

    peak of the twitch    P_i = exp(ln RP i/n)
    contraction time      T_i = T_L (1/P_i)^(1/c),  c = ln RP / ln 3
    twitch                f_i(t) = g P_i t/T_i exp(1 - t/T_i), t after the discharge
    gain                  g = 1 where T_i/ISI < 0.4, else S(T_i/ISI) / (T_i/ISI) over the same at 0.4,
                          S(x) = 1 - exp(-2 x^3)

One deviation: at the 2-5 ms interval of a doublet this gain would leave a tenth of a twitch, but doublets raise force more
than in proportion (Thomas et al. 1999), so they have a gain of their own. Units add up (Perreault et al. 2003: within a
few per cent). Forces are parts of the muscle's largest: the mean force of the healthy pool at excitation 1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial.hermite_e import hermegauss

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg.config import EmgConfig
from myoloop.emg.motor_units import DOUBLET_MS, ONSET_SPAN, Pool, rates, shortest_interval
from myoloop.emg.rate_laws import TICKS

CONTRACTION_RANGE = 3.0  # slowest over fastest contraction time (Fuglevand et al. 1993: 90 to 30 ms)
LINEAR_RATE = 0.4  # T/ISI below which twitches add up unchanged (Fuglevand et al. 1993)
DOUBLET_GAIN = 2.5  # a doublet peaks at 3.5 times a twitch (human thenar units, 5-15 ms: Thomas et al. 1999)
DOUBLET_S = DOUBLET_MS[1] / 1000.0  # the longest interval of a doublet; others are above the refractory time
LEVELS = 257
"""Excitations of the static curve."""


class Twitches(NamedTuple):
    """Twitches of one person's units, float32; with a leading B, of several people. U units."""

    peak: Any
    """(U,) peak of a single twitch over the healthy muscle's largest force; 0 for a unit that is lost."""
    time_s: Any
    """(U,) contraction time: from the discharge to the peak, s."""
    curve: Any
    """(26, LEVELS) mean force of each healthy muscle at steady excitations 0 to 1 in equal steps, rising to 1."""


def build_twitches(pool: Pool, config: EmgConfig) -> Twitches:
    """Twitches of a healthy pool, in units of its mean force at excitation 1. Offline, a fraction of a second."""
    count = np.bincount(pool.muscle)[pool.muscle]
    order = pool.rank + 0.5 / count  # rank is the middle of a unit's share, i/n its end
    peak = np.exp(math.log(config.twitch_range) * order)
    time_s = config.contraction_ms / 1000.0 * CONTRACTION_RANGE**-order
    curve = np.zeros((len(FOREARM_MUSCLES), LEVELS))
    np.add.at(curve, pool.muscle, mean_forces(pool, config, peak, time_s, np.linspace(0.0, 1.0, LEVELS)))
    curve = np.maximum.accumulate(_over_common_drive(curve, config.common_drive_cov), axis=1)
    largest = curve[:, -1:]
    # A slope of 1e-6 below the first threshold and wherever else the curve is flat makes its inverse a function.
    curve = (curve / largest + 1e-6 * np.linspace(0.0, 1.0, LEVELS)) / (1.0 + 1e-6)
    return Twitches(*(x.astype(np.float32) for x in (peak / largest[pool.muscle, 0], time_s, curve)))


def mean_forces(pool: Pool, config: EmgConfig, peak: np.ndarray, time_s: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Mean force of every unit at steady excitations, (U, L), without common drive: rate times the area of a twitch
    (e P T), times the gain averaged over the spread of the intervals."""
    draw, weight = hermegauss(9)
    weight = weight / weight.sum()
    rate = np.stack([rates(pool, level, config.law) for level in levels], axis=1)
    over = levels - pool.threshold[:, None]
    rise = max(config.isi_cov_onset - config.isi_cov, 0.0)
    cov = config.isi_cov + rise * np.clip(1.0 - over / ONSET_SPAN, 0.0, 1.0)
    intervals = np.zeros_like(rate)
    gains = np.zeros_like(rate)
    for x, w in zip(draw, weight, strict=True):
        interval = np.maximum(1.0 + cov * x, shortest_interval(config) / TICKS)  # in mean intervals
        intervals += w * interval
        gains += w * gain(time_s[:, None] * rate / interval)
    return math.e * (peak * time_s)[:, None] * rate * gains / intervals


def gain(x: np.ndarray) -> np.ndarray:
    """Twitch gain at the normalised rate x = T/ISI, for intervals that are not a doublet's."""
    x = np.maximum(x, LINEAR_RATE)
    return (1.0 - np.exp(-2.0 * x**3)) / x / LINEAR_GAIN


LINEAR_GAIN = float((1.0 - math.exp(-2.0 * LINEAR_RATE**3)) / LINEAR_RATE)
"""S(x)/x where the gain begins to leave 1."""


def _over_common_drive(curve: np.ndarray, cov: float) -> np.ndarray:
    """The curve averaged over the slow fluctuation of excitation that a muscle's units share: E (1 + cov w), 0 to 1."""
    level = np.linspace(0.0, 1.0, curve.shape[1])
    draw, weight = hermegauss(9)
    shaken = np.clip(level * (1.0 + cov * draw[:, None]), 0.0, 1.0)
    return np.stack([np.average([np.interp(x, level, row) for x in shaken], axis=0, weights=weight) for row in curve])
