"""The processes of a session: their command lines, environment, start, supervision and end."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from myoloop.assets import find_node
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment
from myoloop.live.board import SUPERVISED

PATIENCE_S = (6.0, 3.0)
"""How long a process has to end after SIGINT, and after SIGTERM, before the next stronger signal."""

CLOSING_S = (25.0, 5.0)
"""The same for the recorder, which takes up to 10 s to close its file."""

LONG_LIFE_S = 60.0
"""A process that ran this long before it ended is started again at once."""

BAD_INPUT = 2
"""Exit code of a process that cannot run with what it was given; starting it again would change nothing."""

NODES = {"participant": "virtual_participant", "decoder": "onnx_decoder", "bag": "bag_recorder"}
"""Node executables, by the part of a session that they run."""
OF_MANY = {"participant": "virtual_population", "bag": "bag_recorder"}
"""The same for participants together, whose decoders are one process without ROS."""


class Child:
    """One supervised process with its log file."""

    def __init__(
        self,
        name: str,
        command: list[str],
        log: Path,
        env: dict[str, str],
        patience_s: tuple[float, float] = PATIENCE_S,
    ):
        self.name = name
        self._patience_s = patience_s
        self._command, self._log, self._env = command, log, env
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self._born = 0.0
        self._told = False

    def start(self) -> None:
        with self._log.open("ab") as log:
            # a session of its own: the terminal's Ctrl-C reaches only the supervisor, which tells each child once
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env, start_new_session=True
            )
        self.starts += 1
        self._told = False
        self._born = time.monotonic()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        """None while it runs (or was never started)."""
        return self._process.poll() if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def lived_s(self) -> float:
        """Seconds since it was last started."""
        return time.monotonic() - self._born

    def interrupt(self) -> None:
        """Asks it to end; once, as a second time would break into what it does to end."""
        if self.running and not self._told:
            assert self._process is not None
            self._process.send_signal(signal.SIGINT)
            self._told = True

    def end(self) -> None:
        """Makes sure that it ends: SIGINT, then SIGTERM, then SIGKILL."""
        if self._process is None:
            return
        for number, patience in zip(
            (signal.SIGINT, signal.SIGTERM, signal.SIGKILL), (*self._patience_s, 5.0), strict=True
        ):
            if self._process.poll() is not None:
                return
            if number == signal.SIGINT:
                self.interrupt()
            else:
                self._process.send_signal(number)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                continue

    def last_words(self, lines: int = 3) -> str:
        """The end of its log, for an error message."""
        try:
            text = self._log.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


class Backoff:
    """When a process that ended may be started again: at once, then after 1, 2, 4 ... 30 s; afresh after a long life."""

    def __init__(self) -> None:
        self._delay = 0.0
        self._due: float | None = None

    def due(self, lived_s: float) -> bool:
        """Call while the process is down; True when it is time to start it.

        Args:
          lived_s: how long it has been since it was started.
        """
        now = time.monotonic()
        if self._due is None:
            if lived_s > LONG_LIFE_S:
                self._delay = 0.0
            self._due = now + self._delay
            self._delay = min(max(1.0, 2 * self._delay), 30.0)
        if now < self._due:
            return False
        self._due = None
        return True


def command_for(part: str, experiment: Experiment, config: Path, run_dir: Path | None) -> list[str]:
    """The command line of one part of a session: a ROS 2 node, or `myoloop participant|decoder|device` without ROS.

    "software" is the user's own: what the experiment says. Without `run_dir` nothing is kept of it.
    """
    kept = [] if run_dir is None else ["--run-dir", str(run_dir)]
    if part.startswith("software"):
        assert experiment.decoder is not None
        name = part.partition("-")[2] or experiment.participant.id
        return [word.replace("{id}", name) for word in experiment.decoder.command]
    nodes = NODES if experiment.population is None else OF_MANY
    if not experiment.ros or part not in nodes or is_udp(part, experiment):
        return [sys.executable, "-m", "myoloop", part, str(config), *kept]
    parameters: dict[str, Any] = {"experiment": str(config), "autostart": "true"}
    if run_dir is not None:
        parameters["run_dir"] = str(run_dir)
    if part == "bag" and experiment.clock.kind != "realtime":
        parameters["use_sim_time"] = (
            "true"  # what it writes is stamped with /clock, as by `ros2 bag record --use-sim-time`
        )
    arguments = [word for key, value in parameters.items() for word in ("-p", f"{key}:={value}")]
    namespace = ["-r", f"__ns:=/{experiment.participant.id}"]
    return [sys.executable, str(find_node(nodes[part])), "--ros-args", *namespace, *arguments]


def parts_of(experiment: Experiment) -> list[str]:
    """The processes that an experiment needs, in the order of their start.

    Raises:
      MyoloopError: the decoder's command does not exist.
    """
    parts = ["participant"]
    decoder = experiment.decoder
    if experiment.devices.any:
        parts.append("device")
    names = listed(experiment)
    if decoder is not None and decoder.kind != "external" and names:
        parts.append("decoder")
    if decoder is not None and decoder.command:
        if shutil.which(decoder.command[0]) is None:
            raise MyoloopError(
                f"decoder.command: '{decoder.command[0]}' cannot be run from {Path.cwd()}: is it installed? Names with a / are "
                "looked for from the working folder."
            )
        each = experiment.population and any("{id}" in word for word in decoder.command)
        parts += [f"software-{name}" for name in names] if each else ["software"]
    return parts


def listed(experiment: Experiment) -> list[str]:
    """Ids of the participants whose streams go out over LSL."""
    prefix, many = experiment.participant.id, experiment.population
    return many.published(prefix) if many else [prefix]


def is_udp(part: str, experiment: Experiment) -> bool:
    """Whether this is the adapter for UDP predictions, which is no node."""
    return part == "decoder" and experiment.decoder is not None and experiment.decoder.kind == "udp"


def environment_for(experiment: Experiment) -> dict[str, str]:
    """The children's environment: what ROS 2 wheels need, one thread for numerics, and whose children they are.

    Raises:
      MyoloopError: ROS is asked for and not installed.
    """
    env = {**os.environ, SUPERVISED: str(os.getpid()), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    if not experiment.ros:
        return env
    for module in ("rclpy", "myoloop_msgs"):
        if importlib.util.find_spec(module) is None:
            raise MyoloopError(
                f"the experiment asks for ROS 2 (ros: true), but Python cannot find '{module}'. `make run` installs "
                "it; "
                "with a ROS 2 of your own, source its setup file and this workspace's; or run with --ros False."
            )
    prefix = Path(sys.prefix)
    if (prefix / "share" / "ament_index").is_dir():
        env["AMENT_PREFIX_PATH"] = _prepend(prefix, env.get("AMENT_PREFIX_PATH", ""))
        env["LD_LIBRARY_PATH"] = _prepend(prefix / "lib", env.get("LD_LIBRARY_PATH", ""))
    env.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return env


def _prepend(path: Path, paths: str) -> str:
    parts = [p for p in paths.split(os.pathsep) if p]
    return os.pathsep.join(dict.fromkeys([str(path), *parts]))
