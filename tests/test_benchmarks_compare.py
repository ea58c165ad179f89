"""The comparison with MyoSuite: what can be checked without the peer."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from myoloop.errors import MyoloopError

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


compare = program("compare_myosuite")
peer = program("peer_myosuite")


def test_the_peer_understands_every_setting_it_is_tuned_with(monkeypatch: pytest.MonkeyPatch) -> None:
    for way in compare.vectors((2, 4, 8)):
        for settings in [way, *compare.learners(way)]:
            words = compare.flags({**settings, "network": (64, 32), "seconds": 1.0})
            monkeypatch.setattr(sys, "argv", ["peer_myosuite.py", *words])
            understood = vars(peer.settings())
            assert {name: understood[name] for name in settings} == settings
            assert understood["network"] == [64, 32] and understood["seconds"] == 1.0
            assert settings["rollout"] % settings["environments"] == 0 and settings["rollout"] % settings["batch"] == 0


def test_the_peer_is_measured_with_its_fastest_settings() -> None:
    def measure(settings: dict) -> dict:
        rate = {2: 100.0, 4: 300.0, 8: 200.0}[settings["environments"]]
        rate += 50.0 * (settings["threads"] == 2) - 20.0 * (settings["epochs"] == 10) - (settings["vector"] == "dummy")
        return {"steps_per_s": rate}

    best, tried = compare.tune((2, 4, 8), measure)
    expected = {"vector": "subproc", "environments": 4, "rollout": 8192, "batch": 1024, "epochs": 4, "threads": 2}
    assert best == expected
    assert len(tried) == 7 and max(one["steps_per_s"] for one in tried) == 350.0
    assert {"dummy", "subproc"} == {one["vector"] for one in tried} and {4, 10} == {one["epochs"] for one in tried}


def test_ratios_are_of_medians_over_the_rounds() -> None:
    rounds = [
        {"peer": 1000.0, "phase1": 6000.0, "with_emg": 3000.0, "same_physics": 4000.0},
        {"peer": 2000.0, "phase1": 8000.0, "with_emg": 4400.0, "same_physics": 5000.0},
        {"peer": 1100.0, "phase1": 6600.0, "with_emg": 2200.0, "same_physics": 1.0},
    ]
    result = compare.summary(rounds)
    assert result["peer_steps_per_s"] == 1100.0 and result["ours_phase1_steps_per_s"] == 6600.0
    assert (result["ratio_phase1"], result["ratio_with_emg"], result["ratio_same_physics"]) == (6.0, 2.73, 3.64)


def test_the_small_build_of_torch_is_taken_where_pip_finds_one() -> None:
    listed = "torch (2.15.0)\nAvailable versions: 2.15.0, 2.14.0+cpu, 2.14.0, 2.13.0+cpu\n  INSTALLED: 2.13.0\n"
    assert compare.torch_requirement(listed, "Linux", "x86_64") == "torch==2.14.0+cpu"
    assert compare.torch_requirement(listed, "Darwin", "arm64") == "torch>=2.8,<3"
    assert compare.torch_requirement("Available versions: 2.15.0", "Linux", "x86_64") == "torch>=2.8,<3"


def test_a_program_that_fails_is_named_with_what_it_said() -> None:
    with pytest.raises(MyoloopError, match="no such peer"):
        compare.last_line([sys.executable, "-c", "import sys; sys.exit('no such peer')"])
    with pytest.raises(MyoloopError, match="JSON"):
        compare.last_line([sys.executable, "-c", "print('warm')"])
    line = "print('noise'); print('{\"steps_per_s\": 2.5}')"
    assert compare.last_line([sys.executable, "-c", line]) == {"steps_per_s": 2.5}
