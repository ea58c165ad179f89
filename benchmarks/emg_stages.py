"""What the EMG costs: build, and milliseconds a 20 ms chunk for one and many participants, stage by stage.

    python benchmarks/emg_stages.py --batches 1 64

Prints one JSON object as its last line: units, rank, lowrank_error, build_s, and for each batch size the medians in ms.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from myoloop.emg.accumulate import add_rows
from myoloop.emg.armband import armband
from myoloop.emg.config import EmgConfig
from myoloop.emg.motor_units import discharge
from myoloop.emg.synthesis import EmgParams, build_emg, init_emg, synthesise


def median_ms(call: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call, after one that compiles."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return round(float(np.median(times)) * 1e3, 3)


def stages(params: EmgParams, batch: int, excitation: float, repeats: int) -> dict[str, float]:
    """Times of one control step (20 ms) of EMG for `batch` participants at one excitation of all muscles."""
    samples = round(0.02 * params.band.rate_hz)
    drive = np.full((batch, 39), excitation, np.float32)
    _, state = synthesise(params, init_emg(params, range(batch)), drive, samples * 25)
    rate = params.band.internal_rate_hz
    fire = jax.jit(
        lambda s, e: discharge(params.pool, params.muscle, params.config, rate, s.pool, s.key, s.sample, e, 40)[0]
    )
    forearm = jnp.asarray(drive[:, :26])
    when = fire(state, forearm)
    add = jax.jit(lambda w: add_rows(w, params.coefficients, 40))
    whole = median_ms(lambda: synthesise(params, state, drive, samples), repeats)
    return {
        "batch": batch,
        "excitation": excitation,
        "chunk_ms": whole,
        "motor_units_ms": median_ms(lambda: fire(state, forearm), repeats),
        "add_ms": median_ms(lambda: add(when), repeats),
        "discharges_per_participant": round(float((np.asarray(when) >= 0).sum() / batch), 1),
        "real_time_factor": round(20.0 * batch / whole, 1),
    }


def main() -> None:
    """Builds the EMG model, times it and prints the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--armband", default="semg_rd16", help="armband preset")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64], help="numbers of participants")
    parser.add_argument("--excitations", type=float, nargs="+", default=[0.05, 0.3], help="excitation of all muscles")
    parser.add_argument("--repeats", type=int, default=50, help="timed calls of each stage")
    args = parser.parse_args()
    start = time.perf_counter()
    params = build_emg(armband(args.armband), EmgConfig())
    built = time.perf_counter() - start
    rows = [stages(params, b, e, args.repeats) for b in args.batches for e in args.excitations]
    for row in rows:
        print(row)
    summary = {
        "units": params.units,
        "rank": params.rank,
        "lowrank_error": round(float(params.lowrank_error), 4),
        "build_s": round(built, 2),
        "rows": rows,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
