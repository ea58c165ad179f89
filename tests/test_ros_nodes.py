"""The ROS 2 nodes as others meet them: real executables, watched and called by a client in another process."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import decoder_models as toy
import numpy as np
import pytest
import yaml
from onnx import helper

from myoloop.body.names import JOINTS
from myoloop.decoder.contract import DecoderInfo
from myoloop.emg.armband import armband

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

TESTS = Path(__file__).parent
NODES = Path(sys.prefix) / "lib" / "myoloop"
ME = f"ros{os.getpid()}"
CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE, SHUTDOWN_UNCONFIGURED = 1, 2, 3, 4, 5


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

    def hear(self, topic: str, type_: str, seconds: float, sensor: bool = False) -> list[tuple[float, Any]]:
        topic = topic if topic.startswith("/") else f"/{ME}/{topic}"
        return self.ask(do="listen", topic=topic, type=type_, seconds=seconds, sensor=sensor)["heard"]

    def change(self, node: str, transition: int) -> bool:
        answer = self.call(f"{node}/change_state", "lifecycle_msgs/srv/ChangeState", transition={"id": transition})
        return answer.get("success", answer)

    def state(self, node: str) -> str:
        answer = self.call(f"{node}/get_state", "lifecycle_msgs/srv/GetState")
        return answer["current_state"]["label"]

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.close()


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A participant and a toy decoder, not yet running."""
    folder = tmp_path_factory.mktemp("ros")
    band = armband("semg_rd16")
    about = DecoderInfo("toy", "0.1", "streaming", float(band.rate_hz), tuple(band.channel_labels), 40, 40)
    model = toy.mean_model(samples=40, channels=len(band.channel_labels))
    helper.set_model_props(model, about.to_metadata())
    toy.save(model, folder)
    file = folder / "experiment.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "duration_s": 600,
                "participant": {"id": ME},
                "decoder": {"name": "mean", "kind": "onnx", "model": "decoder.onnx"},
            }
        )
    )
    return file


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
        _, said = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"the node did not end: {process.communicate()[1]}")
    return process.returncode, said


@pytest.fixture(scope="module")
def nodes(experiment: Path, client: Client) -> Iterator[dict[str, subprocess.Popen]]:
    """Participant and decoder, brought up by the client's lifecycle requests."""
    running = {name: start(name, "-p", f"experiment:={experiment}") for name in ("virtual_participant", "onnx_decoder")}
    for name in running:
        assert client.change(name, CONFIGURE) is True
        assert client.change(name, ACTIVATE) is True
    yield running
    for process in running.values():
        end(process)


def test_state_tells_each_control_step_once_and_in_order(nodes: dict, client: Client) -> None:
    heard = [m for _, m in client.hear("state", "myoloop_msgs/msg/ParticipantState", 3.0)]
    steps = [m["step"] for m in heard]
    assert len(steps) > 50
    assert steps == list(range(steps[0], steps[0] + len(steps)))
    assert np.diff([m["lsl_time"] for m in heard]) == pytest.approx(0.02, abs=1e-6)
    for message in heard:
        assert all(0 <= e <= 1 for e in message["excitation"]) and len(message["excitation"]) == 39
        assert set(message["target"]) <= {0.0, 1.0}
        assert all(0 <= p <= 1 for p in message["prediction"] + message["flexion"])
        assert math.hypot(*message["fingertips"][1].values()) < 0.3  # m from the wrist


def test_ros_stamps_are_lsl_time_plus_a_steady_offset(nodes: dict, client: Client) -> None:
    heard = client.hear("state", "myoloop_msgs/msg/ParticipantState", 2.0)
    stamps = np.array([m["header"]["stamp"]["sec"] + 1e-9 * m["header"]["stamp"]["nanosec"] for _, m in heard])
    offsets = stamps - np.array([m["lsl_time"] for _, m in heard])
    assert np.ptp(offsets) < 1e-3
    arrived = np.array([t for t, _ in heard])
    assert abs(np.median(arrived - stamps)) < 1.0  # the same clock as this machine's wall clock


def test_emg_chunks_follow_each_other_without_a_gap(nodes: dict, client: Client) -> None:
    heard = [m for _, m in client.hear("emg", "myoloop_msgs/msg/EmgChunk", 2.0, sensor=True)]
    assert len(heard) > 20
    for message in heard:
        assert (message["rate_hz"], message["channels"], message["samples"]) == (2000.0, 16, 40)
        assert len(message["data"]) == 16 * 40
    first = [m["first_sample"] for m in heard]
    assert all(step % 40 == 0 and step > 0 for step in np.diff(first))  # best effort: a lost one shows in the number
    microvolts = np.concatenate([m["data"] for m in heard])
    assert 0.5 < np.sqrt(np.mean(np.square(microvolts))) < 2000


def test_joint_states_are_radians_under_the_joints_names(nodes: dict, client: Client) -> None:
    heard = [m for _, m in client.hear("joint_states", "sensor_msgs/msg/JointState", 1.5)]
    assert heard and tuple(heard[-1]["name"]) == JOINTS
    positions = np.array([m["position"] for m in heard])
    assert positions.shape[1] == len(JOINTS) and np.abs(positions).max() < math.pi
    assert len(heard[-1]["velocity"]) == len(JOINTS)


def test_predictions_carry_the_time_of_the_emg_behind_them(nodes: dict, client: Client) -> None:
    heard = [m for _, m in client.hear("prediction", "myoloop_msgs/msg/DecoderPrediction", 2.0)]
    assert len(heard) > 20
    for message in heard:
        assert message["decoder"] == "mean"
        assert 0 <= message["lsl_time"] - message["emg_time"] < 1.0
        assert all(0 <= p <= 1 for p in message["probability"])


def test_diagnostics_come_once_a_second_from_each_node(nodes: dict, client: Client) -> None:
    heard = client.hear("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", 6.0)
    for name in ("virtual_participant", "onnx_decoder"):
        mine = [s for _, m in heard for s in m["status"] if s["name"] == f"/{ME}/{name}"]
        assert 4 <= len(mine) <= 8
        values = {pair["key"]: pair["value"] for pair in mine[-1]["values"]}
        assert values["state"] == "active" and values["ros_messages_dropped"] == "0"
    assert int(values["samples_received"]) > 0


def test_services_act_and_explain_what_they_refuse(nodes: dict, client: Client) -> None:
    target = [1.0, 0.0, 1.0, 0.0, 1.0]
    assert client.call("set_target", "myoloop_msgs/srv/SetTarget", target=target, duration=3.0)["success"]
    heard = [m for _, m in client.hear("state", "myoloop_msgs/msg/ParticipantState", 1.0)]
    assert heard[-1]["target"] == target
    bad = client.call("set_target", "myoloop_msgs/srv/SetTarget", target=[2.0] * 5, duration=3.0)
    assert not bad["success"] and "0..1" in bad["message"]
    force = {"x": 0.0, "y": 0.0, "z": 2.0}
    assert client.call("perturb", "myoloop_msgs/srv/Perturb", finger="index", force=force, duration=0.2)["success"]
    bad = client.call("perturb", "myoloop_msgs/srv/Perturb", finger="indx", force=force, duration=0.2)
    assert not bad["success"] and "Did you mean 'index'" in bad["message"]
    bad = client.call("set_condition", "myoloop_msgs/srv/SetCondition", name="no such thing", strength=0.5)
    assert not bad["success"] and "no such thing" in bad["message"]
    assert client.call("reset", "myoloop_msgs/srv/Reset", seed=3)["success"]
    bad = client.call("reset", "myoloop_msgs/srv/Reset", seed=-7)
    assert not bad["success"] and "-7" in bad["message"]


def test_parameters_are_described_and_ranged(nodes: dict, client: Client) -> None:
    names = ["experiment", "participant", "run_dir", "autostart", "duration", "seed"]
    answer = client.call(
        "virtual_participant/describe_parameters", "rcl_interfaces/srv/DescribeParameters", names=names
    )
    about = {d["name"]: d for d in answer["descriptors"]}
    assert all(about[name]["description"] for name in names)
    assert about["duration"]["floating_point_range"][0]["to_value"] == 86400.0
    assert about["seed"]["integer_range"][0]["from_value"] == -1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "duration:=-3.0"], ["duration", "0.0", "86400"]),
        (["-p", "duration:=20"], ["duration", "DOUBLE", "20.0"]),
        (["-p", "seed:=-2"], ["seed", "-2"]),
        (["-p", "experiment:=nowhere.yaml", "-p", "autostart:=true"], ["nowhere.yaml", "not found"]),
    ],
    ids=["out of range", "wrong type", "seed", "no such experiment"],
)
def test_bad_parameters_end_in_a_clear_message_and_code_2(arguments: list[str], words: list[str]) -> None:
    node = start("virtual_participant", *arguments, namespace=f"{ME}_bad")
    _, said = node.communicate(timeout=60)
    assert node.returncode == 2
    assert "Traceback" not in said
    assert all(word in said for word in words), said


def test_lifecycle_walks_through_all_states_and_back(experiment: Path, client: Client) -> None:
    node = start("onnx_decoder", "-p", f"experiment:={experiment}", "-r", "__node:=walker")
    try:
        assert client.state("walker") == "unconfigured"
        for _ in range(2):
            assert client.change("walker", CONFIGURE) is True
            assert client.state("walker") == "inactive"
            assert client.change("walker", ACTIVATE) is True
            assert client.state("walker") == "active"
            assert client.change("walker", DEACTIVATE) is True
            assert client.state("walker") == "inactive"
            assert client.change("walker", CLEANUP) is True
            assert client.state("walker") == "unconfigured"
        assert client.change("walker", SHUTDOWN_UNCONFIGURED) is True
        node.wait(20)
    finally:
        code, said = end(node)
    assert code == 0, said


def test_parameters_are_fixed_once_configured(experiment: Path, client: Client) -> None:
    node = start("onnx_decoder", "-p", f"experiment:={experiment}", "-r", "__node:=fixed")
    change = [{"name": "experiment", "value": {"type": 4, "string_value": "other.yaml"}}]
    try:
        assert client.change("fixed", CONFIGURE) is True
        assert client.state("fixed") == "inactive"
        answer = set_parameters(client, "fixed", change)
        assert not answer["successful"] and "clean up first" in answer["reason"]
        assert client.change("fixed", CLEANUP) is True
        assert set_parameters(client, "fixed", change)["successful"]
        assert client.change("fixed", CONFIGURE) is False  # there is no other.yaml: back to unconfigured, not dead
        assert client.state("fixed") == "unconfigured"
    finally:
        code, said = end(node)
    assert code == 0 and "other.yaml" in said and "Traceback" not in said


def set_parameters(client: Client, node: str, changes: list[dict[str, Any]]) -> dict[str, Any]:
    answer = client.ask(
        do="call", service=f"/{ME}/{node}/set_parameters", type="rcl_interfaces/srv/SetParameters",
        parameters=changes,
    )  # fmt: skip
    return answer["results"][0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_given_twice_ends_a_node_cleanly(experiment: Path, client: Client, number: int) -> None:
    name = f"stopped_{int(number)}"
    node = start("onnx_decoder", "-p", f"experiment:={experiment}", "-p", "autostart:=true", "-r", f"__node:={name}")
    assert client.state(name) == "active"
    node.send_signal(number)
    time.sleep(0.01)
    code, said = end(node, number)
    assert code == 0, said
    assert "Traceback" not in said


def test_a_signal_while_configuring_ends_the_participant_cleanly(experiment: Path, client: Client) -> None:
    name = f"{ME}_early"
    node = start(
        "virtual_participant", "-p", f"experiment:={experiment}", "-p", f"participant:={name}", "-p", "autostart:=true",
        namespace=name,
    )  # fmt: skip
    until = time.monotonic() + 30
    while f"/{name}/virtual_participant" not in client.ask(do="nodes")["nodes"] and time.monotonic() < until:
        time.sleep(0.05)
    code, said = end(node)
    assert code == 0, said
    assert "Traceback" not in said


def test_the_participant_ends_by_itself_when_its_time_is_over(tmp_path: Path) -> None:
    name = f"{ME}_short"
    file = tmp_path / "short.yaml"
    file.write_text(yaml.safe_dump({"participant": {"id": name}}))
    arguments = ["-p", f"experiment:={file}", "-p", "duration:=0.5", "-p", f"run_dir:={tmp_path}"]
    node = start("virtual_participant", *arguments, "-p", "autostart:=true", namespace=name)
    _, said = node.communicate(timeout=120)
    assert node.returncode == 0, said
    status = json.loads((tmp_path / "participant.status.json").read_text())
    assert (status["phase"], status["steps"]) == ("finished", 25)
