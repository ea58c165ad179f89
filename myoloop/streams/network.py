"""Keeps LSL on this machine unless the user has configured it otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pylsl

# Port range: liblsl's own, 32, is three participants' streams, nine each; those beyond it are not found by others.
# Log level -3: liblsl's own complaints about streams that end are said by myoloop, in its own words.
# TimeUpdateInterval: s between two estimates of the other side's clock, which on one machine is this side's. liblsl's own, 2,
# costs an inlet 0.28 MB an hour: each estimate leaves about 150 bytes behind (seen in 1.17.5 with a memory profiler).
LOOPBACK = """
[multicast]
ResolveScope = machine
[lab]
KnownPeers = {127.0.0.1}
[ports]
IPv6 = disable
PortRange = 256
[tuning]
TimeUpdateInterval = 10
[log]
level = -3
"""


def use_loopback() -> bool:
    """Restricts LSL to the machine scope; call it before the first stream of the process is made.

    A user's own configuration wins: an `LSLAPICFG` variable or an `lsl_api.cfg` where liblsl looks for one
    (working folder, ~/lsl_api, /etc/lsl_api). Programs with LSL's default settings on this machine still find the
    streams.

    Returns:
      True if the loopback configuration was applied.
    """
    files = [Path("lsl_api.cfg"), Path.home() / "lsl_api" / "lsl_api.cfg", Path("/etc/lsl_api/lsl_api.cfg")]
    if os.environ.get("LSLAPICFG") or any(f.is_file() for f in files):
        return False
    pylsl.set_config_content(LOOPBACK)
    return True
