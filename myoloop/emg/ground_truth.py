"""What a recording is made of: MUAPs and each muscle's own part in it, for every sample produced. Float64 NumPy, slow,
outside the hot path; also the reference that the float32 stream is compared with."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from scipy import signal

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg.params import FATIGUE_STRETCH, EmgParams, stretch_place
from myoloop.emg.placement import locate, ring, rows_between
from myoloop.emg.posture import slowing


def muaps(
    params: EmgParams,
    rotation_deg: float = 0.0,
    fatigue: float = 0.0,
    participant: int = 0,
    displacement_mm: float | np.ndarray = 0.0,
    strain: float = 0.0,
) -> np.ndarray:
    """MUAPs (U, C, L) in microvolts at the internal rate, from the discharge on, before the amplifier, as the stream
    makes them under these circumstances.

    Args: displacement_mm: of the armband, or one for each muscle's sources, (26,). strain: of the fibres (all muscles).
    """
    rows, stretched = params.coefficients, np.asarray(params.stretched, np.float64)
    moved, step = params.moved, params.turn_step_deg
    if params.stacked:
        rows, stretched, step = rows[participant], stretched[participant], step[participant]
        moved = None if moved is None else moved[participant]
    if params.moves is not None and moved is not None:
        around = ring(params.band, params.moves)
        shift = jnp.broadcast_to(jnp.asarray(displacement_mm, jnp.float32), (1, len(FOREARM_MUSCLES)))
        place = locate(params.moves, around, step, jnp.full(1, rotation_deg, jnp.float32), shift)
        read = rows_between(moved, rows, params.muscle, place, around.phases, params.band.channels)
        rows = read(jnp.zeros(params.units, jnp.int32), jnp.arange(params.units))
    stretch = 1.0 + min(max(fatigue, 0.0), 1.0) * (FATIGUE_STRETCH - 1.0)
    low, part = (np.asarray(x) for x in stretch_place(jnp.float32(stretch * slowing(jnp.float32(strain)))))
    shapes = (1 - part) * stretched[low] + part * stretched[low + 1]
    by_channel = np.asarray(rows, np.float64).reshape(params.units, params.band.channels, -1)
    return np.einsum("ucr,rl->ucl", by_channel, shapes, optimize=True)


def muscle_signals(
    params: EmgParams, unit: np.ndarray, sample: np.ndarray, samples: int, waveform: np.ndarray | None = None
) -> np.ndarray:
    """Each muscle's own contribution to the channels, before the amplifier, (26, C, samples) microvolts.

    Args:
      unit, sample: discharges since the start (`Discharges` of one or, concatenated, many chunks; sample counts from 0).
      samples: internal samples wanted.
      waveform: from `muaps`; default: no rotation, no fatigue.
    """
    waveform = muaps(params) if waveform is None else waveform
    length = waveform.shape[-1]
    muscle = np.asarray(params.muscle)
    out = np.zeros((len(FOREARM_MUSCLES), params.band.channels, samples + length))
    for u, t in zip(unit, sample, strict=True):
        if t < samples:
            out[muscle[u], :, t : t + length] += waveform[u]
    return out[:, :, :samples]


def amplified(params: EmgParams, signals: np.ndarray) -> np.ndarray:
    """Signals (..., internal samples) as the device delivers them, (..., device samples): band-pass and decimation, in
    float64, without noise and quantisation."""
    band = params.band
    sos = signal.butter(
        int(band.order), [band.low_hz, band.high_hz], "bandpass", fs=band.internal_rate_hz, output="sos"
    )
    return np.asarray(signal.sosfilt(sos, signals, axis=-1))[..., :: band.decimation]
