"""What a recording holds: counted against what was sent, and the figures of a session from its recording alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from myoloop.errors import MyoloopError
from myoloop.streams.outlets import FEEDBACK_LABELS
from myoloop.streams.witness import KEEP_S, median_frequency
from myoloop.streams.xdf import SESSION_FILE, XdfSession, XdfStream, count_samples

SAME_S = 1e-6
"""s by which the stamps of one control step's samples may differ between streams."""


def counted(
    run_dir: Path, participant: dict[str, Any], decoders: list[dict[str, Any]], recorder: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Samples that each outlet sent, by its own count, and that the recording holds; None if nothing was recorded.

    Args:
      run_dir: the run folder.
      participant: its last status.
      decoders: the last statuses of the decoder's lives; none: whatever it sent is unknown.
      recorder: its last status.

    Returns:
      file, bytes, streams {name: {sent, recorded}} (sent: None if nobody counted), lost (samples of streams whose sending was
      counted), and problem (None if all is well).
    """
    if recorder is None and not (run_dir / SESSION_FILE).exists():
        return None
    problem = None
    try:
        recorded = count_samples(run_dir)
    except MyoloopError as error:
        recorded, problem = {}, str(error)
    name = participant.get("id", "")
    sent: dict[str, int | None] = {f"{name}_{stream}": count for stream, count in participant.get("sent", {}).items()}
    if decoders:
        sent[f"{name}_prediction"] = sum(life.get("predictions", 0) for life in decoders)
    streams = {key: {"sent": sent.get(key), "recorded": recorded.get(key, 0)} for key in sorted({*sent, *recorded})}
    files = sorted(path for path in run_dir.glob("session*.xdf"))
    return {
        "file": SESSION_FILE,
        "files": [path.name for path in files],
        "bytes": sum(path.stat().st_size for path in files),
        "streams": streams,
        "lost": sum(max(0, count - recorded.get(key, 0)) for key, count in sent.items() if count is not None),
        "problem": problem or ("the file did not grow to the end" if (recorder or {}).get("stuck") else None),
    }


def steps_of(session: XdfSession) -> np.ndarray | None:
    """The control steps of a recording, in the columns of the step log that a recording knows; None if there are none.

    Streams of the control rate are put together by their stamps: a step that one of them lacks is left out.
    """
    wanted = {"target": 5, "feedback": len(FEEDBACK_LABELS), "excitation": 0, "kinematics": 0}
    if any(name not in session.streams for name in wanted):
        return None
    streams = {name: session.streams[name] for name in wanted}
    for name, width in wanted.items():
        if width and streams[name].samples.shape[1] != width:
            raise MyoloopError(
                f"'{streams[name].name}' has {streams[name].samples.shape[1]} channels, expected {width}."
            )
    times = streams["target"].stamps
    for stream in streams.values():
        times = times[np.isin(_key(times), _key(stream.stamps))]
    if not len(times):
        return None
    picked = {name: _at(stream, times) for name, stream in streams.items()}
    dtype = [
        ("time", "f8"), ("target", "f4", 5), ("prediction", "f4", 5), ("prediction_age_s", "f4"), ("feedback_latency_ms", "f4"),
        ("excitation", "f4", picked["excitation"].shape[1]), ("joints_deg", "f4", picked["kinematics"].shape[1]),
    ]  # fmt: skip
    rows = np.zeros(len(times), dtype)
    rows["time"], rows["target"] = times, picked["target"]
    rows["prediction"], rows["prediction_age_s"] = picked["feedback"][:, :5], picked["feedback"][:, 5]
    rows["feedback_latency_ms"] = picked["feedback"][:, 6]
    rows["excitation"], rows["joints_deg"] = picked["excitation"], picked["kinematics"]
    return rows


def emg_figures(stream: XdfStream) -> dict[str, Any]:
    """RMS over everything, median frequency over the last KEEP_S seconds: of each channel, as a session's witness has them."""
    emg = np.asarray(stream.samples, np.float64)
    finite = np.isfinite(emg)
    last = emg[-round(KEEP_S * stream.rate_hz) :]
    return {
        "channels": emg.shape[1],
        "rate_hz": stream.rate_hz,
        "samples": len(emg),
        "samples_not_finite": int(np.count_nonzero(~finite.all(axis=1))),
        "rms_uv": np.sqrt(np.mean(np.where(finite, emg, 0) ** 2, axis=0)).round(2).tolist(),
        "median_frequency_hz": median_frequency(last, stream.rate_hz).round(1).tolist(),
    }


def _key(stamps: np.ndarray) -> np.ndarray:
    return np.round(stamps / SAME_S).astype(np.int64)


def _at(stream: XdfStream, times: np.ndarray) -> np.ndarray:
    """The samples at these times, every one of which is there."""
    order = np.argsort(stream.stamps, kind="stable")
    place = np.searchsorted(stream.stamps[order], times - SAME_S)
    return np.asarray(stream.samples, np.float32)[order[place]]
