"""Starts an experiment as managed ROS 2 nodes: `ros2 launch myoloop closed_loop.launch.py experiment:=FILE`.

Reads the same file as `myoloop run`. The nodes are configured and activated in the participant's namespace; the launch
ends when the participant has ended. What is no node - emulated amplifiers, the adapter for answers by UDP, somebody's own
decoder software - runs beside them and is started again if it ends. With run_dir, one more process watches the streams and
writes the report there; with record.mcap in the file, a node records the topics there.

`participants:=3`, or `participants:=anna,ben,carla`, starts several from the one file: each with a namespace, LSL streams, a
decoder and, with run_dir, a folder of its own; the first is the file's person with the file's seed, the next ones are the next.
The launch ends when all have ended. An experiment with a section `population` is one node with all its participants in it.
"""

from __future__ import annotations

import os
import re
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
    "participants": ("1", "how many: a number, then a number is put behind the id; or ids separated by commas"),
    "namespace": (
        "",
        "ROS namespace of the nodes; empty: the participant's id; of several: what stands before their ids",
    ),
    "run_dir": ("", "folder for logs and report, of several: for a folder each; empty: none are written"),
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
    people = persons(load_experiment(given["experiment"], overrides(given)), given["participants"])
    run_dir = Path(given["run_dir"]).absolute() if given["run_dir"] else None
    ending = Ending([experiment.participant.id for experiment in people])
    actions = []
    for experiment in people:
        me, alone = experiment.participant.id, len(people) == 1
        if alone:
            namespace = given["namespace"] or me
        else:
            namespace = f"{given['namespace'].rstrip('/')}/{me}" if given["namespace"] else me
        actions += loop(experiment, namespace, run_dir if alone or run_dir is None else run_dir / me, ending, alone)
    return actions


def persons(experiment: Experiment, participants: str) -> list[Experiment]:
    """An experiment for each participant: the first as the file has it, the next with the next person and seed.

    Raises:
      MyoloopError: this is neither a number nor a list of ids, or the experiment holds what only one can have.
    """
    me = experiment.participant
    names = [name.strip() for name in participants.split(",")]
    if names[0].isdigit() and len(names) == 1:
        count = int(names[0])
        names = [me.id] if count == 1 else [f"{me.id}{k + 1}" for k in range(count)]
    if not names or len(set(names)) < len(names) or not all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", n) for n in names):
        raise MyoloopError(
            f"participants is '{participants}': expected a number from 1, or different ids such as anna,ben."
        )
    decoder = experiment.decoder
    if len(names) > 1 and experiment.population is not None:
        raise MyoloopError(
            f"participants is '{participants}': this experiment's section 'population' says how many: leave one of them out."
        )
    if len(names) > 1 and (
        experiment.devices.any or (decoder is not None and (decoder.kind == "udp" or decoder.command))
    ):
        raise MyoloopError(
            f"participants is '{participants}': emulated amplifiers, answers by UDP and a decoder's own command exist once, by "
            "their ports: launch participants with these one by one, each from a file of its own."
        )
    return [
        experiment.model_copy(
            update={
                "seed": experiment.seed + k,
                "participant": me.model_copy(update={"id": name, "person": me.person + k}),
            }
        )
        for k, name in enumerate(names)
    ]


class Ending:
    """Shuts the launch down when the last participant is done with."""

    def __init__(self, participants: list[str]):
        self._left = set(participants)

    def one(self, participant: str, reason: str) -> list[Any]:
        """One participant, with its report, is done; what is said of it again is not heard."""
        if participant not in self._left:
            return []
        self._left.discard(participant)
        return [LogInfo(msg=f"{participant}: {reason}")] if self._left else [Shutdown(reason=reason)]


def loop(experiment: Experiment, namespace: str, run_dir: Path | None, ending: Ending, alone: bool) -> list[Any]:
    """One participant's processes and what brings them up."""
    me = experiment.participant.id
    if run_dir and (run_dir / "participant.status.json").exists():
        raise MyoloopError(f"run_dir {run_dir} already holds a session: give every run a folder of its own.")
    if experiment.record.mcap and not run_dir:
        raise MyoloopError("record.mcap: there is no folder for session.mcap: add run_dir:=FOLDER.")
    config = (make_run_dir(run_dir) if run_dir else Path(tempfile.mkdtemp(prefix="myoloop-"))) / "experiment.yaml"
    save_experiment(experiment, config)  # with the overrides: one file for everybody
    common: dict[str, Any] = {"experiment": str(config), "participant": me}
    if run_dir:
        common["run_dir"] = str(run_dir)
    simulated = experiment.clock.kind != "realtime"
    options: dict[str, Any] = {}
    if simulated and not alone:  # everybody has a time of their own
        options["remappings"] = [("/clock", f"/{namespace.strip('/')}/clock")]
    together = experiment.population is not None
    participant = managed_node(
        "virtual_population" if together else "virtual_participant",
        namespace,
        {**common, "duration": experiment.duration_s, "seed": experiment.seed},
        on_exit=lambda event, context: after_participant(event, context, ending, me, run_dir is not None, alone),
        **options,
    )
    actions = [participant, *bring_up(participant)]
    if experiment.decoder is not None and experiment.decoder.kind == "onnx" and not together:
        decoder = managed_node(
            "onnx_decoder",
            namespace,
            {**common, "decoder": experiment.decoder.name},
            respawn=True,
            respawn_delay=RESPAWN_S,
            **options,
        )
        actions += [decoder, *bring_up(decoder)]
    if experiment.record.mcap:
        bag = managed_node("bag_recorder", namespace, {**common, "use_sim_time": simulated}, **options)
        actions += [bag, *bring_up(bag)]
    if experiment.view.on:  # looks for the next free port by itself
        view = managed_node("viewer", namespace, common, **options)
        actions += [view, *bring_up(view)]
    for part in parts_of(experiment):
        no_node = part == "device" or part.startswith("software") or is_udp(part, experiment)
        if no_node or (together and part == "decoder"):
            actions.append(beside(part, experiment, config, run_dir))
    if run_dir:
        actions.append(report_writer(me, config, run_dir, ending))
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
        additional_env={SUPERVISED: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
        output="both",
        **options,
    )


def beside(part: str, experiment: Experiment, config: Path, run_dir: Path | None) -> ExecuteProcess:
    """A process that is no node: as `myoloop run` starts it."""
    env = {SUPERVISED: str(os.getpid()), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
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


def after_participant(
    event: ProcessExited, context: LaunchContext, ending: Ending, participant: str, report: bool, alone: bool
) -> list[Any]:
    """The participant is the session: without it there is nothing to do but to finish its report."""
    if context.is_shutdown:
        return []
    if event.returncode != 0 and alone:
        return [Shutdown(reason=f"the participant ended with code {event.returncode}")]
    if report:
        return [
            LogInfo(msg=f"{participant} has ended: writing the report"),
            TimerAction(
                period=REPORT_S,
                actions=[OpaqueFunction(function=lambda _: ending.one(participant, "the report is not ready in time"))],
            ),
        ]
    return ending.one(participant, f"the participant has ended with code {event.returncode}")


def report_writer(participant: str, config: Path, run_dir: Path, ending: Ending) -> ExecuteProcess:
    return ExecuteProcess(
        cmd=[sys.executable, "-m", "myoloop", "attend", str(config), "--run-dir", str(run_dir)],
        name="report",
        output="both",
        sigterm_timeout=str(REPORT_S),
        on_exit=lambda _, context: [] if context.is_shutdown else ending.one(participant, "the report is written"),
    )
