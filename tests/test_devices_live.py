"""Amplifier, software and adapter together: EMG out over TCP, answers back over UDP, into the participant's loop."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pylsl
import pytest
import yaml

from myoloop.devices.trigno import TrignoStation
from myoloop.devices.trigno_protocol import FRAME_BYTES
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment
from myoloop.live.device import LiveDevices
from myoloop.streams.rowlog import read_events

SOFTWARE = """
import socket, struct, sys, time
command, emg, udp = (int(x) for x in sys.argv[1:])
while True:
    try:
        talk = socket.create_connection(("127.0.0.1", command))
        break
    except OSError:
        time.sleep(0.1)
talk.recv(1024)
data = socket.create_connection(("127.0.0.1", emg))
talk.sendall(b"START\\r\\n\\r\\n")
assert talk.recv(128) == b"OK\\r\\n\\r\\n"
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
blocks = 0
while True:
    block = b""
    while len(block) < 64 * 40:
        part = data.recv(64 * 40 - len(block))
        if not part:
            sys.exit()
        block += part
    volts = struct.unpack("<640f", block)
    flexed = sum(v * v for v in volts) / 640 > 4e-10
    out.sendto(b"%d 0.5\\n" % flexed, ("127.0.0.1", udp))
    blocks += 1
    if blocks == 10:  # by then the adapter listens
        out.sendto(b"9\\n", ("127.0.0.1", udp))
"""


def free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in taken]
    for server in taken:
        server.close()
    return ports


def test_samples_of_the_stream_reach_a_tcp_client_whole_and_in_order(tmp_path: Path) -> None:
    info = pylsl.StreamInfo("devtest_emg", "EMG", 16, 2000, pylsl.cf_float32, "devtest")
    outlet = pylsl.StreamOutlet(info)
    devices = {"trigno": {"command_port": 0, "emg_port": 0, "aux_port": 0}}
    me = {"id": "devtest", "armband": "trigno16"}
    live = LiveDevices(Experiment.model_validate({"participant": me, "devices": devices}), tmp_path)
    live.start()
    assert outlet.wait_for_consumers(60)
    station = live.devices["trigno"]
    assert isinstance(station, TrignoStation)
    command = socket.create_connection(("127.0.0.1", station.ports["command"]))
    command.recv(1024)
    emg = socket.create_connection(("127.0.0.1", station.ports["emg"]))
    until = time.monotonic() + 60
    while station.status()["emg_clients"] < 1:
        assert time.monotonic() < until
        time.sleep(0.01)
    command.sendall(b"START\r\n\r\n")
    assert command.recv(128) == b"OK\r\n\r\n"
    sent = np.random.default_rng(0).normal(0, 50, (400, 16)).astype(np.float32)
    begin = pylsl.local_clock()
    for i in range(0, 400, 40):
        outlet.push_chunk(sent[i : i + 40], begin + (i + 40) / 2000)
        time.sleep(0.01)
    emg.settimeout(60)
    data = b""
    while len(data) < 400 * FRAME_BYTES:
        part = emg.recv(100_000)
        assert part, "closed"
        data += part
    assert np.allclose(1e6 * np.frombuffer(data, "<f4").reshape(-1, 16), sent, rtol=1e-5)
    live.close()
    status = json.loads((tmp_path / "device.status.json").read_text())
    assert status["samples_received"] == 400 and status["samples_lost"] == 0
    assert status["devices"]["trigno"]["frames_sent"] == 400


def test_no_device_is_an_error() -> None:
    with pytest.raises(MyoloopError, match="emulates no amplifier"):
        LiveDevices(Experiment.model_validate({}))


def test_taken_port_ends_the_device_with_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        file = tmp_path / "experiment.yaml"
        ports = {"command_port": other.getsockname()[1], "emg_port": 0, "aux_port": 0}
        file.write_text(yaml.safe_dump({"participant": {"armband": "trigno16"}, "devices": {"trigno": ports}}))
        run = [sys.executable, "-m", "myoloop", "device", str(file)]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "set devices.trigno.command_port" in done.stderr and "Traceback" not in done.stderr


def test_run_closes_the_loop_through_amplifier_and_udp(tmp_path: Path) -> None:
    command, emg, aux = free_ports(3)
    (udp,) = free_ports(1)
    script = tmp_path / "software.py"
    script.write_text(SOFTWARE)
    hand = {"open": [0] * 5, "fist": [1] * 5}
    prompts = {"kind": "prompts", "gestures": hand, "hold_s": 1.5, "rest_s": 1.0}
    experiment = {
        "name": "tcp_and_udp", "duration_s": 6, "ros": False,
        "participant": {"id": "tcpudp", "armband": "trigno16", "reference": prompts},
        "devices": {"trigno": {"command_port": command, "emg_port": emg, "aux_port": aux}},
        "decoder": {
            "kind": "udp", "command": [sys.executable, str(script), *map(str, (command, emg, udp))],
            "udp": {"port": udp, "gestures": hand},
        },
    }  # fmt: skip
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment))
    run = [sys.executable, "-m", "myoloop", "run", str(file), "--runs", str(tmp_path / "runs")]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "runs" / "latest" / "report.json").read_text())
    assert report["emg"]["samples_lost"] == 0 and report["failure"] is None
    (served,) = report["devices"]
    assert served["samples_lost"] == 0 and served["trigno"]["frames_dropped"] == 0
    assert served["trigno"]["starts"] == 1 and served["trigno"]["frames_sent"] > 4000
    answers = report["decoder"]["udp"]
    assert answers["refused"] == {"class": 1} and report["decoder"]["predictions"] > 50
    assert report["task"]["accuracy"] is not None
    assert any("class 9 is not among" in message for message in report["messages"])
    events = [text for _, text in read_events(tmp_path / "runs" / "latest" / "events.jsonl")]
    said = [text for text in events if text.startswith("prompt")]
    assert said[:5] == ["prompt open", "prompt fist"] * 2 + ["prompt open"], "at 0, 1, 2.5, 3.5 and 5 s"


def test_software_that_is_not_there_is_said_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text("ros: false\ndecoder: {kind: udp, command: [no/such/python, x.py]}\n")
    run = [sys.executable, "-m", "myoloop", "run", str(file), "--runs", str(tmp_path / "runs")]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "'no/such/python' cannot be run" in done.stderr.replace("\n", " ")
