"""Sessions on simulated time: steps wait for a decoder in another process, a quick one and a slow one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from myoloop.experiment import Experiment
from myoloop.live.participant import LiveParticipant
from myoloop.report_pace import pace
from myoloop.streams.rowlog import read_rows

LOCKSTEP = {"kind": "lockstep", "timeout_s": 60.0, "unanswered": 0.1}
"""Waits for whoever is held up, and does not run away from a decoder that is still to come."""

ECHO = """
import sys, time
import numpy as np, pylsl
name, takes, stamped = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "stamped"
info = pylsl.StreamInfo(f"{name}_prediction", "Control", 5, 0, pylsl.cf_float32, "echo_" + name)
out = pylsl.StreamOutlet(info)
inlet = pylsl.StreamInlet(pylsl.resolve_byprop("name", f"{name}_emg", timeout=60)[0], max_buflen=60, recover=False)
inlet.open_stream(timeout=60)
try:
    while True:
        emg, stamps = inlet.pull_chunk(timeout=0.5, min_samples=1, max_samples=40, as_numpy=True)
        if len(stamps):
            time.sleep(takes)
            out.push_chunk(np.full((1, 5), 0.25, np.float32), stamps[-1] if stamped else 0.0)
except pylsl.util.LostError:
    pass
"""


def session(
    folder: Path, clock: str | dict, seconds: float, takes_s: float, stamped: bool = True
) -> tuple[np.ndarray, dict]:
    """The step log and the last status of a participant whose decoder takes `takes_s` for every 40 samples."""
    name = f"step{abs(hash(folder)) % 10**6}"
    experiment = Experiment.model_validate(
        {
            "duration_s": seconds,
            "ros": False,
            "clock": clock,
            "participant": {"id": name},
            "decoder": {"kind": "external"},
        }
    )
    live = LiveParticipant(experiment, folder)
    how = "stamped" if stamped else "unstamped"
    decoder = subprocess.Popen([sys.executable, "-c", ECHO, name, str(takes_s), how])
    try:
        live.start()
        live.join(240)
        status = live.status()
    finally:
        live.close()
        decoder.kill()
        decoder.wait()
    assert live.error is None and live.finished
    return read_rows(folder / "steps"), status


def answered(rows: np.ndarray) -> np.ndarray:
    """From the first step on that used an answer."""
    return rows[np.cumsum(np.isfinite(rows["prediction_age_s"])) > 0]


def test_lockstep_uses_the_answer_to_each_chunk_in_the_next_step(tmp_path: Path) -> None:
    rows, status = session(tmp_path, LOCKSTEP, 12.0, 0.0)
    used = answered(rows)
    assert len(used) > 300 and status["timeouts"] == 0 and status["overruns"] == 0
    assert np.abs(used["feedback_latency_ms"][1:] - 20.0).max() < 0.01
    assert np.abs(np.diff(rows["time"]) - 0.02).max() < 1e-6
    assert status["clock"] == "lockstep"
    found = pace(rows, 50.0, "lockstep", status["timeouts"])
    assert found and found["answer_ms"]["median"] > 0 and np.nanmin(rows["answer_ms"]) > 0


def test_lockstep_waits_for_a_slow_decoder_that_real_time_would_leave_behind(tmp_path: Path) -> None:
    rows, status = session(tmp_path, LOCKSTEP, 3.0, 0.03)
    used = answered(rows)
    assert np.median(used["feedback_latency_ms"]) == pytest.approx(20.0, abs=0.01) and status["timeouts"] == 0
    found = pace(rows, 50.0, "lockstep", 0)
    assert found and found["verdict"] == "slow" and found["answer_ms"]["median"] > 29
    (tmp_path / "real").mkdir()
    rows, _ = session(tmp_path / "real", "realtime", 5.0, 0.1)
    found = pace(rows, 50.0)
    assert found and found["verdict"] == "cannot keep up" and found["falls_behind"] > 0.1


def test_predictions_of_another_clock_count_for_the_newest_emg(tmp_path: Path) -> None:
    rows, status = session(tmp_path, LOCKSTEP, 6.0, 0.0, stamped=False)
    assert status["predictions_restamped"] == status["predictions"] > 100 and status["timeouts"] == 0
    assert np.nanmedian(rows["feedback_latency_ms"]) == pytest.approx(20.0, abs=0.01)


def test_free_clock_waits_for_nobody(tmp_path: Path) -> None:
    rows, status = session(tmp_path, "free", 5.0, 0.2)
    assert len(rows) == 250 and status["timeouts"] == 0 and np.nansum(rows["waited_ms"]) < 50
