"""Datasets as participants make them: what is recorded, from which seeds, and what a kill leaves."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tyro
from dataset_samples import QUICK

from myoloop.body.model import load_hand
from myoloop.body.mujoco_engine import MujocoEngine
from myoloop.errors import MyoloopError
from myoloop.learn.collect import play
from myoloop.learn.dataset import load_dataset, splits
from myoloop.learn.dataset_file import FILE_ATTRIBUTES, LAYOUT, RECORDING_ATTRIBUTES, ShardWriter
from myoloop.learn.dataset_plan import DatasetConfig, figures, participant_config, plan, reference_config
from myoloop.learn.dataset_record import batch_discharges, record_dataset
from myoloop.participant import Participants
from myoloop.task.reference import flexion, make_reference

REPO = Path(__file__).parent.parent
CONFIG = QUICK
SHARDS = plan(CONFIG)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets") / "whole"
    record_dataset(folder, CONFIG, threads=1)
    return folder


def contents(path: Path) -> dict[str, bytes]:
    """Bytes of every array and every attribute but the maker's."""
    found: dict[str, bytes] = {}
    with h5py.File(path) as file:
        for group in file.values():
            for name in LAYOUT:
                found[f"{group.name}/{name}"] = group[name][:].tobytes()
            for name, value in group.attrs.items():
                found[f"{group.name}:{name}"] = str(value).encode()
    return found


def test_a_recording_is_what_its_participants_did(recorded: Path) -> None:
    number, shard = next(
        (n, s) for n, s in enumerate(SHARDS) if len({tuple(r.conditions.items()) for r in s.recordings}) > 1
    )
    people = Participants(participant_config(CONFIG, shard), len(shard.recordings), threads=1)
    with h5py.File(recorded / f"shard-{number:04d}.h5") as file:
        for n, planned in enumerate(shard.recordings):
            people.reset([r.noise_seed for r in shard.recordings])
            people.set_condition("mains_hum", planned.conditions.get("mains_hum", 0.0))
            played, fired = [], []
            for done in play(people, CONFIG.steps):
                played.append(done)
                fired.append(people.discharges(done.act, n))
                own = batch_discharges(people.emg_params, done.act.spikes)[n]
                first = np.searchsorted(np.asarray(people.emg_params.muscle), own.muscle)
                np.testing.assert_array_equal(own.unit + first, fired[-1].unit)
            expected = {
                "emg": np.concatenate([p.act.chunk[n] for p in played]),
                "labels": [p.target[n] for p in played],
                "flexion": [p.flexion[n] for p in played],
                "angles_deg": np.rad2deg([p.body.qpos[n] for p in played]),
                "excitation": [p.act.excitation[n] for p in played],
                "spikes_muscle": np.concatenate([f.muscle for f in fired]),
                "spikes_sample": np.concatenate([f.sample for f in fired]),
            }
            group = file[f"recording-{n:03d}"]
            assert len(group["spikes_sample"]) > 100 and np.ptp(group["angles_deg"]) > 10
            for name, values in expected.items():
                np.testing.assert_array_equal(group[name][:], np.asarray(values, LAYOUT[name].dtype), err_msg=name)


def test_steps_line_up(recorded: Path) -> None:
    shard = SHARDS[0]
    with h5py.File(recorded / shard.name) as file:
        arrays = {
            name: np.stack([group[name][:] for group in file.values()]) for name in LAYOUT if "spikes" not in name
        }
    engine = MujocoEngine(load_hand(), participants=2, threads=1)
    asked = make_reference(reference_config(CONFIG, shard), participants=2)
    for step in range(CONFIG.steps):
        reached = engine.step(arrays["excitation"][:, step]).qpos
        np.testing.assert_allclose(np.rad2deg(reached), arrays["angles_deg"][:, step], atol=1e-3)
        at_end = flexion(asked, np.float32(0.02 * (step + 1)))
        np.testing.assert_allclose(at_end, arrays["flexion"][:, step], atol=1e-4)
    assert np.mean((arrays["flexion"] > 0.5) == arrays["labels"]) > 0.99  # a change may fall on a step's very end


def test_a_shard_says_who_and_what_made_it(recorded: Path) -> None:
    for shard in SHARDS:
        with h5py.File(recorded / shard.name) as file:
            assert set(file.attrs) == set(FILE_ATTRIBUTES)
            assert json.loads(file.attrs["config"]) == json.loads(json.dumps(dataclasses.asdict(CONFIG)))
            assert len(file) == len(shard.recordings)
            for group, planned in zip(file.values(), shard.recordings, strict=True):
                about = dict(group.attrs)
                assert set(about) == set(RECORDING_ATTRIBUTES) and not about["diverged"]
                assert about["person"] == planned.person.config.seed and about["noise_seed"] == planned.noise_seed
                assert json.loads(about["conditions"]) == planned.conditions
                assert {name: about[name] for name in figures(planned.person)} == figures(planned.person)


def test_a_kill_in_mid_shard_loses_only_that_shard_and_resuming_gives_the_same_bytes(
    recorded: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    script = f"""
import os, signal
from myoloop.learn.dataset_record import record_dataset
from dataset_samples import QUICK
done = []
def on_second(seconds):
    if len(done) == 1:  # in the second shard, with a second of it on the disk
        os.kill(os.getpid(), signal.SIGKILL)
record_dataset({str(folder)!r}, QUICK, on_second=on_second, on_shard=lambda *shard: done.append(shard), threads=1)
"""
    killed = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO / "tests", capture_output=True, text=True, timeout=240
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sorted(p.name for p in folder.glob("*.h5")) == ["shard-0000.h5"]
    assert [p.name for p in folder.glob(".*.part")] == [".shard-0001.h5.part"]
    with pytest.raises(MyoloopError, match=r"3 of 4 shards are missing: shard-0001\.h5, shard-0002.*--resume"):
        load_dataset(folder)
    assert len(load_dataset(folder, partial=True)) == 2
    with pytest.raises(MyoloopError, match=r"holds a dataset already.*--resume"):
        record_dataset(folder, CONFIG)
    before = os.stat(folder / "shard-0000.h5")
    now: list[tuple[str, bool]] = []
    record_dataset(folder, CONFIG, resume=True, on_shard=lambda s, new: now.append((s.name, new)), threads=2)
    assert now == [(s.name, n > 0) for n, s in enumerate(SHARDS)]
    assert os.stat(folder / "shard-0000.h5").st_mtime_ns == before.st_mtime_ns
    assert not list(folder.glob(".*.part"))
    for shard in SHARDS:
        assert contents(folder / shard.name) == contents(recorded / shard.name)


def test_no_two_recordings_are_alike(recorded: Path) -> None:
    data = load_dataset(recorded)
    emg = data.load().emg
    assert len(emg) == 8 and len({part.tobytes() for part in emg}) == 8
    assert len({one.noise_seed for one in data.recordings}) == 8
    assert len({(one.reference_seed, one.reference_index) for one in data.recordings}) == 8
    assert [len(part) for part in splits(data)] == [4, 2, 0, 2]


def test_the_six_lines_of_the_documents_read_a_shard(recorded: Path) -> None:
    page = (REPO / "docs" / "datasets.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    assert "h5py" in code and "myoloop" not in code and len(code.strip().splitlines()) <= 6
    found: dict[str, object] = {}
    exec(code.replace("data/forearms", str(recorded)), found)
    assert found["emg"].shape == (240, 8) and found["labels"].shape == (60, 5)  # type: ignore[attr-defined]


def test_settings_that_differ_are_named_and_nothing_is_touched(recorded: Path) -> None:
    other = dataclasses.replace(CONFIG, seconds=2.0, conditions={"mains_hum": (0.0, 1.0)})
    before = {p.name: p.stat().st_mtime_ns for p in recorded.iterdir()}
    with pytest.raises(
        MyoloopError, match=r"conditions.mains_hum: \[0.5, 1.0\] there, \[0.0, 1.0\] asked.*seconds: 1.2 the"
    ):
        record_dataset(recorded, other, resume=True)
    assert {p.name: p.stat().st_mtime_ns for p in recorded.iterdir()} == before


def test_a_policy_file_that_changed_is_noticed(recorded: Path, tmp_path: Path) -> None:
    from myoloop.learn import dataset_record

    folder = tmp_path / "data"
    folder.mkdir()
    index = json.loads((recorded / "dataset.json").read_text())
    (tmp_path / "policy.safetensors").write_bytes(b"one")
    index["config"]["policy"] = str(tmp_path / "policy.safetensors")
    index["policy_sha256"] = dataset_record._policy_sha256(index["config"]["policy"])
    (folder / "dataset.json").write_text(json.dumps(index))
    (tmp_path / "policy.safetensors").write_bytes(b"another")
    with pytest.raises(MyoloopError, match="policy's content"):
        record_dataset(folder, dataclasses.replace(CONFIG, policy=index["config"]["policy"]), resume=True)


def test_folders_that_hold_something_else_and_second_writers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(MyoloopError, match=r"not empty, and no dataset \(it holds notes.txt\)"):
        record_dataset(tmp_path, CONFIG, resume=True)
    with pytest.raises(MyoloopError, match="a file; expected a folder"):
        record_dataset(tmp_path / "notes.txt", CONFIG)
    from myoloop.learn.dataset_record import _alone

    with _alone(tmp_path), pytest.raises(MyoloopError, match="another process records here"), _alone(tmp_path):
        pass


def test_the_training_script_takes_every_setting_and_tells_what_it_did(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("training_dataset", REPO / "training" / "dataset.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script  # its dataclasses look themselves up
    spec.loader.exec_module(script)
    words = "--out x --person 0 --kinds discrete --conditions fatigue 0.2 1.0 ecg 0.5 1.0 --redon --seconds 2"
    run = tyro.cli(script.DatasetRun, args=words.split())
    conditions = {"fatigue": (0.2, 1.0), "ecg": (0.5, 1.0)}
    expected = DatasetConfig(person=0, kinds=("discrete",), conditions=conditions, redon=True, seconds=2.0)
    assert run.config == expected and not run.resume
    told = script.main(script.DatasetRun(recorded, resume=True, config=CONFIG))
    assert (told["shards"], told["shards_recorded_now"], told["participant_s_per_s"]) == (4, 0, 0.0)
    assert "4/4 shards" in capsys.readouterr().err


def test_at_most_a_second_of_a_recording_is_in_memory(
    tmp_path: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    append = ShardWriter.append

    def watched(self: ShardWriter, recording: int, name: str, rows: np.ndarray) -> None:
        if name == "emg" and recording == 0:
            written.append(len(rows))
        append(self, recording, name, rows)

    monkeypatch.setattr(ShardWriter, "append", watched)
    record_dataset(tmp_path / "again", CONFIG, threads=1)
    assert written == [200, 40] * 4
