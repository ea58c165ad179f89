"""What happens to the recording while it runs: placement, contact, fatigue, hum, motion artefacts, ECG.

Everything random is addressed by absolute time, so that any cutting into chunks gives the same signal. What is not
present costs nothing: the branch is skipped while all participants have 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg import filters
from myoloop.emg.armband import Armband
from myoloop.emg.noise import address, normal, uniform

OPEN_NOISE = 10.0  # noise of a channel without contact over that of a good one (estimate: the input floats)
OPEN_MAINS_UV = 50.0  # hum that a channel without contact picks up, uV RMS (upper end of the usual 1-50 uV; estimate)
ARTEFACT_KNOT_S = 0.05  # knots of the motion artefact: power below 10 Hz (De Luca et al. 2010: below 20 Hz)
ECG_HZ = 70.0 / 60.0  # heart beats per second at rest
ECG_WAVES = ((0.15, 0.025, 0.12), (0.25, 0.012, 1.0), (0.28, 0.010, -0.25), (0.47, 0.045, 0.3))
"""P, R, S and T waves: phase of the beat, width (s), height over R (textbook lead II, rounded)."""


class Circumstances(NamedTuple):
    """Held for the chunk. B participants; None: nothing of the kind."""

    mains_uv: Array
    """(B,) mains hum before the amplifier's filter, microvolts RMS."""
    contact: Array
    """(B, C) 1: good contact, 0: electrode off the skin (no EMG, noise and hum)."""
    rotation_deg: Array | None = None
    """(B,) armband turned about the forearm, degrees towards volar; held to `EmgParams.moves`, none: it stays."""
    fatigue: Array | None = None
    """(B,), or (B, 26) a muscle: 0: rested; 1: MUAPs last FATIGUE_STRETCH times as long. Of several muscles that are
    active together, all MUAPs last as long as on average, weighted by excitation (exact for one at a time)."""
    artefact_uv: Array | None = None
    """(B,) motion artefact before the amplifier's filter, microvolts RMS, each channel its own."""
    ecg_uv: Array | None = None
    """(B,) height of the R wave before the amplifier's filter, microvolts, alike on all channels."""
    displacement_mm: Array | None = None
    """(B,) armband moved along the forearm, mm towards the wrist; held to `EmgParams.moves`, none: it stays."""
    skin_turn_deg: Array | None = None
    """(B,) skin and armband turned over the muscles by the posture, degrees towards volar (posture.py)."""
    muscle_shift_mm: Array | None = None
    """(B, 26) muscle fibres moved under the skin by the posture, mm towards the wrist."""
    fibre_strain: Array | None = None
    """(B, 26) muscle fibres longer than at the neutral posture, by this part of their length."""


def no_circumstances(batch: int, channels: int) -> Circumstances:
    """Good contact everywhere and nothing else."""
    none = np.zeros(batch, np.float32)  # NumPy: making small JAX arrays takes longer than synthesising a chunk
    return completed(Circumstances(none, np.ones((batch, channels), np.float32)), batch)  # type: ignore[arg-type]


def completed(circumstances: Circumstances, batch: int) -> Circumstances:
    """With zeros for what is None."""
    none = np.zeros(batch, np.float32)
    muscles = np.zeros((batch, len(FOREARM_MUSCLES)), np.float32)
    empty = {"muscle_shift_mm": muscles, "fibre_strain": muscles}
    return Circumstances(
        *[
            empty.get(name, none) if field is None else as_float32(field)
            for name, field in zip(Circumstances._fields, circumstances, strict=True)
        ]  # type: ignore
    )


def as_float32(values: np.ndarray | Array) -> np.ndarray | Array:
    """The same as float32, left on the device where it is."""
    return values.astype(jnp.float32) if isinstance(values, Array) else np.asarray(values, np.float32)


def disturbance(
    band: Armband,
    mains_hz: float,
    mains_gain: Array,
    key: Array,
    start: Array,
    now: Circumstances,
    samples: int,
) -> Array:
    """All that is not EMG, before the amplifier's filter, (B, C, samples) microvolts.

    Args: mains_gain: (C,) or (B, C). key, start: (B,) of the participants' states. now: completed.
    """
    rate = band.internal_rate_hz
    sample = start[:, None, None] + jnp.arange(samples, dtype=jnp.int32)
    channel = jnp.arange(band.channels, dtype=jnp.int32)[None, :, None]
    keys = key[:, None, None]
    loose = 1.0 - now.contact[..., None]
    floor = band.noise_uv / filters.noise_gain(band) * (1.0 + (OPEN_NOISE - 1.0) * loose)
    total = normal(address(keys, jnp.int32(4), channel, sample)) * floor
    strength = now.mains_uv[:, None, None] + OPEN_MAINS_UV * loose
    assert now.artefact_uv is not None and now.ecg_uv is not None
    artefact, ecg = now.artefact_uv[:, None, None], now.ecg_uv[:, None, None]
    total = total + _if_any(strength, lambda: _hum(mains_hz, rate, keys, sample) * mains_gain[..., :, None], total)
    total = total + _if_any(artefact, lambda: _artefact(rate, keys, channel, sample), total)
    return total + _if_any(ecg, lambda: _ecg(rate, keys, sample), total)


def _if_any(strength: Array, signal: Callable[[], Array], like: Array) -> Array:
    """strength * signal, or zeros without computing it where all strengths are 0."""
    return jax.lax.cond(
        jnp.any(strength > 0),
        lambda: jnp.broadcast_to(strength * signal(), like.shape),
        lambda: jnp.zeros_like(like),
    )


def _cycle(hz: float, rate: float, keys: Array, sample: Array, place: int) -> Array:
    """Phase 0..1 of something that repeats, with a start of its own, (B, 1, samples). Whole periods fit in 60 s: the
    argument stays small, so float32 keeps the phase for days."""
    phase = (hz * (sample % round(rate * 60)).astype(jnp.float32) / rate) % 1.0
    return (phase + uniform(address(keys, jnp.int32(place)))) % 1.0


def _hum(hz: float, rate: float, keys: Array, sample: Array) -> Array:
    """Mains hum of RMS 1."""
    return jnp.sin(2 * jnp.pi * _cycle(hz, rate, keys, sample, 5)) * jnp.sqrt(2.0)


def _ecg(rate: float, keys: Array, sample: Array) -> Array:
    """ECG with R waves of height 1."""
    beat = _cycle(ECG_HZ, rate, keys, sample, 7)
    return sum(h * jnp.exp(-0.5 * ((beat - at) / (width * ECG_HZ)) ** 2) for at, width, h in ECG_WAVES)  # type: ignore


def _artefact(rate: float, keys: Array, channel: Array, sample: Array) -> Array:
    """A smooth random curve of RMS 1 for each channel, (B, C, samples): cubic B-spline on normal knots."""
    spacing = round(rate * ARTEFACT_KNOT_S)
    knot, u = sample // spacing, (sample % spacing).astype(jnp.float32) / spacing
    weights = [(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3]
    norm = jax.lax.rsqrt(sum(w**2 for w in weights))
    return norm * sum(w * normal(address(keys, jnp.int32(6), channel, knot + i)) for i, w in enumerate(weights))
