"""Whatever comes from outside is taken or refused by a MyoloopError: experiment files, ONNX, logs of a run folder.

UDP answers, commands of the emulated devices and XDF are fuzzed beside their other tests (test_devices_udp,
test_devices_trigno, test_recording_files).
"""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from decoder_models import counter_model, info, mean_model, with_metadata
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from myoloop.cli import _overrides
from myoloop.decoder.contract import parse_info
from myoloop.decoder.runtime import OnnxDecoder
from myoloop.devices.muovi import read_control
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment, load_experiment
from myoloop.live.board import read_status
from myoloop.streams.predictions import check_prediction, usable_stamp
from myoloop.streams.rowlog import RowLog, read_events, read_rows

REPO = Path(__file__).parent.parent


def fuzz(examples: int) -> settings:
    """The same examples in every run: what they find is found once."""
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


WHOLE = {
    "name": "a", "duration_s": 5, "seed": 1, "clock": {"kind": "lockstep", "timeout_s": 1.0}, "ros": False,
    "participant": {
        "id": "me", "person": 3, "policy": "baseline", "armband": {"preset": "semg_rd16", "channels": 8, "rows": 1},
        "anatomy": {"velocity_mean": 3.8}, "conductor": {"fat_mm": 6}, "conditions": {"fatigue": 0.3}, "movable_band": True,
        "adapt": None, "reference": {"kind": "prompts", "gestures": {"rest": [0, 0, 0, 0, 0], "fist": [1, 1, 1, 1, 1]}},
    },
    "decoder": {"kind": "udp", "udp": {"port": 12346, "gestures": {"open": [0] * 5, "fist": [1] * 5}}, "command": ["true"]},
    "devices": {"trigno": {"emg_port": 50043}, "muovi": {"port": 54321}},
    "link": {"delay_ms": 10.0}, "changes": [{"at_s": 1, "condition": "fatigue", "strength": 0.5}], "record": {"xdf": False},
}  # fmt: skip
"""An experiment with something in every section."""

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=12), st.sampled_from(["baseline", "online", "lockstep", "file", "onnx", "/", "..", "semg_rd16", "als"]),
    st.sampled_from(["lost_contact:EMG1", "\x00"]),
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda below: st.one_of(st.lists(below, max_size=4), st.dictionaries(st.text(max_size=8), below, max_size=3)),
    max_leaves=6,
)


def places(tree: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a tree."""
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path for key, value in below for path in [(*here, key), *places(value, (*here, key))]]


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    whole = copy.deepcopy(tree)
    here = whole
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    return whole


def taken_or_refused(file: Path) -> None:
    with contextlib.suppress(MyoloopError):
        assert isinstance(load_experiment(file), Experiment)


def test_the_whole_experiment_is_a_good_one(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(yaml.safe_dump(WHOLE))
    assert load_experiment(file).participant.person == 3


@fuzz(100)
@given(changes=st.lists(st.tuples(st.sampled_from(places(WHOLE)), anything), min_size=1, max_size=2))
def test_an_experiment_with_any_value_anywhere_is_taken_or_refused(tmp_path: Path, changes: list[Any]) -> None:
    tree: Any = WHOLE
    for path, value in changes:
        with contextlib.suppress(KeyError, TypeError, IndexError):  # the first change has taken the second's place away
            tree = replaced(tree, path, value)
    file = tmp_path / "e.yaml"
    try:
        file.write_text(yaml.safe_dump(tree))
    except (yaml.YAMLError, UnicodeEncodeError):
        return
    taken_or_refused(file)


@fuzz(60)
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(lambda t: t.encode("utf-8", "replace"))))
@example(b"&a [*a, *a]")
@example(b"a: &a {<<: *a}")
@example(b"participant: " + b"[" * 1200)
@example(b"duration_s: 1999-99-99")
@example(b"? [a]\n: b\n")
@example(b"1: 2\n")
def test_any_bytes_as_an_experiment_are_taken_or_refused(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "e.yaml"
    file.write_bytes(raw)
    taken_or_refused(file)


@fuzz(30)
@given(st.text(max_size=20), st.text(max_size=20))
@example("participant.armband.preset", "[")
@example("duration_s", "1999-99-99")
@example("name", "[" * 1200)
def test_any_assignment_on_the_command_line_is_taken_or_refused(tmp_path: Path, key: str, value: str) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(yaml.safe_dump(WHOLE))
    with contextlib.suppress(MyoloopError):
        load_experiment(file, _overrides(None, None, None, True, (f"{key}={value}",)))


values = st.one_of(
    st.text(max_size=20), st.floats(allow_nan=True).map(str), st.integers().map(str),
    st.lists(st.text(max_size=4), max_size=3).map(json.dumps),
    st.sampled_from(["window", "streaming", "[" * 5000, "1e308", "1e-308", '["EMG1", "EMG2", "EMG3"]', "9" * 400]),
)  # fmt: skip


@fuzz(120)
@given(st.dictionaries(st.sampled_from(sorted(info().to_metadata())), values, min_size=1, max_size=3))
def test_any_metadata_of_a_decoder_are_taken_or_refused(changes: dict[str, str]) -> None:
    with contextlib.suppress(MyoloopError):
        told = parse_info({**info().to_metadata(), **changes}, "toy", "toy.onnx")
        assert told.rate_hz > 0 and told.window >= told.hop > 0 and len(told.channel_labels) > 0


@fuzz(40)
@given(st.dictionaries(st.sampled_from(sorted(info("window").to_metadata())), values, min_size=1, max_size=2))
def test_a_model_with_any_metadata_is_taken_or_refused(tmp_path: Path, changes: dict[str, str]) -> None:
    file = tmp_path / "d.onnx"
    file.write_bytes(
        with_metadata(mean_model("samples"), **(info("window").to_metadata() | changes)).SerializeToString()
    )
    with contextlib.suppress(MyoloopError):
        OnnxDecoder(file)


@pytest.fixture(scope="module")
def model() -> bytes:
    return with_metadata(counter_model()).SerializeToString()  # type: ignore[no-any-return]


@fuzz(60)
@given(data=st.data())
def test_a_damaged_model_is_taken_or_refused(tmp_path: Path, model: bytes, data: st.DataObject) -> None:
    raw = bytearray(model)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    file = tmp_path / "d.onnx"
    file.write_bytes(bytes(raw))
    try:
        decoder = OnnxDecoder(file)
    except MyoloopError as error:
        assert "d.onnx" in str(error)
        return
    for _, answer in decoder.push(np.zeros((16, decoder.channels), np.float32)):
        assert check_prediction(answer) is None


@pytest.mark.parametrize("byte", range(256))
def test_every_control_byte_of_the_muovi_is_read(byte: int) -> None:
    mode = read_control(byte)
    assert isinstance(mode.go, bool) and (mode.problem is None or isinstance(mode.problem, str))


@fuzz(100)
@given(
    st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), max_size=8).map(lambda v: np.array(v, np.float32)),
    st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 1e9),
)  # fmt: skip
def test_any_answer_over_lsl_is_five_probabilities_or_refused(values: np.ndarray, stamp: float, now: float) -> None:
    problem = check_prediction(values)
    good = values.shape == (5,) and bool(np.all((values >= -1e-6) & (values <= 1 + 1e-6)))
    assert (problem is None) == good
    assert usable_stamp(stamp, now) <= now


@fuzz(60)
@given(layout=st.binary(max_size=80), rows=st.binary(max_size=200), whole=st.booleans())
def test_logs_of_a_run_folder_are_read_or_refused(tmp_path: Path, layout: bytes, rows: bytes, whole: bool) -> None:
    log = RowLog(tmp_path / "steps", [("a", 1), ("b", 2)], print)
    log.close()
    if not whole:
        (tmp_path / "steps.json").write_bytes(layout)
    (tmp_path / "steps.rows").write_bytes(rows)
    with contextlib.suppress(MyoloopError):
        assert len(read_rows(tmp_path / "steps")) <= len(rows)
    (tmp_path / "events.jsonl").write_bytes(rows)
    assert isinstance(read_events(tmp_path / "events.jsonl"), list)
    (tmp_path / "decoder.status.json").write_bytes(layout)
    assert read_status(tmp_path, "decoder") is None or isinstance(read_status(tmp_path, "decoder"), dict)
