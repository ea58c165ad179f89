"""Films: drawn from a run folder, in step with it, without a screen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from myoloop.errors import MyoloopError
from myoloop.live.record import STEP_COLUMNS
from myoloop.streams.rowlog import RowLog
from myoloop.view.colours import FLEXED
from myoloop.view.session_data import STRETCH, read_session, without_pauses

STEPS = 100


def can_draw() -> bool:
    code = "from myoloop.view.offscreen import prepare; prepare()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds: open hand, decoder silent; then a fist that the decoder sees, with EMG."""
    folder = tmp_path_factory.mktemp("filmed")
    log = RowLog(folder / "steps", STEP_COLUMNS, print)
    fist = np.zeros(23, np.float32)
    fist[[7, 9, 10, 11, 13, 14, 15, 17, 18, 19, 21, 22]] = 60.0
    for k in range(STEPS):
        closed = float(k >= STEPS // 2)
        log.append(
            500.0 + 0.02 * k, target=np.full(5, closed), prediction=np.full(5, 0.9 * closed), joints_deg=closed * fist,
            wanted_deg=closed * fist, excitation=np.full(39, 0.3 * closed),
        )  # fmt: skip
    log.close()
    time = 500.0 + np.arange(2 * 2000) / 2000
    emg = np.random.default_rng(0).normal(0, 40, (len(time), 8)) * (time[:, None] > 501)
    np.savez(folder / STRETCH, emg_uv=emg.astype(np.float32), time=time)
    return folder


def render(run_dir: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "myoloop", "render", str(run_dir), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, timeout=200)


def test_a_session_is_read_as_it_was_logged(run_dir: Path) -> None:
    data = read_session(run_dir)
    assert data.time[0] == 0 and data.time[-1] == pytest.approx(0.02 * (STEPS - 1))
    assert data.joints_deg.shape == (STEPS, 23) and data.emg_uv.shape == (4000, 8)
    assert data.emg_time[0] == 0.0
    with pytest.raises(MyoloopError, match="steps"):
        read_session(run_dir / "nothing")


def test_pauses_are_left_out_of_films() -> None:
    steps = 100.0 + 0.02 * np.arange(100)
    steps[60:] += 30.0
    samples = (
        steps[:, None] + np.array([-0.015, -0.01, -0.005, 0.0])
    ).ravel()  # what each step made, the newest at its stamp
    np.testing.assert_allclose(without_pauses(steps, steps), 0.02 * np.arange(100), atol=1e-9)
    np.testing.assert_allclose(np.diff(without_pauses(steps, samples)), 0.005, atol=1e-9)


def green(picture: Image.Image) -> int:
    """How many pixels of the upper part, where the hand is, are as green as a flexed tip."""
    part = np.asarray(picture.convert("RGB"), float)[: round(0.58 * picture.height), : round(0.7 * picture.width)]
    hue = part / np.maximum(part.sum(axis=2, keepdims=True), 1)
    wanted = np.array(FLEXED) / sum(FLEXED)
    return int(np.sum((np.abs(hue - wanted).max(axis=2) < 0.06) & (part.sum(axis=2) > 60)))


def test_films_follow_the_session(run_dir: Path, tmp_path: Path) -> None:
    if not can_draw():
        pytest.skip("nothing can be drawn off-screen here: libegl1 or libgl1-mesa-dri is missing")
    gif, mp4 = tmp_path / "film.gif", tmp_path / "film.mp4"
    done = render(run_dir, "--out", str(gif), "--start", "0.5", "--duration", "1", "--size", "320", "240")
    assert done.returncode == 0, done.stdout + done.stderr
    with Image.open(gif) as film:
        assert film.size == (320, 240) and film.n_frames == 17
        assert film.info["duration"] == 60
        film.seek(2)
        before = green(film)
        film.seek(16)
        after = green(film)
    assert before < 5 < 25 < after, "tips turn green when the decoder says flexed"
    done = render(run_dir, "--out", str(mp4), "--start", "1.5", "--size", "320", "240")
    assert done.returncode == 0, done.stdout + done.stderr
    import av

    with av.open(str(mp4)) as container:
        pictures = list(container.decode(video=0))
    assert len(pictures) == 12 and (pictures[0].width, pictures[0].height) == (320, 240)
    assert green(pictures[-1].to_image()) > 25


def test_what_cannot_be_drawn_is_said_in_one_line(run_dir: Path, tmp_path: Path) -> None:
    done = render(run_dir, "--out", str(tmp_path / "film.gif"), MUJOCO_GL="abacus")
    assert done.returncode == 2 and "libegl1" in done.stderr and "Traceback" not in done.stderr
