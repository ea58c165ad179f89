"""Starts an experiment as managed ROS 2 nodes: `ros2 launch myoloop closed_loop.launch.py experiment:=FILE`.

Reads the same file as `myoloop run`. The nodes are configured and activated in the participant's namespace; the launch
ends when the participant has ended. What is no node - emulated amplifiers, the adapter for answers by UDP, somebody's own
decoder software - runs beside them and is started again if it ends. With run_dir, one more process watches the streams and
writes the report there.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

from launch import LaunchContext, LaunchDescription
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment, load_experiment, save_experiment
from myoloop.live.board import SUPERVISED, make_run_dir
from myoloop.processes import PATIENCE_S, command_for, is_udp, parts_of

REPORT_S = 60.0
"""How long the report may take after the participant has ended."""

RESPAWN_S = 1.0
"""How long after its end a decoder, an amplifier or the user's software is started again."""

ARGUMENTS = {
    "experiment": ("experiments/closed_loop.yaml", "experiment file; also looked for among the shipped ones"),
    "duration": ("", "length of the session, seconds; empty: the experiment's"),
    "seed": ("", "seed of everything random; empty: the experiment's"),
    "decoder": ("true", "start the experiment's decoder; false: bring your own"),
    "participant": ("", "id of the participant, prefix of its LSL streams; empty: the experiment's"),
    "namespace": ("", "ROS namespace of the nodes; empty: the participant's id"),
    "run_dir": ("", "folder for logs and report; empty: none are written"),
}


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(
            name, default_value=default, description=about, choices=["true", "false"] if default == "true" else None
        )
        for name, (default, about) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list[Any]:
    """The processes of the experiment and what brings them up."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    experiment = load_experiment(given["experiment"], overrides(given))
    run_dir = Path(given["run_dir"]).absolute() if given["run_dir"] else None
    if run_dir and (run_dir / "participant.status.json").exists():
        raise MyoloopError(f"run_dir {run_dir} already holds a session: give every run a folder of its own.")
    config = (make_run_dir(run_dir) if run_dir else Path(tempfile.mkdtemp(prefix="myoloop-"))) / "experiment.yaml"
    save_experiment(experiment, config)  # with the overrides: one file for everybody
    common: dict[str, Any] = {"experiment": str(config), "participant": experiment.participant.id}
    if run_dir:
        common["run_dir"] = str(run_dir)
    namespace = given["namespace"] or experiment.participant.id
    participant = managed_node(
        "virtual_participant",
        namespace,
        {**common, "duration": experiment.duration_s, "seed": experiment.seed},
        on_exit=lambda event, context: after_participant(event, context, report=run_dir is not None),
    )
    actions = [participant, *bring_up(participant)]
    if experiment.decoder is not None and experiment.decoder.kind == "onnx":
        decoder = managed_node(
            "onnx_decoder",
            namespace,
            {**common, "decoder": experiment.decoder.name},
            respawn=True,
            respawn_delay=RESPAWN_S,
        )
        actions += [decoder, *bring_up(decoder)]
    for part in parts_of(experiment):
        if part in ("device", "software") or is_udp(part, experiment):
            actions.append(beside(part, experiment, config, run_dir))
    if run_dir:
        actions.append(report_writer(config, run_dir))
    return actions


def overrides(given: dict[str, str]) -> dict[str, Any]:
    """The experiment's keys that the launch arguments replace."""
    changes: dict[str, Any] = {}
    for argument, key in (("duration", "duration_s"), ("seed", "seed"), ("participant", "participant.id")):
        if given[argument]:
            changes[key] = given[argument]
    if given["decoder"] == "false":
        changes["decoder"] = None
    return changes


def managed_node(executable: str, namespace: str, parameters: dict[str, Any], **options: Any) -> LifecycleNode:
    """One of our nodes, run by the Python that runs this file."""
    return LifecycleNode(
        package="myoloop",
        executable=executable,
        name=executable,
        exec_name=executable,
        namespace=namespace,
        parameters=[parameters],
        prefix=shlex.quote(sys.executable),
        additional_env={SUPERVISED: "1", "PYTHONUNBUFFERED": "1"},
        output="both",
        **options,
    )


def beside(part: str, experiment: Experiment, config: Path, run_dir: Path | None) -> ExecuteProcess:
    """A process that is no node: as `myoloop run` starts it."""
    env = {SUPERVISED: "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = command_for(part, experiment, config, run_dir)
    return ExecuteProcess(
        cmd=command, name=part, additional_env=env, respawn=True, respawn_delay=RESPAWN_S, output="both",
        sigterm_timeout=str(PATIENCE_S[0]),
    )  # fmt: skip


def bring_up(node: LifecycleNode) -> list[RegisterEventHandler]:
    """Handlers that configure the node whenever it starts, then activate it; if that fails, all ends."""

    def change(transition: int) -> EmitEvent:
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))

    return [
        RegisterEventHandler(
            OnProcessStart(target_action=node, on_start=[change(Transition.TRANSITION_CONFIGURE)]),
        ),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="inactive",
                entities=[change(Transition.TRANSITION_ACTIVATE)],
            )
        ),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="unconfigured",
                entities=[Shutdown(reason="a node could not be configured: it says why above")],
            )
        ),
    ]


def after_participant(event: ProcessExited, context: LaunchContext, report: bool) -> list[Any]:
    """The participant is the session: without it there is nothing to do but to finish the report."""
    if context.is_shutdown:
        return []
    if event.returncode != 0:
        return [Shutdown(reason=f"the participant ended with code {event.returncode}")]
    if report:
        return [
            LogInfo(msg="the participant has ended: writing the report"),
            TimerAction(period=REPORT_S, actions=[Shutdown(reason="the report is not ready in time")]),
        ]
    return [Shutdown(reason="the participant has ended")]


def report_writer(config: Path, run_dir: Path) -> ExecuteProcess:
    return ExecuteProcess(
        cmd=[sys.executable, "-m", "myoloop", "attend", str(config), "--run-dir", str(run_dir)],
        name="report",
        output="both",
        sigterm_timeout=str(REPORT_S),
        on_exit=lambda _, context: [] if context.is_shutdown else [Shutdown(reason="the report is written")],
    )
