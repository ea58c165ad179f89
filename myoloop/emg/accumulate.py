"""Adds the coefficient rows of the units that discharged: work in proportion to the discharges, not to the units."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

_WIDTH = 64  # discharge slots per group of the two-level search
_MOST = 16384  # discharges gathered at once


def add_rows(when: Array, coefficients: Array, samples: int) -> Array:
    """Sums each discharge's row at its sample.

    Args:
      when: (K, B, U) int8, sample of a discharge within the block or -1.
      coefficients: (U, D), or (B, U, D) for different people side by side.
      samples: length of the block.

    Returns: (B, samples, D). Any number of discharges is served: they are taken in parts until none is left.
    """
    passes, batch, units = when.shape
    depth = coefficients.shape[-1]
    table = coefficients.reshape(-1, depth)
    own_rows = coefficients.ndim == 3
    slots = when.reshape(-1)
    slots = jnp.concatenate([slots, jnp.full(-slots.shape[0] % _WIDTH, -1, slots.dtype)]).reshape(-1, _WIDTH)
    within = _running_count(slots >= 0)
    ends = _running_sum(within[:, -1])
    part = min(_MOST, max(128, 64 * batch))

    def body(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        done, rows = carry
        order = done + jnp.arange(part, dtype=jnp.int32)
        group = jnp.minimum(jnp.searchsorted(ends, order, side="right"), ends.shape[0] - 1)
        counts = within[group]
        ahead = order - (ends[group] - counts[:, -1])
        place = group * _WIDTH + jnp.sum(counts <= ahead[:, None], axis=1)
        place = jnp.minimum(place, batch * passes * units - 1)
        participant, unit = place // units % batch, place % units
        source = participant * units + unit if own_rows else unit
        sample = slots.reshape(-1)[place].astype(jnp.int32)
        target = jnp.where(order < ends[-1], participant * samples + sample, batch * samples)
        return done + part, rows.at[target].add(table[source], mode="drop")

    rows = jnp.zeros((batch * samples, depth), jnp.float32)
    _, rows = jax.lax.while_loop(lambda c: c[0] < ends[-1], body, (jnp.int32(0), rows))
    return rows.reshape(batch, samples, depth)


def _running_count(flags: Array) -> Array:
    """Inclusive running count along the last axis by a triangular product: exact in float32."""
    width = flags.shape[-1]
    upper = jnp.triu(jnp.ones((width, width), jnp.float32))
    return jnp.matmul(flags.astype(jnp.float32), upper, precision="highest").astype(jnp.int32)


def _running_sum(counts: Array) -> Array:
    """Inclusive running sum of (N,) counts, by groups. Sums stay below 2^24, where float32 counts exactly."""
    n = counts.shape[0]
    if n <= 1:
        return counts
    groups = jnp.concatenate([counts, jnp.zeros(-n % _WIDTH, counts.dtype)]).reshape(-1, _WIDTH)
    upper = jnp.triu(jnp.ones((_WIDTH, _WIDTH), jnp.float32))
    inner = jnp.matmul(groups.astype(jnp.float32), upper, precision="highest").astype(jnp.int32)
    totals = inner[:, -1]
    before = _running_sum(totals) - totals
    return (inner + before[:, None]).reshape(-1)[:n]
