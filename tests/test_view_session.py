"""A session with a viewer: watched, told to take another decoder, and none the worse for a viewer that dies or hangs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from myoloop.decoder_switch import keep_status
from myoloop.streams.commands import CommandSender, SwitchDecoder
from myoloop.streams.rowlog import read_events

REPO = Path(__file__).parent.parent


def status(folder: Path, part: str) -> dict[str, Any]:
    try:
        return json.loads((folder / "runs" / "latest" / f"{part}.status.json").read_text())
    except (OSError, ValueError):
        return {}


def wait(there: Any, seconds: float = 180.0) -> None:
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """25 seconds, in which the decoder is switched, and the viewer is killed, comes back and is stopped for good."""
    folder = tmp_path_factory.mktemp("viewed")
    experiment = yaml.safe_load((REPO / "experiments" / "closed_loop.yaml").read_text())
    experiment["decoder"]["model"] = str(REPO / experiment["decoder"]["model"])
    experiment["participant"] |= {"id": "viewed", "policy": "baseline"}
    experiment |= {"ros": False, "duration_s": 25, "view": {"port": 0}}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    command = [sys.executable, "-m", "myoloop", "run", "experiment.yaml", "--view"]
    run = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    sender = CommandSender("viewed")
    patch = pytest.MonkeyPatch()
    patch.setattr("myoloop.streams.commands.LISTENED_S", 60.0)
    try:
        wait(lambda: status(folder, "participant").get("phase") == "running")
        wait(lambda: "url" in status(folder, "viewer"))
        viewer = status(folder, "viewer")
        with urllib.request.urlopen(viewer["url"], timeout=60) as answer:
            assert answer.status == 200
        assert sender.send(SwitchDecoder(name="decoder_flexion"))
        os.kill(viewer["pid"], signal.SIGKILL)
        again: list[int] = []

        def came_again() -> bool:
            for child in psutil.Process(run.pid).children():
                with contextlib.suppress(psutil.Error):  # it has just ended
                    if child.pid != viewer["pid"] and "viewer" in child.cmdline():
                        again.append(child.pid)
            return bool(again)

        wait(came_again)
        os.kill(again[0], signal.SIGSTOP)
        out, _ = run.communicate(timeout=240)
        assert run.returncode == 0, out
    finally:
        patch.undo()
        sender.close()
        if run.poll() is None:
            run.kill()
    return folder, out


def test_a_viewer_that_dies_or_hangs_costs_the_session_nothing(session: tuple[Path, str]) -> None:
    folder, out = session
    report = json.loads((folder / "runs" / "latest" / "report.json").read_text())
    assert report["failure"] is None and report["loop"]["steps"] == 1250
    assert report["emg"]["samples_sent"] == 50000 and report["emg"]["samples_lost"] == 0
    assert "the viewer ended with code -9; starting it again" in out
    assert "watch it in a browser: http://127.0.0.1:" in out


def test_another_decoder_takes_over_in_mid_session_and_the_events_tell(session: tuple[Path, str]) -> None:
    run = session[0] / "runs" / "latest"
    assert "decoder switch decoder_flexion" in [text for _, text in read_events(run / "events.jsonl")]
    assert json.loads((run / "decoder.1.status.json").read_text())["name"] == "tcn"
    second = json.loads((run / "decoder.status.json").read_text())
    assert second["name"] == "decoder_flexion" and second["predictions"] > 20
    assert yaml.safe_load((run / "config.yaml").read_text())["decoder"]["name"] == "tcn", "what was begun with stays"


def test_statuses_of_ended_processes_are_never_overwritten(tmp_path: Path) -> None:
    for life in range(3):
        (tmp_path / "decoder.status.json").write_text(str(life))
        keep_status(tmp_path, "decoder")
    assert [(tmp_path / f"decoder.{n}.status.json").read_text() for n in (1, 2, 3)] == ["0", "1", "2"]
    keep_status(tmp_path, "decoder")  # nothing to keep
    assert not (tmp_path / "decoder.4.status.json").exists()
