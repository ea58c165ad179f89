"""A session recorded by LabRecorder: nothing is lost at its begin or end, and what can go wrong in between."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pylsl
import pytest
import pyxdf
import yaml

from myoloop.decoder.runtime import OnnxDecoder
from myoloop.errors import MyoloopError
from myoloop.experiment import load_experiment
from myoloop.live.board import RECORDING, read_status
from myoloop.report import report_of_recording
from myoloop.session import Session
from myoloop.streams.outlets import ParticipantOutlets
from myoloop.streams.rowlog import read_events
from myoloop.streams.xdf import count_samples, read_xdf
from myoloop.streams.xdf_writer import why_not

REPO = Path(__file__).parent.parent
needs_labrecorder = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def begin_session(folder: Path, name: str, seconds: float) -> subprocess.Popen:
    experiment = yaml.safe_load((REPO / "experiments" / "closed_loop.yaml").read_text())
    experiment["decoder"]["model"] = str(REPO / experiment["decoder"]["model"])
    experiment["participant"]["id"] = name
    experiment |= {"ros": False, "duration_s": seconds, "record": True}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    command = [sys.executable, "-m", "myoloop", "run", "experiment.yaml"]
    env = {**os.environ, "COLUMNS": "200"}
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def end_session(process: subprocess.Popen) -> str:
    try:
        out, _ = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"the session did not end:\n{process.communicate()[0]}")
    assert process.returncode == 0, out
    return out


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a session of 6 s with the shipped decoder."""
    folder = tmp_path_factory.mktemp("recorded")
    end_session(begin_session(folder, "kept", 6))
    return (folder / "runs" / "latest").resolve()


@needs_labrecorder
def test_the_file_holds_every_sample_event_and_prediction(recorded: Path) -> None:
    report = json.loads((recorded / "report.json").read_text())
    held = {
        s["info"]["name"][0]: s
        for s in pyxdf.load_xdf(str(recorded / "session.xdf"), synchronize_clocks=False, dejitter_timestamps=False)[0]
    }
    events = read_events(recorded / "events.jsonl")
    assert [text for _, text in events][-1] == "session end" and "session start" in [text for _, text in events]
    assert [t[0] for t in held["kept_events"]["time_series"]] == [text for _, text in events]
    np.testing.assert_allclose(held["kept_events"]["time_stamps"], [time for time, _ in events], atol=1e-6)
    with np.load(recorded / "emg_stretch.npz") as witness:  # all of it: 6 of the 20 s that are kept
        assert len(witness["emg_uv"]) == 12000
        np.testing.assert_array_equal(held["kept_emg"]["time_series"], witness["emg_uv"])
        np.testing.assert_allclose(held["kept_emg"]["time_stamps"], witness["time"], atol=1e-6)
    assert len(held["kept_prediction"]["time_series"]) == read_status(recorded, "decoder")["predictions"] > 50
    assert report["recording"]["lost"] == 0 and report["recording"]["problem"] is None
    streams = report["recording"]["streams"]
    kinds = "emg events excitation feedback kinematics prediction reference spikes target"
    assert set(streams) == set(held) == {f"kept_{kind}" for kind in kinds.split()}
    for name, counts in streams.items():
        assert counts["sent"] == counts["recorded"] == len(held[name]["time_series"]) > 0, name


@needs_labrecorder
def test_the_recording_alone_tells_what_the_report_tells(recorded: Path) -> None:
    """Exactly: the streams hold what the participant perceived, in the precision of its own log."""
    live = json.loads((recorded / "report.json").read_text())
    again = report_of_recording(recorded / "session.xdf")
    assert again["task"] == live["task"] and again["task"]["accuracy"] > 0.6
    assert again["loop"]["feedback_latency_ms"] == live["loop"]["feedback_latency_ms"]
    assert again["loop"]["steps"] == live["loop"]["steps"] == 300 and again["duration_s"] == live["duration_s"]
    assert again["effort"] == live["effort"]
    for key in ("channels", "rate_hz", "rms_uv", "median_frequency_hz"):
        assert again["emg"][key] == live["emg"][key]
    done = subprocess.run(
        [sys.executable, "-m", "myoloop", "report", str(recorded / "session.xdf")], capture_output=True, text=True
    )
    assert done.returncode == 0 and "feedback latency" in done.stdout, done.stderr
    assert json.loads((recorded / "session.report.json").read_text())["task"] == live["task"]


@needs_labrecorder
def test_a_decoder_answers_the_recorded_emg_as_it_did_in_the_session(recorded: Path) -> None:
    session = read_xdf(recorded)
    experiment = load_experiment(recorded / "config.yaml")
    assert experiment.decoder is not None and experiment.decoder.model is not None
    emg, live = session.need("emg"), session.need("prediction")
    each = round(emg.rate_hz / 50)  # samples; the first answer is to the first that the decoder heard
    heard = int(np.argmin(np.abs(emg.stamps - live.stamps[0]))) + 1 - each
    again = list(OnnxDecoder(experiment.decoder.model).push(emg.samples[heard:]))[: len(live.samples)]
    np.testing.assert_allclose(np.stack([values for _, values in again]), live.samples, atol=1e-5)
    used = [emg.stamps[heard + used - 1] for used, _ in again]
    np.testing.assert_allclose(used, live.stamps, atol=1e-6)


# --- the recorder alone, with streams made here -------------------------------------------------------------------------


def wait_until(reached: Callable[[], Any], process: subprocess.Popen, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end or process.poll() is not None:
            process.kill()
            pytest.fail(f"never got there:\n{process.communicate()[0]}")
        time.sleep(0.05)


class Alone:
    """A participant's outlets and `myoloop recorder` on them."""

    process: subprocess.Popen

    def __init__(self, folder: Path, name: str, **popen: Any):
        self.folder, self.name = folder, name
        (folder / "e.yaml").write_text(f"participant: {{id: {name}}}\n")
        self.outlets = ParticipantOutlets(name, ["EMG1", "EMG2"], 1000.0, 50.0)
        self._popen = popen
        self.start()

    def start(self) -> None:
        (self.folder / "recorder.status.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", "myoloop", "recorder", "e.yaml", "--run-dir", "."]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.process = subprocess.Popen(command, cwd=self.folder, **pipes, **self._popen)
        wait_until(lambda: self.status().get("phase") == "recording", self.process)

    def status(self) -> dict[str, Any]:
        return read_status(self.folder, "recorder") or {}

    def end(self) -> str:
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=240)
        assert self.process.returncode == 0, out
        return out


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    made = Alone(tmp_path, f"alone{os.getpid()}")
    yield made
    made.outlets.close()
    if made.process.poll() is None:
        made.process.kill()


def decoder(name: str, source: str) -> pylsl.StreamOutlet:
    return pylsl.StreamOutlet(pylsl.StreamInfo(name, "Control", 5, 0, "float32", source))


RESTARTED = """
import pylsl, sys, time
out = pylsl.StreamOutlet(pylsl.StreamInfo(sys.argv[1], "Control", 5, 0, "float32", "same"))
while not out.have_consumers():
    time.sleep(0.01)
for _ in range(100):
    out.push_sample([float(sys.argv[2])] * 5)
print("sent", flush=True)
time.sleep(60)
"""


@needs_labrecorder
def test_decoders_that_come_later_and_one_that_restarts_are_recorded(alone: Alone) -> None:
    alone.outlets.emg(np.ones((20, 2), np.float32), pylsl.local_clock())
    late = decoder("my_decoder", "")  # known by its type only, and LabRecorder could not find it again
    other = decoder("somebody_prediction", "other")  # another participant's
    wait_until(lambda: "my_decoder" in alone.status()["streams"], alone.process)
    assert late.wait_for_consumers(60)
    for _ in range(30):
        late.push_sample([0.5] * 5)
        other.push_sample([0.5] * 5)
    mine = f"{alone.name}_prediction"
    for life in (1, 2):
        command = [sys.executable, "-c", RESTARTED, mine, str(life)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "sent\n"
        time.sleep(4.0)  # until they are there, however slow this machine is: nobody tells
        process.kill()
        process.communicate()
    alone.end()
    status = alone.status()
    assert status["files"] == ["session.xdf", "session-2.xdf", "session-3.xdf"], "both lives in one: the same source"
    assert "my_decoder appeared later: recorded in session-2.xdf" in status["messages"]
    counts = count_samples(alone.folder)
    assert counts["my_decoder"] == 30 and counts[mine] == 200 and "somebody_prediction" not in counts
    said = read_xdf(alone.folder).need("prediction").samples[:, 0]
    assert (np.count_nonzero(said == 1), np.count_nonzero(said == 2)) == (100, 100)


@needs_labrecorder
def test_a_recorder_that_dies_leaves_a_readable_file_and_the_next_begins_another(alone: Alone) -> None:
    def second(number: float) -> None:
        for k in range(50):
            alone.outlets.emg(np.full((20, 2), number, np.float32), pylsl.local_clock())
            alone.outlets.event(f"event {number:g} {k}")
            time.sleep(0.02)

    def written() -> int:
        try:
            return len(read_xdf(alone.folder).need("emg").stamps)
        except MyoloopError:
            return 0

    second(1.0)
    wait_until(lambda: written() > 500, alone.process)
    alone.process.kill()
    alone.process.communicate()
    first = read_xdf(alone.folder)
    assert len(first.need("emg").stamps) > 500 and "session.xdf:" in first.notes[0]
    alone.start()
    second(2.0)
    alone.end()
    emg = read_xdf(alone.folder).need("emg").samples[:, 0]
    assert np.count_nonzero(emg == 2.0) == 1000 and np.count_nonzero(emg == 1.0) == len(first.need("emg").stamps)
    assert alone.status()["files"] == ["session-2.xdf"]


@needs_labrecorder
def test_a_full_disk_is_said_once_and_what_was_written_stays(tmp_path: Path) -> None:
    def small() -> None:  # a file may not grow beyond this, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    name = f"full{os.getpid()}"
    alone = Alone(tmp_path, name, preexec_fn=small)
    status = {"phase": "running", "id": name}
    (tmp_path / "participant.status.json").write_text(json.dumps(status))
    try:
        until = time.monotonic() + 60
        while not alone.status()["messages"] and time.monotonic() < until:
            alone.outlets.emg(np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32), pylsl.local_clock())
            time.sleep(0.05)
        time.sleep(1.0)
        out = alone.end()
    finally:
        alone.outlets.close()
    assert out.count("is the disk full? The session goes on.") == 1
    assert alone.status()["stuck"] is True
    session = read_xdf(tmp_path)
    assert len(session.need("emg").stamps) > 3000 and session.notes


@pytest.mark.parametrize("reason", [None, "labrecorder is not installed"])
def test_without_labrecorder_a_session_runs_and_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str | None
) -> None:
    monkeypatch.setattr("myoloop.session.why_not", lambda: reason)
    experiment = load_experiment(REPO / "experiments" / "closed_loop.yaml", {"ros": False, "record": True})
    session = Session(experiment, tmp_path)
    assert ("recorder" in session._parts) == (session.run_dir / RECORDING).exists() == (reason is None)


@pytest.mark.parametrize(("given", "kept"), [("true", True), ("false", False), ("{xdf: false}", False), (None, True)])
def test_record_has_a_short_form_and_is_on_by_default(tmp_path: Path, given: str | None, kept: bool) -> None:
    (tmp_path / "e.yaml").write_text("name: e\n" + (f"record: {given}\n" if given else ""))
    assert load_experiment(tmp_path / "e.yaml").record.xdf is kept


@needs_labrecorder
def test_the_example_analysis_agrees_with_the_live_report(recorded: Path, tmp_path: Path) -> None:
    picture = tmp_path / "session.png"
    script = [sys.executable, str(REPO / "examples" / "analyse_xdf.py"), str(recorded / "session.xdf")]
    done = subprocess.run([*script, "--out", str(picture)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert picture.stat().st_size > 20_000
    report = json.loads((recorded / "report.json").read_text())
    mean = re.search(r"^mean ([\d.]+) %; latency ([\d.]+) ms", done.stdout, re.M)
    assert mean is not None
    assert float(mean[1]) == pytest.approx(100 * report["task"]["accuracy"], abs=0.02)
    assert float(mean[2]) == pytest.approx(report["loop"]["feedback_latency_ms"]["median"], abs=0.02)
