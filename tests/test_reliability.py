"""What keeps a failure small, each piece alone; the whole is benchmarks/fault_matrix.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xdf_samples import stream, write_xdf

from myoloop.errors import MyoloopError
from myoloop.experiment import load_experiment
from myoloop.live.adaptation import unusable
from myoloop.live.board import MOST, RECORDING, Board, read_status, steps_over
from myoloop.live.recorder import has_room, refuse_second
from myoloop.report import rewrite_report
from myoloop.session import Session
from myoloop.streams.witness import median_frequency
from myoloop.streams.xdf import read_xdf

REPO = Path(__file__).parent.parent
sys.path.insert(0, str(REPO / "benchmarks"))

import fault_matrix  # noqa: E402
import soak  # noqa: E402
from fault_bench import Check  # noqa: E402
from fault_cells import CASES, FAULTS, PARTS, SENSELESS  # noqa: E402


def test_a_policy_that_does_not_fit_or_is_not_finite_is_not_taken_over() -> None:
    like = {"['a']": (2, 3), "['b']": (3,)}
    good: dict[str, Any] = {"a": np.zeros((2, 3)), "b": np.zeros(3)}
    assert unusable(good, like) is None
    assert "'['a']' has shape (3, 3), expected (2, 3)" in str(unusable(good | {"a": np.zeros((3, 3))}, like))
    assert "expected None" in str(unusable(good | {"c": np.zeros(1)}, like))
    assert "has shape None" in str(unusable({"a": np.zeros((2, 3))}, like))
    for bad in (np.nan, np.inf):
        assert "NaN or infinity" in str(unusable(good | {"b": np.array([0.0, bad, 0.0])}, like))


def test_a_second_recorder_is_refused_as_long_as_the_first_is_alive(tmp_path: Path) -> None:
    refuse_second(tmp_path)
    first = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "recorder"])
    status = {"pid": first.pid, "phase": "recording"}
    try:
        (tmp_path / "recorder.status.json").write_text(json.dumps(status))
        with pytest.raises(MyoloopError, match=f"recorded already, by process {first.pid}"):
            refuse_second(tmp_path)
        (tmp_path / "recorder.status.json").write_text(json.dumps(status | {"phase": "closed"}))
        refuse_second(tmp_path)
        (tmp_path / "recorder.status.json").write_text(json.dumps(status | {"pid": os.getpid() + 10**7}))
        refuse_second(tmp_path)
    finally:
        first.kill()
        first.wait()


def test_room_is_told_from_a_limit_on_files(tmp_path: Path) -> None:
    assert has_room(tmp_path, 1000) and not has_room(tmp_path / "absent", 1000)
    code = "import sys, resource; from pathlib import Path; from myoloop.live.recorder import has_room; "
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); "
    code += "print(has_room(Path(sys.argv[1]), 1000), has_room(Path(sys.argv[1]), 6000))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n" and not list(tmp_path.iterdir())


def test_a_status_keeps_only_so_many_messages(tmp_path: Path) -> None:
    board = Board(tmp_path, "decoder", dict)
    for number in range(2 * MOST):
        board.say(f"message {number}")
    board.write()
    kept = (read_status(tmp_path, "decoder") or {})["messages"]
    assert len(kept) == MOST + 1 and kept[MOST - 1] == f"message {MOST - 1}" and "log only" in kept[-1]


def test_a_status_that_cannot_be_written_leaves_no_part_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(tmp_path, "decoder", dict)

    def full(self: Path, *_: Any, **__: Any) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    board.write()
    board.write()
    assert not list(tmp_path.iterdir()) and board.messages == [
        "decoder.status.json cannot be written: No space left on device"
    ]


@pytest.mark.parametrize(("phase", "waits"), [("running", False), ("finished", True), ("stopped", True)])
def test_a_decoder_keeps_its_stream_for_the_recorder_only_when_the_session_ends(
    tmp_path: Path, phase: str, waits: bool
) -> None:
    assert not steps_over(None) and not steps_over(tmp_path)
    (tmp_path / "participant.status.json").write_text(json.dumps({"phase": phase}))
    assert steps_over(tmp_path) is waits


def test_the_report_is_about_what_ran_also_if_its_configuration_was_changed(tmp_path: Path) -> None:
    experiment = load_experiment(REPO / "experiments" / "closed_loop.yaml", {"ros": False, "record": False})
    session = Session(experiment, tmp_path)
    config = session.run_dir / "config.yaml"
    whole = config.read_text()
    config.write_text("name: [broken\n")
    session._keep_config()
    assert config.read_text() == whole and not (session.run_dir / RECORDING).exists()


@pytest.mark.parametrize("text", ["name: [broken\n", "5\n", "duration_s: -3\n", "participant: 7\n"])
def test_a_broken_configuration_is_named_by_the_report(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(MyoloopError, match="is not the configuration that a session wrote"):
        rewrite_report(tmp_path)


def test_figures_of_emg_with_nan_are_numbers() -> None:
    emg = np.random.default_rng(0).normal(size=(4000, 3))
    emg[100:200, 1], emg[:, 2] = np.nan, np.inf
    assert np.all(np.isfinite(median_frequency(emg, 1000.0)))


def test_answers_of_another_width_are_left_out_of_a_recording_and_said(tmp_path: Path) -> None:
    emg = np.ones((10, 2), np.float32)
    times = np.arange(10.0).tolist()
    write_xdf(
        tmp_path / "session.xdf",
        stream(1, "p_emg", "EMG", 10, emg, times),
        stream(2, "p_prediction", "Control", 0, np.ones((8, 4), np.float32), times[:8]),
        stream(3, "p_prediction", "Control", 0, np.full((2, 5), 0.5, np.float32), times[8:]),
    )
    session = read_xdf(tmp_path)
    assert session.need("prediction").samples.tolist() == [[0.5] * 5] * 2
    assert session.notes == ("8 samples of 'p_prediction' with 4 channels are left out: the others have 5",)


TAKEN = """
import sys
from myoloop.errors import MyoloopError
from myoloop.streams.outlets import ParticipantOutlets
made = ParticipantOutlets("crowded", ["a"], 1000.0, 50.0)
try:
    from myoloop.streams.outlets import refuse_unfound
    refuse_unfound([outlet.get_info() for outlet in made._open.values()], wait_s=float(sys.argv[1]))
    print("found")
except MyoloopError as error:
    print(error)
"""


@pytest.mark.parametrize(("ports", "said"), [(200, "found"), (3, "cannot be found on this machine")])
def test_streams_beyond_the_port_range_are_refused(tmp_path: Path, ports: int, said: str) -> None:
    config = tmp_path / "lsl.cfg"
    base = 13000 + os.getpid() % 2000
    lab = f"[lab]\nKnownPeers = {{127.0.0.1}}\nSessionID = crowded{os.getpid()}\n[multicast]\nResolveScope = machine\n"
    config.write_text(f"{lab}[ports]\nBasePort = {base}\nPortRange = {ports}\nIPv6 = disable\n[log]\nlevel = -3\n")
    env = {**os.environ, "LSLAPICFG": str(config)}
    wait = "60" if said == "found" else "1.5"
    done = subprocess.run([sys.executable, "-c", TAKEN, wait], capture_output=True, text=True, env=env, timeout=120)
    assert said in done.stdout, done.stdout + done.stderr


# --- the fault matrix and the soak as programs ----------------------------------------------------------------------------


def test_every_cell_of_the_matrix_is_run_or_says_why_not() -> None:
    run = [(case.fault, part) for case in CASES for part in case.expected]
    blank = [(cell["fault"], cell["part"]) for cell in fault_matrix.blanks()]
    assert len(run) == len(set(run)) and not set(run) & set(blank)
    assert {*run, *blank} == {(fault, part) for fault in FAULTS for part in PARTS}
    assert all(len(text) > 15 for case in CASES for text in case.expected.values())
    assert all(len(why) > 8 for why in SENSELESS.values())


def test_a_cell_passes_only_if_all_is_as_expected() -> None:
    assert fault_matrix.judged([Check(True, "code 0"), Check(True, "")]) == {"seen": "code 0", "passed": True}
    assert fault_matrix.judged([Check(True, "code 0"), Check(False, "late")])["passed"] is False
    assert fault_matrix.judged([Check(True, "code 0"), Check(False, "late")])["seen"].startswith("FAILED: late")
    assert fault_matrix.judged([])["passed"] is False


def test_cells_that_were_not_run_again_are_kept_and_the_table_goes_between_its_marks(tmp_path: Path) -> None:
    case = CASES[0]
    part = next(iter(case.expected))
    old = [
        {"fault": c.fault, "part": p, "expected": "", "seen": "before", "passed": True}
        for c in CASES
        for p in c.expected
    ]
    new = {"fault": case.fault, "part": part, "expected": "", "seen": "now", "passed": False}
    cells = fault_matrix.merged(old, [new])
    seen = {(c["fault"], c["part"]): c["seen"] for c in cells}
    assert (
        seen.pop((case.fault, part)) == "now" and "before" in seen.values() and len(cells) == len(FAULTS) * len(PARTS)
    )
    page = tmp_path / "page.md"
    page.write_text(f"begin\n{fault_matrix.BEGIN}\nold table\n{fault_matrix.END}\nend\n")
    told = {"cells": cells, "date": "today", "device": "a chip", "cores": 2, "at_once": 1, "load_average": [1.0]}
    fault_matrix.write_page(page, fault_matrix.as_markdown(told))
    text = page.read_text()
    assert text.startswith("begin\n") and text.endswith("end\n") and "old table" not in text and "**no**" in text


def test_soak_judges_losses_lateness_latency_and_growth() -> None:
    steady = {"memory_mb": [100.0, 100.5], "memory_growth": 0.005, "threads": [9, 9], "files": [30, 30]}
    good: dict[str, Any] = {
        "failure": None, "samples_lost": 0, "recorded_lost": 0, "overrun_share": 0.001, "feedback_latency_ms": {"p99": 30.0},
        "processes": {"participant": steady},
    }  # fmt: skip
    assert soak.judge(good) == []
    grown = {"participant": steady | {"memory_mb": [100.0, 103.0], "memory_growth": 0.03, "files": [30, 33]}}
    assert soak.judge(good | {"processes": grown}) == [
        "participant: memory from 100 to 103 MB",
        "participant: files 30 -> 33",
    ]
    for bad in (
        {"samples_lost": None},
        {"recorded_lost": 3},
        {"overrun_share": 0.02},
        {"feedback_latency_ms": None},
        {"failure": "x"},
    ):
        assert len(soak.judge(good | bad)) == 1, bad
