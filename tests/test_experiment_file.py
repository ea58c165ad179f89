"""The experiment file: what it accepts, and what it says to what it does not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment, load_experiment, save_experiment
from myoloop.live.person import reference_config
from myoloop.task.recorded import RecordedReference
from myoloop.task.reference import labels, make_reference


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(MyoloopError) as caught:
        load_experiment(write(tmp_path, text))
    return str(caught.value)


def test_shipped_experiment_loads_and_names_an_existing_model() -> None:
    experiment = load_experiment("experiments/closed_loop.yaml")
    assert experiment.ros and experiment.duration_s == 60
    assert experiment.decoder is not None and Path(str(experiment.decoder.model)).is_file()
    assert experiment.participant.reference.seed >= 1_000_000, "the shown reference must be a held-out one"


def test_unknown_key_suggests_the_nearest(tmp_path: Path) -> None:
    message = refusal(tmp_path, "participant: {armbend: myo8}")
    assert "participant.armbend" in message and "Did you mean 'armband'?" in message


def test_unknown_key_at_the_top_suggests_the_nearest(tmp_path: Path) -> None:
    assert "Did you mean 'participant'?" in refusal(tmp_path, "partcipant: {}")


def test_unknown_armband_preset_suggests_the_nearest(tmp_path: Path) -> None:
    message = refusal(tmp_path, "participant: {armband: semg_rd61}")
    assert "Did you mean 'semg_rd16'?" in message


def test_unknown_choice_lists_the_known_ones(tmp_path: Path) -> None:
    message = refusal(tmp_path, "participant: {engine: mujocco}")
    assert "participant.engine" in message and "'mujoco'" in message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("duration_s: -3", "duration_s is -3"),
        ("duration_s: .nan", "duration_s"),
        ("participant: {id: 'two words'}", "participant.id"),
        ("participant: {control_hz: fast}", "participant.control_hz"),
        ("decoder: {kind: onnx}", "decoder.model is missing"),
        ("participant: {control_hz: 60}", "control_hz is 60"),
        ("decoder: {model: nowhere.onnx}", "nowhere.onnx"),
        ("- a list", "expected a mapping"),
        ("a: [unclosed", "not readable as YAML"),
        ("", "found nothing"),
        ("{ros: false, record: {mcap: true}}", "mine.yaml: record.mcap records ROS topics"),
    ],
)
def test_impossible_values_are_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    assert named in refusal(tmp_path, text)


def test_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MyoloopError, match=r"Looked for it at:\n.*nothing\.yaml"):
        load_experiment("nothing.yaml")


def test_own_armband_can_be_described_in_the_file(tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path, "participant: {armband: {preset: semg_rd16, first_angle_deg: 10}}"))
    assert experiment.participant.armband == {"preset": "semg_rd16", "first_angle_deg": 10}
    assert "Did you mean 'first_angle_deg'" in refusal(
        tmp_path, "participant: {armband: {preset: semg_rd16, first_angel_deg: 10}}"
    )


def test_recorded_motion_is_found_beside_the_file_and_is_readable() -> None:
    experiment = load_experiment("experiments/recorded_motion.yaml")
    motion = make_reference(reference_config(experiment.participant.reference))
    assert isinstance(motion, RecordedReference) and not motion.notes
    assert set(np.asarray([labels(motion, t) for t in (0.5, 7.5)]).ravel()[[0, 5]]) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{kind: file}", "participant.reference is .*needs a path"),
        ("{path: m.csv}", "participant.reference is .*a path needs kind 'file'"),
        ("{kind: file, path: nowhere.csv}", "participant.reference.path 'nowhere.csv' not found"),
        ("{kind: file, path: m.csv, at_end: repeat}", "unknown at_end 'repeat'"),
        ("{kind: flie, path: m.csv}", "Did you mean 'file'"),
    ],
)
def test_impossible_references_are_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    assert re.search(named, refusal(tmp_path, f"participant: {{reference: {text}}}"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("conditions: {aging: 1.0}", "participant.conditions: unknown condition 'aging'. Did you mean 'ageing'?"),
        ("conditions: {als: 1.5}", "participant.conditions: strength of als is 1.5: expected 0 to 1"),
        ("conditions: {'lost_contact:EMG77': 1}", "Did you mean 'lost_contact:EMG7'?"),
        ("conditions: {rotation: 0.5}", "Set movable_band: true (under participant"),
        ("conditions: {fatigue: much}", "participant.conditions.fatigue is 'much'"),
        (
            "anatomy: {velocity_maen: 4}",
            "participant.anatomy: unknown field 'velocity_maen'. Did you mean 'velocity_mean'?",
        ),
        ("anatomy: {velocity_mean: 40}", "participant.anatomy: EmgConfig: velocity_mean is 40; expected 2.5 to 5.5"),
        ("anatomy: {law: onion}", "unknown motor-unit law 'onion'"),
        ("anatomy: {seed: 3}", "unknown field 'seed'"),
        ("conductor: halfspace", "participant.conductor: unknown kind of volume conductor 'halfspace'"),
        ("conductor: {fat: -1}", "fat is -1; expected S/m, above 0"),
        ("conductor: 7", "participant.conductor"),
        ("sample: perhaps", "participant.sample is 'perhaps'"),
        ("armband: {preset: myo8, spacing_mm: 2}", "an electrode of 5 mm is wider than the 2 mm"),
    ],
)
def test_impossible_people_are_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    assert named in refusal(tmp_path, f"participant: {{{text}}}")


def test_who_takes_part_can_be_described_in_the_file(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "experiments.md").read_text()
    shown = page.split("## Who takes part")[1].split("\n\n")[1]
    me = load_experiment(write(tmp_path, "\n".join(line[4:] for line in shown.splitlines()))).participant
    assert me.sample and me.posture and me.conditions["parkinsonian_tremor"] == 0.6
    assert load_experiment(
        write(tmp_path, "participant: {conditions: {rotation: 1}, posture: true}")
    ).participant.posture


def test_overrides_replace_what_the_file_says(tmp_path: Path) -> None:
    path = write(tmp_path, "duration_s: 60")
    assert load_experiment(write(tmp_path, "participant:"), {"participant.id": "p3"}).participant.id == "p3"
    path = write(tmp_path, "duration_s: 60")
    experiment = load_experiment(path, {"duration_s": 5, "participant.id": "p2"})
    assert experiment.duration_s == 5 and experiment.participant.id == "p2"


def test_saved_experiment_reads_back_the_same(tmp_path: Path) -> None:
    experiment = Experiment.model_validate(
        {"seed": 7, "participant": {"policy": "baseline", "reference": {"kind": "continuous"}}}
    )
    save_experiment(experiment, tmp_path / "config.yaml")
    assert load_experiment(tmp_path / "config.yaml") == experiment
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["participant"]["control_hz"] == 50


DECODED = "decoder: {kind: external}, "


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("changes: [{at_s: 5, condition: rotatoin, strength: 1}]", r"changes\[0\].*Did you mean 'rotation'"),
        ("changes: [{at_s: 5, condition: fatigue, strength: 2}]", "strength of fatigue is 2"),
        ("changes: [{at_s: 5, condition: rotation, strength: 1}]", "Set movable_band: true"),
        ("changes: [{at_s: 5, condition: als, strength: 1}]", "als belongs to the person"),
        ("changes: [{at_s: 60, condition: ecg, strength: 1}]", r"at_s is 60, and the session lasts 60 s"),
        ("changes: [{at_s: 9, condition: ecg, strength: 1}, {at_s: 8, condition: ecg, strength: 0}]",
         r"changes\[1\]: at_s is 8, after one at 9"),
        ("changes: [{at_s: -1, condition: ecg, strength: 1}]", "changes.0.at_s is -1"),
        ("changes: [{at: 5}]", "Did you mean 'at_s'"),
        ("changes: {at_s: 5}", "changes is"),
        ("changes: [{at_s: 5, condition: 'lost_contact:EMG61', strength: 1}]", "Did you mean 'lost_contact:EMG"),
        ("participant: {adapt: online}", "no decoder to learn to use"),
        (DECODED + "participant: {adapt: onlyne}", "participant.adapt is 'onlyne': expected `online` or a mapping"),
        (DECODED + "participant: {adapt: {learner: gradient}}", "unknown learner 'gradient'"),
        (DECODED + "participant: {adapt: {lerner: x}}", "Did you mean 'learner'"),
        (DECODED + "participant: {adapt: online, policy: baseline}", "policy is 'baseline', a controller without learning"),
        (DECODED + "participant: {adapt: online, feedback: false}", "who learns must perceive the answers"),
        (DECODED + "participant: {adapt: {habit: nowhere.safetensors}}", "participant.adapt.habit 'nowhere.safetensors'"),
    ],
)  # fmt: skip
def test_impossible_changes_and_learners_are_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    assert re.search(named, refusal(tmp_path, "{" + text + "}"))


def test_shipped_experiments_load_and_say_what_happens_in_them() -> None:
    folder = Path(__file__).parent.parent / "experiments"
    named = {file.stem: load_experiment(file) for file in folder.glob("*.yaml")}
    assert all(name == experiment.name for name, experiment in named.items())
    assert not named["open_loop"].participant.feedback and named["open_loop"].decoder is not None
    turned = named["band_rotated"]
    assert turned.participant.adapt is not None and turned.participant.adapt.learner == "internal_model"
    assert [(c.condition, c.strength) for c in turned.changes] == [("rotation", 0.5)]


def test_online_is_short_for_every_default(tmp_path: Path) -> None:
    short = load_experiment(write(tmp_path, "{" + DECODED + "participant: {adapt: online}}"))
    long = load_experiment(write(tmp_path, "{" + DECODED + "participant: {adapt: {learner: internal_model}}}"))
    assert short.participant.adapt == long.participant.adapt is not None
    save_experiment(short, tmp_path / "config.yaml")
    assert load_experiment(tmp_path / "config.yaml") == short
