"""What certify concludes from figures, and that its own measures measure."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from myoloop import capacity
from myoloop.certify import grid, measure, procedure, surroundings, verdict
from myoloop.certify.page import rows_of, write_page
from myoloop.emg.armband import armband_from
from myoloop.errors import MyoloopError
from myoloop.experiment import load_experiment
from myoloop.streams.timing import measure_lsl
from myoloop.vitals import Vitals, grown, look

SPREAD = {"median": 1.0, "p95": 2.0, "p99": 3.0, "max": 4.0, "count": 100}


def report(overruns: int = 0, lost: int = 0, p99: float = 21.0) -> dict[str, Any]:
    latency = {"median": 20.1, "p95": 20.5, "p99": p99, "max": p99 + 1}
    loop = {
        "steps": 1000,
        "overruns": overruns,
        "feedback_latency_ms": latency,
        "step_ms": SPREAD,
        "start_lateness_ms": SPREAD,
    }
    return {"loop": loop, "emg": {"samples_lost": lost}, "decoder": {"compute_ms": 0.6}}


def result(*cells: dict[str, Any], **more: Any) -> dict[str, Any]:
    lsl = {"one_way_ms": SPREAD, "round_trip_ms": SPREAD, "sent": 100, "lost": 0}
    whole = {
        "grid": list(cells),
        "clock_ms": SPREAD | {"p99": 0.1},
        "lsl": lsl,
        "ros": {"left_out": "no ROS"},
        "decoder_ms": SPREAD,
    }
    return whole | more


def cell(place: grid.Place, *reports: dict[str, Any]) -> dict[str, Any]:
    return place._asdict() | grid.judged(place, list(reports)) | {"cores_busy": 0.5}


ONE, TWO = grid.Place(16, 2000.0), grid.Place(16, 2000.0, 2)


@pytest.mark.parametrize(
    ("reports", "why"),
    [
        ([report()], ""),
        ([report(overruns=11)], "1.1 % of the steps ran late"),
        ([report(lost=40)], "40 samples were lost"),
        ([report(p99=46.0)], "one answer of a hundred came after 46 ms"),
        ([], "1 of 1 sessions did not run."),
        ([{"loop": {"steps": 0}}], "1 of 1 sessions did not run."),
    ],
)
def test_a_session_is_carried_if_nothing_is_late_lost_or_old(reports: list[dict[str, Any]], why: str) -> None:
    judged = grid.judged(ONE, reports)
    assert judged["why"] == why and judged["carried"] is (why == "")


def test_the_worst_of_several_sessions_counts() -> None:
    judged = grid.judged(TWO, [report(p99=21.0), report(overruns=30, p99=60.0)])
    assert not judged["carried"] and judged["overrun_share"] == 0.03 and judged["feedback_latency_ms"]["p99"] == 60.0


def test_what_holds_more_than_what_failed_is_not_tried() -> None:
    tried = []
    places = [ONE, grid.Place(32, 2000.0), TWO, grid.Place(32, 2000.0, 2), grid.Place(16, 2000.0, 3)]
    for place, done in grid.walk(places):
        tried.append(place)
        done.append(place._asdict() | {"carried": place != TWO and place.channels < 32})
    assert tried == [ONE, grid.Place(32, 2000.0), TWO]


@pytest.mark.parametrize("place", sorted(set(grid.FULL + grid.QUICK)))
def test_every_place_of_the_grid_is_a_session_that_can_be_run(place: grid.Place, tmp_path: Path) -> None:
    (tmp_path / "decoder.onnx").touch()
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(grid.experiment_of(place, 3, 5.0, tmp_path / "decoder.onnx")))
    experiment = load_experiment(tmp_path / "e.yaml")
    band = armband_from(experiment.participant.armband)
    assert (band.channels, band.rate_hz) == (place.channels, place.rate_hz) and experiment.participant.id == "certify3"
    assert band.name.startswith("certify_")


def test_verdict_names_what_is_carried_what_is_not_and_which_link_is_slow() -> None:
    told = verdict.words(result(cell(ONE, report()), cell(TWO, report(), report(overruns=50))))
    assert told["can"] == [
        "one participant, 16 channels at 2000 Hz: answers are used after 20 ms, 99 of 100 within 21 ms"
    ]
    assert told["cannot"] == [
        "2 participants, each a session of its own, 16 channels at 2000 Hz: 5.0 % of the steps ran late"
    ]
    assert told["because"] == []
    slow = {"one_way_ms": SPREAD, "round_trip_ms": SPREAD | {"p99": 12.0}, "sent": 100, "lost": 3}
    because = verdict.slow_links(result(clock_ms=SPREAD, lsl=slow, decoder_ms=SPREAD | {"p99": 30.0}))
    assert len(because) == 4 and "3 of 100 LSL chunks" in because[2]


def test_headline_is_the_most_that_is_carried() -> None:
    assert "does not carry a participant" in verdict.headline(result(cell(ONE)))
    assert "2 participants" in verdict.headline(result(cell(ONE, report()), cell(TWO, report(), report())))
    assert "but not 16 channels" in verdict.headline(result(cell(grid.Place(8, 1000.0), report()), cell(ONE)))


def test_certificate_is_a_page_and_holds_every_link_that_was_measured(tmp_path: Path) -> None:
    whole = result(cell(ONE, report()), cell(TWO))
    about = {
        "device": "a chip",
        "cores": 2,
        "system": "a system",
        "python": "3",
        "date": "today",
        "quick": True,
        "version": "0",
    }
    found = [f._asdict() for f in surroundings.look_around(0.05)]
    whole |= about | {"quick": True, "surroundings": found, "limits": procedure._limits()}
    whole |= {"headline": verdict.headline(whole), "words": verdict.words(whole)}
    json.dumps(whole, allow_nan=False)
    write_page(whole, tmp_path / "certify.html")
    text = (tmp_path / "certify.html").read_text()
    assert (
        whole["headline"] in text and "2 of 2 sessions did not run" in text and "ROS 2 was not measured: no ROS" in text
    )
    assert len(re.findall(r"data:image/png;base64,[A-Za-z0-9+/]{2000,}", text)) == 2
    assert [name for name, _, _ in rows_of(whole)] == [
        "clock", "step start", "step", "LSL one way", "LSL round trip", "decoder", "feedback",
    ]  # fmt: skip


def test_surroundings_advise_where_something_is_wrong_and_only_there(tmp_path: Path) -> None:
    for finding in surroundings.look_around(0.05):
        assert finding.found and (finding.good is not False or finding.advice), finding
    (tmp_path / "cpu0" / "cpufreq").mkdir(parents=True)
    (tmp_path / "cpu0" / "cpufreq" / "scaling_governor").write_text("powersave\n")
    assert "cpupower" in surroundings._governor(tmp_path).advice
    (tmp_path / "cpu0" / "cpufreq" / "scaling_governor").write_text("performance\n")
    assert surroundings._governor(tmp_path).good and not surroundings._governor(tmp_path).advice
    assert "unset OMP_NUM_THREADS" in surroundings._threads({"OMP_NUM_THREADS": "8"}).advice
    assert surroundings._threads({"OMP_NUM_THREADS": "1"}).good
    assert not surroundings._virtual(0.2).good or "no" in surroundings._virtual(0.2).found


def test_lsl_comes_back_from_another_process_later_than_it_got_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("myoloop.streams.timing.OPEN_S", 60.0)
    monkeypatch.setattr("myoloop.streams.timing.LATE_S", 20.0)
    ways = measure_lsl(0.4, channels=4, samples=10)
    assert ways.sent == 20 and 18 <= len(ways.round_trip_ms) <= 20
    assert np.all(ways.one_way_ms > 0) and np.all(ways.round_trip_ms > ways.one_way_ms)


def test_clock_and_decoder_are_measured_as_often_as_they_tick() -> None:
    ticks: list[int] = []
    clock = measure.clock(0.2, lambda: ticks.append(1))
    decoder = measure.decoder(0.2, tick=lambda: ticks.append(1))
    assert clock is not None and decoder is not None and clock["count"] == decoder["count"] == 10 and len(ticks) == 20
    assert 0 <= clock["median"] <= clock["p99"] <= clock["max"] and decoder["median"] > 0


def test_growth_is_the_end_against_what_was_after_the_warm_up() -> None:
    rising = [Vitals(t, 200.0 if t < 10 else 100.0 + t / 10, 5, 20 + (t > 80), 0.5 * t) for t in map(float, range(101))]
    told = grown(rising, 10.0)
    assert told is not None
    assert told["memory_mb"] == pytest.approx([101.4, 109.6]) and told["memory_growth"] == pytest.approx(
        0.0809, abs=1e-3
    )
    assert told["threads"] == [5, 5] and told["files"] == [20, 21] and told["cpu"] == pytest.approx(0.5)
    assert grown(rising, 95.0) is None


CHILD = """
import threading, time
print("ready", flush=True)
input()
held, file = bytearray(b"1") * 40_000_000, open(__file__)
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print("grown", flush=True)
input()
"""


def test_a_look_sees_memory_threads_and_files_of_a_process(tmp_path: Path) -> None:
    program = tmp_path / "child.py"
    program.write_text(CHILD)
    with subprocess.Popen([sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout and child.stdout.readline() == "ready\n"
        running = psutil.Process(child.pid)
        before = look(running, 0.0)
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "grown\n"
        after = look(running, 1.0)
        child.stdin.close()
    assert before is not None and after is not None
    assert 39 < after.memory_mb - before.memory_mb < 45
    assert after.files == before.files + 1 and after.threads == before.threads + 1
    assert look(running, 2.0) is None, "it has ended"


def test_a_number_that_cannot_be_tried_does_not_end_the_procedure(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def measure(participants: int, seconds: float) -> capacity.Measured:
        tried.append(participants)
        if participants > 20:
            raise MyoloopError("no decoder answered")
        return capacity.Measured(participants, "mujoco", "lsl", 100, 5.0, 6.0, 7.0, 0.0, 20.0, 21.0, 20.0, {})

    monkeypatch.setattr(capacity, "measure", measure)
    found = grid.measure_batch(1.0)
    assert (found["participants"], found["failed_at"]) == (20, 21)
    assert max(tried) <= capacity.PUBLISHED_MOST
    assert found["tries"][21] == {"why": "no decoder answered"}


@pytest.mark.parametrize(
    ("step_ms", "over", "latency_ms", "holds"),
    [(19.0, 0.01, 45.0, True), (21.0, 0.0, 21.0, False), (15.0, 0.02, 21.0, False), (15.0, 0.0, 46.0, False)],
)
def test_a_batch_holds_if_steps_and_answers_are_in_time(
    step_ms: float, over: float, latency_ms: float, holds: bool
) -> None:
    measured = capacity.Measured(4, "mujoco", "lsl", 100, 5.0, 6.0, step_ms, over, 20.0, latency_ms, 20.0, {})
    assert measured.holds is holds
