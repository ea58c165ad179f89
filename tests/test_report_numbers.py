"""The report's arithmetic, against numbers worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment, save_experiment
from myoloop.live.record import STEP_COLUMNS
from myoloop.report import measure, write_report
from myoloop.streams.rowlog import EventLog, RowLog, read_events, read_rows
from myoloop.task.trials import quantiles

WITNESS = {
    "samples_received": 3960, "missing": 0, "rate_hz": 2000.0, "labels": ["a", "b"], "rms_uv": [1.0, 2.0],
    "median_frequency_hz": [90.0, 80.0], "decoder_restarts": 1, "failure": None,
}  # fmt: skip


def run_folder(folder: Path, steps: int = 100) -> Path:
    """A run folder as a session would leave it: the first 10 steps without prediction, then thumb always wrong."""
    save_experiment(Experiment(), folder / "config.yaml")  # type: ignore[call-arg]
    log = RowLog(folder / "steps", STEP_COLUMNS, print)
    target = np.array([1, 0, 1, 0, 1.0])
    for k in range(steps):
        there = k >= 10
        log.append(
            100 + 0.02 * k, started=0.001, policy_emg_ms=2.0, push_ms=0.1, body_ms=0.5, step_ms=3.0, target=target,
            reference=target, prediction=np.array([0.2, 0.1, 0.9, 0.2, 0.7]) if there else 0.5,
            prediction_age_s=0.02 if there else np.nan, stale=not there,
            feedback_latency_ms=20.0 if there else np.nan, answer_ms=1.0 if there else np.nan, waited_ms=0.0,
            joints_deg=10.0, wanted_deg=12.0, excitation=0.5,
        )  # fmt: skip
    log.close()
    status = {
        "phase": "finished",
        "emg_samples_sent": 4000,
        "overruns": 3,
        "predictions": 90,
        "messages": ["hello"],
        "stale_steps": 10,
    }
    (folder / "participant.status.json").write_text(json.dumps(status))
    return folder


def test_report_has_the_promised_keys_and_the_right_numbers(tmp_path: Path) -> None:
    report = measure(run_folder(tmp_path), WITNESS)
    assert report["duration_s"] == 2.0
    assert report["emg"]["samples_lost"] == 40
    assert report["loop"]["real_time_factor"] == 6.67  # a control step of 20 ms in 3 ms
    assert report["loop"]["overruns"] == 3 and report["loop"]["steps"] == 100
    assert report["loop"]["feedback_latency_ms"] == {"median": 20.0, "p95": 20.0, "p99": 20.0, "max": 20.0}
    assert report["task"]["accuracy"] == 0.8, "steps before the first prediction do not count"
    assert report["task"]["accuracy_per_finger"]["thumb"] == 0.0
    assert report["effort"] == 0.25
    assert report["decoder"]["restarts"] == 1 and report["decoder"]["stale_steps"] == 10
    assert set(report["environment"]) >= {"engine", "device", "versions", "seed"}


def test_report_of_a_folder_without_steps_is_still_written(tmp_path: Path) -> None:
    save_experiment(Experiment(), tmp_path / "config.yaml")  # type: ignore[call-arg]
    report = measure(tmp_path, {**WITNESS, "failure": "the participant ended with code 2"})
    assert report["duration_s"] == 0 and report["failure"]
    json.dumps(report, allow_nan=False)


def test_page_shows_the_figures_and_needs_nothing_from_outside(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stretch = rng.normal(size=(4000, 2)).astype(np.float32), 100 + np.arange(4000) / 2000
    write_report(run_folder(tmp_path), WITNESS, stretch)
    html = (tmp_path / "report.html").read_text()
    assert "80.0 %" in html and "http" not in html.replace("http-equiv", "")
    assert html.count("data:image/png;base64,") == 4


def test_full_disk_while_reporting_is_said_and_keeps_the_logs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = run_folder(tmp_path)
    (folder / "report.json.part").symlink_to("/dev/full")
    with pytest.raises(MyoloopError, match=r"could not be written: No space left.*Accuracy was 0\.8000"):
        write_report(folder, WITNESS, (np.zeros((0, 0)), np.zeros(0)))
    assert "80.0 %" in capsys.readouterr().out, "the figures are printed before they are written"
    assert len(read_rows(folder / "steps")) == 100


def test_session_whose_participant_never_said_its_last_word_is_marked(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    assert measure(folder, WITNESS)["failure"] is None
    status = json.loads((folder / "participant.status.json").read_text())
    (folder / "participant.status.json").write_text(json.dumps({**status, "phase": "running"}))
    assert "last status is 'running'" in measure(folder, WITNESS)["failure"]


def test_quantiles_leave_out_what_is_not_a_number() -> None:
    assert quantiles(np.array([np.nan, 1.0, 3.0])) == {"median": 2.0, "p95": 2.9, "p99": 2.98, "max": 3.0}
    assert quantiles(np.array([np.nan])) is None


def test_half_written_last_row_is_left_out(tmp_path: Path) -> None:
    log = RowLog(tmp_path / "x", [("value", 2)], print)
    log.append(1.0, value=[1, 2])
    log.append(2.0, value=[3, 4])
    log.close()
    raw = (tmp_path / "x.rows").read_bytes()
    (tmp_path / "x.rows").write_bytes(raw[:-3])
    rows = read_rows(tmp_path / "x")
    assert len(rows) == 1 and rows["value"].tolist() == [[1, 2]]


def test_full_disk_stops_the_log_once_and_not_its_caller(tmp_path: Path) -> None:
    (tmp_path / "x.rows").symlink_to("/dev/full")
    said: list[str] = []
    log = RowLog(tmp_path / "x", [("value", 1)], said.append)
    for k in range(3):
        log.append(float(k), value=k)
    assert log.rows == 0 and len(said) == 1 and "No space left" in said[0]


def test_events_read_back_in_order(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "e.jsonl", print)
    log.append(1.5, "decoder lost")
    log.append(2.5, "decoder back")
    log.close()
    with (tmp_path / "e.jsonl").open("a") as file:
        file.write('{"time": 3.0, "ev')
    assert read_events(tmp_path / "e.jsonl") == [(1.5, "decoder lost"), (2.5, "decoder back")]


def test_config_in_the_run_folder_is_resolved(tmp_path: Path) -> None:
    run_folder(tmp_path)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["participant"]["reference"]["kind"] == "discrete"


def test_course_of_a_session_tells_windows_changes_and_learning(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, steps=1600)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["participant"]["adapt"] = {"learner": "internal_model"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    status = json.loads((folder / "participant.status.json").read_text())
    learner = {"phase": "lost", "swaps": 2, "dropped": 0, "swap_ms": 0.1}
    (folder / "participant.status.json").write_text(json.dumps({**status, "learner": learner}))
    log = EventLog(folder / "events.jsonl", print)
    log.append(100.0, "session start")
    log.append(112.5, "condition rotation 0.5")
    log.close()
    (folder / "learning.csv").write_text(
        "time_s,stretches,model_loss,wanted_loss,strayed,paired,unheard,forgotten,compute_s\n"
        "0.96,1,0.5,0.6,0,48,0,0,0.2\n1.92,2,nan,0.6,0,96,0,0,0.2\n2.88,3,0.25,0.4,0.001,140,4,1,0.4\n3.84,4,0.2"
    )
    report = measure(folder, WITNESS)
    windows = report["course"]
    assert windows["window_s"] == 10 and windows["accuracy"] == [0.8, 0.8, 0.8], "32 s hold three windows"
    assert windows["effort"] == [0.25] * 3 and windows["joint_error_deg"] == [2.0] * 3
    assert report["changes"] == [{"time_s": 12.5, "condition": "rotation", "strength": 0.5}]
    told = report["adaptation"]
    assert told["lost"] and told["swaps"] == 2 and told["stretches"] == 3 and told["unheard"] == 4
    assert told["curve"] == {"time_s": [0.96, 2.88], "model_loss": [0.5, 0.25], "wanted_loss": [0.6, 0.4]}
    write_report(folder, WITNESS, (np.zeros((0, 0), np.float32), np.zeros(0)))
    html = (folder / "report.html").read_text()
    assert "The course of the session" in html and "the learner was lost" in html


def test_session_too_short_for_windows_has_no_course(tmp_path: Path) -> None:
    report = measure(run_folder(tmp_path), WITNESS)
    assert report["course"] is None and report["adaptation"] is None and report["changes"] == []
