"""The timing of single links: the clock, LSL, ROS 2, the decoder."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from myoloop.assets import find_file, find_node
from myoloop.decoder.runtime import OnnxDecoder
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment
from myoloop.processes import environment_for
from myoloop.streams.clock import RealtimeClock
from myoloop.streams.timing import measure_lsl

Numbers = dict[str, Any]
"""median, p95, p99, max in ms, and `count`."""
PERIOD_S = 0.02
DECODER = "models/decoder_tcn/decoder.onnx"


def numbers(values: Any) -> Numbers | None:
    """The figures that stand for many times in ms; None for none."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    median, p95, p99 = np.percentile(values, [50, 95, 99])
    found = {"median": median, "p95": p95, "p99": p99, "max": values.max()}
    return {**{name: round(float(x), 3) for name, x in found.items()}, "count": len(values)}


def clock(seconds: float, tick: Callable[[], None] = lambda: None) -> Numbers | None:
    """How much later than due a control step begins when nothing is to be done: the system's scheduling alone."""
    ticking = RealtimeClock(PERIOD_S)
    ticking.start()
    late = []
    for _ in range(round(seconds / PERIOD_S)):
        due = ticking.wait()
        late.append(1e3 * (due.started - due.deadline + due.skipped_s))
        tick()
    return numbers(late)


def lsl(seconds: float, tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """LSL one way and there and back, in ms, and chunks that did not come back."""
    ways = measure_lsl(seconds, tick=tick)
    return {
        "one_way_ms": numbers(ways.one_way_ms), "round_trip_ms": numbers(ways.round_trip_ms),
        "sent": ways.sent, "lost": ways.sent - len(ways.round_trip_ms),
    }  # fmt: skip


def ros(seconds: float) -> dict[str, Any]:
    """ROS 2 from one process to another, in ms; `left_out` says why if it cannot be measured."""
    try:
        env = environment_for(Experiment.model_validate({"ros": True}))
        command = [sys.executable, str(find_node("ros_latency")), str(seconds)]
    except MyoloopError as error:
        return {"left_out": str(error)}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=seconds + 60)
        told = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return {"left_out": "the ROS 2 processes did not answer; try nodes/ros_latency by itself"}
    if not told["ms"]:
        return {"left_out": "no message arrived: is ROS_AUTOMATIC_DISCOVERY_RANGE set to OFF?"}
    return {"one_way_ms": numbers(told["ms"]), "sent": told["sent"], "lost": told["sent"] - len(told["ms"])}


def decoder(seconds: float, model: str | Path = DECODER, tick: Callable[[], None] = lambda: None) -> Numbers | None:
    """How long the decoder takes for a chunk when it comes every 20 ms, as it does."""
    network = OnnxDecoder(find_file(model, kind="decoder"))
    chunk = (
        np.random.default_rng(0)
        .normal(scale=20.0, size=(network.samples_per_call, network.channels))
        .astype(np.float32)
    )
    took = []
    due = time.perf_counter()
    for _ in range(round(seconds / PERIOD_S)):
        due += PERIOD_S
        time.sleep(max(0.0, due - time.perf_counter()))
        begun = time.perf_counter()
        network.push(chunk)
        took.append(1e3 * (time.perf_counter() - begun))
        tick()
    return numbers(took)
