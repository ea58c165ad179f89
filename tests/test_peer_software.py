"""Somebody else's toolbox, unchanged and in an environment of its own, calibrates on prompts and drives the loop."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import yaml

from myoloop.streams.rowlog import read_rows

REPO = Path(__file__).parent.parent
EXAMPLE = REPO / "examples" / "mne_lsl"
GESTURES = {"rest": (0, 0, 0, 0, 0), "fist": (1, 1, 1, 1, 1), "thumb_up": (0, 1, 1, 1, 1)}
OFFLINE = ("Failed to establish a new connection", "NewConnectionError", "NameResolutionError", "ProxyError",
           "Network is unreachable", "Connection refused", "ConnectTimeoutError", "Connection timed out")  # fmt: skip
"""What pip says when it cannot reach a registry, in some of the words of urllib3."""


@pytest.fixture(scope="module")
def python() -> Path:
    """The Python of the example's environment, made once for each list of packages; `make clean` removes it."""
    packages = EXAMPLE / "requirements.txt"
    mark = hashlib.sha256(packages.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = REPO / ".cache" / "peers" / f"mne_lsl-{mark}"
    python, complete = folder / "bin" / "python", folder / "complete"
    if complete.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    install = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--retries", "2"]
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([*install, "-r", packages], capture_output=True, text=True, env=env)
    said = done.stdout + done.stderr
    if done.returncode and any(words in said for words in OFFLINE):
        pytest.skip(f"pip reaches no package registry: {said.strip().splitlines()[-1]}")
    assert done.returncode == 0, said
    complete.touch()
    return python


@pytest.mark.timeout(900)  # the packages may have to come over a slow line
def test_mne_lsl_calibrates_answers_and_stamps_what_it_used(python: Path, tmp_path: Path) -> None:
    experiment = yaml.safe_load((REPO / "experiments" / "mne_lsl.yaml").read_text())
    experiment |= {"ros": False, "duration_s": 30}
    experiment["participant"]["id"] = "peer"
    experiment["participant"]["reference"] |= {
        "hold_s": 1.6, "rest_s": 1.6, "gestures": {name: list(bits) for name, bits in GESTURES.items()}
    }  # fmt: skip
    experiment["decoder"]["command"] = [
        str(python), str(EXAMPLE / "decode.py"), "--participant", "peer", "--repetitions", "2", "--until", "1.5",
        "--gestures", *(f"{name}={''.join(map(str, bits))}" for name, bits in GESTURES.items()),
    ]  # fmt: skip
    (tmp_path / "peer.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))  # the first gesture is the rest
    command = [sys.executable, "-m", "myoloop", "run", "peer.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "runs" / "latest"
    log = (run / "logs" / "software.log").read_text()
    report = json.loads((run / "report.json").read_text())

    assert "rest 2/2" in log and "fist 2/2" in log and "thumb_up 2/2" in log, log
    assert log.index("thumb_up 2/2") < log.index("answering") < log.index("told to end"), log
    assert "Traceback" not in log, log

    assert report["decoder"]["predictions"] > 200, "it answers several times a second"
    assert report["decoder"]["refused"] == 0 and report["emg"]["samples_lost"] == 0
    assert report["decoder"]["restamped"] == 0, "its stamps are LSL time"

    rows = read_rows(run / "steps")
    first = rows[np.isfinite(rows["feedback_latency_ms"])]
    assert first["feedback_latency_ms"].min() > 19.9, "no answer to a step's EMG can be used before the next step"
    used = first["time"] + first["started"] - first["prediction_age_s"]
    nearest = rows["time"][np.argmin(np.abs(rows["time"] - used[:, None]), axis=1)]
    samples = (used - nearest) * report["emg"]["rate_hz"]
    assert np.abs(samples - np.round(samples)).max() < 0.1, "every stamp is that of an EMG sample"

    assert report["task"]["gestures"]["balanced_accuracy"] > 0.55, "chance is a third"
    assert report["task"]["accuracy"] > 0.7
