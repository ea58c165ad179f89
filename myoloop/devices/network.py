"""The thread that serves sockets, and sending to clients that may not read.

Everything here runs in one asyncio loop in a thread of its own: a client that stalls, floods or vanishes never holds up who
feeds the samples.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from myoloop.errors import MyoloopError

T = TypeVar("T")

KERNEL_BYTES = 64 * 1024
"""Send buffer asked of the kernel for a connection, so that our own bounded one is what decides."""
MAX_CLIENTS = 16
"""Connections taken on one port; more are closed at once and counted."""


class DeviceLoop:
    """An asyncio loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="devices", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = 5.0) -> T:
        """Waits for a coroutine that runs in the loop; call it from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def soon(self, do: Callable[..., None], *args: Any) -> None:
        """Calls `do` in the loop, later; never blocks, and does nothing once the loop is closed."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(do, *args)

    def close(self) -> None:
        """Ends every task and the thread."""
        if self._loop.is_closed():
            return
        self.run(_cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=3.0)
        self._loop.close()


class FrameSender:
    """Sends whole frames to one client out of a bounded buffer; what does not fit is dropped, whole frames only.

    The client's stream therefore always stays a sequence of whole frames, whatever it reads at once and however late.
    """

    def __init__(self, transport: asyncio.WriteTransport, frame_bytes: int, limit_bytes: int):
        """
        Args:
          transport: of the connection.
          frame_bytes: length of a frame.
          limit_bytes: how much may wait for the client.
        """
        self._transport, self._frame, self._limit = transport, frame_bytes, limit_bytes
        prepare(transport.get_extra_info("socket"))
        self.sent = 0
        """frames handed over"""
        self.dropped = 0
        """frames left out because the client did not read"""

    def send(self, frames: bytes) -> None:
        """`frames`: any number of them."""
        if self._transport.is_closing():
            return
        count = len(frames) // self._frame
        room = (self._limit - self._transport.get_write_buffer_size()) // self._frame
        fitting = max(0, min(count, room))
        if fitting:
            self._transport.write(frames[: fitting * self._frame])
        self.sent += fitting
        self.dropped += count - fitting


def prepare(connection: socket.socket) -> None:
    """Small kernel buffers, no waiting for more to send, and half a minute until a side that vanished counts as gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def cannot_listen(what: str, key: str, host: str, port: int, error: OSError) -> MyoloopError:
    """The error for an address that cannot be listened on."""
    return MyoloopError(
        f"{what} cannot listen on {host}:{port}: {error.strerror or error}. Another program may use the port (the device's "
        f"own software, or another session): stop it, or set {key} (0: any free one)."
    )


async def _cancel_all() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
