"""A Delsys Trigno base station on three TCP ports, fed with the participant's EMG.

    station = TrignoStation(DeviceLoop(), TrignoSettings(), sensors=16, say=print)
    station.feed(chunk)  # (samples, 16) microvolts, from any thread

START on any command connection starts the data for every client of the EMG port, STOP stops it for all: one station has one
acquisition. It also stops when the last command connection goes, so that a client that was killed leaves nothing running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from myoloop.devices.network import MAX_CLIENTS, DeviceLoop, FrameSender, cannot_listen, is_loopback, prepare
from myoloop.devices.settings import TrignoSettings
from myoloop.devices.trigno_protocol import BANNER, FRAME_BYTES, INVALID, RATE_HZ, PacketReader, TrignoState, reply

UNREAD_REPLIES = 64 * 1024
"""Bytes of replies that a client may leave unread before it is cut off."""


class TrignoStation:
    """The three ports of one station; everything but `feed`, `status` and `close` happens in the loop."""

    def __init__(self, loop: DeviceLoop, settings: TrignoSettings, sensors: int, say: Callable[[str], None]):
        """
        Args:
          loop: serves the sockets.
          settings: addresses and limits.
          sensors: channels that are worn, 1..16.
          say: told what a user should know.

        Raises:
          MyoloopError: a port is taken or the address is none of this machine's.
        """
        self.state = TrignoState(sensors)
        self._loop, self._settings, self._say = loop, settings, say
        self._servers: list[asyncio.Server] = []
        self._commands: set[_CommandClient] = set()
        self._emg: set[_DataClient] = set()
        self._aux: set[_DataClient] = set()
        self._gone = {"sent": 0, "dropped": 0}
        self.connections = self.refused = self.invalid = self.starts = 0
        self.ports: dict[str, int] = {}
        """the ports listened on: command, emg, aux"""
        try:
            loop.run(self._listen())
        except BaseException:
            self.close()
            raise
        if not is_loopback(settings.host):
            say(f"the Trigno's ports are open to the network: devices.trigno.host is {settings.host}")

    def feed(self, chunk_uv: np.ndarray) -> None:
        """Hands over a chunk, (samples, sensors) microvolts; returns at once, from any thread."""
        self._loop.soon(self._send, chunk_uv)

    def status(self) -> dict[str, Any]:
        """Counts, JSON-able. A frame is one sample of all sensors."""
        clients = list(self._emg)
        return {
            "running": self.state.running,
            "command_clients": len(self._commands),
            "emg_clients": len(clients),
            "connections": self.connections,
            "connections_refused": self.refused,
            "invalid_commands": self.invalid,
            "starts": self.starts,
            "frames_sent": self._gone["sent"] + sum(c.sender.sent for c in clients if c.sender),
            "frames_dropped": self._gone["dropped"] + sum(c.sender.dropped for c in clients if c.sender),
            "ports": self.ports,
        }

    def close(self) -> None:
        """Closes ports and connections."""
        self._loop.run(self._shut())

    async def _listen(self) -> None:
        me, host = self._settings, self._settings.host
        for name, port, client in (
            ("command", me.command_port, lambda: _CommandClient(self)),
            ("emg", me.emg_port, lambda: _DataClient(self, self._emg)),
            ("aux", me.aux_port, lambda: _DataClient(self, self._aux)),
        ):
            try:
                server = await asyncio.get_running_loop().create_server(client, host, port)
            except OSError as error:
                key = f"devices.trigno.{name}_port"
                raise cannot_listen("the Trigno base station", key, host, port, error) from error
            self._servers.append(server)
            self.ports[name] = server.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        for server in self._servers:
            server.close()
        everybody: list[_CommandClient | _DataClient] = [*self._commands, *self._emg, *self._aux]
        for client in everybody:
            client.transport.abort()

    def _send(self, chunk_uv: np.ndarray) -> None:
        if not self.state.running or not self._emg:
            return
        frames = self.state.frames(chunk_uv)
        for client in self._emg:
            assert client.sender is not None
            client.sender.send(frames)

    def answer(self, command: str) -> str:
        """The reply to a command, and what follows from it."""
        was = self.state.running
        text = self.state.answer(command)
        self.invalid += text == INVALID
        self.starts += self.state.running and not was
        return text

    def admits(self, clients: set[Any], transport: asyncio.Transport) -> bool:
        """Counts a connection; closes it if there are too many."""
        self.connections += 1
        if len(clients) < MAX_CLIENTS:
            prepare(transport.get_extra_info("socket"))
            return True
        self.refused += 1
        transport.abort()
        return False

    def left(self, client: asyncio.BaseProtocol) -> None:
        """A client is gone."""
        if isinstance(client, _CommandClient):
            self._commands.discard(client)
            if not self._commands:
                self.state.running = False
        elif isinstance(client, _DataClient):
            self._aux.discard(client)
            if client in self._emg and client.sender:
                self._emg.discard(client)
                self._gone["sent"] += client.sender.sent
                self._gone["dropped"] += client.sender.dropped
                if client.sender.dropped:
                    self._say(
                        f"a client of the Trigno did not read in time: {client.sender.dropped} samples were dropped"
                    )

    def limit_bytes(self) -> int:
        """What may wait for one client of the EMG port."""
        return round(self._settings.buffer_s * RATE_HZ) * FRAME_BYTES


class _CommandClient(asyncio.Protocol):
    """One connection to the command port."""

    def __init__(self, station: TrignoStation):
        self._station, self._reader = station, PacketReader()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._station.admits(self._station._commands, transport):
            self._station._commands.add(self)
            transport.write(reply(BANNER))

    def data_received(self, data: bytes) -> None:
        for command in self._reader.feed(data):
            self.transport.write(reply(self._station.answer(command)))
            if command == "QUIT":
                self.transport.close()
                return
        if self.transport.get_write_buffer_size() > UNREAD_REPLIES:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._station.left(self)


class _DataClient(asyncio.Protocol):
    """One connection to a data port; what it says is not listened to."""

    def __init__(self, station: TrignoStation, clients: set[_DataClient]):
        self._station, self._clients = station, clients
        self.transport: asyncio.Transport
        self.sender: FrameSender | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._station.admits(self._clients, transport):
            self.sender = FrameSender(transport, FRAME_BYTES, self._station.limit_bytes())
            self._clients.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._station.left(self)
