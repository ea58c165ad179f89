"""Benchmarks end with one JSON line that can be compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parent.parent


def test_realtime_ends_with_the_promised_figures() -> None:
    command = [sys.executable, "benchmarks/realtime.py", "--steps", "5", "--most", "2"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result["stage_ms"]) == {"policy", "emg", "body", "step"} and min(result["stage_ms"].values()) > 0
    assert result["real_time_factor"] > 0 and result["participants_per_core"] in (1, 2)
