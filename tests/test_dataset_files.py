"""Datasets on disk: the documented layout, reading parts of it, and what cannot be read."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from dataset_samples import QUICK, write_dataset

from myoloop.assets import POLICY
from myoloop.errors import MyoloopError
from myoloop.learn.dataset import check_apart, load_dataset, splits
from myoloop.learn.dataset_file import FILE_ATTRIBUTES, LAYOUT, LAYOUT_VERSION, RECORDING_ATTRIBUTES, ShardWriter
from myoloop.learn.dataset_info import describe

REPO = Path(__file__).parent.parent
CONFIG = dataclasses.replace(QUICK, people=4, validation_people=2, test_people=2, seconds=4.0)
STEPS, PER_STEP = 200, 4
SOME_SHARD = "shard-0001.h5"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("datasets") / "whole", CONFIG)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_the_layout_written_is_the_layout_documented(whole: Path) -> None:
    rows = {}
    for line in (REPO / "docs" / "datasets.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            rows[cells[0].strip("`")] = cells[1:]
    with h5py.File(whole / SOME_SHARD) as file:
        assert file.attrs["layout"] == LAYOUT_VERSION
        sizes = {"samples": STEPS * PER_STEP, "steps": STEPS, "channels": 8, "fingers": 5, "joints": 23, "muscles": 39}
        for group in file.values():
            assert set(group) == set(LAYOUT)
            for name, layout in LAYOUT.items():
                array, documented = group[name], rows[name]
                assert documented[:3] == [" × ".join(layout.dims), layout.dtype, layout.unit], name
                assert tuple(dim.label for dim in array.dims) == layout.dims
                assert array.dtype == layout.dtype and array.attrs["unit"] == layout.unit
                expected = tuple(sizes.get(dim, 7) for dim in layout.dims)
                assert array.shape == expected and array.fletcher32
            assert set(group.attrs) == set(RECORDING_ATTRIBUTES)
        assert set(file.attrs) == set(FILE_ATTRIBUTES)
    for name in [*FILE_ATTRIBUTES, *RECORDING_ATTRIBUTES]:
        assert name in rows, f"{name} is not documented"


def test_what_was_written_is_read_back_in_any_part(whole: Path) -> None:
    data = load_dataset(whole)
    for recording in (0, 5):
        one = data.recordings[recording]
        with h5py.File(one.path) as file:
            group = file[one.group]
            for name, layout in LAYOUT.items():
                read = data.read(recording, name)
                assert read.dtype == layout.dtype
                np.testing.assert_array_equal(read, group[name][:])
            np.testing.assert_array_equal(data.read(recording, "emg", 10, 3), group["emg"][40:52])
            np.testing.assert_array_equal(data.read(recording, "angles_deg", 199), group["angles_deg"][199:])
            np.testing.assert_array_equal(data.spikes(recording).time_s, group["spikes_sample"][:] / 2000.0)
    with pytest.raises(MyoloopError, match=r"steps 195 to 205 asked for; it has 0 to 200"):
        data.read(0, "emg", 195, 10)
    with pytest.raises(MyoloopError, match="Did you mean 'excitation'"):
        data.read(0, "excitations")
    with pytest.raises(MyoloopError, match="a row per discharge"):
        data.read(0, "spikes_unit", 5)
    with pytest.raises(MyoloopError, match="there are 0 to 15"):
        data.read(16, "emg")


def test_recordings_crops_and_windows_hold_emg_with_its_own_labels(whole: Path) -> None:
    data = load_dataset(whole).select(split="training")
    loaded = data.load()
    assert loaded.emg.shape == (8, 800, 8) and loaded.labels.shape == (8, 200, 5)
    assert loaded.emg.dtype == loaded.labels.dtype == np.float32
    views = {loaded.emg[r, s * 4 : s * 4 + 40].tobytes(): (r, s) for r in range(8) for s in range(191)}
    crops = data.crops(np.random.default_rng(1), count=30, steps=10)
    places = [views[emg.tobytes()] for emg in crops.emg]
    assert len({r for r, _ in places}) > 4 and len(set(places)) > 25
    for (recording, first), labels in zip(places, crops.labels, strict=True):
        np.testing.assert_array_equal(labels, loaded.labels[recording, first : first + 10])
    again = data.crops(np.random.default_rng(1), count=30, steps=10)
    np.testing.assert_array_equal(again.emg, crops.emg)
    windows = list(data.windows(steps=90, hop=45))
    assert [w.first for w in windows[:3]] == [0, 45, 90] and len(windows) == 3 * 8
    np.testing.assert_array_equal(windows[4].emg, loaded.emg[1, 180:540])
    np.testing.assert_array_equal(windows[4].labels, loaded.labels[1, 45:135])
    assert [w.labels.shape for w in data.windows()] == [(200, 5)] * 8
    for bad in (lambda: data.crops(np.random.default_rng(0), 1, 201), lambda: list(data.windows(201))):
        with pytest.raises(MyoloopError, match="recordings have 200"):
            bad()


def test_only_what_is_asked_for_is_read(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, int]] = []
    original = h5py.Dataset.__getitem__

    def counting(self: h5py.Dataset, key: object) -> np.ndarray:
        found = original(self, key)
        read.append((self.name.split("/")[-1], len(found)))
        return found

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counting)
    data = load_dataset(whole)
    assert read == []
    data.select(split="test").crops(np.random.default_rng(0), 2, 10)
    assert sorted(read) == [("emg", 40), ("emg", 40), ("labels", 10), ("labels", 10)]


def test_recordings_are_chosen_by_split_person_condition_and_kind(whole: Path) -> None:
    data = load_dataset(whole)
    parts = splits(data)
    assert [len(part) for part in parts] == [8, 2, 2, 4] and len(data) == 16
    person = data.recordings[0].person
    own = data.select(people=[person])
    assert own.people == {person} and len(own) == 3
    assert {one.split for one in own.recordings} == {"training", "test_same_people"}
    hum, healthy = data.select(condition="mains_hum"), data.select(condition="healthy")
    assert len(hum) and all("mains_hum" in one.conditions for one in hum.recordings)
    assert len(healthy) and not any(one.conditions for one in healthy.recordings)
    assert len(data.select(kind="discrete")) == len(data) and len(data.select(kind="continuous")) == 0
    with pytest.raises(MyoloopError, match="nothing to learn from"):
        data.select(kind="continuous").load()
    for settings, message in (
        ({"split": "train"}, "Did you mean 'training'"),
        ({"condition": "fatigue"}, "Known: ageing, healthy, mains_hum"),
        ({"kind": "discret"}, "Did you mean 'discrete'"),
        ({"people": [1]}, "no recording here of person 1"),
    ):
        with pytest.raises(MyoloopError, match=message):
            data.select(**settings)  # type: ignore[arg-type]


def test_learning_and_testing_on_the_same_people_or_references_is_refused(whole: Path, tmp_path: Path) -> None:
    data = load_dataset(whole)
    training, _, test, same = splits(data)
    check_apart(training, test)
    check_apart(training, same, people=False)
    with pytest.raises(MyoloopError, match="share the people"):
        check_apart(training, same)
    other = load_dataset(write_dataset(tmp_path / "other", dataclasses.replace(CONFIG, seed=9)))
    with pytest.raises(MyoloopError, match=r"share references of seed 1000, 1001"):
        check_apart(training, other.select(split="training"))
    index = json.loads((whole / "dataset.json").read_text())
    moved = write_dataset(tmp_path / "moved", CONFIG)
    for shard in index["shards"]:
        with h5py.File(moved / shard["file"], "r+") as file:
            for group in file.values():
                if group.attrs["split"] == "test_same_people":
                    group.attrs["split"] = "test"
    with pytest.raises(MyoloopError, match="share the people"):
        splits(load_dataset(moved))


def test_a_dataset_goes_to_other_processes_and_sees_a_shard_recorded_anew(copy: Path, tmp_path: Path) -> None:
    data = pickle.loads(pickle.dumps(load_dataset(copy)))
    before = data.read(0, "emg")
    path = data.recordings[0].path
    again = tmp_path / "again.h5"
    shutil.copy(path, again)
    with h5py.File(again, "r+") as file:
        file[f"{data.recordings[0].group}/emg"][:] = 1.0
    again.replace(path)
    assert not np.array_equal(before, data.read(0, "emg")) and (data.read(0, "emg") == 1.0).all()


def test_recordings_whose_physics_failed_are_left_out_and_counted(copy: Path) -> None:
    with h5py.File(copy / SOME_SHARD, "r+") as file:
        file["recording-000"].attrs["diverged"] = True
    data = load_dataset(copy)
    assert len(data) == 15 and data.left_out == 1
    assert "physics failed in 1 recordings" in describe(copy)


def test_a_dataset_of_another_layout_is_refused(copy: Path) -> None:
    with h5py.File(copy / SOME_SHARD, "r+") as file:
        file.attrs["layout"] = 99
    message = rf"{SOME_SHARD}: dataset of layout 99, this myoloop reads layout {LAYOUT_VERSION}"
    for act in (lambda: load_dataset(copy), lambda: describe(copy / SOME_SHARD), lambda: describe(copy)):
        with pytest.raises(MyoloopError, match=message):
            act()
    index = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps(index | {"layout": 99}))
    with pytest.raises(MyoloopError, match=r"dataset.json: dataset of layout 99"):
        load_dataset(copy)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
def test_a_truncated_shard_is_named(copy: Path, keep: float) -> None:
    content = (copy / SOME_SHARD).read_bytes()
    (copy / SOME_SHARD).write_bytes(content[: int(keep * len(content))])
    for act in (lambda: load_dataset(copy), lambda: describe(copy)):
        with pytest.raises(MyoloopError, match=rf"{SOME_SHARD}: truncated or damaged.*record it anew"):
            act()


def test_a_shard_with_a_flipped_bit_is_named_when_it_is_read(copy: Path) -> None:
    data = load_dataset(copy)
    number = next(n for n, one in enumerate(data.recordings) if one.path.name == SOME_SHARD)
    with h5py.File(copy / SOME_SHARD) as file:
        place = file[f"{data.recordings[number].group}/emg"].id.get_chunk_info(1).byte_offset
    content = bytearray((copy / SOME_SHARD).read_bytes())
    content[place + 100] ^= 1
    (copy / SOME_SHARD).write_bytes(content)
    data = load_dataset(copy)
    data.read(number, "emg", 0, 50)  # the first second is unharmed
    with pytest.raises(MyoloopError, match=rf"{SOME_SHARD}: truncated or damaged"):
        data.read(number, "emg")


def test_a_missing_shard_is_named(copy: Path) -> None:
    (copy / SOME_SHARD).unlink()
    with pytest.raises(MyoloopError, match=rf"1 of 8 shards are missing: {SOME_SHARD}. Record them"):
        load_dataset(copy)
    assert len(load_dataset(copy, partial=True)) == 14
    assert f"missing: {SOME_SHARD}" in describe(copy)


def test_a_shard_that_goes_missing_while_learning_is_named(copy: Path) -> None:
    data = load_dataset(copy)
    data.recordings[0].path.unlink()
    with pytest.raises(MyoloopError, match=r"shard-0000.h5: this shard is missing"):
        data.read(0, "emg")


def test_a_shard_of_other_settings_is_refused(copy: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", dataclasses.replace(CONFIG, seed=5))
    shutil.copy(other / SOME_SHARD, copy / SOME_SHARD)
    with pytest.raises(MyoloopError, match=rf"{SOME_SHARD}: this shard belongs to a dataset of other settings"):
        load_dataset(copy)


def test_an_unfinished_shard_under_a_finished_name_is_refused(copy: Path) -> None:
    with h5py.File(copy / SOME_SHARD, "r+") as file:
        del file.attrs["complete"]
    with pytest.raises(MyoloopError, match="not written to its end"):
        load_dataset(copy)


def test_folders_and_files_that_are_no_dataset_are_refused(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(MyoloopError, match="no such folder"):
        load_dataset(tmp_path / "nowhere")
    with pytest.raises(MyoloopError, match="no such file or folder"):
        describe(tmp_path / "nowhere")
    with pytest.raises(MyoloopError, match="so it is no dataset"):
        load_dataset(tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(MyoloopError, match="not of a myoloop dataset"):
        describe(tmp_path / "other.h5")
    for content in ("{", "[]", "{}", json.dumps({"mark": "myoloop dataset", "layout": LAYOUT_VERSION})):
        (copy / "dataset.json").write_text(content)
        with pytest.raises(MyoloopError, match=r"dataset.json: damaged"):
            load_dataset(copy)


def test_an_error_while_recording_leaves_no_file(tmp_path: Path) -> None:
    about = {"rate_hz": 200.0, "channels": ["a", "b"]}
    with pytest.raises(ValueError, match="mine"), ShardWriter(tmp_path / "shard-0000.h5", about, [{}], 8, 2) as shard:
        shard.append(0, "emg", np.zeros((4, 2), np.float32))
        assert [path.name for path in tmp_path.iterdir()] == [".shard-0000.h5.part"]
        raise ValueError("mine")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MyoloopError, match=r"shard-0000.h5: cannot be written"):
        ShardWriter(tmp_path / "nowhere" / "shard-0000.h5", about, [{}], 8, 2)


def test_info_tells_what_is_inside(whole: Path) -> None:
    said = describe(whole)
    for part in ("8 of 8 shards", "myo8: 8 channels at 200 Hz", f"driven by {POLICY}", "made by myoloop 0"):
        assert part in said
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line}
    assert rows["training"] == ["8", "4", "4", "0.5"] and rows["test_same_people"] == ["4", "4", "2", "0.3"]
    shard = describe(whole / SOME_SHARD)
    for name, layout in LAYOUT.items():
        assert re.search(rf"{name} +\(.*\) +{layout.dtype} +{layout.unit}", shard), name


def test_the_command_says_the_same_and_errors_in_one_line(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from myoloop.cli import main

    monkeypatch.setattr("sys.argv", ["myoloop", "dataset", "info", str(whole)])
    main()
    assert capsys.readouterr().out.strip() == describe(whole)
    monkeypatch.setattr("sys.argv", ["myoloop", "dataset", "info", str(whole / "nothing.h5")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and capsys.readouterr().err.startswith("myoloop: ")
