"""Slow decoders and those that cannot keep up, told apart on step logs made of numbers."""

from __future__ import annotations

import numpy as np

from myoloop.report_pace import pace

HZ = 50.0


def log(latency_s: np.ndarray, answer_ms: np.ndarray | float) -> np.ndarray:
    """A step log in which every step uses a new prediction; NaN latency: none came."""
    columns = [("time", float), ("feedback_latency_ms", float), ("answer_ms", float)]
    rows = np.zeros(len(latency_s), columns)
    rows["time"] = 100 + np.arange(len(latency_s)) / HZ
    rows["feedback_latency_ms"] = 1e3 * latency_s
    rows["answer_ms"] = np.where(np.isfinite(latency_s), answer_ms, np.nan)
    return rows


def test_quick_decoder_keeps_up() -> None:
    found = pace(log(np.full(500, 0.02), 1.5), HZ)
    assert (
        found and found["verdict"] == "keeps up" and found["falls_behind"] == 0 and found["answer_ms"]["median"] == 1.5
    )


def test_decoder_that_is_always_as_late_is_slow() -> None:
    found = pace(log(np.full(500, 0.16), 145.0), HZ)
    assert found and found["verdict"] == "slow" and "145 ms" in found["why"]


def test_decoder_that_falls_behind_cannot_keep_up() -> None:
    late = 0.04 + 0.25 * np.arange(1000) / HZ  # each second it gets a quarter of a second later
    found = pace(log(late, 1e3 * late), HZ)
    assert found and found["verdict"] == "cannot keep up"
    assert abs(found["falls_behind"] - 0.25) < 0.05 and "0.2" in found["why"]


def test_jitter_and_one_long_pause_do_not_make_a_decoder_fall_behind() -> None:
    rng = np.random.default_rng(0)
    late = 0.03 + 0.02 * rng.random(1000)
    late[400:420] = 1.0
    found = pace(log(late, 10.0), HZ)
    assert found and found["verdict"] == "keeps up"


def test_in_lockstep_waiting_in_vain_counts_and_a_long_answer_is_only_slow() -> None:
    rows = log(np.full(500, 0.02), 60.0)
    found = pace(rows, HZ, "lockstep", timeouts=0)
    assert found and found["verdict"] == "slow" and found["falls_behind"] is None
    found = pace(rows, HZ, "lockstep", timeouts=20)
    assert found and found["verdict"] == "cannot keep up" and "20 steps" in found["why"]


def test_without_answers_there_is_no_verdict() -> None:
    assert pace(log(np.full(100, np.nan), np.nan), HZ) is None and pace(None, HZ) is None
