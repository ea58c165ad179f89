"""The benchmark of paths: a missing environment is named, and a session's figures are those of its report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).parent.parent


def paths(folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """The result, and all that was printed before it."""
    command = [sys.executable, str(REPO / "benchmarks" / "paths.py"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    *said, last = done.stdout.splitlines()
    return json.loads(last), "\n".join(said)


def test_path_without_its_environment_is_left_out_and_says_what_makes_it(tmp_path: Path) -> None:
    result, said = paths(tmp_path, "--only", "LSL/mne-lsl", "Trigno/LibEMG/UDP")
    assert [row["path"] for row in result["rows"]] == ["LSL/mne-lsl", "Trigno/LibEMG/UDP"]
    for row, example in zip(result["rows"], ("mne_lsl", "libemg"), strict=True):
        assert row["left_out"] == f"examples/{example}/.venv is missing: make peers makes it"
        assert f"{row['path']} left out: {row['left_out']}" in said


def test_path_is_measured_as_its_report_says(tmp_path: Path) -> None:
    out, other = tmp_path / "paths.json", {"path": "LSL/ezmsg", "left_out": "measured before"}
    out.write_text(json.dumps({"rows": [other, {"path": "LSL/ONNX", "left_out": "to be replaced"}]}))
    result, said = paths(
        REPO, "--only", "LSL/ONNX", "--seconds", "6", "--runs", str(tmp_path / "runs"), "--out", str(out)
    )
    row, kept = result["rows"]
    assert kept == other, "what is known of paths that were not measured again stays"
    assert "left_out" not in row, row
    report = json.loads((tmp_path / "runs" / "latest" / "report.json").read_text())
    assert json.loads(out.read_text()) == result
    assert row["accuracy"] == report["task"]["accuracy"] > 0.5
    assert row["balanced_accuracy"] == report["task"]["gestures"]["balanced_accuracy"]
    latency = report["loop"]["feedback_latency_ms"]
    assert [row["median_ms"], row["p95_ms"], row["p99_ms"]] == [latency["median"], latency["p95"], latency["p99"]]
    assert row["samples_sent"] == 12000 and row["samples_lost"] == 0
    assert "LSL/ONNX" in said and f"{latency['median']:.1f}" in said
