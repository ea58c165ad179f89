"""The emulated Trigno base station, as its clients meet it: plain sockets on loopback."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from myoloop.devices.network import MAX_CLIENTS, DeviceLoop
from myoloop.devices.settings import TrignoSettings
from myoloop.devices.trigno import TrignoStation
from myoloop.devices.trigno_protocol import END, FRAME_BYTES, LONGEST_PACKET, PacketReader, TrignoState
from myoloop.errors import MyoloopError

ANY_PORT = {"command_port": 0, "emg_port": 0, "aux_port": 0}


class Setup:
    """A station and what it said."""

    def __init__(self, sensors: int = 16, **changes: float) -> None:
        self.said: list[str] = []
        self.loop = DeviceLoop()
        self.station = TrignoStation(self.loop, TrignoSettings(**ANY_PORT | changes), sensors, self.said.append)  # type: ignore[arg-type]
        self.next = 0

    def connect(self, port: str) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.station.ports[port]), timeout=60)

    def commands(self) -> socket.socket:
        connection = self.connect("command")
        assert hear(connection).startswith("Delsys Trigno System Digital Protocol Version")
        return connection

    def feed(self, samples: int) -> None:
        """Samples whose every value is their number, in microvolts."""
        numbers = np.arange(self.next, self.next + samples, dtype=np.float32)
        self.station.feed(np.repeat(numbers[:, None], self.station.state.sensors, axis=1))
        self.next += samples

    def until(self, key: str, value: int) -> None:
        end = time.monotonic() + 60
        while self.station.status()[key] != value and time.monotonic() < end:
            time.sleep(0.005)
        assert self.station.status()[key] == value, (key, self.station.status())

    def until_frames(self, count: int) -> None:
        """Until so many were sent or dropped, of all clients."""
        end = time.monotonic() + 60
        while (done := self._done()) != count and time.monotonic() < end:
            time.sleep(0.005)
        assert done == count

    def _done(self) -> int:
        status = self.station.status()
        return status["frames_sent"] + status["frames_dropped"]

    def emg(self) -> socket.socket:
        before = self.station.status()["emg_clients"]
        connection = self.connect("emg")
        self.until("emg_clients", before + 1)
        return connection


@pytest.fixture
def setup() -> Iterator[Setup]:
    made = Setup()
    yield made
    made.station.close()
    made.loop.close()


def hear(connection: socket.socket) -> str:
    """One reply."""
    data = b""
    while not data.endswith(END):
        part = connection.recv(1)
        assert part, f"closed after {data!r}"
        data += part
    return data[: -len(END)].decode()


def ask(connection: socket.socket, command: str) -> str:
    connection.sendall(command.encode() + END)
    return hear(connection)


def read(connection: socket.socket, samples: int) -> np.ndarray:
    """(samples, 16) microvolts."""
    data = b""
    while len(data) < samples * FRAME_BYTES:
        part = connection.recv(samples * FRAME_BYTES - len(data))
        assert part, "closed"
        data += part
    return 1e6 * np.frombuffer(data, "<f4").reshape(-1, 16)


def test_client_gets_every_sample_in_volts_from_start_to_stop(setup: Setup) -> None:
    command, emg, aux = setup.commands(), setup.emg(), setup.connect("aux")
    setup.feed(40)  # before START: nobody's
    assert ask(command, "START") == "OK"
    setup.feed(40)
    setup.feed(40)
    assert read(emg, 80)[:, 0] == pytest.approx(np.arange(40, 120), abs=1e-3)
    assert ask(command, "STOP") == "OK"
    setup.feed(40)
    assert ask(command, "START") == "OK"
    setup.feed(40)
    assert read(emg, 40)[0, 0] == pytest.approx(160, abs=1e-3)
    emg.settimeout(0.1)
    with pytest.raises(TimeoutError):
        emg.recv(1)
    aux.close()


def test_frames_are_sixteen_little_endian_floats_with_absent_sensors_zero() -> None:
    state = TrignoState(sensors=3)
    frame = np.frombuffer(state.frames(np.array([[1.0, -2.0, 11000.0]])), "<f4")
    assert frame[:3] == pytest.approx([1e-6, -2e-6, 11e-3]) and not frame[3:].any() and len(frame) == 16
    assert state.answer("ENDIAN BIG") == "OK" and state.answer("ENDIANNESS?") == "BIG"
    assert np.frombuffer(state.frames(np.array([[1.0, 2.0, 3.0]])), ">f4")[:3] == pytest.approx([1e-6, 2e-6, 3e-6])


def test_queries_agree_with_each_other_and_with_the_data() -> None:
    state = TrignoState(sensors=8)
    assert [state.answer(f"SENSOR {n} PAIRED?") for n in (1, 8, 9, 16)] == ["YES", "YES", "NO", "NO"]
    samples, interval = float(state.answer("MAX SAMPLES EMG?")), float(state.answer("FRAME INTERVAL?"))
    assert samples / interval == pytest.approx(2000.0) == float(state.answer("SENSOR 1 CHANNEL 1 RATE?"))
    assert state.answer("SENSOR 1 CHANNEL 1 UNITS?") == "V"
    assert state.answer("SENSOR 17 PAIRED?") == state.answer("SENSOR 0 PAIRED?") == "INVALID COMMAND"
    assert state.answer("UPSAMPLE OFF") == "CANNOT COMPLETE", "there is only one rate to give"
    assert state.answer("START") == "OK" and state.answer("ENDIAN BIG") == "CANNOT COMPLETE"


def test_one_packet_may_hold_several_commands_and_each_is_answered(setup: Setup) -> None:
    command = setup.commands()
    command.sendall(b"ENDIANNESS?\r\nFRAME INTERVAL?\r\n\r\nSTA")
    assert [hear(command), hear(command)] == ["LITTLE", "0.0135"]
    command.sendall(b"RT\r\n\r")
    command.sendall(b"\n")
    assert hear(command) == "OK"


def test_http_and_garbage_on_the_command_port_are_invalid_and_harm_nobody(setup: Setup) -> None:
    command, emg, browser = setup.commands(), setup.emg(), setup.commands()
    ask(command, "START")
    browser.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert hear(browser) == hear(browser) == "INVALID COMMAND"
    browser.sendall(bytes(range(256)) * 400 + END)
    assert hear(browser) == "INVALID COMMAND"
    assert ask(browser, "SENSOR 1 TYPE?") == "O"
    setup.feed(40)
    assert len(read(emg, 40)) == 40


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([b"START", b"\r\n", b"\r", b"\n", END, b"STOP" + END])))
)
@example([b"x" * (LONGEST_PACKET + 1), b"\r", b"\n\r\n", b"START" + END])
def test_commands_do_not_depend_on_how_the_bytes_are_cut(parts: list[bytes]) -> None:
    whole, cut, single = PacketReader(), PacketReader(), PacketReader()
    data = b"".join(parts)
    expected = whole.feed(data)
    assert [c for part in parts for c in cut.feed(part)] == expected
    assert [c for i in range(len(data)) for c in single.feed(data[i : i + 1])] == expected
    assert len(cut._held) <= LONGEST_PACKET and data.count(END) <= len(expected) + data.count(END * 2)
    state = TrignoState(16)
    for command in expected:
        assert state.answer(command).isascii() and state.answer(command)


@given(st.text(max_size=30))
def test_every_command_has_an_answer(text: str) -> None:
    state = TrignoState(16)
    for command in (text, f"SENSOR {text}", f"SENSOR 1 {text}", f"SENSOR 1 CHANNEL {text}"):
        assert state.answer(command).encode("ascii")


def test_endless_packet_is_bounded_and_the_next_command_is_heard() -> None:
    reader = PacketReader()
    for _ in range(1000):
        assert reader.feed(b"A" * 1000) == []
        assert len(reader._held) <= LONGEST_PACKET
    assert reader.feed(END + b"START" + END) == ["", "START"] and reader.oversized == 1


def test_slow_reader_loses_whole_samples_which_are_counted_while_others_lose_none() -> None:
    setup = Setup(buffer_s=0.2)
    command, slow, quick = setup.commands(), setup.emg(), setup.emg()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    ask(command, "START")
    total, took = 0, []
    for _ in range(300):  # 6 s of EMG: more than kernel and station keep
        begin = time.perf_counter()
        setup.feed(40)
        took.append(time.perf_counter() - begin)
        assert read(quick, 40)[0, 0] == pytest.approx(total, abs=0.01)
        total += 40
    setup.until_frames(2 * total)
    dropped = setup.station.status()["frames_dropped"]
    assert dropped > 0 and np.median(took) < 0.02, "the feeder goes on"
    got = read(slow, total - dropped)
    assert np.all(np.ptp(got, axis=1) == 0), "samples stay whole"
    numbers = np.rint(got[:, 0]).astype(int)
    assert np.all(np.diff(numbers) > 0) and numbers[0] == 0
    setup.feed(40)
    assert np.rint(read(slow, 40)[:, 0]).astype(int).tolist() == list(range(total, total + 40)), "back in step"
    slow.close()
    setup.until("emg_clients", 1)
    assert setup.station.status()["frames_dropped"] == dropped, "counts outlive the client"
    assert any("did not read in time" in said for said in setup.said)
    setup.station.close()
    setup.loop.close()


def test_reader_that_stops_for_two_seconds_of_signal_loses_nothing(setup: Setup) -> None:
    command, emg = setup.commands(), setup.emg()
    ask(command, "START")
    for _ in range(100):
        setup.feed(40)
    assert np.rint(read(emg, 4000)[:, 0]).astype(int).tolist() == list(range(4000))
    assert setup.station.status()["frames_dropped"] == 0


def test_two_clients_get_the_same_and_one_may_go(setup: Setup) -> None:
    command, first, second = setup.commands(), setup.emg(), setup.emg()
    ask(command, "START")
    setup.feed(40)
    assert np.array_equal(read(first, 40), read(second, 40))
    first.close()
    setup.until("emg_clients", 1)
    setup.feed(40)
    assert read(second, 40)[0, 0] == pytest.approx(40, abs=1e-3)


def test_station_stops_when_the_last_command_connection_goes_and_serves_the_next(setup: Setup) -> None:
    command, emg = setup.commands(), setup.emg()
    ask(command, "START")
    command.close()
    emg.close()
    setup.until("command_clients", 0)
    setup.until("emg_clients", 0)
    setup.until("running", False)  # type: ignore[arg-type]
    command, emg = setup.commands(), setup.emg()
    setup.feed(40)
    assert ask(command, "START") == "OK"
    setup.feed(40)
    assert read(emg, 40)[0, 0] == pytest.approx(40, abs=1e-3)


def test_quit_says_goodbye_and_closes(setup: Setup) -> None:
    command = setup.commands()
    assert ask(command, "QUIT") == "BYE"
    assert command.recv(1) == b""


def test_too_many_clients_are_turned_away(setup: Setup) -> None:
    kept = [setup.commands() for _ in range(MAX_CLIENTS)]
    extra = setup.connect("command")
    with _closed():
        assert extra.recv(1) == b""
    assert ask(kept[0], "ENDIANNESS?") == "LITTLE" and setup.station.status()["connections_refused"] == 1


def test_client_that_never_reads_its_replies_is_cut_off(setup: Setup) -> None:
    command = setup.commands()
    end = time.monotonic() + 60
    with _closed():
        while time.monotonic() < end:
            command.sendall((b"FRAME INTERVAL?\r\n" * 200) + b"\r\n")
        pytest.fail("it was never cut off")
    setup.until("command_clients", 0)


def test_taken_port_is_one_clear_error(setup: Setup) -> None:
    loop = DeviceLoop()
    ports = ANY_PORT | {"emg_port": setup.station.ports["emg"]}
    with pytest.raises(MyoloopError, match=r"cannot listen on 127.0.0.1:\d+.*devices.trigno.emg_port"):
        TrignoStation(loop, TrignoSettings(**ports), 16, print)  # type: ignore[arg-type]
    loop.close()


def test_open_to_the_network_is_said() -> None:
    said: list[str] = []
    loop = DeviceLoop()
    station = TrignoStation(loop, TrignoSettings(host="0.0.0.0", **ANY_PORT), 16, said.append)  # type: ignore[arg-type]
    assert any("open to the network" in text for text in said)
    station.close()
    loop.close()


class _closed:
    """Passes if the other side cuts the connection."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is None or issubclass(kind, ConnectionError)
