"""Predictions over LSL: real outlets on loopback, good and bad ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pylsl
import pytest

from myoloop.streams.predictions import PredictionInbox, check_prediction, usable_stamp

GOOD = [0.1, 0.9, 0.2, 0.8, 0.5]


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


@pytest.fixture
def inbox(request: pytest.FixtureRequest) -> Iterator[tuple[PredictionInbox, str, list[str]]]:
    """An inbox for a participant named after the test, and what it said."""
    name = f"p{abs(hash(request.node.name)) % 10**6}"
    said: list[str] = []
    box = PredictionInbox(name, said.append)
    yield box, name, said
    box.close()
    OUTLETS.clear()


OUTLETS: list[pylsl.StreamOutlet] = []
"""They live longer than the inbox: liblsl may crash where an outlet dies while an inlet of the same process reads it."""


def outlet(
    name: str, channels: int = 5, kind: str = "Control", form: int = pylsl.cf_float32, source: str = "test"
) -> pylsl.StreamOutlet:
    OUTLETS.append(pylsl.StreamOutlet(pylsl.StreamInfo(name, kind, channels, 0, form, f"{source}_{name}")))
    return OUTLETS[-1]


def feed(out: pylsl.StreamOutlet, sample: list, done: Callable[[], bool], stamp: float = 0.0) -> bool:
    """Pushes the sample again and again until it has had its effect."""

    def push() -> bool:
        out.push_sample(sample, stamp)
        return done()

    return wait_until(push)


def feed_for(out: pylsl.StreamOutlet, sample: list, seconds: float, done: Callable[[], bool]) -> bool:
    """As feed, giving up after some seconds."""

    def push() -> bool:
        out.push_sample(sample)
        return done()

    return wait_until(push, seconds)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array(GOOD[:4]), "4 channels"),
        (np.array([0.1, np.nan, 0.1, 0.1, 0.1]), "NaN"),
        (np.array([0.1, 1e9, 0.1, 0.1, 0.1]), "1e+09"),
        (np.array([0.1, -0.2, 0.1, 0.1, 0.1]), "-0.2"),
        (np.array([[b"a"] * 5], dtype=object)[0], "text"),
    ],
)
def test_impossible_predictions_are_named(values: np.ndarray, said: str) -> None:
    problem = check_prediction(values)
    assert problem is not None and said in problem.text


def test_rounding_just_outside_the_range_is_accepted() -> None:
    assert check_prediction(np.array([0.0, 1.0000001, 0.5, 0.5, -1e-7])) is None


def test_stamp_that_is_no_lsl_time_becomes_the_time_of_arrival() -> None:
    assert usable_stamp(1_795_224_348.5, 5000.0) == 5000.0
    assert usable_stamp(4999.98, 5000.0) == 4999.98
    assert usable_stamp(5000.009, 5000.0) == 5000.0, "a stamp a little in the future (ezmsg) counts as now"


def test_predictions_are_found_by_name(inbox: tuple) -> None:
    box, name, _ = inbox
    out = outlet(f"{name}_prediction", kind="Anything")
    assert feed(out, GOOD, lambda: box.accepted > 0)
    assert box.latest is not None and np.allclose(box.latest.values, GOOD, atol=1e-6)
    assert abs(box.latest.emg_time - pylsl.local_clock()) < 30.0


def test_predictions_are_found_by_type(inbox: tuple) -> None:
    box, _, _ = inbox
    out = outlet("MyOwnDecoder", kind="Control")
    assert feed(out, GOOD, lambda: box.accepted > 0)


def test_another_participants_predictions_are_left_alone(inbox: tuple) -> None:
    box, name, _ = inbox
    other = outlet("somebodyelse_prediction")
    assert not feed_for(other, [1.0] * 5, 2.5, lambda: box.accepted > 0), "typed Control, but named for another"
    mine = outlet(f"{name}_prediction")
    assert feed(mine, GOOD, lambda: box.accepted > 3)
    assert box.latest is not None and np.allclose(box.latest.values, GOOD, atol=1e-6)


def test_stream_of_the_right_name_is_taken_over_one_of_the_right_type(inbox: tuple) -> None:
    box, name, _ = inbox
    typed = outlet("MyOwnDecoder", kind="Control")
    assert feed(typed, [1.0] * 5, lambda: box.accepted > 0)
    named = outlet(f"{name}_prediction")

    def both() -> bool:
        typed.push_sample([1.0] * 5)
        return box.source.startswith(f"{name}_prediction")

    assert feed(named, GOOD, both), "although the other one never fell silent"


def test_several_streams_of_one_name_are_said_and_the_newest_is_used(inbox: tuple) -> None:
    box, name, said = inbox
    old = outlet(f"{name}_prediction")
    assert feed(old, [0.25] * 5, lambda: box.accepted > 0)
    new = outlet(f"{name}_prediction", source="another")

    def both() -> bool:
        old.push_sample([0.25] * 5)
        return box.latest is not None and box.latest.values[0] == 0.75

    assert feed(new, [0.75] * 5, both)
    assert sum("streams are named" in text for text in said) == 1


@pytest.mark.parametrize(
    ("channels", "sample", "word"),
    [(4, GOOD[:4], "4 channels"), (5, [float("nan")] * 5, "NaN"), (5, [1e9] * 5, "1e+09")],
)
def test_bad_predictions_are_refused_counted_and_said_once(
    inbox: tuple, channels: int, sample: list[float], word: str
) -> None:
    box, name, said = inbox
    out = outlet(f"{name}_prediction", channels)
    assert feed(out, sample, lambda: box.refused > 10)
    assert feed(out, [2.0 * v for v in sample], lambda: box.refused > 20)
    assert box.accepted == 0 and box.latest is None
    assert len(said) == 1 and word in said[0]


def test_text_stream_is_refused(inbox: tuple) -> None:
    box, name, said = inbox
    out = outlet(f"{name}_prediction", 5, form=pylsl.cf_string)
    assert feed(out, ["fist"] * 5, lambda: box.refused > 2)
    assert "text" in said[0]


def test_unix_timestamps_are_replaced_and_said_once(inbox: tuple) -> None:
    box, name, said = inbox
    out = outlet(f"{name}_prediction")
    assert feed(out, GOOD, lambda: box.accepted > 5, stamp=time.time())
    assert box.restamped == box.accepted and box.latest is not None
    assert abs(box.latest.emg_time - pylsl.local_clock()) < 30.0
    assert len(said) == 1 and "session's time" in said[0]


DECODER = """
import sys, time, pylsl
out = pylsl.StreamOutlet(pylsl.StreamInfo(sys.argv[1], "Control", 5, 0, pylsl.cf_float32, sys.argv[2]))
while True:
    out.push_sample([float(sys.argv[3])] * 5)
    time.sleep(0.01)
"""


@pytest.mark.parametrize("same_source", [True, False])
def test_killed_decoder_is_found_again_when_it_restarts(inbox: tuple, same_source: bool) -> None:
    box, name, _ = inbox

    def start(value: float, source: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", DECODER, f"{name}_prediction", source, str(value)])

    first = start(0.25, "a")
    try:
        assert wait_until(lambda: box.accepted > 3)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert wait_until(lambda: box.source == ""), "the loss is noticed"
        second = start(0.75, "a" if same_source else "b")
        try:
            assert wait_until(lambda: box.latest is not None and box.latest.values[0] == 0.75)
            assert box.connections == 2
        finally:
            second.kill()
            second.wait()
    finally:
        first.kill()
        first.wait()


OF_ANOTHER_SESSION = """
import os, sys, time, pylsl
from pathlib import Path
ours = Path(os.environ["LSLAPICFG"]).read_text()
assert "SessionID = " in ours
pylsl.set_config_content(ours.replace("SessionID = ", "SessionID = not-"))
out = pylsl.StreamOutlet(pylsl.StreamInfo(sys.argv[1], "Control", 5, 0, pylsl.cf_float32, "other"))
print("open", flush=True)
while True:
    out.push_sample([1.0] * 5)
    time.sleep(0.02)
"""
"""A decoder like any other, in an LSL session of its own."""


def test_predictions_of_another_lsl_session_are_not_heard(inbox: tuple[PredictionInbox, str, list[str]]) -> None:
    box, name, said = inbox
    command = [sys.executable, "-c", OF_ANOTHER_SESSION, f"{name}_prediction"]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        assert not wait_until(lambda: box.accepted > 0, 2.5)
        ours = outlet(f"{name}_prediction")
        assert feed(ours, GOOD, lambda: box.accepted > 0), "the session's own decoder is heard"
        assert np.allclose(box.latest.values, GOOD) and not said  # type: ignore[union-attr]
    finally:
        other.kill()
        other.communicate()


def test_none_of_many_answers_that_come_at_once_is_dropped(inbox: tuple[PredictionInbox, str, list[str]]) -> None:
    box, name, said = inbox
    out = outlet(f"{name}_prediction")
    assert feed(out, GOOD, lambda: box.accepted > 0)
    out.push_sample([0.875] * 5)
    assert wait_until(lambda: box.latest is not None and box.latest.values[0] == 0.875)  # and what was fed before it
    before, many = box.accepted, np.full((200, 5), 0.25, np.float32)
    for number in range(1, 6):
        many[-1] = number / 10
        out.push_chunk(many, pylsl.local_clock())
        assert wait_until(lambda: box.accepted == before + 200 * number), box.accepted - before  # noqa: B023
        assert box.latest is not None and box.latest.values[0] == pytest.approx(number / 10)
    assert not said


def test_nobody_waits_for_an_answer_once_the_session_is_being_stopped(
    inbox: tuple[PredictionInbox, str, list[str]],
) -> None:
    box, _, _ = inbox
    waited = threading.Thread(target=lambda: box.answered(0.0, 60.0))
    waited.start()
    time.sleep(0.1)
    assert waited.is_alive()
    box.hurry(True)
    waited.join(60.0)
    assert not waited.is_alive()
    box.hurry(False)
    begun = time.monotonic()
    assert not box.answered(0.0, 0.3) and time.monotonic() - begun > 0.25
