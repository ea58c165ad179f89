"""The launch file: its arguments are documented, it speaks for both nodes, and where launch is installed it runs."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from ros_world import LOCKSTEP

from myoloop.streams.bag import messages

REPO = Path(__file__).parent.parent
FILE = REPO / "launch" / "closed_loop.launch.py"

launch_is_missing = any(importlib.util.find_spec(name) is None for name in ("launch", "launch_ros"))


def tree() -> ast.Module:
    return ast.parse(FILE.read_text(encoding="utf-8"), str(FILE))


def test_every_launch_argument_is_documented() -> None:
    for node in tree().body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ARGUMENTS":
            arguments = ast.literal_eval(node.value)
    assert {"experiment", "duration", "seed", "decoder", "participant", "participants", "namespace", "run_dir"} <= set(
        arguments
    )
    assert all(isinstance(default, str) and len(about) > 10 for default, about in arguments.values())
    shipped = arguments["experiment"][0]
    assert (REPO / shipped).is_file()


def test_the_launch_file_starts_executables_that_exist() -> None:
    started = {
        name.value
        for call in ast.walk(tree())
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "managed_node"
        for name in ast.walk(call.args[0])
        if isinstance(name, ast.Constant)
    }
    assert started == {"virtual_participant", "virtual_population", "onnx_decoder", "bag_recorder", "viewer"}
    assert all(os.access(REPO / "nodes" / name, os.X_OK) for name in started)


def test_what_the_launch_file_imports_is_declared_in_package_xml() -> None:
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(tree())
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    declared = {e.text for e in ElementTree.parse(REPO / "package.xml").getroot().iter("exec_depend")}
    assert imported - set(sys.stdlib_module_names) - {"myoloop"} <= declared


LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
given = dict(word.split(':=') for word in sys.argv[2:])
source = PythonLaunchDescriptionSource(sys.argv[1])
service = LaunchService()
included = IncludeLaunchDescription(source, launch_arguments=given.items())
service.include_launch_description(LaunchDescription([included]))
sys.exit(service.run())
"""
SOFTWARE = """
import sys, time
import numpy as np, pylsl
name = sys.argv[1]
out = pylsl.StreamOutlet(pylsl.StreamInfo(name + "_prediction", "Control", 5, 0, pylsl.cf_float32, "software"))
while True:
    out.push_chunk(np.full((1, 5), 0.25, np.float32))
    time.sleep(0.02)
"""


def launch(folder: Path, settings: dict, *given: str) -> subprocess.CompletedProcess:
    """Launches an experiment for 3 s, or 10 on the wall clock, into `run`."""
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(settings))
    words = [
        f"experiment:={file}",
        f"duration:={3 if 'clock' in settings else 10}",
        f"run_dir:={folder / 'run'}",
        *given,
    ]
    command = [sys.executable, "-c", LAUNCH, str(FILE), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, check=False)


def launched(folder: Path, settings: dict, name: str) -> dict:
    """The report of an experiment that was launched."""
    done = launch(folder, settings, f"participant:={name}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "run" / "report.json").is_file(), done.stdout + done.stderr
    return json.loads((folder / "run" / "report.json").read_text())


needs_launch = pytest.mark.skipif(
    launch_is_missing, reason="launch and launch_ros are not on PyPI: a ROS 2 installation has them"
)


@needs_launch
def test_ros2_launch_runs_the_loop_to_its_end(tmp_path: Path) -> None:
    experiment = yaml.safe_load((REPO / "experiments" / "closed_loop.yaml").read_text())
    experiment["decoder"]["model"] = str(REPO / experiment["decoder"]["model"])
    report = launched(tmp_path, experiment, f"launched{os.getpid()}")
    assert report["failure"] is None and report["decoder"]["predictions"] > 0


@needs_launch
def test_ros2_launch_starts_amplifiers_and_the_users_own_software_too(tmp_path: Path) -> None:
    name, script = f"beside{os.getpid()}", tmp_path / "software.py"
    script.write_text(SOFTWARE)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        ports = [each.getsockname()[1] for each in sockets]
    keys = ("command_port", "emg_port", "aux_port")
    experiment = {
        "participant": {"armband": "trigno16"},
        "devices": {"trigno": dict(zip(keys, ports, strict=True))},
        "decoder": {"kind": "external", "command": [sys.executable, str(script), name]},
    }
    report = launched(tmp_path, experiment, name)
    assert report["failure"] is None and report["decoder"]["predictions"] > 50
    assert [set(life) & {"trigno"} for life in report["devices"]] == [{"trigno"}]


@needs_launch
def test_ros2_launch_runs_several_participants_with_namespaces_streams_and_folders_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("mcap_ros2", reason="mcap-ros2-support is not installed here")
    experiment = yaml.safe_load((REPO / "experiments" / "closed_loop.yaml").read_text())
    experiment["decoder"]["model"] = str(REPO / experiment["decoder"]["model"])
    experiment |= {"clock": LOCKSTEP, "record": {"xdf": False, "mcap": True}}
    names = [f"anna{os.getpid()}", f"ben{os.getpid()}"]
    done = launch(tmp_path, experiment, f"participants:={','.join(names)}", "namespace:=/lab")
    assert done.returncode == 0, done.stdout + done.stderr
    times = []
    for name in names:
        run = tmp_path / "run" / name
        report = json.loads((run / "report.json").read_text())
        assert report["failure"] is None and report["decoder"]["predictions"] > 75, done.stdout
        counts = Counter(topic for topic, _, _ in messages(run / "session.mcap"))
        assert counts[f"/lab/{name}/state"] == counts[f"/lab/{name}/clock"] == report["loop"]["steps"] == 150
        assert counts[f"/lab/{name}/prediction"] > 75
        assert not any("/clock" in topic and name not in topic for topic in counts)  # everybody has a time of their own
        times.append(yaml.safe_load((run / "experiment.yaml").read_text()))
    assert [t["seed"] - times[0]["seed"] for t in times] == [0, 1]
    assert [t["participant"]["person"] - times[0]["participant"]["person"] for t in times] == [0, 1]


@needs_launch
def test_ros2_launch_runs_a_population_as_one_node_with_decoders_beside_it(tmp_path: Path) -> None:
    pytest.importorskip("mcap_ros2", reason="mcap-ros2-support is not installed here")
    experiment = yaml.safe_load((REPO / "experiments" / "population.yaml").read_text())
    experiment["decoder"]["model"] = str(REPO / experiment["decoder"]["model"])
    names = [f"ann{os.getpid()}", f"bob{os.getpid()}", f"cid{os.getpid()}"]
    experiment["population"] |= {"participants": None, "ids": names, "publish": names[:2]}
    experiment |= {"ros": True, "clock": LOCKSTEP, "record": {"xdf": False, "mcap": True}}
    report = launched(tmp_path, experiment, f"crowd{os.getpid()}")
    assert report["failure"] is None and report["population"]["published"] == names[:2]
    counts = Counter(topic for topic, _, _ in messages(tmp_path / "run" / "session.mcap"))
    for name in names[:2]:
        assert counts[f"/crowd{os.getpid()}/{name}/state"] == 150
    assert not any(names[2] in topic for topic in counts)
    assert report["decoder"]["predictions"] > 3 * 75 and report["decoder"]["samples_lost"] == 0


@needs_launch
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("0", "expected a number from 1"),
        ("anna,anna", "different ids"),
        ("2", "launch participants with these one by one"),
    ],
)
def test_ros2_launch_refuses_what_cannot_be_several(tmp_path: Path, given: str, words: str) -> None:
    experiment = {"decoder": {"kind": "external", "command": [sys.executable, "-c", "pass"]}}
    done = launch(tmp_path, experiment, f"participants:={given}")
    assert done.returncode != 0 and words in done.stdout + done.stderr
