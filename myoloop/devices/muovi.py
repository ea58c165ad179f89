"""An OT Bioelettronica Muovi probe: it dials in to a host program, waits for a control byte, and streams.

    probe = MuoviProbe(DeviceLoop(), MuoviSettings(), channels=32, say=print)
    probe.feed(chunk)  # (samples, 32) microvolts, from any thread

The control byte is 0000 EMG MODE1 MODE0 GO. EMG 1: 2000 Hz, int16, big-endian, 38 channels: 32 biosignals, 4 of an orientation
sensor, buffer usage, sample counter. MODE 0: gain 8, 286.1 nV a count; 1: gain 4, 572.2 nV; 3: ramps on all channels. A packet
holds 18 samples, 1368 bytes. EEG (500 Hz, 24 bits) and the impedance check (MODE 2) are not emulated: the probe says so and
stays silent. Read in hosts of the probe (MyoGestic and its Biosignal-Device-Interface, LibEMG).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from myoloop.devices.network import DeviceLoop, FrameSender, is_loopback
from myoloop.devices.settings import MuoviSettings

BIOSIGNALS = 32
CHANNELS = 38
BUFFER_USAGE, COUNTER = 36, 37
RATE_HZ = 2000.0
SAMPLES_A_PACKET = 18
PACKET_BYTES = SAMPLES_A_PACKET * CHANNELS * 2
GAIN_8_UV, GAIN_4_UV = 0.2861, 0.5722
"""Microvolts a count."""
DIAL_EVERY_S = 0.5


class Mode(NamedTuple):
    """What a control byte asks for."""

    go: bool
    uv_per_count: float
    ramps: bool
    problem: str
    """why the probe stays silent, "" if it does not"""


def read_control(byte: int) -> Mode:
    """The meaning of a control byte."""
    go, mode, emg = bool(byte & 1), (byte >> 1) & 3, bool(byte & 8)
    problem = ""
    if byte & 0xF0:
        problem = f"control byte {byte:#04x}: the upper four bits must be 0"
    elif go and not emg:
        problem = "the host asks for EEG mode (500 Hz, 24 bits): only EMG mode is emulated"
    elif go and mode == 2:
        problem = "the host asks for an impedance check: it is not emulated"
    return Mode(go and not problem, GAIN_4_UV if mode == 1 else GAIN_8_UV, mode == 3, problem)


def packet(chunk_uv: np.ndarray, mode: Mode, first: int) -> bytes:
    """Samples as the probe sends them.

    Args:
      chunk_uv: (samples, up to 32) microvolts.
      mode: gain, or ramps.
      first: number of the first sample since the start, for the counter.
    """
    counts = np.zeros((len(chunk_uv), CHANNELS))
    counter = (first + np.arange(len(chunk_uv)) + 2**15) % 2**16 - 2**15  # int16 that wraps around
    counts[:, : chunk_uv.shape[1]] = np.rint(chunk_uv / mode.uv_per_count)
    counts[:, COUNTER] = counter
    if mode.ramps:
        counts[:] = counter[:, None]
    return np.clip(counts, -(2**15), 2**15 - 1).astype(">i2").tobytes()


class MuoviProbe:
    """One probe; everything but `feed`, `status` and `close` happens in the loop."""

    def __init__(self, loop: DeviceLoop, settings: MuoviSettings, say: Callable[[str], None]):
        """
        Args:
          loop: serves the socket.
          settings: whom to dial.
          say: told what a user should know, each thing once.
        """
        self._loop, self._settings, self._say = loop, settings, say
        self._said: set[str] = set()
        self._sender: FrameSender | None = None
        self._mode = Mode(False, GAIN_8_UV, False, "")
        self._waiting = np.zeros((0, BIOSIGNALS), np.float32)
        self._samples = 0
        self._gone = {"sent": 0, "dropped": 0}
        self.connections = self.starts = self.refused = 0
        if not is_loopback(settings.host):
            say(f"the Muovi probe dials out to the network: devices.muovi.host is {settings.host}")
        loop.soon(self._begin)

    def feed(self, chunk_uv: np.ndarray) -> None:
        """Hands over a chunk, (samples, channels) microvolts; returns at once, from any thread."""
        self._loop.soon(self._send, chunk_uv)

    def status(self) -> dict[str, Any]:
        """Counts, JSON-able. A frame is one packet of 18 samples."""
        sender = self._sender
        return {
            "running": self._mode.go,
            "connected": sender is not None,
            "connections": self.connections,
            "starts": self.starts,
            "refused_controls": self.refused,
            "frames_sent": self._gone["sent"] + (sender.sent if sender else 0),
            "frames_dropped": self._gone["dropped"] + (sender.dropped if sender else 0),
        }

    def close(self) -> None:
        """Hangs up."""
        self._loop.run(self._hang_up())

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._live())

    async def _hang_up(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _live(self) -> None:
        """Dials until somebody answers, serves until they hang up, and again."""
        while True:
            try:
                reader, writer = await asyncio.open_connection(self._settings.host, self._settings.port)
            except OSError:
                await asyncio.sleep(DIAL_EVERY_S)
                continue
            self.connections += 1
            limit = round(self._settings.buffer_s * RATE_HZ / SAMPLES_A_PACKET) * PACKET_BYTES
            self._sender = FrameSender(writer.transport, PACKET_BYTES, limit)
            try:
                while data := await reader.read(256):
                    for byte in data:
                        self._obey(byte)
            except OSError:
                pass  # the host is gone: dial again
            finally:
                self._leave()
                writer.transport.abort()
            await asyncio.sleep(DIAL_EVERY_S)

    def _leave(self) -> None:
        assert self._sender is not None
        self._gone["sent"] += self._sender.sent
        self._gone["dropped"] += self._sender.dropped
        if self._sender.dropped:
            self._say(f"the host of the Muovi did not read in time: {self._sender.dropped} packets were dropped")
        self._sender = None
        self._mode = self._mode._replace(go=False)

    def _obey(self, byte: int) -> None:
        mode = read_control(byte)
        if mode.problem:
            self.refused += 1
            if mode.problem not in self._said and len(self._said) < 20:
                self._said.add(mode.problem)
                self._say(f"Muovi: {mode.problem}")
        if byte & 0xF0:
            return
        if mode.go and not self._mode.go:
            self.starts += 1
            self._samples = 0
            self._waiting = self._waiting[:0]
        self._mode = mode

    def _send(self, chunk_uv: np.ndarray) -> None:
        if self._sender is None or not self._mode.go:
            return
        if self._waiting.shape[1] != chunk_uv.shape[1]:
            self._waiting = np.zeros((0, chunk_uv.shape[1]), np.float32)
        held = np.concatenate([self._waiting, chunk_uv])
        whole = len(held) // SAMPLES_A_PACKET * SAMPLES_A_PACKET
        self._waiting = held[whole:]
        if whole:
            self._sender.send(packet(held[:whole], self._mode, self._samples))
            self._samples += whole
