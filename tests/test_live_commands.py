"""Commands change a running participant, and its events tell."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from myoloop.experiment import Experiment
from myoloop.live.board import SUPERVISED
from myoloop.live.participant import LiveParticipant, StepRecord
from myoloop.streams.commands import (
    Command,
    CommandSender,
    Condition,
    Delay,
    Pause,
    Push,
    Reset,
    Resume,
    Rotate,
    SwitchDecoder,
    Target,
)
from myoloop.streams.rowlog import read_events, read_rows


class Commanded:
    """A participant that is told things, and what became of it."""

    def __init__(self, folder: Path) -> None:
        settings = {
            "duration_s": 3600,
            "ros": False,
            "participant": {"id": "commanded", "policy": "baseline", "wait_for_decoder_s": 0},
        }
        self.folder, self.records = folder, list[StepRecord]()
        self.live = LiveParticipant(Experiment.model_validate(settings), folder)
        self.live.subscribe(self.records.append)
        self.sender = CommandSender("commanded")

    def tell(self, command: Command) -> None:
        assert self.sender.send(command), "the participant listens"

    def wait(self, there: Callable[[], Any], seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while not there():
            assert time.monotonic() < until and self.live.running
            time.sleep(0.01)

    def events(self) -> list[str]:
        return [text for _, text in read_events(self.folder / "events.jsonl")]

    def wait_until_moves_are_told(self) -> None:
        """Until the events say how far the time line was moved in all."""

        def told() -> bool:
            moved = self.live.status()["clock_moved_s"]
            said = [float(text.split()[-1]) for text in self.events() if text.startswith("clock moved")]
            return abs(sum(said) - moved) < 0.01 * len(said)

        self.wait(told)

    def close(self) -> None:
        self.sender.close()
        self.live.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commanded]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SUPERVISED, "")
        patch.setattr("myoloop.streams.commands.LISTENED_S", 60.0)
        run = Commanded(tmp_path_factory.mktemp("commanded"))
        run.live.start()
        run.wait(lambda: len(run.records) > 10)
        yield run
        run.close()


def test_a_target_is_asked_for_and_goes_out_as_an_event(run: Commanded) -> None:
    before = len(run.records)
    run.tell(Target(values=(1, 0, 1, 0, 1), duration_s=0.5))
    run.wait(lambda: "target set 10101" in run.events())
    run.wait(lambda: any(record.target.tolist() == [1, 0, 1, 0, 1] for record in run.records[before:]))


def test_a_pause_holds_steps_and_emg_and_moves_the_time_line(run: Commanded) -> None:
    run.tell(Pause())
    run.wait(lambda: run.live.status()["phase"] == "paused")
    steps, sent = run.live.status()["steps"], run.live.status()["emg_samples_sent"]
    time.sleep(0.7)
    assert (run.live.status()["steps"], run.live.status()["emg_samples_sent"]) == (steps, sent)
    run.tell(Resume())
    run.wait(lambda: run.live.status()["steps"] > steps + 10)
    status = run.live.status()
    assert status["phase"] == "running" and status["clock_moved_s"] >= 0.7
    run.wait_until_moves_are_told()
    assert {"pause", "resume"} <= set(run.events())
    rows = read_rows(run.folder / "steps")
    gaps = np.diff(rows["time"])
    assert gaps.max() > 0.7, "the gap shows in the time stamps"
    assert np.median(gaps) == pytest.approx(0.02, abs=1e-6)


def test_a_push_moves_the_finger_and_goes_out_as_an_event(run: Commanded) -> None:
    before = run.records[-1].step
    run.tell(Push(finger="index", force_n=(0.0, 0.0, 8.0), duration_s=0.4))
    run.wait(lambda: "perturbation index 0 0 8" in run.events())
    run.wait(lambda: run.records[-1].step > before + 20)


def test_a_condition_is_set(run: Commanded) -> None:
    run.tell(Condition(name="mains_hum", strength=0.5))
    run.wait(lambda: run.live.status()["conditions"] == {"mains_hum": 0.5})
    run.wait(lambda: "condition mains_hum 0.5" in run.events())


def test_a_delay_can_be_injected_into_a_session_without_a_link(run: Commanded) -> None:
    assert run.live.status()["link"] is None
    run.tell(Delay(delay_ms=120.0, jitter_ms=20.0))
    run.wait(lambda: "link delay_ms 120 jitter_ms 20 drop 0 duplicate 0" in run.events())
    assert run.live.status()["link"]["delay_ms"] == 120.0


def test_a_reset_is_told(run: Commanded) -> None:
    run.tell(Reset(seed=7))
    run.wait(lambda: "reset 7" in run.events())


def test_what_cannot_be_done_is_refused_and_the_session_goes_on(run: Commanded) -> None:
    refused = run.live.status()["commands_refused"]
    said = len(run.live._board.messages)
    for command in (
        Rotate(degrees=10.0),  # this armband stays
        Rotate(degrees=45.0),
        Condition(name="ageing", strength=0.5),
        Push(finger="toe", force_n=(0, 0, 1)),
        SwitchDecoder(name="none"),  # no session runs it
    ):
        run.tell(command)
    run.wait(lambda: run.live.status()["commands_refused"] == refused + 5)
    for words in ("movable_band", "toe", "condition", "myoloop run"):
        run.wait(lambda: words in " ".join(run.live._board.messages[said:]))  # noqa: B023
    steps = run.live.status()["steps"]
    run.wait(lambda: run.live.status()["steps"] > steps + 5)


def test_a_supervised_participant_passes_the_wish_for_another_decoder_on(
    run: Commanded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SUPERVISED, str(os.getpid()))
    run.tell(SwitchDecoder(name="decoder_tcn"))
    run.wait(lambda: run.live.status()["decoder_wanted"] == (1, "decoder_tcn"))
    assert "decoder switch decoder_tcn" in run.events()


def test_the_posture_asked_for_goes_out_beside_the_one_done(run: Commanded) -> None:
    def beside() -> bool:
        sent = run.live.status()["sent"]  # maybe of the midst of a step
        return sent["reference"] == sent["kinematics"] > 0

    run.wait(beside)


def test_what_is_stopped_and_started_again_goes_on_and_says_how_far_the_time_line_moved(run: Commanded) -> None:
    before, wall = run.live.status(), run.live.status()["wall_s"]
    run.live.requests.set_target([1, 1, 1, 1, 1], 3.0)
    run.wait(lambda: run.records[-1].target.tolist() == [1.0] * 5)
    run.live.stop()
    stopped, until = run.live.status(), len(run.records)
    time.sleep(4.0)  # longer than the target is asked for
    run.live.start()
    run.wait(lambda: run.live.status()["steps"] > stopped["steps"] + 20)
    assert run.records[until + 10].target.tolist() == [1.0] * 5, "the target's time stood still, too"
    assert run.live.status()["clock_moved_s"] - before["clock_moved_s"] > 3.5
    run.wait_until_moves_are_told()

    def does_not_count() -> bool:
        after = run.live.status()
        moved = after["clock_moved_s"] - before["clock_moved_s"]
        return after["wall_s"] - wall < moved + 0.02 * (after["steps"] - before["steps"]) - 2.0

    run.wait(does_not_count)  # the stop; where the machine stands still just now, its time is not in the steps yet
    stamps = [record.lsl_time for record in run.records]
    assert np.all(np.diff(stamps) > 0.019)
