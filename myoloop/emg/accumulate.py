"""Adds the coefficient rows of the units that discharged: work in proportion to the discharges, not to the units."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

_LANES = 32  # discharge slots per word
_WIDTH = 64  # words per group of the running sum
_MOST = 4096  # discharges gathered at once: measured fastest on CPU (their rows stay in the cache)


def add_rows(when: Array, rows_of: Callable[[Array, Array], Array], depth: int, samples: int) -> Array:
    """Sums each discharge's row at its sample.

    Args:
      when: (B, K, U) int8, sample of a discharge within the block or -1.
      rows_of: (participant (N,), unit (N,)) int32 -> (N, depth): the rows of coefficients of these units.
      depth: D, length of a row.
      samples: length of the block.

    Returns: (B, samples, D). Any number of discharges is served: they are taken in parts until none is left.
    """
    batch, passes, units = when.shape
    words = _flags(when)
    width = words.shape[-1]
    flat = words.reshape(-1)
    counts = jax.lax.population_count(flat).astype(jnp.int32)
    ends = _running_sum(counts)
    part = min(_MOST, max(128, 64 * batch))

    def body(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        done, rows = carry
        order = done + jnp.arange(part, dtype=jnp.int32)
        word = jnp.minimum(jnp.searchsorted(ends, order, side="right"), ends.shape[0] - 1)
        lane = _nth_set_bit(flat[word], order - (ends[word] - counts[word]))
        unit = jnp.minimum(lane * width + word % width, units - 1)
        participant, nth = word // (width * passes), word // width % passes
        sample = when[participant, nth, unit].astype(jnp.int32)
        target = jnp.where(order < ends[-1], participant * samples + sample, batch * samples)
        return done + part, rows.at[target].add(rows_of(participant, unit), mode="drop")

    rows = jnp.zeros((batch * samples, depth), jnp.float32)
    _, rows = jax.lax.while_loop(lambda c: c[0] < ends[-1], body, (jnp.int32(0), rows))
    return rows.reshape(batch, samples, -1)


def _flags(when: Array) -> Array:
    """(B, K, W) uint32: bit l of word w says whether unit l * W + w discharged. Lanes lie far apart so that the bits of
    neighbouring units are joined as vectors."""
    batch, passes, units = when.shape
    width = -(-units // _LANES)
    padded = jnp.pad(when, ((0, 0), (0, 0), (0, width * _LANES - units)), constant_values=-1)
    flags = padded.reshape(batch, passes, _LANES, width) >= 0
    bit = jnp.uint32(1) << jnp.arange(_LANES, dtype=jnp.uint32)[:, None]
    return jnp.sum(jnp.where(flags, bit, jnp.uint32(0)), axis=2, dtype=jnp.uint32)


def _nth_set_bit(word: Array, nth: Array) -> Array:
    """Place of the nth (from 0) bit that is set, by halving; some place below 32 if there are not as many."""
    place = jnp.zeros_like(nth)
    for half in (16, 8, 4, 2, 1):
        low = jax.lax.population_count(word & jnp.uint32((1 << half) - 1)).astype(jnp.int32)
        above = nth >= low
        nth = jnp.where(above, nth - low, nth)
        word = jnp.where(above, word >> half, word)
        place = jnp.where(above, place + half, place)
    return place


def _running_sum(counts: Array) -> Array:
    """Inclusive running sum of (N,) counts, by groups, each a triangular product. Sums stay below 2^24, where float32
    counts exactly."""
    n = counts.shape[0]
    if n <= 1:
        return counts
    groups = jnp.concatenate([counts, jnp.zeros(-n % _WIDTH, counts.dtype)]).reshape(-1, _WIDTH)
    upper = jnp.triu(jnp.ones((_WIDTH, _WIDTH), jnp.float32))
    inner = jnp.matmul(groups.astype(jnp.float32), upper, precision="highest").astype(jnp.int32)
    totals = inner[:, -1]
    before = _running_sum(totals) - totals
    return (inner + before[:, None]).reshape(-1)[:n]
