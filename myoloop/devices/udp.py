"""Receives datagrams without ever falling behind: of a flood only the newest are looked at, the rest is counted."""

from __future__ import annotations

import contextlib
import select
import socket
import time

from myoloop.devices.datagrams import LONGEST
from myoloop.devices.network import cannot_listen

AT_ONCE = 256
"""Datagrams taken from the kernel in one go."""
LOOKED_AT = 8
"""Of these, how many are returned: the newest."""
PAUSE_S = 0.005
"""After a flood; what the kernel cannot hold meanwhile it drops. With AT_ONCE at most 51200 datagrams a second are touched."""
KERNEL_BYTES = 256 * 1024


class UdpInbox:
    """One UDP socket. All calls from one thread."""

    def __init__(self, host: str, port: int, key: str):
        """
        Args:
          host: address to listen on.
          port: 0: any free one.
          key: the experiment key that sets the port, for the error.

        Raises:
          MyoloopError: the port is taken or the address is none of this machine's.
        """
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES)
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise cannot_listen("the adapter for UDP predictions", key, host, port, error) from error
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        self.received = 0
        self.flooded = 0
        """datagrams thrown away unread, because newer ones were there"""

    def read(self, timeout_s: float) -> list[bytes]:
        """The newest datagrams, oldest first, after waiting up to `timeout_s` for one; cut after LONGEST + 1 bytes."""
        if not select.select([self._socket], [], [], timeout_s)[0]:
            return []
        taken: list[bytes] = []
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while len(taken) < AT_ONCE:
                taken.append(self._socket.recv(LONGEST + 1))
        self.received += len(taken)
        if len(taken) > LOOKED_AT:
            self.flooded += len(taken) - LOOKED_AT
            time.sleep(PAUSE_S)
        return taken[-LOOKED_AT:]

    def close(self) -> None:
        self._socket.close()
