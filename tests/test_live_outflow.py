"""How fast a recorded session on simulated time may send."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from myoloop.experiment import Experiment
from myoloop.live.board import RECORDING
from myoloop.live.outflow import BURST, SAMPLES_PER_S, Outflow
from myoloop.live.participant import LiveParticipant


class Wall:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.mark.parametrize("each", [7, 230, 4000])
def test_who_sends_faster_is_held_to_the_rate(each: int) -> None:
    wall, sent, begin = Wall(), 0, 100.0
    flow = Outflow(wall)
    while sent < 10 * SAMPLES_PER_S:
        sent += each
        wall.time += 0.0001 + flow.wait_s(sent)
        assert sent <= BURST + SAMPLES_PER_S * (wall.time - begin) + 1
    assert sent / (wall.time - begin) == pytest.approx(SAMPLES_PER_S, rel=0.02)


def test_who_is_slower_never_waits_and_saves_up_no_more_than_a_burst() -> None:
    wall, sent = Wall(), 0
    flow = Outflow(wall)
    for _ in range(1000):
        sent += 200
        wall.time += 0.01
        assert flow.wait_s(sent) == 0.0
    wall.time += 1000.0
    assert flow.wait_s(sent + int(BURST)) == 0.0
    assert flow.wait_s(sent + int(BURST) + 4000) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("clock", "recorded", "held"), [("free", True, True), ("free", False, False), ("realtime", True, False)]
)
def test_only_a_recorded_session_on_simulated_time_is_held(
    tmp_path: Path, clock: str, recorded: bool, held: bool
) -> None:
    if recorded:
        (tmp_path / RECORDING).touch()
    name = f"flow{os.getpid()}{clock}{recorded}"
    live = LiveParticipant(
        Experiment.model_validate({"duration_s": 1.0, "ros": False, "clock": clock, "participant": {"id": name}}),
        tmp_path,
    )
    asked: list[int] = []
    real = Outflow.wait_s
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Outflow, "wait_s", lambda self, sent: (asked.append(sent), real(self, sent))[1])
            live.start()
            live.join(120)
        status = live.status()
    finally:
        live.close()
    assert status["steps"] == 50 and status["phase"] == "finished"
    assert len(asked) == (50 if held else 0)
    assert not asked or asked[-1] == status["sent"]["spikes"] > 0
