"""`myoloop run`, whole: real processes, real streams, a real decoder, and what can go wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from myoloop.live.board import read_status
from myoloop.processes import Child
from myoloop.streams.rowlog import read_events

REPO = Path(__file__).parent.parent


def start(folder: Path, changes: dict[str, Any], *arguments: str) -> subprocess.Popen:
    """`myoloop run` on the shipped experiment with changes, in a process of its own."""
    experiment = yaml.safe_load((REPO / "experiments" / "closed_loop.yaml").read_text())
    experiment["decoder"]["model"] = str(REPO / experiment["decoder"]["model"])
    for key, value in changes.items():
        section, _, last = key.rpartition(".")
        (experiment[section] if section else experiment)[last] = value
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment))
    command = [sys.executable, "-m", "myoloop", "run", str(file), "--runs", str(folder / "runs"), *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
    )


def finish(process: subprocess.Popen, seconds: float = 240.0) -> tuple[int, str]:
    try:
        out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
        pytest.fail(f"the session did not end:\n{out}")
    return process.returncode, out


def until_said(process: subprocess.Popen, words: str) -> str:
    """What a running session has printed when it has printed these words; all of it if it ends without them."""
    said: list[str] = []
    assert process.stdout is not None
    while words not in "".join(said) and (character := process.stdout.read(1)):
        said.append(character)
    return "".join(said)


def report_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "runs" / "latest" / "report.json").read_text())


def wait_for_status(folder: Path, part: str, reached: Any, seconds: float = 90.0) -> dict[str, Any]:
    """Waits until a status file of the running session satisfies `reached`."""
    end = time.monotonic() + seconds
    status = None
    while time.monotonic() < end:
        status = read_status(folder / "runs" / "latest", part)
        if status is not None and reached(status):
            return status
        time.sleep(0.1)
    pytest.fail(f"the {part} never got there; last: {status or 'not written'}")


def wait_for_events(folder: Path, reached: Callable[[list[str]], bool]) -> None:
    """Waits until the events that the running session has told of satisfy `reached`."""
    end = time.monotonic() + 90
    while not reached([text for _, text in read_events(folder / "runs" / "latest" / "events.jsonl")]):
        assert time.monotonic() < end
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """The default experiment - ROS 2 nodes, LSL, the shipped ONNX decoder - for 10 s."""
    folder = tmp_path_factory.mktemp("closed")
    code, out = finish(start(folder, {"participant.id": "closed"}, "--duration", "10"))
    return folder, code, out


def test_run_closes_the_loop_and_reports(closed: tuple[Path, int, str]) -> None:
    folder, code, out = closed
    assert code == 0, out
    report = report_of(folder)
    assert report["duration_s"] == 10.0 and report["failure"] is None
    assert report["emg"]["samples_sent"] == 20000 and report["emg"]["samples_lost"] == 0
    assert report["decoder"]["samples_lost"] == 0 and report["decoder"]["refused"] == 0
    assert report["decoder"]["predictions"] > 200
    assert report["loop"]["steps"] == 500
    assert report["task"]["accuracy"] > 0.6, "far above chance on a held-out reference"
    assert report["environment"]["ros"] is True and report["environment"]["seed"] == 0


def test_feedback_latency_is_at_least_the_step_it_takes(closed: tuple[Path, int, str]) -> None:
    latency = report_of(closed[0])["loop"]["feedback_latency_ms"]
    assert latency["median"] >= 20.0 and latency["max"] >= latency["p99"] >= latency["median"]


def test_run_folder_holds_what_was_run(closed: tuple[Path, int, str]) -> None:
    run = closed[0] / "runs" / "latest"
    assert run.is_symlink()
    assert {"config.yaml", "report.json", "report.html", "steps.rows", "events.jsonl", "logs"} <= set(os.listdir(run))
    assert yaml.safe_load((run / "config.yaml").read_text())["duration_s"] == 10.0
    events = [text for _, text in read_events(run / "events.jsonl")]
    assert "session start" in events and events[-1] == "session end"


def test_live_line_shows_the_figures(closed: tuple[Path, int, str]) -> None:
    assert "accuracy" in closed[2] and "latency" in closed[2] and "report:" in closed[2]


def test_killed_decoder_is_restarted_and_the_participant_goes_on(tmp_path: Path) -> None:
    process = start(tmp_path, {"participant.id": "killed", "ros": False}, "--duration", "600")
    running = wait_for_status(tmp_path, "participant", lambda s: s["phase"] == "running" and s["steps"] > 100)
    first = wait_for_status(tmp_path, "decoder", lambda s: s["predictions"] > 50)
    os.kill(first["pid"], signal.SIGSTOP)  # hangs first: predictions turn stale and the decoder counts as lost
    wait_for_status(tmp_path, "participant", lambda s: s["stale_steps"] > running["stale_steps"] + 60)
    wait_for_events(tmp_path, lambda events: "decoder lost" in events)
    os.kill(first["pid"], signal.SIGKILL)
    wait_for_status(tmp_path, "decoder", lambda s: s["pid"] != first["pid"] and s["predictions"] > 20)
    wait_for_events(tmp_path, lambda events: "decoder back" in events)
    before = wait_for_status(tmp_path, "participant", lambda s: s["level"] == "ok")
    wait_for_status(tmp_path, "participant", lambda s: s["steps"] > before["steps"] + 50)
    process.send_signal(signal.SIGINT)
    code, out = finish(process)
    assert code == 0, out
    report = report_of(tmp_path)
    events = [text for _, text in read_events(tmp_path / "runs" / "latest" / "events.jsonl")]
    said = [text for text in events if text in ("decoder lost", "decoder back")]
    assert said == (["decoder lost", "decoder back"] * len(said))[: len(said)], "each loss and each return is said once"
    assert report["decoder"]["restarts"] == 1 and "starting it again" in out
    assert report["decoder"]["stale_steps"] > 50 and report["emg"]["samples_lost"] == 0


def test_decoder_that_never_comes_leaves_the_loop_open_and_says_so(tmp_path: Path) -> None:
    changes = {"participant.id": "alone", "ros": False, "decoder": {"kind": "external"}}
    process = start(tmp_path, {**changes, "participant.wait_for_decoder_s": 1}, "--duration", "2")
    code, out = finish(process)
    assert code == 0 and "no stream 'alone_prediction' after 1 s: running open loop" in out
    assert report_of(tmp_path)["task"]["accuracy"] is None


def test_ctrl_c_ends_everything_and_still_reports(tmp_path: Path) -> None:
    process = start(tmp_path, {"participant.id": "stopped", "ros": False}, "--duration", "600")
    participant = wait_for_status(tmp_path, "participant", lambda s: s["phase"] == "running" and s["steps"] > 50)
    decoder = wait_for_status(tmp_path, "decoder", lambda s: s["pid"])
    process.send_signal(signal.SIGINT)
    code, out = finish(process)
    assert code == 0, out
    report = report_of(tmp_path)
    assert 1.0 <= report["duration_s"] < 600 and report["failure"] is None
    assert not alive(participant["pid"]) and not alive(decoder["pid"])


def test_killed_session_takes_its_processes_along(tmp_path: Path) -> None:
    process = start(tmp_path, {"participant.id": "orphan", "ros": False}, "--duration", "600")
    parts = [
        wait_for_status(tmp_path, "participant", lambda s: s["phase"] == "running"),
        wait_for_status(tmp_path, "decoder", lambda s: s["pid"]),
    ]
    process.kill()
    process.communicate()
    end = time.monotonic() + 60
    while any(alive(part["pid"]) for part in parts) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(alive(part["pid"]) for part in parts)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"participant.armband": "semg_rd61"}, "Did you mean 'semg_rd16'?"),
        ({"decoder.model": "nowhere.onnx"}, "decoder.model 'nowhere.onnx' not found"),
        ({"durations_s": 3}, "Did you mean 'duration_s'?"),
        ({"participant.control_hz": 60}, "These would do: 10, 20, 25"),
    ],
)
def test_bad_experiment_is_one_clear_line_and_code_2(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    code, out = finish(start(tmp_path, changes))
    assert code == 2 and said in out and "Traceback" not in out


def test_armband_that_the_decoder_does_not_read_is_said(tmp_path: Path) -> None:
    changes = {"participant.id": "misfit", "ros": False, "participant.armband": "myo8"}
    process = start(tmp_path, {**changes, "participant.wait_for_decoder_s": 1}, "--duration", "600")
    out = until_said(process, "will not be started again")
    wait_for_status(tmp_path, "participant", lambda s: s["phase"] == "running" and s["steps"] > 50)
    process.send_signal(signal.SIGINT)
    out += process.stdout.read()  # type: ignore[union-attr]
    code = process.wait(240)
    assert "reads EMG at 2000 Hz, but misfit_emg sends 200 Hz" in out.replace("\n", " ")
    assert "will not be started again" in out
    assert code == 0 and report_of(tmp_path)["task"]["accuracy"] is None


def test_run_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file in the way")
    code, out = finish(start(tmp_path, {}))
    assert code == 2 and "cannot be written" in out and "Traceback" not in out


def test_report_can_be_made_again_without_what_a_full_disk_kept_out(closed: tuple[Path, int, str]) -> None:
    run = (closed[0] / "runs" / "latest").resolve()
    first = json.loads((run / "report.json").read_text())
    (run / "witness.json").unlink()
    (run / "emg_stretch.npz").write_bytes(b"PK half a file")
    done = subprocess.run(
        [sys.executable, "-m", "myoloop", "report", str(run)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    again = json.loads((run / "report.json").read_text())
    assert again["emg"]["samples_lost"] is None and again["task"] == first["task"]


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "myoloop", "report", str(tmp_path)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 2 and "is not a run folder" in done.stderr


SLOW_TO_END = """
import signal, sys, time
from pathlib import Path
try:
    Path(sys.argv[1]).write_text("there")
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1.0)
    Path(sys.argv[1]).write_text("cleaned up")
"""


def test_a_process_is_interrupted_once_however_often_it_is_told_to_end(tmp_path: Path) -> None:
    said = tmp_path / "said"
    child = Child(
        "software", [sys.executable, "-c", SLOW_TO_END, str(said)], tmp_path / "log", dict(os.environ), (60.0, 3.0)
    )
    child.start()
    while not said.exists() or not said.read_text():
        time.sleep(0.05)
    child.interrupt()
    time.sleep(0.3)
    child.interrupt()
    child.end()
    assert said.read_text() == "cleaned up" and child.exit_code == 0
    assert not (tmp_path / "log").read_text()
