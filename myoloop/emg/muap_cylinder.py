"""Motor-unit action potentials in the layered cylinder: tabulated field, fibres and travelling source put together.

The field along the limb is a sum of Q shapes whose weights depend on a fibre's depth and angle (cylinder.Field). Per
unit, the shapes are read along its fibres, weighted, summed over fibres and both directions, and turned into samples by
the kernel of its conduction velocity: three small matrix products a unit.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from myoloop.emg.cylinder import Field
from myoloop.emg.source import STEP_X, muap_samples, points_along, time_kernels
from myoloop.emg.units import Units

_T = TypeVar("_T")

_BLOCK = 32  # units computed at once
_VELOCITY_STEP = 0.01  # m/s between tabulated kernels: 0.2 mm of the front after 20 ms
_PATIENCE_S = 2.0  # a progress bar appears for what takes longer


def cylinder_muaps(
    units: Units,
    field: Field,
    angles_deg: Sequence[float],
    rows_mm: Sequence[float],
    rate_hz: float,
    watch: bool = True,
) -> np.ndarray:
    """MUAPs (U, rows*angles, L), float32 microvolts at the internal rate, at every row and angle (row by row).

    Args: angles_deg, rows_mm: where the channels sit around and along the limb (the middle of their electrodes). watch:
    show a progress bar on a terminal when it takes long.
    """
    reach = float(max(units.proximal.max(), units.distal.max()))
    along = points_along(reach)
    slowest, fastest = float(units.velocity.min()), float(units.velocity.max())
    length = muap_samples(reach, slowest, rate_hz)
    steps = max(1, math.ceil((fastest - slowest) / _VELOCITY_STEP))
    kernels = time_kernels(np.linspace(slowest, fastest, steps + 1), along, rate_hz, length)
    place = (units.velocity - slowest) / max(fastest - slowest, 1e-9) * steps
    low = np.minimum(place.astype(int), steps - 1)
    part = (place - low).astype(np.float32)[:, None, None]

    count, angles = units.velocity.size, np.deg2rad(np.asarray(angles_deg))
    out = np.empty((count, len(rows_mm) * angles.size, length), np.float32)
    blocks = range(0, count, _BLOCK)
    for start in watched(blocks, "MUAPs at the electrodes") if watch else blocks:
        block = slice(start, min(start + _BLOCK, count))
        own = Units(*[a[block] for a in units])
        weights = _weights(own, field, angles)
        kernel = kernels[low[block]]
        kernel += part[block] * (kernels[low[block] + 1] - kernel)
        for n, row in enumerate(rows_mm):
            spread = np.matmul(weights, _along_fibres(own, field, along, row))
            out[block, n * angles.size : (n + 1) * angles.size] = np.matmul(spread, kernel)
    return out


def _weights(units: Units, field: Field, angles: np.ndarray) -> np.ndarray:
    """(U, A, J*Q): weight of every shape for every fibre at every angle, cubic in log depth, linear in angle."""
    radius = np.hypot(units.x, units.y)
    depths, turns, shapes = field.angular.shape
    ratio = math.log(field.depths[1] / field.depths[0])
    depth = np.log((field.radius - radius) / field.depths[0]) / ratio
    node = np.clip(depth.astype(int), 1, depths - 3)
    angle = (angles[:, None] - np.arctan2(units.y, units.x)[:, None, :]) / (2 * math.pi) % 1.0 * turns
    left = angle.astype(int)
    part = (angle - left).astype(np.float32)[..., None]
    left, right = left % turns, (left + 1) % turns
    out = np.zeros((*left.shape, shapes), np.float32)
    share = units.fibres / radius.shape[1]
    for offset, weight in zip(range(-1, 3), cubic(depth - node), strict=True):
        weight = (weight * share[:, None]).astype(np.float32)[:, None, :, None]
        row = (node + offset)[:, None, :]
        near = field.angular[row, left]
        out += weight * (near + part * (field.angular[row, right] - near))
    return out.reshape(radius.shape[0], angles.size, -1)


def _along_fibres(units: Units, field: Field, along: np.ndarray, row_mm: float) -> np.ndarray:
    """(U, J*Q, X): every shape along both halves of every fibre, folded on the distance from the end plate."""
    total = np.zeros((*units.x.shape, along.size, field.along.shape[1]), np.float32)
    for direction, half in ((-1.0, units.proximal), (1.0, units.distal)):
        place = (units.end_plate[..., None] + direction * along - row_mm - field.z0) / STEP_X
        node = np.clip(place.astype(int), 1, field.along.shape[0] - 3)
        inside = direction * np.clip((half[..., None] - along) / STEP_X + 0.5, 0.0, 1.0)
        for offset, weight in zip(range(-1, 3), cubic(place - node), strict=True):
            total += (weight * inside).astype(np.float32)[..., None] * field.along[node + offset]
    return np.ascontiguousarray(np.swapaxes(total, 2, 3)).reshape(units.x.shape[0], -1, along.size)


def cubic(t: np.ndarray) -> list[np.ndarray]:
    """Lagrange weights of the nodes -1, 0, 1, 2 for a place t between nodes 0 and 1."""
    return [
        -t * (t - 1) * (t - 2) / 6,
        (t + 1) * (t - 1) * (t - 2) / 2,
        -(t + 1) * t * (t - 2) / 2,
        (t + 1) * t * (t - 1) / 6,
    ]


def watched(steps: Sequence[_T], label: str) -> Iterator[_T]:
    """The steps, with a progress bar on a terminal once they have taken longer than _PATIENCE_S."""
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        advance = None
        for done, step in enumerate(steps):
            if advance is None and sys.stderr.isatty() and time.monotonic() - begin > _PATIENCE_S:
                bar = stack.enter_context(_bar())
                task = bar.add_task(label, total=len(steps), completed=done)
                advance = (bar, task)
            yield step
            if advance is not None:
                advance[0].advance(advance[1])


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), transient=True)
