"""The cells of benchmarks/fault_matrix.py: what is done to a part of a running session, what is expected, what is looked at."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fault_bench import Check, Trial, in_background, judged_if_quiet, small_disk, wall_clock

PARTS = ("participant", "decoder", "recorder", "viewer", "learner")
FAULTS = (
    "kill -9", "SIGSTOP 5 s", "slow x10", "wrong shape", "NaN", "flood", "clock jump", "duplicate id", "disk full",
    "outlet gone 5 s", "port taken", "corrupt checkpoint", "corrupt ONNX", "corrupt YAML",
)  # fmt: skip
LEARNS = {"participant.adapt": {"learner": "internal_model", "save_every_s": 2.0}}
LONG_S = 120.0
"""Sessions with a learner last until it has learned, then they are ended."""
NO_NAME = "it is the participant's child at the end of a pipe: no name, no port, no stream"

Seen = dict[str, list[Check]]
"""What was seen, by part."""


class Case(NamedTuple):
    """One session that shows one or several cells."""

    fault: str
    expected: dict[str, str]
    """by part"""
    run: Callable[[Path], Seen]


SENSELESS: dict[tuple[str, str], str] = {
    ("duplicate id", "learner"): NO_NAME,
    ("outlet gone 5 s", "learner"): "it has no outlet",
    ("port taken", "learner"): NO_NAME,
    ("port taken", "recorder"): "it listens on no port",
    ("flood", "learner"): "it says something only when it was told something; of its policies the newest is used",
    ("corrupt checkpoint", "decoder"): "it reads no checkpoint but ONNX",
    ("corrupt checkpoint", "recorder"): "it reads neither checkpoint nor model",
    ("corrupt checkpoint", "viewer"): "it reads neither checkpoint nor model",
    ("corrupt ONNX", "participant"): "it reads no ONNX",
    ("corrupt ONNX", "recorder"): "it reads neither checkpoint nor model",
    ("corrupt ONNX", "viewer"): "it reads neither checkpoint nor model",
    ("corrupt ONNX", "learner"): "it reads no ONNX: it learns from answers alone",
    ("corrupt YAML", "learner"): "it reads no YAML: the participant tells it",
}
"""Cells that make no sense, and why."""
CASES: list[Case] = []


def case(fault: str, **expected: str) -> Callable[[Callable[[Path], Seen]], Callable[[Path], Seen]]:
    """Registers a session; `expected` by part, written before it is run."""

    def register(run: Callable[[Path], Seen]) -> Callable[[Path], Seen]:
        CASES.append(Case(fault, expected, run))
        return run

    return register


@contextlib.contextmanager
def trial(folder: Path, *args: Any, **kwargs: Any) -> Iterator[Trial]:
    """A session that is gone afterwards, whatever happened."""
    made = Trial(folder, *args, **kwargs)
    try:
        yield made
    finally:
        made.clear()


def whole(t: Trial, code: int = 0, lost: int | None = 0) -> list[Check]:
    """What every session must leave: its code, a report, a readable recording, nothing else."""
    return [t.code(code), t.reports(), t.recording(lost), t.clean(), t.quiet()]


def rows_after(t: Trial, since: float) -> int:
    """Control steps made since then, by the participant's own status."""
    return int(t.status("participant").get("steps", 0) - since)


def gap(t: Trial, most_s: float) -> Check:
    """How much EMG the recording lacks, by the report."""
    emg = t.report["recording"]["streams"][f"{t.id}_emg"]
    seconds = (emg["sent"] - emg["recorded"]) / 2000
    return Check(seconds < most_s, f"{seconds:.1f} s of EMG counted as missing")


# --- kill -9 ----------------------------------------------------------------------------------------------------------


@case(
    "kill -9",
    participant="session ends with code 2 and says so; report and recording hold what was made; its learner ends",
)
def _(folder: Path) -> Seen:
    with trial(folder, LEARNS, 60) as t:
        t.until_running(4.0)
        t.signal("participant", signal.SIGKILL)
        took = t.end()
        seen = [
            *whole(t, 2, None),
            t.says("the participant ended with code -9"),
            Check(took < 45, f"over after {took:.0f} s"),
        ]
    return {"participant": seen}


@case(
    "kill -9",
    decoder="started again and heard within 8 s (it waits until it can be recorded); EMG untouched; both lives recorded",
)
def _(folder: Path) -> Seen:
    with trial(folder, seconds=14) as t:
        t.until_running(3.0)
        old = t.signal("decoder", signal.SIGKILL)

        def back() -> bool:
            status = t.status("decoder")
            return status.get("pid") not in (None, old) and status.get("predictions", 0) > 0

        took = t.until(back, 30, "answers of the second decoder")
        t.end()
        says = t.says("the decoder ended with code -9; starting it again")
        return {
            "decoder": [
                *whole(t),
                judged_if_quiet(Check(took < 8, f"answers again after {took:.1f} s")),
                says,
                t.lost(),
                t.steady(),
            ]
        }


@case("kill -9", recorder="started again within 15 s, in a second file; what fell in between is counted as missing")
def _(folder: Path) -> Seen:
    with trial(folder, seconds=24) as t:
        t.until_running(4.0)
        t.signal("recorder", signal.SIGKILL)
        took = t.until(lambda: (t.run_dir / "session-2.xdf").exists(), 40, "a second file")
        t.end()
        counted = gap(t, 15)
        says = t.says("the recorder ended with code -9; starting it again")
        return {
            "recorder": [*whole(t, lost=None), Check(took < 15, f"again after {took:.1f} s"), counted, says, t.lost()]
        }


@case("kill -9", learner="event `learner lost`; the participant goes on with its last policy, no step late")
def _(folder: Path) -> Seen:
    with trial(folder, LEARNS, LONG_S) as t:
        t.until(lambda: t.status("learner").get("phase") == "learning", what="a learner that learns")
        t.signal("learner", signal.SIGKILL)
        t.until(lambda: "learner lost" in t.events, 10, "learner lost")
        time.sleep(3.0)
        t.finish()
        return {"learner": [*whole(t), t.says("the learner ended with code -9"), t.steady(0.05), t.lost()]}


# --- SIGSTOP ----------------------------------------------------------------------------------------------------------


@case(
    "SIGSTOP 5 s",
    participant="said and published (`clock moved`); the time line is moved; no sample of those sent is missing",
)
def _(folder: Path) -> Seen:
    with trial(folder) as t:
        t.until_running(3.0)
        t.stop_for("participant", 5.0)
        t.end()
        return {"participant": [*whole(t), t.says("the process was held up for", "clock moved"), t.lost()]}


@case(
    "SIGSTOP 5 s",
    decoder="`decoder lost` within 1.5 s, `decoder back` within 3 s of its return; EMG goes on; what its buffer could not hold "
    "is counted",
)
def _(folder: Path) -> Seen:
    with trial(folder, seconds=16) as t:
        t.until_running(3.0)
        stopping = in_background(lambda: t.stop_for("decoder", 5.0))
        lost = t.until(lambda: "decoder lost" in t.events, 6, "decoder lost")
        stopping.join()
        back = t.until(lambda: "decoder back" in t.events, 6, "decoder back")
        t.end()
        times = [Check(lost < 1.6, f"lost after {lost:.1f} s"), Check(back < 3, f"back after {back:.1f} s")]
        missed = t.report["decoder"]["samples_lost"]
        counted = Check(missed is not None and missed <= 2000, f"decoder missed {missed} samples")
        return {"decoder": [*whole(t), *times, counted, t.lost(), t.steady()]}


@case(
    "SIGSTOP 5 s",
    recorder="nothing is missing but discharges (10,000 a second): of an irregular stream liblsl keeps 36,000 samples; "
    "the rest is counted",
)
def _(folder: Path) -> Seen:
    with trial(folder) as t:
        t.until_running(3.0)
        t.stop_for("recorder", 5.0)
        t.end()
        kept = t.report["recording"]["streams"]
        short = [name for name, c in kept.items() if c["recorded"] < (c["sent"] or 0) and not name.endswith("_spikes")]
        return {"recorder": [*whole(t, lost=80_000), Check(not short, ", ".join(short)), t.lost(), t.steady()]}


@case("SIGSTOP 5 s", learner="no step late; policies come again afterwards")
def _(folder: Path) -> Seen:
    with trial(folder, LEARNS, LONG_S) as t:
        t.until(lambda: t.status("learner").get("swaps", 0) >= 1, what="a first policy")
        t.stop_for("learner", 5.0)
        before = t.status("learner")["swaps"]
        took = t.until(lambda: t.status("learner").get("swaps", 0) > before, 30, "another policy")
        t.finish()
        return {"learner": [*whole(t), t.steady(0.05), t.lost(), Check(True, f"a policy {took:.0f} s later")]}


# --- slow -------------------------------------------------------------------------------------------------------------


@case(
    "slow x10",
    participant="a tenth of the CPU for 5 s: overruns counted, said a few times at most, every sample that was sent arrives, "
    "back in step afterwards",
)
def _(folder: Path) -> Seen:
    with trial(folder, seconds=14) as t:
        t.until_running(3.0)
        t.throttle("participant", 5.0)
        t.until(lambda: t.phase == "running", 5)
        time.sleep(1.0)
        late = t.status("participant")["overruns"]
        t.end()
        more = t.report["loop"]["overruns"] - late
        said = sum("held up" in m for m in t.report["messages"])
        back = judged_if_quiet(Check(more < 20, f"{more} more afterwards"))
        seldom = Check(said <= 10, f"said {said} times")
        return {"participant": [*whole(t), t.lost(), Check(late > 0, f"{late} overruns"), back, seldom]}


@case(
    "slow x10",
    decoder="a model that takes 200 ms for chunks of 20 ms: the report says “cannot keep up”; the loop keeps its pace",
)
def _(folder: Path) -> Seen:
    with trial(folder, seconds=14, hook="decoder:slow") as t:
        t.end()
        pace = t.report["decoder"]["pace"] or {}
        says = Check(pace.get("verdict") == "cannot keep up", f"verdict: {pace.get('verdict')}")
        return {"decoder": [*whole(t), says, t.lost(), t.steady()]}


@case("slow x10", recorder="a tenth of the CPU for 6 s: nothing is missing")
def _(folder: Path) -> Seen:
    with trial(folder) as t:
        t.until_running(2.0)
        t.throttle("recorder", 6.0)
        t.end()
        return {"recorder": [*whole(t), t.lost()]}


@case("slow x10", learner="a tenth of the CPU for 6 s: it learns more slowly, no step late")
def _(folder: Path) -> Seen:
    with trial(folder, LEARNS, LONG_S) as t:
        t.until(lambda: t.status("learner").get("swaps", 0) >= 1, what="a first policy")
        t.throttle("learner", 6.0)
        t.finish()
        return {"learner": [*whole(t), t.steady(0.05), t.lost()]}


# --- clocks -----------------------------------------------------------------------------------------------------------


@case(
    "clock jump",
    participant="the wall clock of all processes jumps by an hour, both ways: no step notices, LSL's clock is another",
)
def _(folder: Path) -> Seen:
    env, jump = wall_clock(folder)
    with trial(folder, LEARNS | {"record": False}, LONG_S, env=env) as t:
        t.until_running(2.0)
        for seconds in (3600, -3600, 0):
            jump(seconds)
            time.sleep(5.0)
        t.finish()
        moved = sum("clock moved" in event for event in t.events)
        still = Check(not moved, f"time line moved {moved} x in {t.report['duration_s']} s")
        return {"participant": [t.code(), t.reports(), t.lost(), t.steady(0.05), still]}


@case(
    "clock jump",
    recorder="LabRecorder goes by the wall clock. Set forward by an hour, it makes up for its looks in one burst, which may "
    "hold the participant up for a second; set back, it stops: noticed, started again in a second file, gap counted",
    learner="as if nothing had happened: it learns",
)
def _(folder: Path) -> Seen:
    env, jump = wall_clock(folder)
    with trial(folder, LEARNS, LONG_S, env=env) as t:
        t.until(lambda: t.status("learner").get("swaps", 0) >= 1, what="a first policy")
        before = t.status("learner")["swaps"]
        for seconds in (3600, -3600, 0):
            jump(seconds)
            time.sleep(5.0)
        took = t.until(lambda: t.status("learner").get("swaps", 0) > before, 60, "another policy")
        t.finish()
        held_s = t.status("participant").get("clock_moved_s", 99.0)
        held = Check(held_s < 2.0, f"participant held up for {held_s:.1f} s")
        return {
            "recorder": [t.code(), t.reports(), t.recording(None), gap(t, 20), held, t.lost(), t.clean(), t.quiet()],
            "learner": [Check(took < 60, "learns on")],
        }


@case("clock jump", decoder="its stamps are an hour ahead for 5 s: used, stamped on arrival, counted, said once")
def _(folder: Path) -> Seen:
    with trial(folder, seconds=15, decoder=["stamps"]) as t:
        t.end()
        figures = t.report["decoder"]
        said = sum("not of the session's time" in m for m in t.report["messages"])
        restamped = Check(figures["restamped"] > 200 and said == 1, f"{figures['restamped']} restamped, said {said} x")
        return {
            "decoder": [
                *whole(t),
                restamped,
                judged_if_quiet(Check(figures["stale_steps"] < 20, f"{figures['stale_steps']} stale")),
                t.steady(),
                t.lost(),
            ]
        }


# --- duplicate id -----------------------------------------------------------------------------------------------------


@case("duplicate id", participant="the second is refused with code 2 and the id; the first does not notice")
def _(folder: Path) -> Seen:
    with trial(folder, seconds=20) as t:
        t.until_running(2.0)
        code, out, took = t.beside("participant", str(t.file))
        refused = Check(code == 2 and "already on the network" in out, f"second: code {code} after {took:.1f} s")
        t.end()
        return {"participant": [*whole(t), refused, t.lost()]}


@case("duplicate id", decoder="said; the newest is used; when it goes, the other is heard again within 3 s")
def _(folder: Path) -> Seen:
    with trial(folder, seconds=22) as t:
        t.until_running(2.0)
        second = in_background(lambda: t.beside("decoder", str(t.file)))
        t.until(lambda: "2 streams are named" in str(t.status("participant").get("messages")), 20, "two streams")
        time.sleep(2.0)
        pids = [
            p.pid for p in t.left() if "myoloop decoder" in " ".join(p.cmdline()) and "--run-dir" not in p.cmdline()
        ]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        second.join(5)
        before = t.status("participant")["predictions"]
        took = t.until(lambda: t.status("participant")["predictions"] > before + 50, 10, "the first decoder's answers")
        t.end()
        stale = t.report["decoder"]["stale_steps"]
        return {
            "decoder": [
                *whole(t, lost=None),
                Check(took < 5, f"the other heard after {took - 1:.1f} s"),
                Check(stale < 200, f"{stale} stale"),
                t.lost(),
            ]
        }


@case(
    "duplicate id",
    recorder="a second recorder of the same session is refused with code 2; the first one's file is whole",
)
def _(folder: Path) -> Seen:
    with trial(folder, seconds=16) as t:
        t.until_running(2.0)
        code, out, took = t.beside("recorder", str(t.file), "--run-dir", str(t.run_dir))
        refused = Check(
            code == 2 and "is recorded" in out,
            f"second: code {code} after {took:.1f} s {'' if code == 2 else out[-150:]}",
        )
        t.end()
        return {"recorder": [*whole(t), refused]}


# --- disk full --------------------------------------------------------------------------------------------------------


@case(
    "disk full",
    participant="said on the screen; it goes on to the end; figures on the screen, code 2, what to do",
    decoder="goes on answering",
    recorder="says that the file does not grow; what is on the disk is readable",
    learner="goes on learning",
)
def _(folder: Path) -> Seen:
    with small_disk(folder / "disk", 6.0) as disk, trial(folder, LEARNS, LONG_S, runs=disk) as t:
        t.until_running(1.0)
        begun = time.monotonic()
        t.until(lambda: t.status("learner").get("swaps", 0) >= 1 or time.monotonic() - begun > 20, 30)
        took = t.until(lambda: os.statvfs(disk).f_bavail == 0, 60, "a full disk")
        alive = t.pid("learner")
        time.sleep(6.0)
        still = Check(
            bool(alive) and t.pid("learner") == alive, "learner alive 6 s later" if t.pid("learner") else "learner gone"
        )
        t.end()
        code, log = t.code(2), t.logs + t.out
        figures = t.says("Free some space and run `myoloop report", "accuracy")
        stops = t.says("is full: log, status and recording stop")
        grows = t.says("does not grow any more", where=log)
        readable = t.recording(None)
        clean = t.clean()
        os.system(f"mount -o remount,size=40m {disk}")
        again, *_ = t.beside("report", str(t.run_dir))
        steps, decoder = t.report.get("loop", {}).get("steps", 0), t.report.get("decoder", {})
        made = Check(again == 0 and steps > 200, f"report afterwards: {steps} steps")
        on = Check(again == 0 and "decoder lost" not in log, "never lost")
        return {
            "participant": [code, figures, stops, clean, made, Check(took < 60, f"full after {took:.0f} s"), t.quiet()],
            "decoder": [on, Check(decoder.get("restarts") in (0, None), "not restarted")],
            "recorder": [grows, readable],
            "learner": [still, t.says("cannot be written", where=log)],
        }
