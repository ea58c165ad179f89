"""Which step and solver the physics needs: deviation from 0.5 ms against cost, for engine `mujoco`.

Participants move for a few seconds at 0.5 ms with MyoHand's own integrator (Euler): a third follows quick gestures under
the baseline controller, a third gets random excitations that jump every 0.1 to 0.3 s, a third follows gestures while
its fingertips are pushed. Then every setting plays the same excitations and pushes (open loop: no controller makes up
for errors) from the same states, and after 1 s the joints are compared.

Cost is CPU time, so that other programs disturb little. Writes a page, a figure, and as the last line of the output one
JSON object: `rows` of `setting`, `mean_deg`, `p95_deg`, `tip_mm`, `us_per_step`, `control_steps_per_s_core`; `chosen`, the
row of what myoloop uses; `speedup`, its control steps per second over those of MyoHand's own setting.

    python benchmarks/physics_settings.py
"""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib
import mujoco
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from myoloop.body import PHYSICS_DT
from myoloop.body.model import Hand, load_hand
from myoloop.body.mujoco_engine import MujocoEngine
from myoloop.policy.baseline import baseline_excitation, make_baseline
from myoloop.task.reference import ReferenceConfig, held_out_seed, make_reference, motion

matplotlib.use("agg")
import matplotlib.pyplot as plt

CONTROL_DT = 0.02
WORKLOADS = ("gestures", "random", "pushed")
EULER, IMPLICIT = (int(getattr(mujoco.mjtIntegrator, f"mjINT_{name}")) for name in ("EULER", "IMPLICITFAST"))


@dataclass(frozen=True)
class Config:
    """What to compare."""

    participants: int = 96
    """bodies, a third for each workload"""
    seconds: int = 3
    """length of the recording; a comparison of 1 s begins at every second but the first"""
    timed_steps: int = 40
    """control steps that the cost is the median of"""
    page: Path | None = Path("docs/physics-settings.md")
    """where the page goes (the figure beside it, .png)"""


@dataclass(frozen=True)
class Setting:
    """One way to integrate."""

    name: str
    dt: float
    integrator: int = IMPLICIT
    options: dict[str, Any] = field(default_factory=dict)
    """further fields of MuJoCo's mjOption"""


CHOSEN = Setting(f"implicitfast {1e3 * PHYSICS_DT:g} ms", PHYSICS_DT)
OWN = Setting("Euler 2 ms", 0.002, EULER)
STEPS = [
    *(Setting(f"Euler {ms:g} ms", ms / 1e3, EULER) for ms in (0.25, 1, 2, 4, 5)),
    *(Setting(f"implicitfast {ms:g} ms", ms / 1e3) for ms in (0.5, 1, 2, 4, 5, 10)),
]
DISABLE = mujoco.mjtDisableBit
NO_ISLANDS = int(DISABLE.mjDSBL_ISLAND)
SOLVERS = [
    dataclasses.replace(CHOSEN, name=f"{CHOSEN.name}, {name}", options=options)
    for name, options in {
        "1 iteration": {"iterations": 1},
        "2 iterations": {"iterations": 2},
        "4 iterations, 8 in line search": {"iterations": 4, "ls_iterations": 8},
        "tolerance 1e-4": {"tolerance": 1e-4},
        "solver CG": {"solver": int(mujoco.mjtSolver.mjSOL_CG)},
        "solver PGS, 10 iterations": {"solver": int(mujoco.mjtSolver.mjSOL_PGS), "iterations": 10},
        "sparse": {"jacobian": int(mujoco.mjtJacobian.mjJAC_SPARSE)},
        "elliptic cone": {"cone": int(mujoco.mjtCone.mjCONE_ELLIPTIC)},
        "no warm start": {"disableflags": NO_ISLANDS | int(DISABLE.mjDSBL_WARMSTART)},
        "islands looked for": {"disableflags": 0},
    }.items()
]


class Recording(NamedTuple):
    """What was done and where it led."""

    excitation: np.ndarray
    """(steps, B, 39)"""
    push: np.ndarray
    """(steps, B, 6, 3) N"""
    starts: dict[int, np.ndarray]
    """saved bodies by step"""
    qpos: np.ndarray
    """(steps, B, 23) rad after each step"""
    fingertips: np.ndarray
    """(steps, B, 5, 3) m"""


def hand_of(setting: Setting) -> Hand:
    hand = load_hand()
    model = copy.copy(hand.model)
    model.opt.timestep, model.opt.integrator = setting.dt, setting.integrator
    for name, value in setting.options.items():
        setattr(model.opt, name, value)
    return dataclasses.replace(hand, model=model)


def record(config: Config) -> Recording:
    """The movements, at 0.5 ms Euler."""
    b, second = config.participants, round(1 / CONTROL_DT)
    third = b // 3
    rng = np.random.default_rng(0)
    hand = hand_of(Setting("Euler 0.5 ms", 0.0005, EULER))
    engine = MujocoEngine(hand, b, CONTROL_DT)
    controller = make_baseline(hand)
    reference = make_reference(ReferenceConfig(kind="discrete", seed=held_out_seed(0)), participants=b)
    body, starts, rows = engine.state(), {}, []
    random, until = np.zeros((third, 39)), np.zeros(third, int)
    for step in track(range(config.seconds * second), description="recording", transient=True):
        asked = motion(reference, np.float32((step + 1) * CONTROL_DT))
        felt = jax.tree.map(lambda x: x.astype(np.float32) if x.dtype.kind == "f" else x, body)
        excitation = np.array(baseline_excitation(controller, felt, asked.qpos, asked.qvel), float)
        for i in np.flatnonzero(until <= step):
            # squares: mostly weak, sometimes strong; half of the muscles silent
            random[i] = rng.uniform(0, 0.7, 39) ** 2 * rng.integers(0, 2, 39)
            until[i] = step + rng.integers(5, 16)
        excitation[third : 2 * third] = random
        if step % 25 == 10:  # 100 ms in every 500 ms
            engine.push(rng.normal(0, 3.0, (third, 5, 3)), ids=np.arange(2 * third, 3 * third))
        elif step % 25 == 15:
            engine.push(np.zeros((6, 3)))
        if step % second == 0 and step:
            starts[step] = engine.save()
        push = engine._push.copy()
        body = engine.step(excitation)
        rows.append((excitation, push, body.qpos, body.fingertips))
    excitation, push, qpos, tips = (np.stack(part) for part in zip(*rows, strict=True))
    return Recording(excitation, push, starts, qpos, tips)


def deviation(setting: Setting, recording: Recording) -> dict[str, Any]:
    """Of joints (degrees) and fingertips (mm) 1 s after the same state."""
    steps, participants = recording.excitation.shape[:2]
    engine = MujocoEngine(hand_of(setting), participants, CONTROL_DT)
    joints, tips, lost = [], [], 0
    for start, saved in recording.starts.items():
        engine.load(saved)
        end = min(start + round(1 / CONTROL_DT), steps)
        for step in range(start, end):
            engine.push(recording.push[step])
            engine.advance(recording.excitation[step])
        body = engine.state()
        joints.append(np.abs(np.degrees(body.qpos - recording.qpos[end - 1])))
        tips.append(1e3 * np.linalg.norm(body.fingertips - recording.fingertips[end - 1], axis=-1))
        lost += int(body.diverged.sum())
    off, tip = np.stack(joints), np.stack(tips)
    third = participants // 3
    by_workload = {name: off[:, i * third : (i + 1) * third].mean() for i, name in enumerate(WORKLOADS)}
    return {
        "setting": setting.name,
        "mean_deg": round(float(off.mean()), 3),
        "p95_deg": round(float(np.percentile(off, 95)), 3),
        "max_deg": round(float(off.max()), 2),
        "by_workload_deg": {name: round(float(value), 3) for name, value in by_workload.items()},
        "tip_mm": round(float(tip.mean()), 3),
        "tip_p95_mm": round(float(np.percentile(tip, 95)), 2),
        "diverged": lost,
    }


def costs(settings: list[Setting], recording: Recording, steps: int) -> list[float]:
    """CPU microseconds per physics step of every setting, settings in turn so that all see the same machine."""
    participants = recording.excitation.shape[1]
    engines = [MujocoEngine(hand_of(setting), participants, CONTROL_DT, threads=1) for setting in settings]
    took = np.zeros((len(settings), steps))
    for step in track(range(steps), description="timing", transient=True):
        for i, engine in enumerate(engines):
            begin = time.thread_time()
            engine.advance(recording.excitation[step])
            took[i, step] = time.thread_time() - begin
    substeps = [round(CONTROL_DT / setting.dt) for setting in settings]
    return [1e6 * float(np.median(row)) / (participants * n) for row, n in zip(took, substeps, strict=True)]


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Deviation against cost."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for family, colour, offset in (("Euler", "tab:red", (-8, -14)), ("implicitfast", "tab:blue", (4, 5))):
        line = [row for row in rows if row["setting"].startswith(family) and "," not in row["setting"]]
        line.sort(key=lambda row: row["us_per_control_step"])
        x, y = [row["us_per_control_step"] for row in line], [row["mean_deg"] for row in line]
        axes.plot(x, y, "o-", color=colour, label=family)
        for row in line:
            label = row["setting"].removeprefix(family)
            place = (row["us_per_control_step"], row["mean_deg"])
            axes.annotate(label, place, textcoords="offset points", xytext=offset, color=colour)
    axes.axhline(0.2, color="grey", linestyle=":", label="accepted: 0.2 deg")
    axes.set(xscale="log", yscale="log", ylabel="mean joint deviation after 1 s (deg)")
    axes.set_xlabel("cost of a 20 ms control step (CPU µs)")
    axes.set_title("Larger steps are cheaper; only with implicitfast do they stay accurate", fontsize=10)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


PAGE = """# Physics settings

How far the physics may be coarsened. Bodies move for {seconds} s at 0.5 ms with MyoHand's own integrator (Euler); then
every setting plays the same excitations and pushes from the same states, without a controller that could make up for
errors, and the joints are compared after 1 s. A third of the {participants} bodies follows quick gestures, a third gets
random excitations that jump, a third follows gestures while its fingertips are pushed with a few newtons.
`python benchmarks/physics_settings.py` makes this page.

**myoloop uses {chosen}** for training and live sessions (`PHYSICS_DT` in `myoloop/body/__init__.py`): {mean} deg
mean deviation, and {speedup} times as many control steps a second as with MyoHand's own setting (Euler 2 ms). The errors that
people and policies make are degrees.

![mean joint deviation after 1 s against CPU time of a control step, for Euler and implicitfast](physics-settings.png)

{table}

deg and mm: mean (95th percentile) over all joints, fingertips and bodies. µs: CPU time of one physics step of one body,
one core, derived fields not read. diverged: bodies that MuJoCo gave up.

What the table says:

- Euler treats the muscles' force-velocity relation explicitly: from 4 ms on some joints end up tens of degrees away.
  `implicitfast` takes it and the joint damping into the step and stays close up to 5 ms.
- The solver has little to do: only joint limits are constraints. More than 3 iterations change nothing, other solvers
  save nothing, the friction cone and contacts do not occur. Islands (parts that could be solved apart) are not looked
  for: the same bits, a few percent sooner.
- Half of a physics step is spent on tendon paths around bones, which no option makes cheaper. So the number of steps is
  what counts, and with it that a control step does not evaluate its last state twice: engine `mujoco` keeps one MjData
  per body for that, and training reads no derived fields (`Engine.advance`).
"""


def page(rows: list[dict[str, Any]], chosen: dict[str, Any], speedup: float, config: Config) -> str:
    """The page in Markdown."""
    lines = [
        "| setting | joints, deg | gestures / random / pushed, deg | largest, deg | fingertips, mm | µs | control steps/s per "
        "core | diverged |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        each = " / ".join(f"{row['by_workload_deg'][name]:.2f}" for name in WORKLOADS)
        lines.append(
            f"| {row['setting']} | {row['mean_deg']:.3f} ({row['p95_deg']:.2f}) | {each} | {row['max_deg']:.1f} | "
            f"{row['tip_mm']:.2f} ({row['tip_p95_mm']:.2f}) | {row['us_per_step']:.1f} | "
            f"{row['control_steps_per_s_core']} | {row['diverged']} |"
        )
    return PAGE.format(
        seconds=config.seconds,
        participants=config.participants,
        chosen=chosen["setting"],
        mean=chosen["mean_deg"],
        speedup=f"{speedup:.1f}",
        table="\n".join(lines),
    )


def main(config: Config) -> None:
    settings = [*STEPS, *SOLVERS]
    recording = record(config)
    rows = [deviation(setting, recording) for setting in track(settings, description="comparing", transient=True)]
    for row, setting, cost in zip(rows, settings, costs(settings, recording, config.timed_steps), strict=True):
        per_control_step = cost * round(CONTROL_DT / setting.dt)
        row["us_per_step"] = round(cost, 1)
        row["us_per_control_step"] = round(per_control_step, 1)
        row["control_steps_per_s_core"] = round(1e6 / per_control_step)
    by_name = {row["setting"]: row for row in rows}
    chosen, own = by_name[CHOSEN.name], by_name[OWN.name]
    speedup = chosen["control_steps_per_s_core"] / own["control_steps_per_s_core"]
    shown = Table("setting", "joints (deg)", "95 %", "fingertips (mm)", "µs a step", "control steps/s per core")
    for row in rows:
        numbers = (row["mean_deg"], row["p95_deg"], row["tip_mm"], row["us_per_step"], row["control_steps_per_s_core"])
        shown.add_row(row["setting"], *map(str, numbers))
    Console().print(shown)
    if config.page:
        draw(rows, config.page.with_suffix(".png"))
        config.page.write_text(page(rows, chosen, speedup, config), encoding="utf-8")
    print(json.dumps({"rows": rows, "chosen": chosen, "speedup": round(speedup, 2)}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
