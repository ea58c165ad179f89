"""The table of training speeds: rows, joining, drawing, and one row that is really measured."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from myoloop.errors import MyoloopError

PROGRAM = Path(__file__).parent.parent / "benchmarks" / "throughput.py"
spec = importlib.util.spec_from_file_location("throughput", PROGRAM)
throughput = importlib.util.module_from_spec(spec)
sys.modules["throughput"] = throughput  # dataclasses look their module up
spec.loader.exec_module(throughput)


def row(engine: str, environments: int, rate: float, device: str = "cpu", emg: bool = False) -> dict:
    figures = {"steps_per_s": rate, "physics_share": 0.5, "start_s": 1.0, "memory_mb": 100}
    return {"engine": engine, "environments": environments, "emg": emg, "device": device} | figures


def test_every_combination_is_asked_for_once() -> None:
    rows = throughput.asked(throughput.Config(engines=("mjx", "warp"), environments=(1, 64, 8192), emg="both"))
    assert len(rows) == 12 == len({json.dumps(one) for one in rows})
    assert {one["emg"] for one in throughput.asked(throughput.Config(emg="off"))} == {False}


def test_new_rows_replace_earlier_ones_of_the_same_device(tmp_path: Path) -> None:
    failed = {"engine": "warp", "environments": 8, "emg": False, "error": "out of memory"}
    before = [row("mjx", 64, 1.0), row("mjx", 64, 2.0, device="H200"), row("mjx", 8, 3.0), failed]
    earlier = tmp_path / "before.json"
    earlier.write_text("some talk\n" + json.dumps({"rows": before}))
    rows = throughput.joined([row("mjx", 64, 9.0)], [earlier])
    assert [(one["device"], one["environments"], one["steps_per_s"]) for one in rows] == [
        ("H200", 64, 2.0),
        ("cpu", 8, 3.0),
        ("cpu", 64, 9.0),
    ]
    earlier.write_text("no table")
    with pytest.raises(MyoloopError, match=r"before\.json"):
        throughput.joined([], [earlier])


def test_the_plot_has_a_line_for_each_engine_device_and_emg(tmp_path: Path) -> None:
    rows = [row("mjx", n, 10.0 * n) for n in (1, 8)] + [row("mjx", n, 5.0 * n, emg=True) for n in (1, 8)]
    rows += [row("mujoco", 8, 70.0), {"engine": "warp", "environments": 8, "emg": False, "error": "not installed"}]
    throughput.plot(rows, tmp_path / "deep" / "plot.png")
    assert (tmp_path / "deep" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_row_that_fails_says_why_and_a_small_one_is_measured() -> None:
    options = ["--environments", "4", "--unroll", "4", "--emg", "off", "--seconds", "0"]
    command = [sys.executable, str(PROGRAM), "--engines", "mujco", "mujoco", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    rows = {one["engine"]: one for one in json.loads(done.stdout.splitlines()[-1])["rows"]}
    assert "Did you mean 'mujoco'" in rows["mujco"]["error"]
    measured = rows["mujoco"]
    assert measured["steps_per_s"] > 0 and 0 < measured["physics_share"] < 1 and measured["memory_mb"] > 0
    assert set(measured) == set(row("mujoco", 4, 1.0))
