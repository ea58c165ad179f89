"""One live participant on loopback, seen by clients that know nothing but pylsl."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from myoloop.body.names import FINGERS, JOINTS, MUSCLES
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment
from myoloop.live.participant import LiveParticipant, StepRecord
from myoloop.streams.rowlog import read_events, read_rows

SECONDS = 5.0

CLIENT = """
import json, sys, time
from pathlib import Path
import pylsl
name, kind, sent = sys.argv[1], sys.argv[2], Path(sys.argv[3])
info = pylsl.resolve_byprop("name", f"{name}_{kind}", timeout=60)[0]
inlet = pylsl.StreamInlet(info, max_buflen=600, recover=False)  # of discharges 60,000 samples: all, if this stands still
inlet.open_stream(timeout=60)
full = inlet.info()
print("ready", flush=True)
values, stamps, end = [], [], time.time() + 200
while time.time() < end and not (sent.exists() and len(stamps) >= json.loads(sent.read_text())[kind]):
    try:
        v, t = inlet.pull_chunk(timeout=0.1, min_samples=1, max_samples=4096)
    except pylsl.util.LostError:
        break
    values += v
    stamps += t
acquisition = full.desc().child("acquisition")
print(json.dumps({
    "labels": full.get_channel_labels(), "units": full.get_channel_units(), "types": full.get_channel_types(),
    "rate": full.nominal_srate(), "type": full.type(), "source_id": full.source_id(),
    "band": [acquisition.child_value("low_hz"), acquisition.child_value("high_hz")],
    "stamps": stamps, "values": values if kind != "emg" else [v[0] for v in values],
}))
"""


def client(name: str, kind: str, sent: Path) -> subprocess.Popen:
    """A pylsl-only program that listens to one stream until it has as many samples as `sent` says, then prints all it got."""
    return subprocess.Popen([sys.executable, "-c", CLIENT, name, kind, str(sent)], stdout=subprocess.PIPE, text=True)


class Run:
    """What one live session left behind."""

    def __init__(self, folder: Path) -> None:
        experiment = Experiment.model_validate(
            {
                "duration_s": SECONDS,
                "seed": 3,
                "ros": False,
                "participant": {"id": "livetest", "wait_for_decoder_s": 0},
            }
        )
        self.folder = folder
        self.records: list[StepRecord] = []
        live = LiveParticipant(experiment, folder)
        self.samples_a_step = round(live.info.rate_hz / 50)
        live.subscribe(self.records.append)
        kinds = ("emg", "target", "kinematics", "excitation", "spikes", "events")
        sent = folder / "sent.json"
        clients = {kind: client("livetest", kind, sent) for kind in kinds}
        for process in clients.values():
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        with pytest.raises(MyoloopError, match="already on the network"):
            LiveParticipant(experiment)
        with pytest.raises(MyoloopError, match="Did you mean 'index'"):
            live.requests.perturb("indx", [0, 0, 1], 0.1)
        with pytest.raises(MyoloopError, match="expected 5 values"):
            live.requests.set_target([1, 0, 1], 1.0)
        with pytest.raises(MyoloopError, match="Did you mean 'mains_hum'"):
            live.requests.set_condition("mains_humm", 1.0)
        live.start()
        while live.running and len(self.records) < 50:
            time.sleep(0.01)
        live.requests.set_target([1, 1, 1, 1, 1], 1.5)
        live.requests.perturb("index", [0, 0, 2.0], 0.5)
        live.requests.set_condition("mains_hum", 0.5)
        while live.running:
            time.sleep(0.05)
        self.error, self.finished, self.status = live.error, live.finished, live.status()
        part = folder / "sent.part"
        part.write_text(json.dumps(self.status["sent"]))
        part.replace(sent)
        self.got: dict[str, Any] = {k: json.loads(p.communicate(timeout=240)[0]) for k, p in clients.items()}
        live.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    yield Run(tmp_path_factory.mktemp("live"))


def test_session_ends_by_itself_at_its_duration(run: Run) -> None:
    assert run.error is None and run.finished and len(run.records) == SECONDS * 50
    assert run.status["phase"] == "finished"


def test_client_gets_every_emg_sample_in_order_and_regularly_stamped(run: Run) -> None:
    sent = np.concatenate([record.chunk[:, 0] for record in run.records])
    assert len(sent) == len(run.records) * run.samples_a_step
    assert run.got["emg"]["values"] == pytest.approx(sent.tolist(), abs=1e-4)
    gaps = np.diff(run.got["emg"]["stamps"])
    events = [text for _, text in read_events(run.folder / "events.jsonl")]
    said = sum(text.startswith("clock moved") for text in events)  # a machine that stood still for 0.5 s
    assert np.sum(np.abs(gaps - 1 / 2000) > 1e-6) == said


def test_emg_metadata_says_what_an_amplifier_would(run: Run) -> None:
    emg = run.got["emg"]
    assert emg["type"] == "EMG" and emg["rate"] == 2000 and len(emg["labels"]) == 16
    assert set(emg["units"]) == {"microvolts"} and emg["source_id"] == "myoloop_livetest_emg"
    assert [float(x) for x in emg["band"]] == [20.0, 850.0]


def test_every_other_stream_has_labels_and_units(run: Run) -> None:
    expected = {
        "target": ("Target", FINGERS),
        "kinematics": ("MoCap", JOINTS),
        "excitation": ("Excitation", MUSCLES),
        "spikes": ("MotorUnits", ("muscle", "unit")),
        "events": ("Markers", ("event",)),
    }
    for kind, (stream_type, labels) in expected.items():
        got = run.got[kind]
        assert got["type"] == stream_type and tuple(got["labels"]) == labels and all(got["units"])


def test_control_rate_streams_carry_each_step_at_the_time_of_its_newest_emg_sample(run: Run) -> None:
    times = [record.lsl_time for record in run.records]
    newest = run.got["emg"]["stamps"][run.samples_a_step - 1 :: run.samples_a_step]
    for kind in ("target", "kinematics", "excitation"):
        assert run.got[kind]["stamps"] == pytest.approx(times, abs=1e-6)
    assert newest == pytest.approx(times, abs=1e-6)
    assert np.allclose(run.got["kinematics"]["values"], [r.joints_deg for r in run.records], atol=1e-3)


def test_discharges_lie_inside_the_emg_they_make(run: Run) -> None:
    stamps, values = np.array(run.got["spikes"]["stamps"]), np.array(run.got["spikes"]["values"])
    assert len(stamps) > 1000 and np.all(np.diff(stamps) >= -1e-9)
    first, last = run.got["emg"]["stamps"][0], run.got["emg"]["stamps"][-1]
    assert stamps[0] >= first - 1e-6 and stamps[-1] <= last + 1e-6
    assert values[:, 0].min() >= 0 and values[:, 0].max() < 26


def test_set_target_replaces_the_reference_for_its_time(run: Run) -> None:
    held = [k for k, record in enumerate(run.records) if np.all(record.target == 1)]
    assert 60 <= len(held) <= 130, "1.5 s of 50 steps a second, and what the reference asks for by itself"
    fingers = run.records[held[-1]].joints_deg
    bent = [fingers[JOINTS.index(f"pm{i}_flexion")] for i in (2, 3, 4, 5)]
    assert min(bent) > 35, f"fingers asked to flex end flexed: {bent}"


def test_events_tell_what_happened_in_order(run: Run) -> None:
    events = [text for _, text in read_events(run.folder / "events.jsonl")]
    assert [v[0] for v in run.got["events"]["values"]] == events
    told = [e for e in events if not e.startswith("target 0") and not e.startswith("target 1")]
    assert told[0] == "open loop" and told[1] == "session start" and told[-1] == "session end"
    assert {"target set 11111", "perturbation index 0 0 2", "condition mains_hum 0.5"} <= set(told)


def test_open_loop_is_said(run: Run) -> None:
    assert any("open loop" in message for message in json.loads(
        (run.folder / "participant.status.json").read_text())["messages"])  # fmt: skip
    assert np.isnan(run.records[-1].accuracy)


def test_step_log_holds_every_step(run: Run) -> None:
    rows = read_rows(run.folder / "steps")
    assert len(rows) == len(run.records)
    assert np.allclose(rows["excitation"], [r.excitation for r in run.records])
    assert np.all(rows["step_ms"] > 0)
