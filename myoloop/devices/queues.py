"""How much of what went out over TCP the reader has not read yet: Linux tells of connections on this machine."""

from __future__ import annotations

from pathlib import Path

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
"""Both ends of a local connection are in them, each with the bytes that wait to be sent and to be read (proc(5))."""
ESTABLISHED = "01"


def unread_bytes(port: int, tables: tuple[Path, ...] = TABLES) -> int | None:
    """Bytes on their way to programs on this machine over connections with one end at this port, or waiting there for a program
    to read them: of the connection in which most wait. 0 without a connection; None where nobody tells."""
    waiting: dict[frozenset[str], int] = {}
    told = False
    for table in tables:
        try:
            lines = table.read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        told = True
        for line in lines:
            _, local, remote, state, queues, *_ = line.split()
            if state == ESTABLISHED and any(int(end.rpartition(":")[2], 16) == port for end in (local, remote)):
                connection = frozenset((local, remote))
                waiting[connection] = waiting.get(connection, 0) + sum(int(n, 16) for n in queues.split(":"))
    return max(waiting.values(), default=0) if told else None
