"""Every test session has LSL and ROS 2 to itself: loopback only, a session id and a domain of its own."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

SESSION = uuid.uuid4().hex[:12]

# Ports are shared by all LSL sessions of a machine, and who finds none left in the range opens streams that are not found. So
# a range of its own, below the ports that Linux gives out by itself (32768 and up).
PORT_RANGE = 256
BASE_PORT = 17000 + PORT_RANGE * (int(SESSION, 16) % 60)

LSL_CONFIG = f"""[multicast]
ResolveScope = machine
[lab]
KnownPeers = {{127.0.0.1}}
SessionID = myoloop-test-{SESSION}
[ports]
BasePort = {BASE_PORT}
PortRange = {PORT_RANGE}
IPv6 = disable
[log]
level = -2
"""

# Before pylsl or rclpy is imported, and inherited by every process that a test starts.
_folder = tempfile.TemporaryDirectory(
    prefix="myoloop-tests-", ignore_cleanup_errors=True
)  # a process may still be ending
_config = Path(_folder.name) / "lsl_api.cfg"
_config.write_text(LSL_CONFIG, encoding="utf-8")
os.environ["LSLAPICFG"] = str(_config)
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(_folder.name) / "compiled")  # one for all processes of this run
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(1 + int(SESSION, 16) % 100)  # 101 is the last that leaves ports free on Linux
os.environ["ROS_LOG_DIR"] = _folder.name
# A machine that stands still for a moment is no failure of an example.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
# A shell that starts the tests in the background has SIGINT ignored, and every process that they start would ignore it, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
if (Path(sys.prefix) / "share" / "ament_index").is_dir():
    os.environ["AMENT_PREFIX_PATH"] = sys.prefix


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A ROS 2 program in a process of its own, see ros_world.Client."""
    from ros_world import Client

    it = Client()
    yield it
    it.close()
