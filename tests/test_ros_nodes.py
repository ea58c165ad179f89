"""The ROS 2 nodes as others meet them: real executables, watched and called by a client in another process."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ros_world import (
    ACTIVATE,
    CLEANUP,
    CONFIGURE,
    DEACTIVATE,
    ME,
    NODES,
    SHUTDOWN,
    Client,
    advertised,
    end,
    eventually,
    policy,
    start,
    write_experiment,
)

from myoloop.body.names import JOINTS
from myoloop.streams.bag import type_hash

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

REPO = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A participant and a toy decoder, not yet running."""
    return write_experiment(tmp_path_factory.mktemp("ros"))


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


def even(heard: list[dict[str, Any]]) -> bool:
    """Whether no step is missing and the time line was not moved, as it is where a process stood still for long."""
    steps, times = [m["step"] for m in heard], [m["lsl_time"] for m in heard]
    return np.all(np.diff(steps) == 1) and np.allclose(np.diff(times), 0.02, atol=1e-6)


def test_state_tells_each_control_step_once_and_in_order(nodes: dict, client: Client) -> None:
    heard = eventually(lambda: [m for _, m in client.hear("state", "myoloop_msgs/msg/ParticipantState", 60)], even)
    steps = [m["step"] for m in heard]
    assert len(steps) >= 60
    assert steps == list(range(steps[0], steps[0] + len(steps)))
    assert np.diff([m["lsl_time"] for m in heard]) == pytest.approx(0.02, abs=1e-6)
    for message in heard:
        assert all(0 <= e <= 1 for e in message["excitation"]) and len(message["excitation"]) == 39
        assert set(message["target"]) <= {0.0, 1.0}
        assert all(0 <= p <= 1 for p in message["prediction"] + message["flexion"])
        assert math.hypot(*message["fingertips"][1].values()) < 0.3  # m from the wrist


def test_ros_stamps_are_lsl_time_plus_a_steady_offset(nodes: dict, client: Client) -> None:
    heard = client.hear("state", "myoloop_msgs/msg/ParticipantState", 50)
    stamps = np.array([m["header"]["stamp"]["sec"] + 1e-9 * m["header"]["stamp"]["nanosec"] for _, m in heard])
    offsets = stamps - np.array([m["lsl_time"] for _, m in heard])
    assert np.ptp(offsets) < 1e-3
    arrived = np.array([t for t, _ in heard])
    assert abs(np.median(arrived - stamps)) < 30.0  # the same clock as this machine's wall clock


def test_emg_chunks_follow_each_other_without_a_gap(nodes: dict, client: Client) -> None:
    heard = [m for _, m in client.hear("emg", "myoloop_msgs/msg/EmgChunk", 40, sensor=True)]
    assert len(heard) >= 40
    for message in heard:
        assert (message["rate_hz"], message["channels"], message["samples"]) == (2000.0, 16, 40)
        assert len(message["data"]) == 16 * 40
    first = [m["first_sample"] for m in heard]
    assert all(step % 40 == 0 and step > 0 for step in np.diff(first))  # best effort: a lost one shows in the number
    microvolts = np.concatenate([m["data"] for m in heard])
    assert 0.5 < np.sqrt(np.mean(np.square(microvolts))) < 2000


def test_joint_states_are_radians_under_the_joints_names(nodes: dict, client: Client) -> None:
    heard = [m for _, m in client.hear("joint_states", "sensor_msgs/msg/JointState", 10)]
    assert heard and tuple(heard[-1]["name"]) == JOINTS
    positions = np.array([m["position"] for m in heard])
    assert positions.shape[1] == len(JOINTS) and np.abs(positions).max() < math.pi
    assert len(heard[-1]["velocity"]) == len(JOINTS)


def test_predictions_carry_the_time_of_the_emg_behind_them(nodes: dict, client: Client) -> None:
    heard = [m for _, m in client.hear("prediction", "myoloop_msgs/msg/DecoderPrediction", 40)]
    assert len(heard) >= 40
    for message in heard:
        assert message["decoder"] == "mean"
        assert 0 <= message["lsl_time"] - message["emg_time"] < 1.0
        assert all(0 <= p <= 1 for p in message["probability"])


def test_diagnostics_come_once_a_second_from_each_node(nodes: dict, client: Client) -> None:
    heard = client.hear("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", 16)
    for name, part, counts in (
        ("virtual_participant", "participant loop", "emg_samples_sent"),
        ("virtual_participant", "participant feedback", "predictions"),
        ("onnx_decoder", "EMG decoder", "samples_received"),
    ):
        for each in ("managed node", part):
            mine = [(m, s) for _, m in heard for s in m["status"] if s["name"] == f"/{ME}/{name}: {each}"]
            stamps = [m["header"]["stamp"]["sec"] + 1e-9 * m["header"]["stamp"]["nanosec"] for m, _ in mine]
            assert len(mine) >= 3 and np.median(np.diff(stamps)) == pytest.approx(1.0, abs=0.3)
            assert {s["hardware_id"] for _, s in mine} == {ME}
            values = {pair["key"]: pair["value"] for pair in mine[-1][1]["values"]}
            if each == part:
                assert int(values[counts]) > 0
            else:
                assert values["state"] == "active" and values["ros_messages_dropped"] == "0"


def test_the_shipped_analyzers_take_every_entry_of_diagnostics_once(nodes: dict, client: Client) -> None:
    """As diagnostic_aggregator's GenericAnalyzer matches: by a part of the name."""
    settings = yaml.safe_load((REPO / "launch" / "diagnostics.yaml").read_text())["analyzers"]["ros__parameters"]
    analyzers = {name: about["contains"] for name, about in settings.items() if isinstance(about, dict)}
    heard = client.hear("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", 10)
    names = {s["name"] for _, m in heard for s in m["status"] if s["name"].startswith(f"/{ME}/")}
    assert len(names) == 5  # two nodes, two parts of the participant, the decoder
    taken = {name: [a for a, words in analyzers.items() if any(w in name for w in words)] for name in names}
    assert all(len(found) == 1 for found in taken.values()), taken
    assert {found[0] for found in taken.values()} == {"loops", "feedback", "decoders", "nodes"}


@pytest.mark.parametrize(
    ("topic", "kind"),
    [
        ("state", "myoloop_msgs/msg/ParticipantState"),
        ("emg", "myoloop_msgs/msg/EmgChunk"),
        ("joint_states", "sensor_msgs/msg/JointState"),
        ("prediction", "myoloop_msgs/msg/DecoderPrediction"),
    ],
)
def test_topics_come_at_the_control_rate_by_their_stamps(nodes: dict, client: Client, topic: str, kind: str) -> None:
    heard = [m for _, m in client.hear(topic, kind, 40, sensor=topic == "emg")]
    stamps = np.array([m["header"]["stamp"]["sec"] + 1e-9 * m["header"]["stamp"]["nanosec"] for m in heard])
    if topic == "prediction":  # is stamped when it is sent, which a busy machine does in bursts
        stamps = np.array([m["emg_time"] for m in heard])
    assert len(stamps) >= 40 and np.all(np.diff(stamps) > 0)
    assert np.median(np.diff(stamps)) == pytest.approx(0.02, rel=0.25)


def test_what_may_change_changes_the_running_participant(nodes: dict, client: Client) -> None:
    me = "virtual_participant"
    assert client.get(me, "link.delay_ms") == 0.0 and client.get(me, "stale_after_s") == pytest.approx(0.2)
    assert client.set(me, "link.delay_ms", 100.0)["successful"]
    client.hear("state", "myoloop_msgs/msg/ParticipantState", 25)
    heard = [m for _, m in client.hear("state", "myoloop_msgs/msg/ParticipantState", 50)]
    ages = [m["prediction_age"] for m in heard]
    assert min(ages) > 0.1  # 0.02 without
    assert not any(m["prediction_stale"] for m in heard if m["prediction_age"] < 0.3)  # the delay is allowed for
    assert client.set(me, "link.delay_ms", 0.0)["successful"]
    assert client.set(me, "conditions.fatigue", 0.5)["successful"]
    assert client.call("set_condition", "myoloop_msgs/srv/SetCondition", name="mains_hum", strength=0.25)["success"]
    heard = client.hear("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", 10)
    loops = [s for _, m in heard for s in m["status"] if s["name"] == f"/{ME}/{me}: participant loop"]
    values = {pair["key"]: pair["value"] for pair in loops[-1]["values"]}
    assert values["conditions"] == "fatigue=0.5 mains_hum=0.25"
    assert client.get(me, "conditions.mains_hum") == 0.25  # what a service set is seen in the parameter
    for name in ("fatigue", "mains_hum"):
        assert client.set(me, f"conditions.{name}", 0.0)["successful"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seed", 3, "deactivate and clean up"),
        ("link.delay_ms", 5000.0, "range"),
        ("link.drop", math.nan, "range"),
        ("conditions.rotation", 0.5, "participant.movable_band"),
        ("exploration", 0.1, "participant.exploration"),
    ],
)
def test_what_may_not_change_says_why_and_what_to_do(
    nodes: dict, client: Client, name: str, value: Any, words: str
) -> None:
    answer = client.set("virtual_participant", name, value)
    assert not answer["successful"] and words in answer["reason"], answer


def test_the_policy_for_sros2_allows_what_the_nodes_do_and_nothing_else(nodes: dict, client: Client) -> None:
    allowed = policy()
    assert set(allowed) == {"virtual_participant", "virtual_population", "onnx_decoder", "bag_recorder", "viewer"}
    for node in nodes:
        kinds = {kind: names - {"/clock"} for kind, names in allowed[node].items()}  # here time is not simulated
        assert advertised(client, node, kinds) == kinds


def test_the_message_definitions_are_the_documented_ones() -> None:
    page = (REPO / "docs" / "ros2.md").read_text()
    for name in ("ParticipantState", "EmgChunk", "DecoderPrediction"):
        assert f"`{type_hash(f'myoloop_msgs/msg/{name}')}`" in page, f"{name} changed: docs/ros2.md, Versions"


def test_services_act_and_explain_what_they_refuse(nodes: dict, client: Client) -> None:
    target = [1.0, 0.0, 1.0, 0.0, 1.0]
    assert client.call("set_target", "myoloop_msgs/srv/SetTarget", target=target, duration=30.0)["success"]
    targets = eventually(
        lambda: [m["target"] for _, m in client.hear("state", "myoloop_msgs/msg/ParticipantState", 5)],
        lambda targets: targets[-1:] == [target],
    )
    assert targets[-1:] == [target]
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
    names = ["experiment", "participant", "run_dir", "autostart", "duration", "seed", "link.delay_ms", "exploration"]
    answer = client.call(
        "virtual_participant/describe_parameters", "rcl_interfaces/srv/DescribeParameters", names=names
    )
    about = {d["name"]: d for d in answer["descriptors"]}
    assert all(about[name]["description"] for name in names)
    assert "at any time" in about["link.delay_ms"]["additional_constraints"]
    assert about["link.delay_ms"]["floating_point_range"][0]["to_value"] == 1000.0
    assert "when the node is configured" in about["duration"]["additional_constraints"]
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
    _, said = node.communicate(timeout=120)
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
        assert client.change("walker", SHUTDOWN["unconfigured"]) is True
        node.wait(120)
    finally:
        code, said = end(node)
    assert code == 0, said


def test_parameters_are_fixed_once_configured(experiment: Path, client: Client) -> None:
    node = start("onnx_decoder", "-p", f"experiment:={experiment}", "-r", "__node:=fixed")
    try:
        assert client.change("fixed", CONFIGURE) is True
        assert client.state("fixed") == "inactive"
        answer = client.set("fixed", "experiment", "other.yaml")
        assert not answer["successful"] and "deactivate and clean up, set it, configure again" in answer["reason"]
        answer = client.set("fixed", "autostart", True)
        assert not answer["successful"] and "when the process starts" in answer["reason"]
        assert client.change("fixed", CLEANUP) is True
        assert client.set("fixed", "experiment", "other.yaml")["successful"]
        assert client.change("fixed", CONFIGURE) is False  # there is no other.yaml: back to unconfigured, not dead
        assert client.state("fixed") == "unconfigured"
    finally:
        code, said = end(node)
    assert code == 0 and "other.yaml" in said and "Traceback" not in said


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
    me = f"/{name}/virtual_participant"
    assert me in eventually(lambda: client.ask(do="nodes")["nodes"], lambda nodes: me in nodes)
    code, said = end(node)
    assert code == 0, said
    assert "Traceback" not in said


SWALLOWED = """
import gc, os, signal, sys, time
sys.path.insert(0, sys.argv.pop())
from node_main import Stop
stop = Stop()
stop.interruptible = lambda: True
gc.callbacks.append(lambda phase, info: stop.asked.is_set() or os.kill(os.getpid(), signal.SIGTERM))
gc.collect()
assert stop.asked.is_set()
try:
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(7)
"""


def test_a_signal_that_comes_while_python_collects_garbage_is_not_forgotten() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED, str(NODES)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 7 and "Traceback" not in done.stderr, done.stderr


def test_the_participant_ends_by_itself_when_its_time_is_over(tmp_path: Path) -> None:
    name = f"{ME}_short"
    file = tmp_path / "short.yaml"
    file.write_text(yaml.safe_dump({"participant": {"id": name}}))
    arguments = ["-p", f"experiment:={file}", "-p", "duration:=0.5", "-p", f"run_dir:={tmp_path}"]
    node = start("virtual_participant", *arguments, "-p", "autostart:=true", namespace=name)
    _, said = node.communicate(timeout=240)
    assert node.returncode == 0, said
    status = json.loads((tmp_path / "participant.status.json").read_text())
    assert (status["phase"], status["steps"]) == ("finished", 25)
