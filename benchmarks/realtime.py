"""How fast one participant is: the time of each stage, and how many participants one core carries in real time.

Pins itself to one core. The last line of the output is one JSON object:
`stage_ms` (median of each stage, one participant), `real_time_factor` (control period over the whole step) and
`participants_per_core` (the largest batch whose median step fits into the control period).

    python benchmarks/realtime.py --steps 500
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before libraries count cores and start threads

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from myoloop.assets import find_file
from myoloop.body.engine import in_float32
from myoloop.emg.synthesis import init_emg, synthesise
from myoloop.participant import ParticipantConfig, Participants
from myoloop.policy.learned import excitation, load_policy
from myoloop.task.reference import joint_angles, make_reference


@dataclass(frozen=True)
class Config:
    """What to measure."""

    steps: int = 500
    """control steps per measurement"""
    most: int = 64
    """largest batch to try"""


def median_ms(call: Callable[[], object], steps: int, what: str) -> float:
    """Median wall time of a call, milliseconds, after ten calls to warm up."""
    for _ in range(10):
        call()
    times = []
    for _ in track(range(steps), description=what, transient=True):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return 1e3 * float(np.median(times))


def stages(steps: int) -> dict[str, float]:
    """Median milliseconds of each stage of one participant's step, each run alone."""
    people = Participants(ParticipantConfig(), threads=1)
    people.act()
    body = people.move()
    decide = jax.jit(_policy)
    reference = make_reference(people.config.reference)
    mind = load_policy(find_file(people.config.policy, kind="policy")).policy
    emg_state = init_emg(people.emg_params, [0])
    drive = np.full((1, 39), 0.1, np.float32)

    def policy() -> None:
        jax.block_until_ready(decide(mind, reference, in_float32(body), np.float32(people.time)))

    def emg() -> None:
        nonlocal emg_state
        out, emg_state = synthesise(people.emg_params, emg_state, drive, people.samples)
        np.asarray(out.chunk)

    def whole() -> None:
        people.act()
        people.move()

    measured = {
        "policy": median_ms(policy, steps, "policy"),
        "emg": median_ms(emg, steps, "EMG"),
        "body": median_ms(people.move, steps, "body"),
        "step": median_ms(whole, steps, "whole step"),
    }
    return {name: round(value, 3) for name, value in measured.items()}


def _policy(mind, reference, body, now):  # type: ignore[no-untyped-def]
    wanted = jnp.stack([joint_angles(reference, now + ahead) for ahead in mind.look_ahead_s])
    return excitation(mind, body, wanted, mind.start(1))[0]


def step_ms(participants: int, steps: int) -> float:
    """Median milliseconds of the whole step of a batch."""
    people = Participants(ParticipantConfig(), participants=participants, threads=1)

    def whole() -> None:
        people.act()
        people.move()

    return median_ms(whole, steps, f"{participants} participants")


def main(config: Config) -> None:
    console = Console()
    stage = stages(config.steps)
    period_ms = 1e3 * 0.02
    carried, batch = 1, 2
    rows = [(1, stage["step"])]
    while batch <= config.most:
        rows.append((batch, step_ms(batch, max(50, config.steps // batch))))
        if rows[-1][1] > period_ms:
            break
        carried, batch = batch, batch * 2
    low, high = carried, min(batch, config.most)
    while high - low > 1:  # between the last batch that fits and the first that does not
        middle = (low + high) // 2
        rows.append((middle, step_ms(middle, max(50, config.steps // middle))))
        low, high = (middle, high) if rows[-1][1] <= period_ms else (low, middle)
    table = Table("participants", "step (ms)", "of 20 ms", title="one core, engine mujoco, EMG on")
    for count, took in sorted(rows):
        table.add_row(str(count), f"{took:.2f}", f"{100 * took / period_ms:.0f} %")
    console.print(table)
    result = {
        "stage_ms": stage,
        "real_time_factor": round(period_ms / stage["step"], 2),
        "participants_per_core": low,
        "batch_step_ms": {str(count): round(took, 2) for count, took in sorted(rows)},
        "steps": config.steps,
        "device": jax.devices()[0].device_kind,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
