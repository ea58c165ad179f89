"""Outlets that cannot be opened, and the network they stay on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CROWDED = """
[ports]
BasePort = 17{base}
PortRange = 2
AllowRandomPorts = 0
IPv6 = disable
[multicast]
ResolveScope = machine
[log]
level = -3
"""

MANY = """
from myoloop.errors import MyoloopError
from myoloop.streams.outlets import make_outlet
kept = []
try:
    for number in range(40):
        kept.append(make_outlet(f"crowd{number}", "events", ["event"], "text", 0.0))
except MyoloopError as error:
    print(len(kept), error)
"""

WHERE = """
from myoloop.streams.network import use_loopback
print(use_loopback())
"""


def run(code: str, cwd: Path, **env: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "LSLAPICFG"}
    environment |= {"PYTHONPATH": str(Path(__file__).parent.parent), "HOME": str(cwd), **env}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=cwd, env=environment, timeout=240
    )
    return done.stdout


def test_used_up_ports_are_named_with_what_to_do(tmp_path: Path) -> None:
    config = tmp_path / "crowded.cfg"
    config.write_text(CROWDED.format(base=os.getpid() % 900 + 100))
    said = run(MANY, tmp_path, LSLAPICFG=str(config))
    assert "could not open the stream 'crowd" in said and "PortRange" in said


def test_lsl_stays_on_this_machine_unless_the_user_has_a_configuration(tmp_path: Path) -> None:
    assert run(WHERE, tmp_path) == "True\n"
    (tmp_path / "lsl_api.cfg").write_text("[multicast]\nResolveScope = link\n")
    assert run(WHERE, tmp_path) == "False\n"


SERVE = """
import sys, time
from myoloop.streams.network import use_loopback
use_loopback()
from myoloop.streams.outlets import make_outlet
out = make_outlet(sys.argv[1], "events", ["event"], "text", 0.0, 3)
print("ready", flush=True)
time.sleep(240)
"""

FIND = """
import pylsl, sys
print(len(pylsl.resolve_byprop("name", sys.argv[1] + "_events", timeout=60)))
"""


def test_client_with_default_settings_finds_streams_that_stay_on_this_machine(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "LSLAPICFG"}
    environment |= {"PYTHONPATH": str(Path(__file__).parent.parent), "HOME": str(tmp_path)}
    name = f"plain{os.getpid()}"
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, name], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    )
    try:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        found = subprocess.run(
            [sys.executable, "-c", FIND, name],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            timeout=240,
        )
        assert found.stdout == "1\n", found.stderr
    finally:
        server.kill()
        server.communicate()
