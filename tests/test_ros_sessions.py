"""ROS 2 sessions as experimenters run them: recorded into MCAP on simulated time, remapped, walked through their lifecycle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ros_world import (
    ACTIVATE,
    CLEANUP,
    CONFIGURE,
    DEACTIVATE,
    LOCKSTEP,
    ME,
    SHUTDOWN,
    Client,
    end,
    eventually,
    start,
    write_experiment,
)

from myoloop.streams.bag import BAG_FILE, messages

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")
pytest.importorskip("mcap_ros2", reason="mcap-ros2-support is not installed here")

STEPS = 150


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[tuple[int, Any]]]]:
    """A session of 3 s in lockstep whose topics are recorded: its folder, and (time, message) by topic."""
    folder = tmp_path_factory.mktemp("bag")
    changes = {"clock": LOCKSTEP, "duration_s": STEPS / 50, "record": {"xdf": False, "mcap": True}}
    file = write_experiment(folder, participant={"id": f"{ME}_bag"}, **changes)
    command = [sys.executable, "-m", "myoloop", "run", str(file), "--runs", str(folder / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    run = folder / "runs" / "latest"
    topics: dict[str, list[tuple[int, Any]]] = {}
    for topic, time_ns, message in messages(run / BAG_FILE):
        topics.setdefault(topic, []).append((time_ns, message))
    return run, topics


def mine(recorded: tuple[Path, dict[str, list[tuple[int, Any]]]], topic: str) -> list[Any]:
    return [message for _, message in recorded[1][topic if topic.startswith("/") else f"/{ME}_bag/{topic}"]]


def ns(time: Any) -> int:
    return time.sec * 10**9 + time.nanosec


def test_the_recording_holds_every_step_and_answer_that_was_sent(recorded: Any) -> None:
    run, _ = recorded
    report = json.loads((run / "report.json").read_text())
    status = json.loads((run / "bag.status.json").read_text())
    assert status["phase"] == "closed" and status["dropped"] == 0
    assert [m.step for m in mine(recorded, "state")] == list(range(STEPS)) and report["loop"]["steps"] == STEPS
    assert len(mine(recorded, "joint_states")) == STEPS
    chunks = mine(recorded, "emg")  # best effort: a lost one shows in the number
    numbers = [c.first_sample for c in chunks]
    assert numbers == sorted({*numbers}) and {*numbers} <= {*range(0, report["emg"]["samples_sent"], 40)}
    assert len(chunks) > STEPS / 2 and {c.samples for c in chunks} == {40}
    said = len(mine(recorded, "prediction"))
    assert STEPS / 2 < said <= STEPS  # a decoder may come late, and its last answer when the participant is gone
    assert said == json.loads((run / "decoder.status.json").read_text())["predictions"]


def test_simulated_time_is_on_clock_and_in_every_stamp(recorded: Any) -> None:
    clock = [ns(m.clock) for m in mine(recorded, "/clock")]
    states = mine(recorded, "state")
    assert clock == [ns(m.header.stamp) for m in states]
    assert np.allclose(np.diff(clock), 20e6, atol=2)
    assert np.allclose([t * 1e-9 for t in clock], [m.lsl_time for m in states], atol=1e-6)
    for topic in ("emg", "joint_states", "prediction"):
        stamps = [ns(m.header.stamp) for m in mine(recorded, topic)]  # LSL hands times on to within a few ns
        assert all(np.min(np.abs(np.array(clock) - stamp)) < 1000 for stamp in stamps)
    for message in mine(recorded, "prediction"):
        assert ns(message.header.stamp) * 1e-9 == pytest.approx(message.emg_time, abs=1e-6)
    times = [t for t, _ in recorded[1][f"/{ME}_bag/state"]]
    assert set(times) <= set(clock)  # as `ros2 bag record --use-sim-time` has it
    assert all(t >= clock[0] for messages_ in recorded[1].values() for t, _ in messages_), "time begins with the clock"


def test_any_reader_of_mcap_finds_definitions_index_and_type_hashes(recorded: Any) -> None:
    from mcap.reader import make_reader

    run, topics = recorded
    with (run / BAG_FILE).open("rb") as file:
        reader = make_reader(file)
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
    counts = summary.statistics.channel_message_counts
    for number, channel in summary.channels.items():
        schema = summary.schemas[channel.schema_id]
        assert (channel.message_encoding, schema.encoding) == ("cdr", "ros2msg")
        assert channel.metadata["topic_type_hash"].startswith("RIHS01_")
        assert counts[number] == len(topics.get(channel.topic, []))
    assert {s.name.split("/")[0] for s in summary.schemas.values()} >= {"myoloop_msgs", "sensor_msgs", "rosgraph_msgs"}


BIG = 2000
WRITER = f"""
import os, signal, sys
from pathlib import Path
from rclpy.serialization import serialize_message
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from myoloop.streams.bag import BagFile
bag = BagFile(Path(sys.argv[1]))
bag.add("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")
for k in range({BIG}):
    data = serialize_message(DiagnosticArray(status=[DiagnosticStatus(name=str(k), message="x" * 500)]))
    bag.write("/diagnostics", data, k, k)
    if k == {BIG} // 2:
        bag.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_recorder_that_was_killed_leaves_all_that_was_flushed(tmp_path: Path) -> None:
    file = tmp_path / "killed.mcap"
    done = subprocess.run([sys.executable, "-c", WRITER, str(file)], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with file.open("ab") as half:  # and half a record, as a full disk leaves it
        half.write(b"\x06\xff\x00\x00")
    found = [int(m.status[0].name) for _, _, m in messages(file)]
    assert found == list(range(len(found))) and len(found) > BIG // 2


def test_a_bag_that_is_no_mcap_is_refused(tmp_path: Path) -> None:
    from myoloop.errors import MyoloopError

    file = tmp_path / "notes.mcap"
    file.write_bytes(b"not a recording at all")
    with pytest.raises(MyoloopError, match="no MCAP file"):
        list(messages(file))


def moves(client: Client) -> bool:
    """Whether control steps are told."""
    heard = [m for _, m in client.hear("what/it/does", "myoloop_msgs/msg/ParticipantState", 3)]
    return len(heard) > 1 and heard[-1]["step"] > heard[0]["step"]


def test_names_are_remapped_and_the_lifecycle_is_walked_again_and_again(tmp_path: Path, client: Client) -> None:
    """A participant under another name, with another topic and parameters from outside, from birth to finalized."""
    file = write_experiment(tmp_path, participant={"id": f"{ME}_walk"}, decoder=None)
    node = start(
        "virtual_participant", "-p", f"experiment:={file}", "-p", "link.delay_ms:=40.0", "-p", "conditions.fatigue:=0.5",
        "-r", "state:=what/it/does", "-r", "reset:=again", "-r", "__node:=somebody",
    )  # fmt: skip
    try:
        for turn in range(2):
            assert client.change("somebody", CONFIGURE) is True and client.state("somebody") == "inactive"
            assert (
                client.get("somebody", "link.delay_ms") == 40.0 and client.get("somebody", "conditions.fatigue") == 0.5
            )
            refused = client.call("again", "myoloop_msgs/srv/Reset", seed=3)
            assert not refused["success"] and "activate the node first" in refused["message"]
            for _ in range(2 if turn == 0 else 1):
                assert client.change("somebody", ACTIVATE) is True and client.state("somebody") == "active"
                assert moves(client)
                assert client.call("again", "myoloop_msgs/srv/Reset", seed=3)["success"]
                if turn == 0:
                    assert client.change("somebody", DEACTIVATE) is True and client.state("somebody") == "inactive"
            if turn == 0:
                assert client.change("somebody", CLEANUP) is True and client.state("somebody") == "unconfigured"
        names = eventually(
            lambda: client.endpoints(f"/{ME}/somebody"),
            lambda names: f"/{ME}/what/it/does" in names["publishers"] and f"/{ME}/again" in names["services"],
        )
        assert f"/{ME}/again" in names["services"] and f"/{ME}/reset" not in names["services"]
        assert f"/{ME}/what/it/does" in names["publishers"] and f"/{ME}/state" not in names["publishers"]
        assert client.change("somebody", SHUTDOWN["active"]) is True
        node.wait(120)
    finally:
        code, said = end(node)
    assert code == 0, said


@pytest.mark.parametrize("state", ["inactive", "active"])
def test_a_recorder_shuts_down_from_every_state_and_leaves_a_whole_file(
    tmp_path: Path, client: Client, state: str
) -> None:
    file = write_experiment(tmp_path)
    name = f"recorder_{state}"
    node = start("bag_recorder", "-p", f"experiment:={file}", "-p", f"run_dir:={tmp_path}", "-r", f"__node:={name}")
    try:
        assert client.change(name, CONFIGURE) is True
        if state == "active":
            assert client.change(name, ACTIVATE) is True
            client.hear("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", 2)
        assert client.change(name, SHUTDOWN[state]) is True
        node.wait(120)
    finally:
        code, said = end(node)
    assert code == 0, said
    found = [topic for topic, _, _ in messages(tmp_path / BAG_FILE)]
    assert bool(found) == (state == "active") and set(found) <= {"/diagnostics"}


def test_a_recorder_without_a_folder_says_what_is_missing(tmp_path: Path) -> None:
    file = write_experiment(tmp_path)
    node = start("bag_recorder", "-p", f"experiment:={file}", "-p", "autostart:=true", namespace=f"{ME}_nowhere")
    _, said = node.communicate(timeout=120)
    assert node.returncode == 2 and "run_dir is empty" in said and "Traceback" not in said


def test_topics_are_not_recorded_without_ros(tmp_path: Path) -> None:
    from myoloop.errors import MyoloopError
    from myoloop.experiment import load_experiment

    file = write_experiment(tmp_path, record={"mcap": True}, ros=False)
    with pytest.raises(MyoloopError, match="records ROS topics"):
        load_experiment(file)


def test_a_key_beside_a_short_form_can_be_set_on_the_command_line(tmp_path: Path) -> None:
    from myoloop.experiment import load_experiment

    file = write_experiment(tmp_path, record=False, clock="lockstep")
    settings = load_experiment(file, {"record.mcap": True, "clock.timeout_s": 2.0})
    assert (settings.record.xdf, settings.record.mcap) == (False, True)
    assert (settings.clock.kind, settings.clock.timeout_s) == ("lockstep", 2.0)
