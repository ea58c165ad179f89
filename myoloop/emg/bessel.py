"""Modified Bessel functions as logarithms and logarithmic slopes: no overflow for any order and argument.

Orders below DEBYE come from scipy (ive, kve), higher ones from Debye's uniform expansion, whose error is below 1e-7 there.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.polynomial import Polynomial
from scipy import special

DEBYE = 16  # order from which the expansion serves
_TERMS = 5


class Bessel(NamedTuple):
    """I_m and K_m at x, arrays (orders, arguments): order m is row m."""

    log_i: np.ndarray
    log_k: np.ndarray
    slope_i: np.ndarray
    """x I_m'(x) / I_m(x)"""
    slope_k: np.ndarray
    """x K_m'(x) / K_m(x), negative"""


def bessel(orders: int, x: np.ndarray) -> Bessel:
    """Orders 0..orders-1 at x (N,), all above 0."""
    low = _exact(np.arange(min(orders, DEBYE))[:, None], x[None, :])
    if orders <= DEBYE:
        return low
    high = _debye(np.arange(DEBYE, orders, dtype=float)[:, None], x[None, :])
    return Bessel(*[np.concatenate(pair) for pair in zip(low, high, strict=True)])


def _exact(m: np.ndarray, x: np.ndarray) -> Bessel:
    i, k = special.ive(m, x), special.kve(m, x)
    slope_i = m + x * special.ive(m + 1, x) / i
    slope_k = -m - x * special.kve(np.abs(m - 1), x) / k
    return Bessel(np.log(i) + x, np.log(k) - x, slope_i, slope_k)


def _debye(m: np.ndarray, x: np.ndarray) -> Bessel:
    """Abramowitz & Stegun 9.7.7-9.7.10."""
    root = np.hypot(1.0, x / m)
    p = 1.0 / root
    eta = root + np.log(x / m / (1.0 + root))
    ui = vi = uk = vk = 0.0
    for n, (u, v) in enumerate(_polynomials()):
        un, vn = u(p) / m**n, v(p) / m**n
        ui, vi, uk, vk = ui + un, vi + vn, uk + (-1) ** n * un, vk + (-1) ** n * vn
    scale = 0.5 * np.log(root)
    log_i = m * eta - 0.5 * np.log(2 * np.pi * m) - scale + np.log(ui)
    log_k = -m * eta + 0.5 * np.log(np.pi / (2 * m)) - scale + np.log(uk)
    return Bessel(log_i, log_k, m * root * vi / ui, -m * root * vk / uk)


@cache
def _polynomials() -> list[tuple[Polynomial, Polynomial]]:
    """u_n and v_n of Debye's expansion by their recursion (Abramowitz & Stegun 9.3.10, 9.3.14)."""
    p = Polynomial([0.0, 1.0])
    u = Polynomial([1.0])
    out = [(u, u)]
    for _ in range(_TERMS):
        after = 0.5 * p**2 * (1 - p**2) * u.deriv() + ((1 - 5 * p**2) * u).integ() / 8
        out.append((after, after + p * (p**2 - 1) * (0.5 * u + p * u.deriv())))
        u = after
    return out
