"""How many participants this machine carries in real time: a short session of so many, measured."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment, save_experiment
from myoloop.processes import Child, command_for, environment_for

MODEL = "models/decoder_multiuser/decoder.onnx"
"""The decoder in the loop: the shipped one for the armband `semg_rd16`, 16 channels at 2 kHz."""
SETTLE_S = 1.0
"""s from the start that do not count."""
MOST_OVERRUNS = 0.01
"""Share of overruns up to which real time is held, if the 99th percentile of the step also fits."""
MOST_LATENCY_MS = 45.0
"""Feedback latency that one of a hundred answers may exceed: two control steps and a little."""
PUBLISHED_MOST = 28
"""Participants whose streams fit into the 256 ports that myoloop gives LSL: nine each, with the decoder's."""


class Measured(NamedTuple):
    """One session of so many participants."""

    participants: int
    engine: str
    where: str
    """"lsl": all published, their decoders in a process of its own; "inside": the model in the participants' process"""
    steps: int
    step_ms_p50: float
    step_ms_p95: float
    step_ms_p99: float
    overrun_share: float
    """of the steps: those after whose end the next one was due already"""
    latency_ms_p50: float
    """of the feedback, of all participants"""
    latency_ms_p99: float
    period_ms: float
    stage_ms: dict[str, float]
    """median of the step's parts: policy and EMG, sending, body"""

    @property
    def holds(self) -> bool:
        """Whether that is real time: 99 % of the steps are shorter than the period, at most 1 % overran, and 99 of 100 answers
        are used within MOST_LATENCY_MS."""
        in_time = self.step_ms_p99 <= self.period_ms and self.overrun_share <= MOST_OVERRUNS
        return in_time and self.latency_ms_p99 <= MOST_LATENCY_MS


def measure(
    participants: int, seconds: float = 20.0, engine: str = "mujoco", inside: bool = False, model: str = MODEL
) -> Measured:
    """Runs so many participants on the wall clock, each with a decoder, and measures their common step.

    Args:
      participants: in one batch, in this process.
      seconds: length of the session; building and compiling come on top.
      engine: who integrates the physics.
      inside: no streams; the model answers in this process. Else every participant sends and hears over LSL, and the
        decoders run in a second process.
      model: ONNX file, or one that ships.

    Raises:
      MyoloopError: a number or engine that cannot be, or nobody answered.
    """
    from myoloop.live.population import LivePopulation  # JAX and MuJoCo: not before it is needed

    experiment = _experiment(participants, seconds + SETTLE_S, engine, inside, model)
    with tempfile.TemporaryDirectory() as folder, _decoders(experiment, Path(folder), not inside):
        live = LivePopulation(experiment, folder)
        try:
            live.start()
            live.join()
        finally:
            live.close()
        if live.error:
            raise MyoloopError(f"{participants} participants, engine {engine}: {live.error}")
        return _measured(Path(folder), participants, engine, inside, 1e3 / experiment.participant.control_hz)


def find_most(fits: Callable[[int], bool], most: int, start: int = 1) -> tuple[int, int | None]:
    """The largest number up to `most` that fits, by doubling and halving: (it, the smallest that was seen not to fit or None);
    0 if not even `start` fits."""
    low, high, step = 0, None, start
    while high is None and low < most:
        trial = min(step, most)
        if fits(trial):
            low, step = trial, 2 * trial
        else:
            high = trial
    while high is not None and high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low, high


def _experiment(participants: int, seconds: float, engine: str, inside: bool, model: str) -> Experiment:
    from myoloop.assets import find_file
    from myoloop.experiment import checked

    if not inside and participants > PUBLISHED_MOST:
        raise MyoloopError(
            f"{participants} participants are more than LSL has ports for: {PUBLISHED_MOST} fit. Publish fewer."
        )
    return checked(
        {
            "name": "capacity",
            "duration_s": seconds,
            "ros": False,
            "record": False,
            "participant": {"id": "capacity", "engine": engine, "wait_for_decoder_s": 60},
            "population": {"participants": participants, "publish": "none" if inside else "all", "motion": "own"},
            "decoder": {"kind": "onnx", "model": str(find_file(model, kind="decoder"))},
        },
        "capacity",
    )


@contextlib.contextmanager
def _decoders(experiment: Experiment, folder: Path, wanted: bool) -> Iterator[None]:
    """The decoders' process, if it is wanted."""
    if not wanted:
        yield
        return
    config = folder / "config.yaml"
    save_experiment(experiment, config)
    command = command_for("decoder", experiment, config, None)
    child = Child("decoder", command, folder / "decoder.log", environment_for(experiment))
    child.start()
    try:
        yield
    finally:
        child.end()


def _measured(folder: Path, participants: int, engine: str, inside: bool, period_ms: float) -> Measured:
    from myoloop.streams.rowlog import read_rows

    rows = read_rows(folder / "population")
    rows = rows[round(1e3 * SETTLE_S / period_ms) :]
    latency = rows["feedback_latency_ms"][np.isfinite(rows["feedback_latency_ms"])]
    if not len(rows):
        raise MyoloopError(f"{participants} participants, engine {engine}: no step was made.")
    if not len(latency):
        raise MyoloopError(f"{participants} participants, engine {engine}: no decoder answered.")
    p50, p95, p99 = (round(float(value), 2) for value in np.percentile(rows["step_ms"], [50, 95, 99]))
    over = float(np.mean(1e3 * rows["started"] + rows["step_ms"] > period_ms))
    middle, late = np.percentile(latency, [50, 99])
    stages = {
        name.removesuffix("_ms"): round(float(np.median(rows[name])), 2)
        for name in ("policy_emg_ms", "push_ms", "body_ms")
    }
    return Measured(
        participants, engine, "inside" if inside else "lsl", len(rows), p50, p95, p99, round(over, 5),
        round(float(middle), 2), round(float(late), 2), period_ms, stages,
    )  # fmt: skip
