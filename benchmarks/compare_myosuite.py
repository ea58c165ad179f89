"""Environment steps per second with learning, beside MyoSuite 3 with PPO of stable-baselines3, in one run.

The peer learns `myoHandPoseRandom-v0`: the same hand (39 muscles, 23 joints) and the same control step (20 ms). It gets its
own virtual environment, outside this checkout, and is tuned first: DummyVecEnv, SubprocVecEnv with several numbers of
processes, stable-baselines3's own batch settings and ours, one and two torch threads. The best of these is measured in turns
with ours, so that a slow minute of the machine hits both; rates are medians over the rounds. Both sides have networks of
the same size, count control steps of all environments, and leave out start-up and the first update (compilation).

What differs, since it is what each side offers: ours steps all bodies in one batch of threads with the physics of
docs/physics-settings.md, the peer each in its process with 2 ms Euler; `ratio_same_physics` is ours with physics steps of
the peer's 2 ms. The tasks differ too: following references under pushes, reaching postures. The peer's backends for GPUs
are not measured here.

torch: on Linux x86-64 the Python package index has only the build with CUDA, about 3 GB to download. A CPU build (a version
that ends in +cpu, 200 MB) is taken instead where pip finds one: through the pip configuration of this machine, or at
`--torch-index` with the address that PyTorch's install page gives for CPU. On other machines the ordinary build is small.

    python benchmarks/compare_myosuite.py
    python benchmarks/compare_myosuite.py --peer-python ~/my-myosuite/bin/python --seconds 30

The last line of the output is one JSON object: `peer_steps_per_s`, `ours_phase1_steps_per_s`, `ours_with_emg_steps_per_s`,
`ratio_phase1`, `ratio_with_emg`, `ratio_same_physics`, `peer` (its best settings and versions), `tried` and `rounds`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from myoloop.errors import MyoloopError
from myoloop.policy.networks import NetworkConfig

HERE = Path(__file__).parent
PEER = HERE / "peer_myosuite.py"
OURS = HERE.parent / "training" / "phase1.py"
REQUIRED = ("myosuite>=3.0,<4", "stable-baselines3>=2.7.1,<3")
"""2.7.1 is the first stable-baselines3 that MyoSuite 3 accepts."""

Settings = dict[str, Any]
Run = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """What to measure."""

    peer_env: Path = Path.home() / ".cache" / "myoloop" / "peers" / "myosuite"
    """folder of the peer's virtual environment; made when it is not there"""
    peer_python: Path | None = None
    """interpreter of an environment that already has MyoSuite 3 and stable-baselines3"""
    torch_index: str = ""
    """address of a package index with CPU builds of torch"""
    build_only: bool = False
    """make the peer's environment and stop"""
    processes: tuple[int, ...] = (2, 4, 8)
    """numbers of environments that the peer is tried with"""
    trial_seconds: float = 15.0
    """time of each try, s; whole updates are finished"""
    seconds: float = 60.0
    """time of each measurement of the peer, s"""
    rounds: int = 2
    """measurements of each side, in turns"""
    steps: int = 500_000
    """control steps of each of our measurements without EMG"""
    emg_steps: int = 250_000
    """control steps of each of our measurements with EMG"""
    environments: int = 256
    """our participants side by side"""
    armband: str = "semg_rd16"
    """armband of our measurements with EMG"""


# --- the peer's environment -------------------------------------------------------------------------------------------


def peer_python(config: Config, say: Callable[[str], None]) -> Path:
    """An interpreter that has the peer, in an environment that is made when necessary.

    Raises:
      MyoloopError: it has no working peer, or pip could not install one.
    """
    if config.peer_python is not None:
        last_line([str(config.peer_python), str(PEER), "--check"])
        return config.peer_python
    python = config.peer_env.expanduser() / "bin" / "python"
    if python.exists():
        try:
            last_line([str(python), str(PEER), "--check"])
            return python
        except MyoloopError:
            say(f"{config.peer_env} is not complete: installing what is missing")
    else:
        say(f"making {config.peer_env}")
        run([sys.executable, "-m", "venv", str(config.peer_env.expanduser())])
    index = ["--extra-index-url", config.torch_index] if config.torch_index else []
    listed = run([str(python), "-m", "pip", "index", "versions", "torch", *index])
    wanted = torch_requirement(listed, platform.system(), platform.machine())
    if "+cpu" not in wanted and (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        say("pip finds no CPU build of torch (see --torch-index): installing the one with CUDA, about 3 GB")
    say(f"installing {', '.join(REQUIRED)}, {wanted}")
    run([str(python), "-m", "pip", "install", "--quiet", *index, *REQUIRED, wanted])
    last_line([str(python), str(PEER), "--check"])
    return python


def torch_requirement(listed: str, system: str, machine: str) -> str:
    """What to ask pip for: the newest CPU build that `pip index versions torch` lists, else the ordinary one."""
    found = re.search(r"Available versions: (.*)", listed)
    versions = [] if found is None else [version.strip() for version in found[1].split(",")]
    small = [version for version in versions if version.endswith("+cpu")]
    if (system, machine) == ("Linux", "x86_64") and small:
        return f"torch=={small[0]}"  # newest first
    return "torch>=2.8,<3"


# --- running both -----------------------------------------------------------------------------------------------------


def run(command: Sequence[str]) -> str:
    """Standard output of a program that runs in an empty folder; the peer's without what points into our environment.

    Raises:
      MyoloopError: it failed; with the end of what it said.
    """
    leaks = () if command[0] == sys.executable else ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")
    environment = {name: value for name, value in os.environ.items() if name not in leaks}
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
    if done.returncode:
        end = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise MyoloopError(f"this failed: {' '.join(command)}\n{end}")
    return done.stdout


def last_line(command: Sequence[str]) -> Run:
    """The JSON object that a program ends with."""
    lines = run(command).strip().splitlines()
    try:
        return dict(json.loads(lines[-1]))
    except (IndexError, ValueError) as error:
        raise MyoloopError(f"this did not end with a JSON object: {' '.join(command)}") from error


def flags(settings: Settings) -> list[str]:
    """Command-line arguments: {"batch": 64, "network": (8, 8)} -> --batch 64 --network 8 8."""
    words = []
    for name, value in settings.items():
        several = value if isinstance(value, (tuple, list)) else [value]
        words += [f"--{name.replace('_', '-')}", *(str(x) for x in several)]
    return words


def vectors(processes: Sequence[int]) -> list[Settings]:
    """Ways to step the peer's environments, with a fast learner: rollout, batch and epochs are ours."""
    learner = {"rollout": 8192, "batch": 1024, "epochs": 4, "threads": 1}
    one = [{"vector": "dummy", "environments": processes[0], **learner}]
    return one + [{"vector": "subproc", "environments": count, **learner} for count in processes]


def learners(best: Settings) -> list[Settings]:
    """Other learners for the best way: two torch threads, and stable-baselines3's defaults (2048 steps each)."""
    defaults = {"rollout": 2048 * best["environments"], "batch": 64, "epochs": 10}
    return [best | {"threads": 2}, best | defaults, best | defaults | {"threads": 2}]


def tune(processes: Sequence[int], measure: Callable[[Settings], Run]) -> tuple[Settings, list[Run]]:
    """The peer's fastest settings and all that was tried: first the vector, then the learner."""
    tried: list[tuple[float, Settings]] = []

    def best_of(several: list[Settings]) -> Settings:
        tried.extend((float(measure(settings)["steps_per_s"]), settings) for settings in several)
        return max(tried, key=lambda one: one[0])[1]

    best = best_of(learners(best_of(vectors(processes))))
    return best, [{"steps_per_s": round(rate, 1), **settings} for rate, settings in tried]


def ours(config: Config, emg: bool = False, physics_dt: float | None = None) -> Run:
    """What training/phase1.py ends with."""
    settings: Settings = {
        "environments": config.environments,
        "steps": config.emg_steps if emg else config.steps,
    }
    if emg:
        settings["emg"] = config.armband
    if physics_dt is not None:
        settings["physics_dt"] = physics_dt
    with tempfile.TemporaryDirectory() as folder:
        return last_line([sys.executable, str(OURS), *flags({"run": f"{folder}/run"} | settings)])


def summary(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Medians over the rounds and their ratios. Each round: steps/s of peer, phase1, with_emg and same_physics."""
    rate = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    return {
        "peer_steps_per_s": round(rate["peer"], 1),
        "ours_phase1_steps_per_s": round(rate["phase1"], 1),
        "ours_with_emg_steps_per_s": round(rate["with_emg"], 1),
        "ratio_phase1": round(rate["phase1"] / rate["peer"], 2),
        "ratio_with_emg": round(rate["with_emg"] / rate["peer"], 2),
        "ratio_same_physics": round(rate["same_physics"] / rate["peer"], 2),
    }


def main(config: Config) -> None:
    console = Console(stderr=True)
    python = peer_python(config, console.print)
    network = NetworkConfig().hidden

    def peer(settings: Settings, seconds: float) -> Run:
        command = [str(python), str(PEER), *flags({**settings, "network": network, "seconds": seconds})]
        measured = last_line(command)
        console.print(f"peer {measured['steps_per_s']:8.0f} steps/s  {settings}")
        return measured

    if config.build_only:
        print(json.dumps(last_line([str(python), str(PEER), "--check"])))
        return
    busy = os.getloadavg()[0]
    if busy > 0.5:
        console.print(f"[yellow]the machine is busy (load {busy:.1f}): these rates will be too low")
    best, tried = tune(config.processes, lambda settings: peer(settings, config.trial_seconds))
    rounds = []
    for _ in range(config.rounds):
        measured = peer(best, config.seconds)
        mine = {
            "phase1": ours(config),
            "with_emg": ours(config, emg=True),
            "same_physics": ours(config, physics_dt=float(measured["physics_dt"])),
        }
        rates = {name: float(one["steps_per_s"]) for name, one in ({"peer": measured} | mine).items()}
        console.print({name: round(value) for name, value in rates.items()})
        rounds.append(rates)
    packages = ("mujoco", "jax", "myo-sim")
    result = {
        **summary(rounds),
        "peer": measured,
        "tried": tried,
        "rounds": [{name: round(value, 1) for name, value in one.items()} for one in rounds],
        "environments": config.environments,
        "network": network,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(busy, 2),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except MyoloopError as error:
        sys.exit(str(error))
