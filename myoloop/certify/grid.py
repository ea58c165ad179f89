"""Whole sessions, from the participant to the decoder and back, for a grid of channels, rate and participants."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml

from myoloop import capacity
from myoloop.assets import find_file
from myoloop.capacity import MOST_LATENCY_MS
from myoloop.certify.measure import DECODER
from myoloop.decoder.runtime import OnnxDecoder
from myoloop.emg.armband import armband_from
from myoloop.errors import MyoloopError

MOST_LATE = 0.01
"""Part of the steps that may run late."""
SHIPPED = (16, 2000.0)
"""Channels and rate of the decoder that ships."""
START_S = 240.0
"""How long sessions may take beyond their length: building motor units and compiling."""


class Place(NamedTuple):
    """One cell of the grid."""

    channels: int
    rate_hz: float
    participants: int = 1
    """sessions side by side, each with its participant and its decoder as processes of their own"""


FULL = (
    Place(8, 1000.0), Place(8, 2000.0), Place(16, 1000.0), Place(16, 2000.0), Place(32, 2000.0), Place(16, 2000.0, 2),
    Place(16, 2000.0, 3), Place(16, 2000.0, 4), Place(16, 2000.0, 6), Place(16, 2000.0, 8),
)  # fmt: skip
QUICK = (Place(*SHIPPED),)


def armband_of(place: Place) -> dict[str, Any]:
    """An armband with so many channels, in two rings from 17 on, at that rate."""
    wide = place.channels > 16
    return {
        "preset": "semg_rd16", "name": f"certify_{place.channels}ch_{place.rate_hz:g}hz", "channels": place.channels,
        "rate_hz": place.rate_hz, "high_hz": min(850.0, 0.45 * place.rate_hz), "rows": 2 if wide else 1,
        "row_spacing_mm": 20.0 if wide else 0.0,
    }  # fmt: skip


def decoder_for(place: Place, folder: Path) -> Path:
    """The decoder that ships, or one of the same make, untrained, for another armband."""
    if (place.channels, place.rate_hz) == SHIPPED:
        return find_file(DECODER, kind="decoder")
    path = folder / f"decoder_{place.channels}_{place.rate_hz:g}.onnx"
    if not path.exists():
        import jax  # seconds: only where it is needed

        from myoloop.decoder import networks
        from myoloop.decoder.export import export_decoder

        config = networks.make_config("tcn", channels=place.channels, rate_hz=place.rate_hz)
        labels = armband_from(armband_of(place)).channel_labels
        export_decoder(path, config, networks.init_params(config, jax.random.key(0)), tuple(labels), trial_s=0.2)
        OnnxDecoder(path)
    return path


def experiment_of(place: Place, number: int, seconds: float, decoder: Path) -> dict[str, Any]:
    """One session of a cell."""
    return {
        "name": "certify", "duration_s": seconds, "ros": False, "record": False,
        "participant": {"id": f"certify{number}", "armband": armband_of(place), "person": 0},
        "decoder": {"name": "tcn", "kind": "onnx", "model": str(decoder)},
    }  # fmt: skip


def measure_place(place: Place, seconds: float, folder: Path) -> dict[str, Any]:
    """Runs the sessions of one cell side by side and reads their reports."""
    decoder = decoder_for(place, folder)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        jobs = []
        for number in range(place.participants):
            home = Path(scratch) / str(number)
            home.mkdir()
            (home / "e.yaml").write_text(
                yaml.safe_dump(experiment_of(place, number, seconds, decoder)), encoding="utf-8"
            )
            command = [sys.executable, "-m", "myoloop", "run", str(home / "e.yaml"), "--runs", str(home / "runs")]
            out = (home / "out.txt").open("wb")
            jobs.append((home, subprocess.Popen(command, stdout=out, stderr=out, env=env)))
            out.close()
        psutil.cpu_percent()
        for _, job in jobs:
            try:
                job.wait(seconds + START_S)
            except subprocess.TimeoutExpired:
                job.terminate()
                job.wait(30.0)
        busy = psutil.cpu_percent() / 100
        reports = [report for home, _ in jobs if (report := _report(home))]
        said = (jobs[0][0] / "out.txt").read_text(encoding="utf-8", errors="replace").strip()[-300:]
    return place._asdict() | judged(place, reports, said) | {"cores_busy": round(busy * (psutil.cpu_count() or 1), 2)}


def judged(place: Place, reports: list[dict[str, Any]], said: str = "") -> dict[str, Any]:
    """The worst of the sessions of a cell, and whether the machine carries it.

    Returns:
      overrun_share, samples_lost, feedback_latency_ms, step_ms, start_lateness_ms, decoder_ms (of the worst session), carried,
      and why (in words; empty if carried).
    """
    whole = [r for r in reports if r.get("loop", {}).get("steps") and r["loop"].get("feedback_latency_ms")]
    if absent := place.participants - len(whole):
        return {"carried": False, "why": f"{absent} of {place.participants} sessions did not run. {said}".strip()}
    worst = max(whole, key=lambda r: r["loop"]["feedback_latency_ms"]["p99"])
    late = max(r["loop"]["overruns"] / r["loop"]["steps"] for r in whole)
    lost = sum(r["emg"]["samples_lost"] or 0 for r in whole)
    p99 = worst["loop"]["feedback_latency_ms"]["p99"]
    why = [f"{100 * late:.1f} % of the steps ran late"] if late > MOST_LATE else []
    why += [f"{lost} samples were lost"] if lost else []
    why += [f"one answer of a hundred came after {p99:.0f} ms"] if p99 > MOST_LATENCY_MS else []
    return {
        "overrun_share": round(late, 5), "samples_lost": lost, "feedback_latency_ms": worst["loop"]["feedback_latency_ms"],
        "step_ms": worst["loop"]["step_ms"], "stage_ms": worst["loop"].get("stage_ms"),
        "start_lateness_ms": worst["loop"].get("start_lateness_ms"), "decoder_ms": worst["decoder"].get("compute_ms"),
        "carried": not why, "why": ", ".join(why),
    }  # fmt: skip


def walk(places: Iterable[Place]) -> Iterator[tuple[Place, list[dict[str, Any]]]]:
    """The places in order, without those that hold more than one that was not carried; append each result to the list."""
    done: list[dict[str, Any]] = []
    for place in places:
        if not any(
            _holds_more(place, Place(d["channels"], d["rate_hz"], d["participants"])) for d in done if not d["carried"]
        ):
            yield place, done


def measure_batch(seconds: float, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """How many participants one process carries, each with its streams and a decoder."""
    tries: dict[int, dict[str, Any]] = {}  # or why a number could not be tried

    def fits(participants: int) -> bool:
        say(f"{participants} participants in one process")
        try:
            measured = capacity.measure(participants, seconds)
        except MyoloopError as error:
            tries[participants] = {"why": str(error)}
            return False
        tries[participants] = {
            "step_ms_p99": round(measured.step_ms_p99, 2),
            "overrun_share": round(measured.overrun_share, 5),
            "feedback_latency_ms_p99": round(measured.latency_ms_p99, 2),
        }
        return bool(measured.holds)

    most, failed_at = capacity.find_most(fits, capacity.PUBLISHED_MOST, 2)
    return {"participants": most, "failed_at": failed_at, "engine": "mujoco", "carried": most > 0, "tries": tries}


def _holds_more(place: Place, than: Place) -> bool:
    return place != than and all(mine >= theirs for mine, theirs in zip(place, than, strict=True))


def _report(home: Path) -> dict[str, Any] | None:
    try:
        return json.loads((home / "runs" / "latest" / "report.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return None
