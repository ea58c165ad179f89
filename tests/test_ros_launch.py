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
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

REPO = Path(__file__).parent.parent
FILE = REPO / "launch" / "closed_loop.launch.py"

launch_is_missing = any(importlib.util.find_spec(name) is None for name in ("launch", "launch_ros"))


def tree() -> ast.Module:
    return ast.parse(FILE.read_text(encoding="utf-8"), str(FILE))


def test_every_launch_argument_is_documented() -> None:
    for node in tree().body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ARGUMENTS":
            arguments = ast.literal_eval(node.value)
    assert {"experiment", "duration", "seed", "decoder", "participant", "namespace", "run_dir"} <= set(arguments)
    assert all(isinstance(default, str) and len(about) > 10 for default, about in arguments.values())
    shipped = arguments["experiment"][0]
    assert (REPO / shipped).is_file()


def test_the_launch_file_starts_executables_that_exist() -> None:
    started = {
        call.args[0].value
        for call in ast.walk(tree())
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "managed_node"
        if isinstance(call.args[0], ast.Constant)
    }
    assert started == {"virtual_participant", "onnx_decoder"}
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


def launched(folder: Path, settings: dict, name: str) -> dict:
    """The report of an experiment that was launched."""
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(settings))
    run = folder / "run"
    given = [f"experiment:={file}", "duration:=3", f"participant:={name}", f"run_dir:={run}"]
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, str(FILE), *given], capture_output=True, text=True, timeout=240, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (run / "report.json").is_file(), done.stdout + done.stderr
    return json.loads((run / "report.json").read_text())


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
