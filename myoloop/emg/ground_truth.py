"""What a recording is made of: MUAPs and each muscle's own part in it, for every sample produced. Float64 NumPy, slow,
outside the hot path; also the reference that the float32 stream is compared with."""

from __future__ import annotations

import numpy as np
from scipy import signal

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg.params import EmgParams


def muaps(params: EmgParams, rotation_deg: float = 0.0, fatigue: float = 0.0, participant: int = 0) -> np.ndarray:
    """MUAPs (U, C, L) in microvolts at the internal rate, from the discharge on, before the amplifier, as the stream
    makes them under these circumstances."""
    rows, stretched = np.asarray(params.coefficients), np.asarray(params.stretched, np.float64)
    if params.stacked:
        rows, stretched = rows[participant], stretched[participant]
    turns = np.asarray(params.turns_deg)
    rows = rows.astype(np.float64)
    if turns.size > 1:
        place = np.interp(rotation_deg, turns, np.arange(turns.size))
        low = min(int(place), turns.size - 2)
        rows = (1 - place + low) * rows[low : low + 1] + (place - low) * rows[low + 1 : low + 2]
    place = min(max(fatigue, 0.0), 1.0) * (stretched.shape[0] - 1)
    low = min(int(place), stretched.shape[0] - 2)
    shapes = (1 - place + low) * stretched[low] + (place - low) * stretched[low + 1]
    by_channel = rows[0].reshape(rows.shape[1], params.band.channels, -1)
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
