"""Recorded sessions as datasets: every array in its place, what is left out, who took part, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xdf_samples import stream, write_xdf

from myoloop.body.names import FINGERS, JOINTS, MUSCLES
from myoloop.cli import main
from myoloop.emg.people import sample_person
from myoloop.errors import MyoloopError
from myoloop.experiment import checked, load_experiment, save_experiment
from myoloop.export_dataset import _share, _source, export_dataset
from myoloop.learn.collect import play
from myoloop.learn.dataset import load_dataset, splits
from myoloop.learn.dataset_export import Cut, cut
from myoloop.learn.dataset_file import FILE_ATTRIBUTES, LAYOUT, RECORDING_ATTRIBUTES, open_shard
from myoloop.learn.dataset_info import describe
from myoloop.learn.dataset_plan import figures
from myoloop.learn.dataset_record import batch_discharges
from myoloop.learn.decoder_sets import from_dataset
from myoloop.learn.supervised import TrainingConfig
from myoloop.live import member
from myoloop.live.board import RECORDING, read_status
from myoloop.live.feedback import Feedback
from myoloop.live.participant import LiveParticipant
from myoloop.live.person import population_config, reference_config
from myoloop.participant import Participants
from myoloop.streams.clock import Tick
from myoloop.streams.xdf import XdfSession, read_xdf
from myoloop.streams.xdf_writer import why_not
from myoloop.task.recorded import flexion_of
from myoloop.task.reference import ReferenceConfig, hold, joint_angles, make_reference

REPO = Path(__file__).parent.parent
STEPS, DT, BEGIN = 305, 0.02, 1000.0
PER_STEP = 4  # EMG samples, of 10 internal ones each
WHO = {"id": "me", "policy": "baseline", "armband": "myo8", "conductor": "half_space"} | {
    "anatomy": {"units_scale": 0.05}
}
TWO = {
    "name": "two",
    "seed": 7,
    "duration_s": STEPS * DT,
    "ros": False,
    "participant": {**WHO, "conditions": {"mains_hum": 0.2}, "reference": {"kind": "continuous", "seed": 4}},
    "population": {
        "ids": ["ann", "bob"],
        "persons": [{"person": 5, "conditions": {}}, {"person": 11, "conditions": {"mains_hum": 0.5, "ageing": 0.6}}],
        "motion": "own",
    },
}


class Kept:
    """Takes the place of ParticipantOutlets, and keeps what would have gone out over LSL."""

    emg_samples = 0

    def __init__(self, participant: str, emg_labels: Any, emg_rate_hz: float, control_hz: float, **about: Any):
        self.name, self.labels, self.rate, self.about = participant, emg_labels, emg_rate_hz, about
        self.rows: dict[str, list[np.ndarray]] = {}
        self.stamps: dict[str, list[float]] = {}
        self.sent: dict[str, int] = {}

    def refuse_unfound(self) -> None: ...
    def feedback(self, *what: object) -> None: ...

    def event(self, text: str, time: float) -> None:
        self._add("events", [text], [time])

    def emg(self, chunk: np.ndarray, newest: float) -> None:
        back = np.arange(len(chunk))[::-1] / self.rate
        self._add("emg", chunk, (newest - back).tolist())

    def state(self, time: float, *rows: np.ndarray) -> None:
        for name, row in zip(("target", "kinematics", "reference", "excitation"), rows, strict=True):
            self._add(name, [row], [time])

    def spikes(self, muscle_and_unit: np.ndarray, times: np.ndarray) -> None:
        self._add("spikes", muscle_and_unit, times.tolist())

    def _add(self, name: str, rows: Any, stamps: list[float]) -> None:
        self.rows.setdefault(name, []).extend(rows)
        self.stamps.setdefault(name, []).extend(stamps)

    def streams(self, number: int) -> list[bytes]:
        """Of an XDF file, numbered from `number` on."""
        delay = f"<muap_delay_s>{self.about['spikes_about']['muap_delay_s']}</muap_delay_s>"
        rates = {"emg": self.rate, "spikes": 0.0, "events": 0.0}
        return [
            stream(
                number + n,
                f"{self.name}_{name}",
                name,
                rates.get(name, 1 / DT),
                rows if name == "events" else np.asarray(rows, np.float32),  # type: ignore[arg-type]
                self.stamps[name],
                self.labels if name == "emg" else (),
                delay if name == "spikes" else "<version>9.9</version>",
            )
            for n, (name, rows) in enumerate(self.rows.items())
        ]


def expected(people: Participants, seeds: list[int], steps: int) -> list[dict[str, np.ndarray]]:
    """The arrays of everybody, as learn.dataset_record makes them."""
    people.reset(seeds)
    rows: list[dict[str, list[np.ndarray]]] = [{name: [] for name in LAYOUT} for _ in seeds]
    for done in play(people, steps):
        for n, fired in enumerate(batch_discharges(people.emg_params, done.act.spikes)):
            for name, value in (
                ("emg", done.act.chunk[n]),
                ("labels", done.target[n : n + 1]),
                ("flexion", done.flexion[n : n + 1]),
                ("angles_deg", np.rad2deg(done.body.qpos[n : n + 1])),
                ("excitation", done.act.excitation[n : n + 1]),
                ("spikes_muscle", fired.muscle),
                ("spikes_unit", fired.unit),
                ("spikes_sample", fired.sample),
            ):
                rows[n][name].append(np.asarray(value))
    return [{name: np.concatenate(parts) for name, parts in one.items()} for one in rows]


def assert_holds(read: Callable[[str], np.ndarray], whole: dict[str, np.ndarray], first: int, steps: int, each: int):
    """That a recording is these steps of what was expected; `each`: EMG samples and internal samples (of 10) a step."""
    inside = (whole["spikes_sample"] >= first * each * 10) & (whole["spikes_sample"] < (first + steps) * each * 10)
    assert inside.sum() > 50 and np.ptp(whole["angles_deg"]) > 10 and 0 < whole["labels"].mean() < 1
    for name, layout in LAYOUT.items():
        rows = {"samples": slice(first * each, (first + steps) * each), "discharges": inside}
        wanted = whole[name][rows.get(layout.dims[0], slice(first, first + steps))]
        wanted = wanted - first * each * 10 if name == "spikes_sample" else wanted
        tolerance = {"flexion": 1e-5, "angles_deg": 1e-4}.get(name, 0.0)  # float32 degrees in between
        np.testing.assert_allclose(read(name), wanted, rtol=0, atol=tolerance, err_msg=name)


@pytest.fixture(scope="module")
def people() -> Participants:
    return Participants(population_config(checked(TWO, "two")), 2, threads=1)


@pytest.fixture(scope="module")
def two(people: Participants, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a population of two, stepped as live sessions step; they did what `expected` says."""
    folder = tmp_path_factory.mktemp("two")
    experiment = checked(TWO, "two")
    save_experiment(experiment, folder / "config.yaml")
    people.reset([experiment.seed] * 2)
    nothing = Feedback(np.full(5, 0.5), float("nan"), True, float("nan"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(member, "ParticipantOutlets", Kept)
        both = [
            member.Member(experiment, people, n, name, people.config.people[n].config.seed, None, print, lambda: BEGIN)
            for n, name in enumerate(("ann", "bob"))
        ]
    for step in range(STEPS):
        tick = Tick(BEGIN + DT * (step + 1), BEGIN + DT * (step + 1))
        act = people.act()
        for one in both:
            one.send(act, tick.deadline)
        body = people.move()
        for one in both:
            one.finish(tick, act, body, nothing, member.Spent(0.0, 0.0, 0.0, 0.0))
    write_xdf(folder / "session.xdf", *(s for n, one in enumerate(both) for s in one._outlets.streams(1 + 10 * n)))
    return folder


@pytest.fixture(scope="module")
def exported(two: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "deep" / "dataset"
    export_dataset([two], out, seconds=2.0)
    return out


@pytest.fixture
def bob(two: Path) -> Iterator[tuple[Any, XdfSession]]:
    """One of them, taken and read."""
    yield _source(two, "training", ["bob"]).takes[0], read_xdf(two, "bob")


def test_an_exported_session_holds_what_a_recorded_dataset_of_the_same_participants_holds(
    people: Participants, exported: Path
) -> None:
    data, wholes = load_dataset(exported), expected(people, [7, 7], STEPS - 1)
    assert len(data) == 6 and data.steps == 100 and data.samples_per_step == PER_STEP and data.rate_hz == 200.0
    for recording in range(6):
        whole = wholes[recording // 3]
        assert_holds(lambda name, r=recording: data.read(r, name), whole, recording % 3 * 100, 100, PER_STEP)  # type: ignore[misc]
    assert np.any(data.read(0, "spikes_unit") != data.read(3, "spikes_unit")[: len(data.read(0, "spikes_unit"))])


def test_it_says_who_took_part_in_what(people: Participants, exported: Path) -> None:
    data = load_dataset(exported)
    for recording, one in enumerate(data.recordings):
        person = people.config.people[recording // 3]
        assert (one.person, one.split, one.kind) == (person.config.seed, "training", "continuous")
        assert one.figures == figures(person)
        assert (one.reference_seed, one.reference_index, one.noise_seed) == (4, recording // 3, 7)
        assert one.conditions == ({"mains_hum": 0.2}, {"mains_hum": 0.5, "ageing": 0.6})[recording // 3]
        assert (one.policy, one.donning) == ("baseline", 0)
    assert data.config["conditions"] == {"mains_hum": [0.2, 0.5], "ageing": [0.6, 0.6]}
    assert len(data.select(condition="ageing")) == 3 and len(data.select(kind="continuous")) == 6
    with open_shard(exported / "shard-0001.h5") as file:
        assert set(file.attrs) == set(FILE_ATTRIBUTES)
        assert file.attrs["muap_delay_samples"] == people.emg_params.muap_delay
        assert [list(file.attrs[name]) for name in ("fingers", "joints", "muscles")] == [
            list(FINGERS),
            list(JOINTS),
            list(MUSCLES),
        ]
        assert json.loads(file.attrs["made_by"])["myoloop"] == "9.9", "the version that recorded it"
        assert all(set(group.attrs) == set(RECORDING_ATTRIBUTES) for group in file.values())
    assert "myo8: 8 channels at 200 Hz" in describe(exported)


def test_what_is_left_out_is_said(two: Path, tmp_path: Path) -> None:
    said = export_dataset([two], tmp_path / "out", seconds=1.5, participants=["bob"])
    assert len(said) == 1 and said[0].endswith("bob: 4 x 1.5 s for training, 0.10 s left out")
    assert len(load_dataset(tmp_path / "out")) == 4


def firsts(found: Cut) -> list[int]:
    """First EMG sample of each stretch."""
    return [int(found.steps.newest[stretch.first]) - PER_STEP + 1 for stretch in found.stretches]


def test_the_last_step_of_a_session_is_left_out_since_its_label_is_not_in_the_file(bob: tuple[Any, XdfSession]) -> None:
    assert firsts(cut(*bob, seconds=(STEPS - 1) * DT)) == [0]
    with pytest.raises(MyoloopError, match=r"6\.08 s are the longest piece whose last label is known; expected 6\.1 s"):
        cut(*bob, seconds=STEPS * DT)


def test_no_stretch_spans_a_gap_in_the_emg_or_a_step_that_another_stream_lacks(bob: tuple[Any, XdfSession]) -> None:
    taken, session = bob
    emg = session.streams["emg"]
    kept = np.arange(len(emg.stamps)) != 402  # in step 100: step 99 is the last whole one
    gap = session._replace(
        streams=session.streams | {"emg": emg._replace(samples=emg.samples[kept], stamps=emg.stamps[kept])}
    )
    assert firsts(cut(taken, gap, 1.0)) == [0, 403, 603, 803, 1003]
    for name in ("kinematics", "excitation", "reference", "target"):
        short = session.streams[name]
        less = short._replace(samples=np.delete(short.samples, 150, 0), stamps=np.delete(short.stamps, 150))
        found = cut(taken, session._replace(streams=session.streams | {name: less}), 1.0)
        assert firsts(found) == [0, 200, 604, 804, 1004], name


def test_no_stretch_spans_a_time_line_that_was_moved(bob: tuple[Any, XdfSession]) -> None:
    taken, session = bob
    moved = {
        name: each._replace(stamps=np.where(each.stamps > BEGIN + 2.0 + 1e-4, each.stamps + 0.7, each.stamps))
        for name, each in session.streams.items()
    }
    found = cut(taken, session._replace(streams=moved), 1.0)
    assert firsts(found) == [0, 400, 600, 800, 1000], "100 steps lie before the move: 50, and 49 with a last label"


def with_events(session: XdfSession, *more: tuple[float, str]) -> XdfSession:
    events = session.streams["events"]
    stamps = np.append(events.stamps, [BEGIN + at for at, _ in more])
    samples = np.append(events.samples, np.array([[text] for _, text in more], object), axis=0)
    return session._replace(streams=session.streams | {"events": events._replace(samples=samples, stamps=stamps)})


def test_a_condition_that_changes_during_the_session_is_that_of_the_stretches_after_it(
    bob: tuple[Any, XdfSession],
) -> None:
    taken, session = bob
    changed = with_events(
        session, (2.0, "condition fatigue 0.4"), (4.0, "condition mains_hum 0"), (4.5, "perturbation x")
    )
    found = cut(taken, changed, 1.0)
    assert [dict(stretch.conditions) for stretch in found.stretches] == [
        {"mains_hum": 0.5, "ageing": 0.6},
        {"mains_hum": 0.5, "ageing": 0.6, "fatigue": 0.4},
        {"ageing": 0.6, "fatigue": 0.4},
        {"ageing": 0.6, "fatigue": 0.4},
    ]
    # a step may be half a second late: what lies that close before a change is left out
    assert firsts(found) == [0, 400, 800, 1000]


def test_no_stretch_spans_a_reset_or_a_body_that_diverged(bob: tuple[Any, XdfSession]) -> None:
    taken, session = bob
    found = cut(taken, with_events(session, (2.0, "reset 99"), (4.01, "body diverged")), 1.0)
    assert firsts(found) == [0, 400, 800, 1000]
    assert [stretch.noise_seed for stretch in found.stretches] == [7, 99, 99, 99]


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_flexion_from_joint_angles_is_the_flexion_that_templates_ask_for(kind: str) -> None:
    me = {"participant": {"reference": {"kind": kind, "seed": 3}}}
    reference = make_reference(ReferenceConfig(kind, seed=3), 4)
    for asked in (reference, hold(reference, 2.0, [0, 1, 0.5, 0.25, 1])):
        for t in np.linspace(0.0, 30.0, 61):
            degrees = np.rad2deg(joint_angles(asked, t)).astype(np.float32)
            found = flexion_of(np.deg2rad(degrees), _share(checked(me, kind)))
            np.testing.assert_allclose(found, asked.flexion(t), atol=1e-4)


def test_flexion_of_a_motion_file_goes_by_the_joints_that_it_holds(tmp_path: Path) -> None:
    rows = [f"{t / 50},{40 + 40 * np.sin(t / 20):.4f}" for t in range(200)]
    (tmp_path / "index.csv").write_text("\n".join(["time_s,mcp2_flexion", *rows]))
    experiment = checked({"participant": {"reference": {"kind": "file", "path": str(tmp_path / "index.csv")}}}, "file")
    reference = make_reference(reference_config(experiment.participant.reference), 1)
    for t in np.linspace(0.0, 4.0, 30):
        found = flexion_of(joint_angles(reference, t), _share(experiment))
        np.testing.assert_allclose(found, reference.flexion(t), atol=1e-5)
    assert float(reference.flexion(1.0)[0, 1]) > 0.6, "one joint of three tells all of it"


def other(two: Path, folder: Path, name: str, **changes: Any) -> Path:
    """The session once more in a folder of its own, said to be another: dotted keys of its config.yaml."""
    (folder / name).mkdir(parents=True)
    shutil.copy(two / "session.xdf", folder / name)
    save_experiment(load_experiment(two / "config.yaml", changes), folder / name / "config.yaml")
    return folder / name


def seed(number: int) -> dict[str, Any]:
    return {"participant.reference.seed": number}


def test_splits_that_share_references_or_people_are_refused_before_anything_is_written(
    two: Path, tmp_path: Path
) -> None:
    again, new = other(two, tmp_path, "again", **seed(4)), other(two, tmp_path, "new", **seed(1_000_005))
    out = tmp_path / "out"
    with pytest.raises(
        MyoloopError, match=r"ann \(training\) and .*again, ann \(validation\) share continuous references of"
    ):
        export_dataset([two, again], out, ["training", "validation"], 1.0)
    with pytest.raises(MyoloopError, match=r"ann \(training\) and .*new, ann \(test\) share person 5"):
        export_dataset([two, new], out, ["training", "test"], 1.0)
    kind = other(two, tmp_path, "kind", **{"participant.reference.kind": "discrete"})
    with pytest.raises(MyoloopError, match="share references of seed 4"):
        export_dataset([two, kind], out, ["training", "test_same_people"], 1.0)
    assert not out.exists()
    export_dataset([two, again], out, ["training", "training"], 1.0)
    assert len(load_dataset(out)) == 24


def test_exported_splits_are_loaded_apart_and_a_decoder_is_trained_on_them_and_tells_how_they_were_made(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen, tested = other(two, tmp_path, "chosen", **seed(5)), other(two, tmp_path, "tested", **seed(1_000_006))
    first = other(two, tmp_path, "first")
    names = ["training", "validation", "test_same_people"]
    said = export_dataset([first, chosen, tested], tmp_path / "set", names, 3.0, ["ann"])
    assert not any(line.startswith("mind") for line in said)
    assert [len(part) for part in splits(load_dataset("set"))] == [2, 2, 0, 2]
    command = (
        "myoloop export dataset first chosen tested --out set --splits training validation test_same_people "
        "--participants ann --seconds 3.0"
    )
    assert from_dataset("set", "flexed").facts["dataset"] == f"`{command}`"
    spec = importlib.util.spec_from_file_location("decoder", REPO / "training" / "decoder.py")
    assert spec is not None and spec.loader is not None
    decoder = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "decoder", decoder)
    spec.loader.exec_module(decoder)
    band, training = decoder.RecordingConfig(armband="myo8"), TrainingConfig(crop_s=0.5)
    run = decoder.DecoderRun(Path("model"), kind="lda", dataset=Path("set"), recording=band, training=training)
    metrics = decoder.main(run)
    assert metrics["accuracy"] > 0.7, "the three sessions are one: what it learned is what it is tested on"
    card = Path("model/README.md").read_text()
    assert command in card and "training/dataset.py" not in card and "dataset seed" not in card


def test_a_split_that_no_session_was_named_for_is_asked_for_when_a_decoder_is_to_be_trained(exported: Path) -> None:
    with pytest.raises(
        MyoloopError, match=r"no recordings for validation; export a session for it, too \(myoloop export"
    ):
        from_dataset(exported, "flexed")


def test_learning_from_a_held_out_reference_is_pointed_out(two: Path, tmp_path: Path) -> None:
    held = other(two, tmp_path, "held", **seed(1_000_001))
    (tmp_path / "a").mkdir()  # an empty folder will do
    said = export_dataset([held], tmp_path / "a", ["training"], 1.0)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "dataset.json",
        "shard-0000.h5",
        "shard-0001.h5",
    ]
    assert said[-1].startswith("mind: reference seed 1000001")
    assert not any(x.startswith("mind") for x in export_dataset([held], tmp_path / "b", ["test"], 1.0))


def test_sessions_of_another_device_are_refused_by_name_but_not_another_placement(two: Path, tmp_path: Path) -> None:
    turned = other(
        two, tmp_path, "turned", **{"participant.armband": {"preset": "myo8", "first_angle_deg": 12}}, **seed(9)
    )
    noisy = other(two, tmp_path, "noisy", **{"participant.armband": {"preset": "myo8", "noise_uv": 9.0}}, **seed(9))
    with pytest.raises(MyoloopError, match=r"noisy, ann is of another device than .*: noise_uv 9\.0 instead of 6\.0"):
        export_dataset([two, noisy], tmp_path / "out", seconds=1.0)
    slower = other(two, tmp_path, "slower", **{"participant.control_hz": 25}, **seed(9))
    with pytest.raises(MyoloopError, match=r"slower, ann .* control_hz 25\.0 instead of 50\.0"):
        export_dataset([two, slower], tmp_path / "out", seconds=1.0)
    export_dataset([two, turned], tmp_path / "out", seconds=1.0)
    angles = {round(one.figures["first_angle_deg"], 6) for one in load_dataset(tmp_path / "out").recordings}
    assert len(angles) == 4


def test_a_configuration_of_another_session_is_refused(two: Path, tmp_path: Path) -> None:
    """A wrong neighbour would give wrong people: its channels or its motor units do not fit."""
    band = other(two, tmp_path, "band", **{"participant.armband": "semg_rd16"})
    with pytest.raises(MyoloopError, match=r"holds 8 channels .* at 200 Hz, config.yaml says 16 .* at 2000 Hz"):
        export_dataset([band], tmp_path / "out", seconds=1.0)
    people = [{"person": 77, "conditions": {}}, {"person": 78, "conditions": {}}]
    stranger = other(two, tmp_path, "stranger", **{"population.persons": people})
    with pytest.raises(MyoloopError, match="discharges are of other motor units than person 77"):
        export_dataset([stranger], tmp_path / "out", seconds=1.0)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_said(two: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def refused(message: str, *given: Any, **more: Any) -> None:
        with pytest.raises(MyoloopError, match=message):
            export_dataset(*given, **more)
        assert not out.exists() and not list(tmp_path.glob(".*"))

    refused("Did you mean 'validation'", [two], out, ["validate"])
    refused("1 recordings and 2 --splits: expected .* one split for each", [two], out, ["test", "test"])
    refused("is given 2 times", [two, two], out)
    refused("expected a recording or more", [], out)
    refused(r"--seconds 0\.03 are 1\.5 control steps", [two], out, seconds=0.03)
    refused("--seconds nan are nan control steps", [two], out, seconds=float("nan"))
    refused(r"6\.08 s are the longest piece", [two], out)
    refused("nowhere: no such file", [tmp_path / "nowhere"], out)
    refused("holds the streams of ann, bob: expected one of cat", [two], out, participants=["cat"])
    refused("Did you mean 'bob'", [two], out, participants=["ann", "bobb"])
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(two / "session.xdf", bare / "session.xdf")
    refused("config.yaml: not there, and only it tells who took part", [bare / "session.xdf"], out)
    shutil.copy(two / "config.yaml", bare / "config.yaml")
    (bare / "session.xdf").unlink()
    refused("was not recorded", [bare], out)
    (bare / "turns.json").write_text("[]")
    refused(r"came in turn.*Give the folders in .*participants", [bare], out)


def test_a_recording_without_a_stream_that_a_dataset_needs_is_refused_by_name(bob: tuple[Any, XdfSession]) -> None:
    taken, session = bob
    for name in ("reference", "spikes", "target"):
        less = {each: s for each, s in session.streams.items() if each != name}
        with pytest.raises(MyoloopError, match=f"no stream bob_{name}; expected emg, .* record the session again"):
            cut(taken, session._replace(streams=less), 1.0)


def test_a_folder_that_holds_something_is_left_alone(two: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(MyoloopError, match=r"not empty \(it holds mine.txt\)"):
        export_dataset([two], tmp_path, seconds=1.0)
    with pytest.raises(MyoloopError, match="a file; expected a folder"):
        export_dataset([two], tmp_path / "mine.txt", seconds=1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_disk_that_gets_full_leaves_no_folder(two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("myoloop.learn.dataset_file._to_disk", full)
    with pytest.raises(MyoloopError, match=r"No space left on device.* then export again\."):
        export_dataset([two], tmp_path / "out", seconds=1.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_session_recorded_by_labrecorder_becomes_a_dataset_by_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way: a live participant, LSL, LabRecorder, the command, and what the same participant does again."""
    me = {**WHO, "id": "exported", "sample": True, "person": 3}
    experiment = checked({"duration_s": 3.1, "clock": "free", "ros": False, "participant": me}, "session")
    run = tmp_path / "run"
    run.mkdir()
    save_experiment(experiment, run / "config.yaml")
    (run / RECORDING).touch()
    recorder = subprocess.Popen(
        [sys.executable, "-m", "myoloop", "recorder", str(run / "config.yaml"), "--run-dir", str(run)]
    )
    try:
        live = LiveParticipant(experiment, run)
        until = time.monotonic() + 120
        while (read_status(run, "recorder") or {}).get("phase") != "recording" and time.monotonic() < until:
            time.sleep(0.05)
        live.start()
        while live.running and time.monotonic() < until:
            time.sleep(0.05)
        recorder.send_signal(signal.SIGTERM)
        recorder.wait(60)
        live.close()
    finally:
        recorder.kill()
    assert live.error is None and live.finished
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["myoloop", "export", "dataset", "run", "--out", "set", "--seconds", "1.5"])
    main()
    assert "run: 2 x 1.5 s for training, 0.10 s left out" in capsys.readouterr().out
    data, (whole,) = load_dataset(tmp_path / "set"), expected(live._people, [experiment.seed], 154)
    config = live._people.config
    assert data.recordings[0].figures == figures(sample_person(3, config.armband, config.anatomy))
    for recording in range(2):
        assert_holds(lambda name, r=recording: data.read(r, name), whole, recording * 75, 75, PER_STEP)  # type: ignore[misc]
