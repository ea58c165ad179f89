"""What the EMG costs beside the physics, and what its design saves. The last line is one JSON object:

- `units`: motor units of the person; `lowrank_error`: RMS error of the shared MUAP shapes over the RMS of the signal
- `real_time_factor`: control step over the time to synthesise it, one participant on one core
- `emg_over_physics`: EMG time over physics time (engine `mujoco`) of the same control steps of a batch, on the same
  cores, at the excitations of the baseline controller; measured in turns, so that a busy machine slows both
- `dense_over_ours`: time of the usual way (a dense product of a one-hot spike train with all MUAP coefficients) over
  ours, same participants, same run; `direct_over_ours`: the same for adding every MUAP at full length, spike by spike
- `moving_over_still`, `posture_over_still`: time with every armband off its place, and with muscles stretched too, over
  that with armbands that cannot move, same participants, same run
- `gpu_participants_real_time`: only with a GPU: the largest batch whose EMG takes no longer than a control step

    python benchmarks/emg_speed.py --participants 256 --steps 40
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg.placement import Moves
from myoloop.emg.synthesis import EmgParams, build_emg, discharges, healthy, init_emg, synthesise
from myoloop.participant import ParticipantConfig, Participants


@dataclass(frozen=True)
class Config:
    """What to measure."""

    participants: int = 256
    """batch of the comparison with the physics"""
    steps: int = 40
    """control steps measured"""
    dense_participants: int = 64
    """batch of the comparison with the usual ways"""
    one_core: bool = False
    """only the one-core figure (the program calls itself with this)"""


def seconds(call: Callable[[], object]) -> float:
    """Wall time of a call."""
    begin = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begin


def median(call: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call after two that warm up."""
    for _ in range(2):
        jax.block_until_ready(call())
    return float(np.median([seconds(call) for _ in range(repeats)]))


def one_core(config: Config) -> dict[str, float]:
    """Real-time factor of one participant at the baseline controller's excitations."""
    people = Participants(ParticipantConfig(), threads=1)
    took = []
    state = people.emg_state
    for step in range(10 + 10 * config.steps):
        act = people.act()
        people.move()
        before = time.perf_counter()
        out, state = synthesise(people.emg_params, state, act.excitation, people.samples)
        np.asarray(out.chunk)
        if step >= 10:
            took.append(time.perf_counter() - before)
    return {"real_time_factor": round(people.control_dt / float(np.median(took)), 1)}


def beside_physics(config: Config) -> tuple[dict[str, float], Participants, np.ndarray]:
    """EMG and physics of the same control steps, one after the other."""
    people = Participants(ParticipantConfig(), participants=config.participants)
    emg, physics = [], []
    state = people.emg_state
    for step in range(5 + config.steps):
        act = people.act()

        begin = time.perf_counter()
        out, state = synthesise(people.emg_params, state, act.excitation, people.samples)
        jax.block_until_ready(out.chunk)
        middle = time.perf_counter()
        people.move()
        end = time.perf_counter()
        if step >= 5:
            emg.append(middle - begin)
            physics.append(end - middle)
    return (
        {
            "participants": config.participants,
            "emg_ms": round(1e3 * float(np.median(emg)), 2),
            "physics_ms": round(1e3 * float(np.median(physics)), 2),
            "emg_over_physics": round(float(np.sum(emg) / np.sum(physics)), 3),
            "physics_dt": people.hand.model.opt.timestep,
            "discharges_per_step": round(float((np.asarray(out.spikes.when) >= 0).sum() / config.participants), 1),
        },
        people,
        act.excitation,
    )


def usual_ways(params: EmgParams, excitation: np.ndarray, repeats: int) -> dict[str, float]:
    """The usual syntheses of the same discharges, over ours (which makes the discharges, noise and filter as well)."""
    batch, samples = excitation.shape[0], round(0.02 * params.band.rate_hz)
    _, state = synthesise(params, init_emg(params, range(batch)), excitation, 10 * samples)
    out, _ = synthesise(params, state, excitation, samples)
    rows = np.zeros((batch, samples, params.units), np.float32)
    spikes = []
    for b in range(batch):
        found = discharges(params, out.spikes, b)
        at = found.sample - int(out.spikes.start[b])
        rows[b, at, found.unit] = 1.0
        spikes += [(b, s, u) for s, u in zip(at, found.unit, strict=True)]
    onehot, coefficients = jnp.asarray(rows), params.coefficients
    dense = jax.jit(lambda x, c: jnp.einsum("bsu,ud->bsd", x, c, precision="highest"))
    shapes = np.asarray(params.stretched)[0]
    waves = np.einsum("ucr,rl->ucl", np.asarray(coefficients).reshape(params.units, -1, shapes.shape[0]), shapes)
    b, s, u = (jnp.asarray(x, jnp.int32) for x in np.array(spikes).T)
    length = waves.shape[-1]

    @jax.jit
    def direct(b: jax.Array, s: jax.Array, u: jax.Array, table: jax.Array) -> jax.Array:
        place = s[:, None] + jnp.arange(length)
        total = jnp.zeros((batch, samples + length, table.shape[1]), jnp.float32)
        return total.at[b[:, None], place].add(jnp.moveaxis(table[u], 1, 2))

    table = jnp.asarray(waves)
    ours = median(lambda: synthesise(params, state, excitation, samples), repeats)
    return {
        "dense_over_ours": round(median(lambda: dense(onehot, coefficients), repeats) / ours, 2),
        "direct_over_ours": round(median(lambda: direct(b, s, u, table), repeats) / ours, 2),
    }


def moving(params: EmgParams, excitation: np.ndarray, repeats: int) -> dict[str, float]:
    """What armbands off their place and stretched muscles cost, measured in turns."""
    batch, samples = excitation.shape[0], round(0.02 * params.band.rate_hz)
    rng, still = np.random.default_rng(0), healthy(params, batch)
    movable = build_emg(params.band, params.config, Moves())
    off = still._replace(
        rotation_deg=rng.uniform(-20, 20, batch).astype(np.float32),
        displacement_mm=rng.uniform(-5, 15, batch).astype(np.float32),
    )
    strain = rng.uniform(-0.2, 0.2, (batch, len(FOREARM_MUSCLES))).astype(np.float32)
    cases = [(params, still), (movable, off), (movable, off._replace(fibre_strain=strain, muscle_shift_mm=20 * strain))]
    _, state = synthesise(params, init_emg(params, range(batch)), excitation, 10 * samples)
    took = np.zeros((repeats + 2, len(cases)))
    for row in took:
        for n, (who, now) in enumerate(cases):
            row[n] = seconds(lambda who=who, now=now: synthesise(who, state, excitation, samples, now))
    still_s, moving_s, posture_s = np.median(took[2:], axis=0)
    return {
        "moving_over_still": round(float(moving_s / still_s), 2),
        "posture_over_still": round(float(posture_s / still_s), 2),
    }


def gpu_participants(params: EmgParams, excitation: np.ndarray) -> int:
    """The largest power of two of participants whose chunk takes no longer than it lasts."""
    best, batch = 0, 256
    while batch <= 65536:
        drive = jnp.asarray(np.resize(excitation, (batch, excitation.shape[1])), jnp.float32)
        state, now = init_emg(params, range(batch)), healthy(params, batch)
        samples = round(0.02 * params.band.rate_hz)
        step = jax.jit(lambda s, e, now=now, n=samples: synthesise(params, s, e, n, now))
        if median(lambda s=state, e=drive, f=step: f(s, e), 10) > 0.02:
            break
        best, batch = batch, batch * 2
    return best


def main(config: Config) -> None:
    if config.one_core:
        print(json.dumps(one_core(config)))
        return
    alone = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); import runpy, sys; "
    alone += f"sys.argv = [{__file__!r}, '--one-core']; runpy.run_path({__file__!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=True)
    result: dict[str, object] = dict(json.loads(done.stdout.strip().splitlines()[-1]))
    beside, people, excitation = beside_physics(config)
    params = people.emg_params
    result = {
        "units": params.units,
        "rank": params.rank,
        "lowrank_error": round(float(params.lowrank_error), 4),
    } | result
    result |= beside | usual_ways(params, excitation[: config.dense_participants], 15)
    result |= moving(params, excitation[: config.dense_participants], 15)
    if jax.default_backend() == "gpu":
        result["gpu_participants_real_time"] = gpu_participants(params, excitation)
    result |= {"device": jax.devices()[0].device_kind, "cores": len(os.sched_getaffinity(0))}
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
