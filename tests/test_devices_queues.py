"""What a client has not read yet, told by the system."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest

from myoloop.devices.queues import TABLES, unread_bytes

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def test_both_ends_of_a_connection_count_and_the_fullest_connection_wins(tmp_path: Path) -> None:
    lines = [
        "   0: 0100007F:C37B 00000000:0000 0A 00000000:00000005 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0",
        "   1: 0100007F:C37B 0100007F:94A2 01 00000040:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0",
        "   2: 0100007F:94A2 0100007F:C37B 01 00000000:00000100 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0",
        "   3: 0100007F:94A3 0100007F:C37B 01 00000000:00000080 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0",
        "   4: 0100007F:94A4 0100007F:C37C 01 00000000:0000FFFF 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0",
    ]
    table = tmp_path / "tcp"
    table.write_text(HEADER + "\n".join(lines) + "\n")
    assert unread_bytes(0xC37B, (table,)) == 0x40 + 0x100, "the listening socket does not count"
    assert unread_bytes(0xC37D, (table,)) == 0 and unread_bytes(0xC37B, (tmp_path / "none",)) is None


def unread(port: int, expected: int) -> int | None:
    """What the system says, asked again until it is as expected: what was sent may be on its way, or not be confirmed yet."""
    end = time.monotonic() + 60
    while (told := unread_bytes(port)) != expected and time.monotonic() < end:
        time.sleep(0.005)
    return told


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_bytes_that_wait_for_a_reader_are_known_until_it_reads_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        port = server.getsockname()[1]
        ours, _ = server.accept()
        with ours:
            assert unread(port, 0) == 0 and TABLES[0].exists()
            ours.sendall(bytes(6400))
            assert unread(port, 6400) == 6400
            assert len(client.recv(640)) == 640 and unread(port, 5760) == 5760
