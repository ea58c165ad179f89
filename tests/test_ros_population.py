"""Participants together as one ROS 2 node: topics for each who is published, services for all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ros_world import (
    ACTIVATE,
    CONFIGURE,
    LOCKSTEP,
    ME,
    Client,
    advertised,
    end,
    eventually,
    policy,
    start,
    write_experiment,
)

from myoloop.streams.bag import BAG_FILE, messages
from myoloop.streams.rowlog import read_rows

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")
pytest.importorskip("mcap_ros2", reason="mcap-ros2-support is not installed here")

STEPS = 100
MANY = {"ids": ["ann", "bob", "cid"], "publish": ["ann", "bob"], "seed": 7}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Any]]]:
    """A session of 2 s, two of three published, whose topics are recorded: its folder, and messages by topic."""
    folder = tmp_path_factory.mktemp("crowd")
    changes = {
        "clock": LOCKSTEP,
        "duration_s": STEPS / 50,
        "record": {"xdf": False, "mcap": True},
        "population": MANY,
    }
    file = write_experiment(folder, participant={"id": f"{ME}_crowd"}, **changes)
    command = [sys.executable, "-m", "myoloop", "run", str(file), "--runs", str(folder / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    run = folder / "runs" / "latest"
    topics: dict[str, list[Any]] = {}
    for topic, _, message in messages(run / BAG_FILE):
        topics.setdefault(topic, []).append(message)
    return run, topics


def test_each_published_participant_has_topics_that_hold_all_its_steps(recorded: Any) -> None:
    run, topics = recorded
    own = {topic for topic in topics if topic.startswith(f"/{ME}_crowd/")}
    assert own == {
        f"/{ME}_crowd/{name}/{topic}" for name in ("ann", "bob") for topic in ("state", "emg", "joint_states")
    }
    for name in ("ann", "bob"):
        states = topics[f"/{ME}_crowd/{name}/state"]
        assert [m.step for m in states] == list(range(STEPS))
        rows = read_rows(run / "participants" / name / "steps")
        assert np.allclose([m.excitation for m in states], rows["excitation"], atol=1e-6)
        assert sum(m.samples for m in topics[f"/{ME}_crowd/{name}/emg"]) == STEPS * 40
    ann, bob = (np.concatenate([m.data for m in topics[f"/{ME}_crowd/{name}/emg"]]) for name in ("ann", "bob"))
    assert not np.allclose(ann, bob)  # other people


def test_their_one_clock_ticks_once_a_step(recorded: Any) -> None:
    _, topics = recorded
    clock = [m.clock.sec * 10**9 + m.clock.nanosec for m in topics["/clock"]]
    assert len(clock) == STEPS and np.allclose(np.diff(clock), 20e6, atol=2)


def test_decoders_answer_each_of_them(recorded: Any) -> None:
    run, topics = recorded
    for name in ("ann", "bob"):
        ages = [m.prediction_age for m in topics[f"/{ME}_crowd/{name}/state"]]
        assert np.isfinite(ages[1:]).mean() > 0.5  # a decoder may come late
    assert json.loads((run / "report.json").read_text())["population"]["published"] == ["ann", "bob"]


def test_the_policy_for_sros2_allows_what_a_population_does_and_nothing_else(tmp_path: Path, client: Client) -> None:
    file = write_experiment(tmp_path, population={"participants": 4, "publish": "all"}, decoder=None)
    node = start("virtual_population", "-p", f"experiment:={file}")
    try:
        assert client.change("virtual_population", CONFIGURE) is True
        allowed = {
            kind: {name.replace(f"/{ME}/myo", f"/{ME}/{ME}") for name in names} - {"/clock"}
            for kind, names in policy()["virtual_population"].items()
        }
        assert advertised(client, "virtual_population", allowed) == allowed
    finally:
        code, said = end(node)
    assert code == 0, said


def test_services_reach_all_of_them_and_diagnostics_tell_of_each(tmp_path: Path, client: Client) -> None:
    file = write_experiment(
        tmp_path, population=MANY | {"ids": ["dan", "eve", "fay"], "publish": ["dan", "eve"]}, decoder=None
    )
    node = start("virtual_population", "-p", f"experiment:={file}")
    try:
        me = "virtual_population"
        assert client.change(me, CONFIGURE) is True and client.change(me, ACTIVATE) is True
        want = [1.0, 0.0, 1.0, 0.0, 1.0]
        answer = client.call("set_target", "myoloop_msgs/srv/SetTarget", target=want, duration=30.0)
        assert answer["success"], answer
        for name in ("dan", "eve"):
            targets = eventually(
                lambda: [m["target"] for _, m in client.hear(f"{name}/state", "myoloop_msgs/msg/ParticipantState", 5)],  # noqa: B023
                lambda targets: targets[-1:] == [want],
            )
            assert targets[-1:] == [want]
        answer = client.call("perturb", "myoloop_msgs/srv/Perturb", finger="thmb", force={"x": 1.0}, duration=0.1)
        assert not answer["success"] and "Did you mean 'thumb'" in answer["message"]
        heard = client.hear("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", 3)
        told = {s["name"].split(": ")[1] for _, m in heard for s in m["status"] if s["name"].startswith(f"/{ME}/{me}")}
        assert told == {"managed node", "participant loop", "participant feedback dan", "participant feedback eve"}
    finally:
        code, said = end(node)
    assert code == 0, said


@pytest.mark.parametrize(
    ("many", "words"), [(None, "no section 'population'"), ({"participants": 2, "how": "in_turn"}, "in_turn")]
)
def test_what_a_node_cannot_run_is_said(tmp_path: Path, many: Any, words: str) -> None:
    file = write_experiment(tmp_path, population=many)
    node = start("virtual_population", "-p", f"experiment:={file}", "-p", "autostart:=true")
    _, said = node.communicate(timeout=120)
    assert node.returncode == 2 and words in said and "Traceback" not in said
