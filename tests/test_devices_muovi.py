"""The emulated Muovi probe, as the program that waits for it meets it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from myoloop.devices.muovi import COUNTER, PACKET_BYTES, MuoviProbe, packet, read_control
from myoloop.devices.network import DeviceLoop
from myoloop.devices.settings import MuoviSettings

GAIN_8, GAIN_4, RAMPS, STOP = 0b1001, 0b1011, 0b1111, 0b1000


class Host:
    """A program that listens for the probe, and the probe."""

    def __init__(self, buffer_s: float = 5.0) -> None:
        self.said: list[str] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(60)
        self.loop = DeviceLoop()
        settings = MuoviSettings(port=self.server.getsockname()[1], buffer_s=buffer_s)  # type: ignore[call-arg]
        self.probe = MuoviProbe(self.loop, settings, self.said.append)

    def accept(self) -> socket.socket:
        connection, _ = self.server.accept()
        connection.settimeout(60)
        return connection

    def control(self, connection: socket.socket, byte: int, key: str = "running", value: object = True) -> None:
        connection.sendall(bytes([byte]))
        self.until(lambda: self.probe.status()[key] == value)

    def until(self, there: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not there():
            assert time.monotonic() < end, (self.probe.status(), self.said)
            time.sleep(0.005)


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.probe.close()
    made.loop.close()
    made.server.close()


def read(connection: socket.socket, packets: int) -> np.ndarray:
    """(samples, 38) counts."""
    data = b""
    while len(data) < packets * PACKET_BYTES:
        part = connection.recv(packets * PACKET_BYTES - len(data))
        assert part, "closed"
        data += part
    return np.frombuffer(data, ">i2").reshape(-1, 38)


def chunk(value_uv: float = 100.0, samples: int = 40) -> np.ndarray:
    return np.full((samples, 32), value_uv, np.float32)


def test_probe_dials_waits_for_the_byte_and_streams_packets_of_eighteen(host: Host) -> None:
    connection = host.accept()
    host.probe.feed(chunk())  # nothing was asked for yet
    host.control(connection, GAIN_8)
    host.probe.feed(chunk())
    counts = read(connection, 2)  # 36 of 40 samples; four wait for their packet
    assert np.all(counts[:, :32] == round(100 / 0.2861))
    assert np.diff(counts[:, COUNTER]).tolist() == [1] * 35
    host.probe.feed(chunk())
    assert read(connection, 2)[0, COUNTER] == counts[-1, COUNTER] + 1
    host.control(connection, STOP, value=False)
    host.probe.feed(chunk())
    host.control(connection, GAIN_8)
    host.probe.feed(chunk(200.0))
    assert np.all(read(connection, 2)[:, :32] == round(200 / 0.2861))


def test_counts_are_big_endian_microvolts_by_gain_and_clip_at_the_range() -> None:
    samples = np.array([[0.2861, -9375.0, 9375.0, 1e6]])
    assert np.frombuffer(packet(samples, read_control(GAIN_8), 0), ">i2")[:4].tolist() == [1, -32768, 32767, 32767]
    assert np.frombuffer(packet(samples, read_control(GAIN_4), 0), ">i2")[:4].tolist() == [0, -16384, 16384, 32767]


def test_ramps_come_on_every_channel_and_wrap_around() -> None:
    counts = np.frombuffer(packet(np.zeros((3, 32)), read_control(RAMPS), 2**15 - 2), ">i2").reshape(-1, 38)
    assert counts[:, 0].tolist() == [32766, 32767, -32768] and np.all(counts == counts[:, :1])


@pytest.mark.parametrize(("byte", "said"), [(0b0001, "EEG mode"), (0b1101, "impedance"), (ord("G"), "upper four bits")])
def test_what_is_not_emulated_is_said_and_not_answered(host: Host, byte: int, said: str) -> None:
    connection = host.accept()
    host.control(connection, byte, "refused_controls", 1)
    host.probe.feed(chunk())
    connection.settimeout(0.1)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    host.until(lambda: any(said in text for text in host.said))


def test_garbage_does_not_stop_a_probe_that_runs(host: Host) -> None:
    connection = host.accept()
    host.control(connection, GAIN_8)
    host.control(connection, 0xFF, "refused_controls", 1)
    host.probe.feed(chunk())
    assert len(read(connection, 2)) == 36


def test_probe_dials_again_and_waits_for_a_byte_again(host: Host) -> None:
    connection = host.accept()
    host.control(connection, GAIN_8)
    connection.close()
    connection = host.accept()
    assert host.probe.status()["running"] is False
    host.control(connection, GAIN_8)
    host.probe.feed(chunk())
    assert len(read(connection, 2)) == 36 and host.probe.status()["connections"] == 2


def test_slow_host_loses_whole_packets_which_the_counter_shows() -> None:
    host = Host(buffer_s=0.2)
    connection = host.accept()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    host.control(connection, GAIN_8)
    for _ in range(300):
        host.probe.feed(chunk(samples=36))
    host.until(lambda: sum(host.probe.status()[f"frames_{k}"] for k in ("sent", "dropped")) >= 600)
    status = host.probe.status()
    assert status["frames_dropped"] > 0 and status["frames_sent"] + status["frames_dropped"] == 600
    counts = read(connection, status["frames_sent"])
    assert np.all(counts[:, 0] == round(100 / 0.2861)), "packets stay whole"
    host.probe.feed(chunk(samples=36))
    counter = np.concatenate([counts[:, COUNTER], read(connection, 2)[:, COUNTER]]).astype(int)
    assert (np.diff(counter) % 2**16 - 1).sum() == 18 * status["frames_dropped"]
    host.probe.close()
    host.loop.close()
    assert any("did not read in time" in text for text in host.said)
