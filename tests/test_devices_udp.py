"""What LibEMG says over UDP, and what others may send there."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pylsl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from myoloop.devices.datagrams import LONGEST, Answer, Gestures, Refusal, read_datagram
from myoloop.devices.udp import LOOKED_AT, UdpInbox
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment, load_experiment
from myoloop.live.udp_decoder import LiveUdpDecoder
from myoloop.streams.predictions import check_prediction

HAND = {"open": (0, 0, 0, 0, 0), "fist": (1, 1, 1, 1, 1), "point": (1, 0, 1, 1, 1)}
GESTURES = Gestures.from_mapping(HAND)


def only(data: bytes) -> Answer | Refusal:
    (said,) = read_datagram(data, GESTURES)
    return said


@pytest.mark.parametrize("data", [b"1\n", b"1 0.76\n", b"1.0\n", b"1 0\n"])
def test_class_with_or_without_velocity_gives_the_labels_of_its_gesture(data: bytes) -> None:
    said = only(data)
    assert isinstance(said, Answer) and said.fingers is not None and said.fingers.tolist() == [1] * 5


def test_probabilities_are_weighed_by_the_labels_and_bring_their_time() -> None:
    for data in (b"0.50 0.10 0.40 1795224348.546", b"0.50 0.10 0.40 0.3 1795224348.546"):
        said = only(data)
        assert isinstance(said, Answer) and said.fingers is not None
        assert said.fingers == pytest.approx([0.5, 0.1, 0.5, 0.5, 0.5]) and said.unix_time == 1795224348.546


def test_regression_of_five_goes_from_its_range_to_zero_and_one() -> None:
    said = only(b"[ 0.99 -0.99 0.   -3.  1e0] 1795225169.55\n")
    assert isinstance(said, Answer) and said.fingers is not None
    assert said.fingers == pytest.approx([0.995, 0.005, 0.5, 0.0, 1.0]) and said.unix_time == 1795225169.55


def test_rejected_decision_is_neither_prediction_nor_mistake() -> None:
    assert only(b"-1 0\n") == Answer(None, None)


def test_merged_lines_are_each_read() -> None:
    said = list(read_datagram(b"0 0.1\n1 0.2\n2 0.3\n", GESTURES))
    assert [a.fingers.tolist() for a in said if isinstance(a, Answer) and a.fingers is not None] == [
        list(map(float, v)) for v in HAND.values()
    ]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"1 0.", "incomplete"),
        (b"1", "incomplete"),
        (b"76\n", "class"),
        (b"3\n", "class"),
        (b"1.5\n", "class"),
        (b"-2\n", "class"),
        (b"nan 0.5\n", "broken"),
        (b"1 inf\n", "broken"),
        (b"1_0\n", "broken"),
        (b"1e999\n", "broken"),
        (b"0.5 0.5 1795224348.5", "width"),
        (b"0.5 0.1 0.4 0.3", "width"),
        (b"0.5 0.1 0.4 nan", "broken"),
        (b"1.00 0.00 0.00 1795224348.5460.00 1.00 0.00 1795224349.1", "broken"),
        (b"0.5 0.5 0.5 1795224348.5", "range"),
        (b"2.0 -0.5 -0.5 1795224348.5", "range"),
        (b"[0.1 0.2] 1795225169.55\n", "regression"),
        (b"[0.1 0.2 nan 0.3 0.4] 1795225169.55\n", "broken"),
        (b"[0.1 0.2 0.3", "broken"),
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"\xff\xfe", "text"),
        (b"GET / HTTP/1.1\r\n\r\n", "broken"),
        (b"1\n" * LONGEST, "oversized"),
    ],
)
def test_broken_datagrams_are_refused_by_their_reason(data: bytes, kind: str) -> None:
    said = only(data)
    assert isinstance(said, Refusal) and said.kind == kind


words = st.one_of(
    st.floats(allow_nan=True).map(str),
    st.integers().map(str),
    st.sampled_from(["0", "1", "-1", "[", "]", "1795224348.5", ".5", "1e5"]),
)


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=1200),
        st.lists(words, max_size=8).map(lambda w: (" ".join(w) + "\n").encode()),
        st.lists(st.floats(0, 1), min_size=3, max_size=3).map(
            lambda p: f"{p[0]:.2f} {p[1]:.2f} {p[2]:.2f} 1.8e9".encode()
        ),
    )
)
@example(b"0.00 0.00 0.00 1.8e9")
def test_whatever_comes_is_a_good_prediction_or_a_refusal(data: bytes) -> None:
    for gestures in (GESTURES, Gestures.from_mapping({})):
        for said in read_datagram(data, gestures):
            if isinstance(said, Answer) and said.fingers is not None:
                assert check_prediction(said.fingers) is None
            elif isinstance(said, Refusal):
                assert said.kind and len(said.text) < 400


def test_every_prediction_of_a_classifier_that_rounds_is_taken() -> None:
    rng = np.random.default_rng(0)
    for chances in rng.dirichlet(np.full(3, 0.3), 500):
        text = " ".join(f"{p:.2f}" for p in chances) + " 1795224348.546"
        assert isinstance(only(text.encode()), Answer), text


def test_flood_is_bounded_and_counted_and_the_newest_survive() -> None:
    inbox = UdpInbox("127.0.0.1", 0, "port")
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for i in range(200):
        sender.sendto(str(i).encode(), ("127.0.0.1", inbox.port))
    assert inbox.read(1.0) == [str(i).encode() for i in range(200 - LOOKED_AT, 200)]
    assert inbox.received == 200 and inbox.flooded == 200 - LOOKED_AT
    assert inbox.read(0.0) == []
    with pytest.raises(MyoloopError, match="cannot listen"):
        UdpInbox("127.0.0.1", inbox.port, "decoder.udp.port")
    inbox.close()


def eventually(there: Callable[[], bool]) -> bool:
    """Whether it comes true within a minute."""
    end = time.monotonic() + 60
    while not (found := there()) and time.monotonic() < end:
        time.sleep(0.005)
    return found


def experiment(name: str) -> Experiment:
    udp = {"port": 0, "gestures": HAND}
    return Experiment.model_validate({"participant": {"id": name}, "decoder": {"kind": "udp", "udp": udp}})


def test_adapter_publishes_stamped_by_the_newest_emg_that_had_gone_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("myoloop.live.udp_decoder.QUIET_S", 600.0)  # however slow this machine is
    emg = pylsl.StreamOutlet(pylsl.StreamInfo("udptest_emg", "EMG", 2, 2000, pylsl.cf_float32, "e"))
    live = LiveUdpDecoder(experiment("udptest"), tmp_path)
    live.start()
    inlet = pylsl.StreamInlet(pylsl.resolve_byprop("name", "udptest_prediction", timeout=60)[0])
    inlet.open_stream(60)
    assert emg.wait_for_consumers(60)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    newest = pylsl.local_clock() - 0.004
    end = time.monotonic() + 60
    while not live._newest and time.monotonic() < end:
        emg.push_chunk(np.zeros((40, 2), np.float32), newest)
        time.sleep(0.1)
    sender.sendto(b"1 0.5\n", ("127.0.0.1", live.port))
    values, stamp = inlet.pull_sample(timeout=60)
    assert values == [1.0] * 5 and stamp == pytest.approx(newest, abs=1e-6)
    sender.sendto(b"7\n", ("127.0.0.1", live.port))
    sender.sendto(b"8\n", ("127.0.0.1", live.port))
    sender.sendto(b"-1\n", ("127.0.0.1", live.port))
    sender.sendto(f"0.00 0.00 1.00 {time.time():.6f}".encode(), ("127.0.0.1", live.port))
    values, _ = inlet.pull_sample(timeout=60)
    assert values == [1, 0, 1, 1, 1]
    answered = pylsl.local_clock() - 40  # before there was any EMG
    sender.sendto(f"0.00 1.00 0.00 {time.time() - 40:.6f}".encode(), ("127.0.0.1", live.port))
    _, stamp = inlet.pull_sample(timeout=60)
    assert answered - 20 < stamp < answered + 20, "an answer from the past is not made young"
    live.close()
    status: dict[str, Any] = live.status()
    assert status["predictions"] == 3 and status["udp"]["with_time"] == 2
    assert status["udp"]["refused"] == {"class": 2} and status["udp"]["declined"] == 1
    assert sum("refused" in message for message in live._board.messages) == 1, "said once"
    assert not live.running and live.error is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a client has not read")
def test_in_lockstep_emg_that_the_software_has_not_read_makes_its_answers_older() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as amplifier,
        socket.create_connection(amplifier.getsockname()) as client,
    ):
        ours, _ = amplifier.accept()
        settings = experiment("unread").model_dump(exclude_defaults=True)
        settings["devices"] = {"trigno": {"emg_port": amplifier.getsockname()[1]}}
        settings["participant"]["armband"] = "trigno16"
        settings["clock"] = "lockstep"
        live = LiveUdpDecoder(Experiment.model_validate(settings))
        try:
            now = pylsl.local_clock()
            live._newest.append((now - 0.001, 5000.0))
            assert live._stamp(None, now) == 5000.0
            ours.sendall(bytes(64 * 100))  # 50 ms of 16 channels at 2 kHz; the system may take its time to tell
            assert eventually(lambda: live._stamp(None, now) == pytest.approx(5000.0 - 0.05))
            assert len(client.recv(64 * 100)) == 64 * 100
            assert eventually(lambda: live._stamp(None, now) == 5000.0)
        finally:
            live.close()
            ours.close()


def test_experiment_refuses_gestures_and_devices_that_cannot_be(tmp_path: Path) -> None:
    for text, said in (
        ("decoder: {kind: udp, udp: {gestures: {a: [0, 0], b: [1, 1, 1, 1, 1]}}}", "give 5 in 0..1"),
        ("decoder: {kind: external, udp: {}}", "only if its kind is 'udp'"),
        ("decoder: {kind: onnx, model: x, command: [ls]}", "is run by myoloop"),
        ("devices: {trigno: {comand_port: 1}}", "Did you mean 'command_port'"),
        ("devices: {trigno: {}}\nparticipant: {armband: myo8}", "Use participant.armband: trigno16"),
        ("devices: {trigno: {}}\nparticipant: {armband: muovi32}", "16 channels"),
        ("devices: {muovi: {port: 70000}}", "devices.muovi.port is 70000"),
    ):
        file = tmp_path / "bad.yaml"
        file.write_text(text)
        with pytest.raises(MyoloopError) as error:
            load_experiment(file)
        assert said in str(error.value)
