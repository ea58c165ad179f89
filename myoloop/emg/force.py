"""From discharges to force: twitches add up to the activation of each forearm muscle, streaming.

    force = build_force(params)                              # params: EmgParams, one person or several
    state = init_force(force, batch)
    out, emg_state = synthesise(params, emg_state, excitation, samples)
    activation, state = twitch_force(force, state, out.spikes, samples)      # (B, 26), 0..1, for the body

A twitch (twitches.py) is the impulse response of a critically damped second-order system, so two numbers a unit hold all
of its past discharges, and they are carried over any time exactly: force f and slope p follow
f' = (p - f)/T, p' = -p/T, and a discharge adds g e P to p. The activation is the mean force over the chunk, in closed
form. Cutting into chunks changes nothing but rounding.

Lost units are missing from the force, grown ones pull harder, tremor and common drive shake it: what the discharges do, the
hand does. `linearised` undoes the static curve of the same person's healthy pool, so that on average a healthy muscle
at constant excitation e has activation e, as MuJoCo's own muscles have; MuJoCo's activation dynamics are not used then.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg.params import EmgParams
from myoloop.emg.synthesis import Spikes, block_samples
from myoloop.emg.twitches import DOUBLET_GAIN, DOUBLET_S, LEVELS, LINEAR_GAIN, LINEAR_RATE
from myoloop.errors import MyoloopError

_LONG_AGO = 32000  # internal samples since a discharge beyond which it no longer matters (16 s at 2 kHz)


@flax.struct.dataclass
class ForceParams:
    """What the step needs of the twitches; (U,) or, for several people, (B, U)."""

    peak: Array
    """Peak of a twitch, part of the muscle's largest force."""
    time: Array
    """Contraction time, internal samples."""
    curve: Array
    """(26, LEVELS) or (B, 26, LEVELS): force of the healthy muscles at steady excitations, to be undone."""
    muscle: Array
    """(U,) int32."""
    block: int = flax.struct.field(pytree_node=False)
    """Internal samples of one block of `Spikes`."""
    decimation: int = flax.struct.field(pytree_node=False)
    """Internal samples per device sample."""
    doublet: int = flax.struct.field(pytree_node=False)
    """Longest interval of a doublet, internal samples."""
    linearised: bool = flax.struct.field(pytree_node=False, default=True)
    """Whether the activation is the excitation that would give this force in health, or the force itself."""


class ForceState(NamedTuple):
    """(B, U) each; save it with numpy and the force goes on bit for bit."""

    force: Array
    """Force of each unit now, part of the muscle's largest."""
    slope: Array
    """What its discharges still have to give (p of the recursion), in the same unit."""
    since: Array
    """int16, internal samples since its last discharge, at most _LONG_AGO."""


def build_force(params: EmgParams, linearised: bool = True) -> ForceParams:
    """The twitches of a person, conditions of the motor units included, ready for the step."""
    band, twitches = params.band, params.twitches
    return ForceParams(
        peak=jnp.asarray(twitches.peak),
        time=jnp.asarray(twitches.time_s) * jnp.float32(band.internal_rate_hz),
        curve=jnp.asarray(twitches.curve),
        muscle=params.muscle,
        block=block_samples(band),
        decimation=band.decimation,
        doublet=round(DOUBLET_S * band.internal_rate_hz),
        linearised=linearised,
    )


def init_force(params: ForceParams, batch: int) -> ForceState:
    """Muscles at rest, long since their last discharge."""
    shape = batch, params.muscle.shape[0]
    return ForceState(jnp.zeros(shape), jnp.zeros(shape), jnp.full(shape, _LONG_AGO, jnp.int16))


def twitch_force(params: ForceParams, state: ForceState, spikes: Spikes, samples: int) -> tuple[Array, ForceState]:
    """Activation (B, 26), 0..1, of the forearm muscles: their mean over the chunk whose discharges these are.

    Args:
      params: from build_force of the person or people that made the spikes.
      state: from init_force or the last call; not changed.
      spikes: from synthesise.
      samples: static; the device samples of the chunk, as given to synthesise.

    Raises MyoloopError where spikes, state and samples do not fit each other.
    """
    internal = samples * params.decimation
    expected = state.force.shape[0], -(-internal // params.block), state.force.shape[1]
    found = spikes.when.shape[0], spikes.when.shape[1], spikes.when.shape[3]
    if found != expected:
        raise MyoloopError(
            f"spikes have {found} participants, blocks and units; expected {expected} for a chunk of {samples} samples "
            "and this force state: take all three from the same people."
        )
    return _twitch_force(params, state, spikes.when, internal)


@partial(jax.jit, static_argnames="samples")
def _twitch_force(params: ForceParams, state: ForceState, when: Array, samples: int) -> tuple[Array, ForceState]:
    whole, rest = divmod(samples, params.block)
    total = jnp.zeros((state.force.shape[0], len(FOREARM_MUSCLES)), jnp.float32)
    if whole == 1:
        state, impulse = _block(params, state, when[:, 0], params.block)
        total = total + impulse
    elif whole > 1:
        blocks = jnp.moveaxis(when[:, :whole], 1, 0)
        state, impulses = jax.lax.scan(lambda s, w: _block(params, s, w, params.block), state, blocks)
        total = total + impulses.sum(axis=0)
    if rest:
        state, impulse = _block(params, state, when[:, -1], rest)
        total = total + impulse
    force = total / samples
    return jnp.clip(_undo(params.curve, force) if params.linearised else force, 0.0, 1.0), state


def _block(params: ForceParams, state: ForceState, when: Array, samples: int) -> tuple[ForceState, Array]:
    """One block of `when` (B, K, U): the next state, and the force of each muscle summed over its samples, (B, 26)."""
    ways = [partial(_advance, passes=k + 1, samples=samples) for k in range(when.shape[1])]
    most = jnp.max(jnp.where((when >= 0).any(axis=(0, 2)), jnp.arange(when.shape[1]), 0))  # often 0 or 1
    state, area = jax.lax.switch(most, ways, params, state, when)
    place = (params.muscle[:, None] == jnp.arange(len(FOREARM_MUSCLES))).astype(jnp.float32)
    return state, jnp.matmul(area, place, precision="highest")


def _advance(
    params: ForceParams, state: ForceState, when: Array, passes: int, samples: int
) -> tuple[ForceState, Array]:
    """The next state, and the force of each unit summed over the samples, (B, U). passes: discharges of one unit at most."""
    per_time = 1.0 / params.time
    x = samples * per_time
    kept, gone = jnp.exp(-x), -jnp.expm1(-x)
    area = state.force * gone + state.slope * (gone - x * kept)  # in contraction times
    force, slope = (state.force + state.slope * x) * kept, state.slope * kept
    since = state.since.astype(jnp.int32)
    for k in range(passes):
        at = when[:, k].astype(jnp.int32)
        fires = at >= 0
        r = (samples - at).astype(jnp.float32) * per_time  # since the discharge, in contraction times
        left = jnp.exp(-r)
        push = jnp.where(fires, _gain(params, since + at, per_time) * (params.peak * jnp.float32(np.e)), 0.0)
        area = area + push * (1.0 - (1.0 + r) * left)
        force = force + push * r * left
        slope = slope + push * left
        since = jnp.where(fires, -at, since)
    since = jnp.minimum(since + samples, _LONG_AGO).astype(jnp.int16)
    return ForceState(force, slope, since), area * params.time


def _gain(params: ForceParams, interval: Array, per_time: Array) -> Array:
    """Twitch gain after an interval of so many internal samples (twitches.gain, and doublets)."""
    y = jnp.clip(interval.astype(jnp.float32) * per_time, 1e-6, 1.0 / LINEAR_RATE)  # ISI/T
    x = 1.0 / y
    return jnp.where(interval <= params.doublet, DOUBLET_GAIN, (1.0 - jnp.exp(-2.0 * x * x * x)) * y / LINEAR_GAIN)


def _undo(curve: Array, force: Array) -> Array:
    """The steady excitation at which each healthy muscle has this force, (B, 26)."""
    levels = jnp.linspace(0.0, 1.0, LEVELS)
    by_muscle = jax.vmap(lambda f, c: jnp.interp(f, c, levels))
    return jax.vmap(by_muscle, in_axes=(0, 0 if curve.ndim == 3 else None))(force, curve)
