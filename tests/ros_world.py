"""The world of the ROS 2 tests: node executables as processes, and a client in one of its own. Used by test_ros_*.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import decoder_models as toy
import pytest
import yaml
from onnx import helper

from myoloop.decoder.contract import DecoderInfo
from myoloop.emg.armband import armband

TESTS = Path(__file__).parent
REPO = TESTS.parent
NODES = Path(sys.prefix) / "lib" / "myoloop"
ME = f"ros{os.getpid()}"
CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = 1, 2, 3, 4
SHUTDOWN = {"unconfigured": 5, "inactive": 6, "active": 7}
"""lifecycle_msgs/msg/Transition"""
LOCKSTEP = {"kind": "lockstep", "timeout_s": 60.0, "unanswered": 0.1}
"""A clock that waits for whoever is held up, and does not run away from a decoder that is still to come."""

T = TypeVar("T")


def eventually(ask: Callable[[], T], as_expected: Callable[[T], bool], seconds: float = 60.0) -> T:
    """An answer that is as expected, asked for again and again; the last one if a minute does not bring it."""
    until = time.monotonic() + seconds
    while not as_expected(answer := ask()) and time.monotonic() < until:
        time.sleep(0.1)
    return answer


class Client:
    """The other process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(TESTS / "ros_client.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def call(self, service: str, type_: str, **fields: Any) -> Any:
        return self.ask(do="call", service=f"/{ME}/{service}", type=type_, fields=fields)

    def hear(self, topic: str, type_: str, count: int, sensor: bool = False) -> list[tuple[float, Any]]:
        """The next messages of a topic, and when each came (wall clock, s); fewer if a minute does not bring them."""
        topic = topic if topic.startswith("/") else f"/{ME}/{topic}"
        return self.ask(do="listen", topic=topic, type=type_, count=count, sensor=sensor)["heard"]

    def change(self, node: str, transition: int) -> bool:
        answer = self.call(f"{node}/change_state", "lifecycle_msgs/srv/ChangeState", transition={"id": transition})
        return answer.get("success", answer)

    def state(self, node: str) -> str:
        answer = self.call(f"{node}/get_state", "lifecycle_msgs/srv/GetState")
        return answer["current_state"]["label"]

    def set(self, node: str, name: str, value: Any) -> dict[str, Any]:
        """Sets one parameter; the answer has successful and reason."""
        kind = {
            bool: (1, "bool_value"),
            int: (2, "integer_value"),
            float: (3, "double_value"),
            str: (4, "string_value"),
        }
        number, field = kind[type(value)]
        changes = [{"name": name, "value": {"type": number, field: value}}]
        service = f"/{ME}/{node}/set_parameters"
        answer = self.ask(do="call", service=service, type="rcl_interfaces/srv/SetParameters", parameters=changes)
        return answer["results"][0]

    def get(self, node: str, name: str) -> Any:
        """A parameter's value, a double."""
        answer = self.call(f"{node}/get_parameters", "rcl_interfaces/srv/GetParameters", names=[name])
        return answer["values"][0]["double_value"]

    def endpoints(self, node: str) -> dict[str, dict[str, list[str]]]:
        """What a node publishes, subscribes, serves and calls: names and types, as far as discovery has brought them by now."""
        return self.ask(do="endpoints", node=node.rsplit("/", 1)[1], namespace=node.rsplit("/", 1)[0])

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)


def start(executable: str, *arguments: str, namespace: str = ME) -> subprocess.Popen:
    command = [str(NODES / executable), "--ros-args", "-r", f"__ns:=/{namespace}", "--log-level", "rcl:=error"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def end(process: subprocess.Popen, number: int = signal.SIGINT) -> tuple[int, str]:
    if process.poll() is None:
        process.send_signal(number)
    try:
        _, said = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"the node did not end: {process.communicate()[1]}")
    return process.returncode, said


def policy() -> dict[str, dict[str, set[str]]]:
    """launch/sros2_policy.xml: for each node, names by kind and permission; the id is this test's."""
    found: dict[str, dict[str, set[str]]] = {}
    for profile in ElementTree.parse(REPO / "launch" / "sros2_policy.xml").getroot().iter("profile"):
        kinds: dict[str, set[str]] = {}
        for group in profile:
            (permission,) = group.attrib
            names = {str(each.text).replace("/myo/", f"/{ME}/") for each in group}
            kinds[permission] = kinds.get(permission, set()) | names
        found[profile.attrib["node"]] = kinds
    return found


def advertised(client: Client, node: str, expected: dict[str, set[str]]) -> dict[str, set[str]]:
    """What a node publishes, subscribes, serves and calls, as `policy` has it; asked again until it is as expected."""
    kinds = {"publishers": "publish", "subscribers": "subscribe", "services": "reply", "clients": "request"}

    def now() -> dict[str, set[str]]:
        return {kinds[kind]: set(names) for kind, names in client.endpoints(f"/{ME}/{node}").items() if names}

    return eventually(now, lambda found: found == expected)


def write_experiment(folder: Path, **changes: Any) -> Path:
    """A participant and a toy decoder in an experiment file; nothing runs yet."""
    band = armband("semg_rd16")
    about = DecoderInfo("toy", "0.1", "streaming", float(band.rate_hz), tuple(band.channel_labels), 40, 40)
    model = toy.mean_model(samples=40, channels=len(band.channel_labels))
    helper.set_model_props(model, about.to_metadata())
    toy.save(model, folder)
    decoder = {"name": "mean", "kind": "onnx", "model": "decoder.onnx"}
    settings = {"duration_s": 600, "participant": {"id": ME}, "decoder": decoder} | changes
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file
