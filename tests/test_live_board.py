"""Processes of a session notice that it is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from myoloop.live.board import SUPERVISED, supervisor_gone


def test_a_session_that_is_gone_is_noticed_also_as_a_zombie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SUPERVISED, raising=False)
    assert not supervisor_gone(), "nobody started it"
    monkeypatch.setenv(SUPERVISED, str(os.getpid()))
    assert not supervisor_gone()
    ended = subprocess.Popen(["true"])
    monkeypatch.setenv(SUPERVISED, str(ended.pid))
    until = time.monotonic() + 60
    while not supervisor_gone() and time.monotonic() < until:
        time.sleep(0.02)
    assert supervisor_gone(), "it has ended, and nobody has asked how"
    ended.wait()
    assert supervisor_gone()


def test_a_process_whose_session_died_before_it_was_ready_ends_by_itself(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    program = (
        "import sys, time; from pathlib import Path; from myoloop.live.board import Board\n"
        "Board(Path(sys.argv[1]), 'part', dict).start(); time.sleep(120)"
    )
    env = {**os.environ, SUPERVISED: str(ended.pid)}
    done = subprocess.run([sys.executable, "-c", program, tmp_path], env=env, timeout=240, capture_output=True)
    assert done.returncode == -15 and b"the session that started this process is gone" in (
        done.stderr + (tmp_path / "part.status.json").read_bytes()
    )
