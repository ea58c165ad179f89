"""A black box adapted to by its copy, from the first session to the last, and what cannot be."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from myoloop.errors import MyoloopError
from myoloop.learn.copying import CopyConfig
from myoloop.learn.supervised import TrainingConfig
from myoloop.policy.learned import load_policy

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("adapt_blackbox", ROOT / "training" / "adapt_blackbox.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["adapt_blackbox"] = module
    spec.loader.exec_module(module)
    return module


def experiment(folder: Path, **participant: object) -> Path:
    """The shipped TCN as somebody's software, asked for two gestures."""
    reference = {
        "kind": "prompts",
        "gestures": {"rest": [0, 0, 0, 0, 0], "fist": [1, 1, 1, 1, 1]},
        "hold_s": 1.5,
        "rest_s": 1.0,
    }
    file = folder / "box.yaml"
    model = str(ROOT / "models" / "decoder_tcn" / "decoder.onnx")
    settings = {
        "participant": {"id": "boxtest", "reference": reference, **participant},
        "decoder": {"name": "box", "model": model},
    }
    file.write_text(yaml.safe_dump(settings))
    return file


def test_participant_adapts_to_a_copy_and_is_measured_on_the_original(program: ModuleType, tmp_path: Path) -> None:
    box = str(experiment(tmp_path))
    copying = CopyConfig(
        hidden=8, stretch_s=1.0, training=TrainingConfig(updates=10, batch=8, crop_s=0.9, validations=1)
    )
    run = program.BlackboxRun(
        run=tmp_path / "run", calibrate=box, experiment=box, rounds=1, record_s=24.0, steps=3072, calibrate_s=6.0,
        measure_s=6.0, lockstep={"unanswered": 5.0}, copying=copying, out=tmp_path / "result.json",
    )  # fmt: skip
    result = program.main(run)
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert result["decoder"] == "box" and 0.4 < result["accuracy_before"] <= 1 and 0.0 <= result["accuracy_after"] <= 1
    assert result["copy_agreement"] == round(result["agreement_after"]["gestures"], 4) > 0
    assert result["participant_s"] == 24.0 and result["stages"]["record1"]["clock"] == "lockstep"
    assert (tmp_path / "result.png").stat().st_size > 10_000
    assert set(result["wall_s_by_stage"]) == {"before", "record1", "copy1", "adapt1", "after"}
    again = program.main(run)
    assert again["stages"] == result["stages"], "what is there is not done again"
    with pytest.raises(MyoloopError, match="other settings of steps"):
        program.main(dataclasses.replace(run, steps=6144))
    (run.run / "after" / "report.json").write_text('{"duration_s": 1.0}')
    assert not program.whole(run.run / "after", 6.0), "a session that was cut short does not count"
    learned = load_policy(tmp_path / "run" / "adapt1" / "policy.safetensors").policy
    assert learned.cues == ("target", "prediction")
    config = yaml.safe_load((tmp_path / "run" / "after" / "config.yaml").read_text())
    assert (
        config["participant"]["policy"].endswith("adapt1/policy.safetensors")
        and config["participant"]["exploration"] == 0
    )
    seeds = [
        yaml.safe_load((tmp_path / "run" / s / "config.yaml").read_text())["participant"]["reference"]["seed"]
        for s in ("before", "after")
    ]
    assert seeds[0] != seeds[1] and min(seeds) >= 1_000_000, "prompts in orders that nothing was learned from"


def test_what_cannot_be_adapted_to_is_said(program: ModuleType, tmp_path: Path) -> None:
    box = str(experiment(tmp_path, sample=True))
    with pytest.raises(MyoloopError, match=r"participant\.sample"):
        program.main(program.BlackboxRun(run=tmp_path / "run", calibrate=box, experiment=box))
    box = str(experiment(tmp_path, policy="baseline"))
    with pytest.raises(MyoloopError, match="cannot learn"):
        program.main(program.BlackboxRun(run=tmp_path / "run", calibrate=box, experiment=box))
    box = str(experiment(tmp_path))
    with pytest.raises(MyoloopError, match="Did you mean 'copy'"):
        program.main(program.BlackboxRun(run=tmp_path / "run", calibrate=box, experiment=box, way="copie"))
    with pytest.raises(MyoloopError, match="--rounds is 0"):
        program.main(program.BlackboxRun(run=tmp_path / "run", calibrate=box, experiment=box, rounds=0))
