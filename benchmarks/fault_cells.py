"""The cells of benchmarks/fault_matrix.py: what is done to a part of a running session, what is expected, what is looked at."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from fault_bench import REPO, Check, Trial, in_background, small_disk

from myoloop.streams.xdf import count_samples

PARTS = ("participant", "decoder", "recorder", "viewer", "learner")
FAULTS = (
    "kill -9", "SIGSTOP 5 s", "slow x10", "wrong shape", "NaN", "flood", "clock jump", "duplicate id", "disk full",
    "outlet gone 5 s", "port taken", "corrupt checkpoint", "corrupt ONNX", "corrupt YAML",
)  # fmt: skip
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
"""libfaketime, of the Debian package faketime: a wall clock that can be moved for some processes only."""
LEARNS = {"participant.adapt": {"learner": "internal_model", "save_every_s": 2.0}}
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


# --- kill -9 ----------------------------------------------------------------------------------------------------------


@case("kill -9", participant="session ends with code 2 and says so; report and recording hold what was made; its learner ends")
def _(folder: Path) -> Seen:
    with trial(folder, LEARNS, 60) as t:
        t.until_running(4.0)
        t.signal("participant", signal.SIGKILL)
        took = t.end()
        seen = [*whole(t, 2, None), t.says("the participant ended with code -9"), Check(took < 45, f"over after {took:.0f} s")]
    return {"participant": seen}


@case("kill -9", decoder="started again within 5 s; EMG untouched; answers of both lives recorded")
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
        return {"decoder": [*whole(t), Check(took < 5, f"answers again after {took:.1f} s"), says, t.lost(), t.steady()]}


@case("kill -9", recorder="started again within 15 s, in a second file; what fell in between is counted as missing")
def _(folder: Path) -> Seen:
    with trial(folder, seconds=24) as t:
        t.until_running(4.0)
        t.signal("recorder", signal.SIGKILL)
        took = t.until(lambda: (t.run_dir / "session-2.xdf").exists(), 40, "a second file")
        t.end()
        missing = (t.report.get("recording") or {}).get("lost", 0)
        counted = Check(0 < missing < 15 * 2600, "the gap is counted" if missing else "no gap counted")
        says = t.says("the recorder ended with code -9; starting it again")
        return {"recorder": [*whole(t, lost=None), Check(took < 15, f"again after {took:.1f} s"), counted, says, t.lost()]}


@case("kill -9", learner="event `learner lost`; the participant goes on with its last policy, no step late")
def _(folder: Path) -> Seen:
    with trial(folder, LEARNS, 20) as t:
        t.until(lambda: t.status("learner").get("phase") == "learning", what="a learner that learns")
        t.signal("learner", signal.SIGKILL)
        t.until(lambda: "learner lost" in t.events, 10, "learner lost")
        t.end()
        return {"learner": [*whole(t), t.says("the learner ended with code -9"), t.steady(0.05), t.lost()]}


# --- SIGSTOP ----------------------------------------------------------------------------------------------------------


@case("SIGSTOP 5 s", participant="said and published (`clock moved`); the time line is moved; no sample of those sent is missing")
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


@case("SIGSTOP 5 s", recorder="nothing is missing: liblsl keeps what it cannot take")
def _(folder: Path) -> Seen:
    with trial(folder) as t:
        t.until_running(3.0)
        t.stop_for("recorder", 5.0)
        t.end()
        return {"recorder": [*whole(t), t.lost(), t.steady()]}


@case("SIGSTOP 5 s", learner="no step late; policies come again afterwards")
def _(folder: Path) -> Seen:
    with trial(folder, LEARNS, 26) as t:
        t.until(lambda: t.status("learner").get("swaps", 0) >= 1, what="a first policy")
        t.stop_for("learner", 5.0)
        before = t.status("learner")["swaps"]
        t.until(lambda: t.status("learner").get("swaps", 0) > before, 12, "another policy")
        t.end()
        return {"learner": [*whole(t), t.steady(0.05), t.lost(), Check(True, "policies again")]}


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
        return {
            "participant": [
                *whole(t), t.lost(), Check(late > 0, f"{late} overruns"), Check(more < 20, f"{more} more afterwards"),
                Check(said <= 10, f"said {said} times"),
            ]
        }  # fmt: skip


@case("slow x10", decoder="a model that takes 200 ms for chunks of 20 ms: the report says “cannot keep up”; the loop keeps its pace")
def _(folder: Path) -> Seen:
    with trial(folder, seconds=14, hook="decoder:slow") as t:
        t.end(150)
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
    with trial(folder, LEARNS, 24) as t:
        t.until(lambda: t.status("learner").get("swaps", 0) >= 1, what="a first policy")
        t.throttle("learner", 6.0)
        t.end()
        return {"learner": [*whole(t), t.steady(0.05), t.lost()]}


# --- wrong shape ------------------------------------------------------------------------------------------------------


@case("wrong shape", participant="an armband that the decoder does not read: said with both rates; open loop; decoder not restarted")
def _(folder: Path) -> Seen:
    with trial(folder, {"participant.armband": "myo8", "participant.wait_for_decoder_s": 1.0}, 6) as t:
        t.end()
        says = t.says("reads EMG at 2000 Hz", "will not be started again")
        return {"participant": [*whole(t), says, t.lost()]}


@case(
    "wrong shape",
    decoder="four channels instead of five for 5 s: refused, counted, said once; heard again when they are five",
    recorder="both are recorded; `myoloop report session.xdf` reads the usable one and says so",
)
def _(folder: Path) -> Seen:
    with trial(folder, seconds=18, decoder=["shape"]) as t:
        t.until(lambda: t.status("participant").get("predictions_refused", 0) > 0, what="refusals")
        before = t.status("participant")["predictions"]
        took = t.until(lambda: t.status("participant")["predictions"] > before + 20, 15, "good answers again")
        t.end()
        refused = t.report["decoder"]["refused"]
        said = sum("channels, expected 5" in m for m in t.report["messages"])
        code, out, _ = t.beside("report", str(t.run_dir / "session.xdf"))
        again = Check(code == 0, f"report of the recording: code {code}{'' if code == 0 else ', ' + out[-150:]}")
        decoder = [
            t.code(), t.reports(), t.steady(), t.lost(), Check(refused > 100 and said == 1, f"{refused} refused, said {said} x"),
            Check(took < 9, f"heard again {took - 5:.1f} s after"),
        ]  # fmt: skip
        return {"decoder": decoder, "recorder": [t.recording(), again, t.clean(), t.quiet()]}


@case("wrong shape", learner="a policy that does not fit is refused and said; the participant goes on with the last one")
def _(folder: Path) -> Seen:
    return learner_spoiled(folder, "shape")


# --- NaN --------------------------------------------------------------------------------------------------------------


@case("NaN", participant="5 s of NaN in the EMG: the decoder refuses and counts them and answers again afterwards")
def _(folder: Path) -> Seen:
    with trial(folder, seconds=16, hook="participant:nan") as t:
        t.until(lambda: t.status("decoder").get("refused_inputs", 0) > 0, what="refused EMG")
        before = t.status("decoder")["predictions"]
        t.until(lambda: t.status("decoder")["predictions"] > before + 50, 15, "answers again")
        t.end()
        refused = t.status("decoder")["refused_inputs"]
        return {"participant": [*whole(t), t.lost(), Check(refused > 200, f"{refused} chunks refused"), t.says("decoder lost")]}


@case(
    "NaN",
    decoder="refused, counted, said once; the last good answer is held and marked stale",
    recorder="recorded as sent; the report reads it",
)
def _(folder: Path) -> Seen:
    with trial(folder, seconds=15, decoder=["nan"]) as t:
        t.end(150)
        figures = t.report["decoder"]
        said = sum("holds NaN" in m for m in t.report["messages"])
        decoder = [
            t.code(), t.reports(), t.steady(), t.lost(),
            Check(figures["refused"] > 200 and said == 1, f"{figures['refused']} refused, said {said} x"),
            Check(figures["stale_steps"] > 200, f"{figures['stale_steps']} stale steps"),
        ]  # fmt: skip
        return {"decoder": decoder, "recorder": [t.recording(), both_ends(t), t.clean(), t.quiet()]}


@case("NaN", learner="a policy with NaN is refused and said; the participant goes on with the last one")
def _(folder: Path) -> Seen:
    return learner_spoiled(folder, "nan")


def learner_spoiled(folder: Path, how: str) -> Seen:
    with trial(folder, LEARNS, 24, hook=f"learner:{how}") as t:
        t.end(150)
        good = t.report["emg"]["rms_uv"]
        emg = Check(bool(good) and all(value == value and value < 1e4 for value in good), "EMG finite")
        swaps = t.status("learner").get("swaps")
        seen = [*whole(t), t.says("policy refused"), emg, Check(swaps == 0, f"{swaps} taken over"), t.steady(0.05), t.lost()]
    return {"learner": seen}


def both_ends(t: Trial) -> Check:
    """Answers counted by the faulty decoder itself, and in the recording."""
    sent = int((t.folder / "sent.json").read_text())
    held = count_samples(t.run_dir).get(f"{t.id}_prediction", 0)
    return Check(held >= sent, f"{sent} answers sent, {held} recorded")


# --- flood ------------------------------------------------------------------------------------------------------------


@case("flood", participant="60 s of EMG as fast as it can (clock `free`): nothing fails, all recorded, what a decoder misses is counted")
def _(folder: Path) -> Seen:
    with trial(folder, {"clock": "free"}, 60) as t:
        t.end(150)
        factor = t.report["loop"]["factor"]
        missed = t.report["decoder"]["samples_lost"]
        return {"participant": [*whole(t), Check((factor or 0) > 2, f"{factor} x real time"), Check(missed is not None, f"decoder missed {missed}")]}


@case(
    "flood",
    decoder="200 copies of each answer, 10,000 a second for 5 s: no step late, feedback latency as before",
    recorder="every one of them is recorded",
)
def _(folder: Path) -> Seen:
    with trial(folder, seconds=15, decoder=["flood"]) as t:
        t.end(150)
        latency = t.report["loop"]["feedback_latency_ms"] or {}
        fast = Check(latency.get("p95", 1e3) < 45, f"latency p95 {latency.get('p95')} ms")
        return {"decoder": [t.code(), t.reports(), t.steady(0.03), t.lost(), fast], "recorder": [t.recording(), both_ends(t), t.clean(), t.quiet()]}


# --- clocks -----------------------------------------------------------------------------------------------------------


@case(
    "clock jump",
    participant="the wall clock jumps by an hour and back (libfaketime): no step notices, since LSL's clock is another",
    recorder="as if nothing had happened: nothing missing, no time moved",
    learner="as if nothing had happened: it learns",
)
def _(folder: Path) -> Seen:
    folder.mkdir(parents=True, exist_ok=True)
    moved = folder / "faketime"
    moved.write_text("+0\n")
    env = {
        "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(moved), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    if not FAKETIME.exists():
        missing = [Check(False, f"not run: {FAKETIME} is missing (Debian package faketime)")]
        return {part: missing for part in ("participant", "recorder", "learner")}
    with trial(folder, LEARNS, 24, env=env) as t:
        t.until_running(6.0)
        moved.write_text("+3600\n")
        time.sleep(5.0)
        moved.write_text("-3600\n")
        time.sleep(5.0)
        moved.write_text("+0\n")
        t.end()
        still = Check("clock moved" not in " ".join(t.events) and t.report["duration_s"] == 24.0, f"{t.report['duration_s']} s played")
        learned = t.status("learner").get("swaps", 0)
        return {
            "participant": [t.code(), t.reports(), t.lost(), t.steady(0.05), still],
            "recorder": [t.recording(), t.clean(), t.quiet()],
            "learner": [Check(learned > 0, f"{learned} policies taken over")],
        }


@case("clock jump", decoder="its stamps are an hour ahead for 5 s: used, stamped on arrival, counted, said once")
def _(folder: Path) -> Seen:
    with trial(folder, seconds=15, decoder=["stamps"]) as t:
        t.end(150)
        figures = t.report["decoder"]
        said = sum("not of the session's time" in m for m in t.report["messages"])
        restamped = Check(figures["restamped"] > 200 and said == 1, f"{figures['restamped']} restamped, said {said} x")
        return {"decoder": [*whole(t), restamped, Check(figures["stale_steps"] < 20, f"{figures['stale_steps']} stale"), t.steady(), t.lost()]}


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
        pids = [p.pid for p in t.left() if "myoloop decoder" in " ".join(p.cmdline()) and "--run-dir" not in p.cmdline()]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        second.join(5)
        before = t.status("participant")["predictions"]
        took = t.until(lambda: t.status("participant")["predictions"] > before + 50, 10, "the first decoder's answers")
        t.end()
        stale = t.report["decoder"]["stale_steps"]
        return {"decoder": [*whole(t, lost=None), Check(took < 5, f"the other heard after {took - 1:.1f} s"), Check(stale < 200, f"{stale} stale"), t.lost()]}


@case("duplicate id", recorder="a second recorder of the same session is refused with code 2; the first one's file is whole")
def _(folder: Path) -> Seen:
    with trial(folder, seconds=16) as t:
        t.until_running(2.0)
        code, out, took = t.beside("recorder", str(t.file), "--run-dir", str(t.run_dir))
        refused = Check(code == 2 and "is recorded" in out, f"second: code {code} after {took:.1f} s {'' if code == 2 else out[-150:]}")
        t.end()
        return {"recorder": [*whole(t), refused]}


# --- disk full --------------------------------------------------------------------------------------------------------


@case(
    "disk full",
    participant="says that its log stops, goes on to the end and sends every sample; figures on the screen, code 2, and what to do",
    decoder="goes on answering",
    recorder="says that the file does not grow; what is on the disk is readable",
    learner="goes on learning",
)
def _(folder: Path) -> Seen:
    with small_disk(folder / "disk", 2.2) as disk, trial(folder, LEARNS, 30, runs=disk) as t:
        t.until_running(1.0)
        took = t.until(lambda: os.statvfs(disk).f_bavail == 0, 60, "a full disk")
        alive = t.pid("learner")
        time.sleep(6.0)
        still = Check(bool(alive) and t.pid("learner") == alive, "learner alive 6 s later" if t.pid("learner") else "learner gone")
        t.end()
        code, log = t.code(2), t.logs + t.out
        figures = t.says("Free some space and run `myoloop report", "accuracy")
        stops = t.says("steps.rows stops after", where=log)
        grows = t.says("does not grow any more", where=log)
        readable = t.recording(None)
        clean = t.clean()
        os.system(f"mount -o remount,size=40m {disk}")
        again, out, _ = t.beside("report", str(t.run_dir))
        loop, decoder = t.report.get("loop", {}), t.report.get("decoder", {})
        return {
            "participant": [
                code, figures, stops, clean, Check(again == 0 and loop.get("steps", 0) > 200, f"report afterwards: {loop.get('steps')} steps"),
                Check(took < 60, f"full after {took:.0f} s"), t.quiet(),
            ],
            "decoder": [Check(again == 0 and "decoder lost" not in log, "never lost"), Check(decoder.get("restarts") in (0, None), "not restarted")],
            "recorder": [grows, readable],
            "learner": [still, t.says("cannot be written", where=log)],
        }  # fmt: skip


# --- outlets and ports ------------------------------------------------------------------------------------------------


@case("outlet gone 5 s", participant="its EMG outlet goes and comes back: all listeners find it again within 5 s; recorded whole")
def _(folder: Path) -> Seen:
    with trial(folder, seconds=20, hook="participant:outlet") as t:
        t.until(lambda: "decoder lost" in t.events, what="decoder lost")
        gone = t.until(lambda: "decoder back" in t.events, 15, "decoder back")
        t.end()
        back = Check(gone < 10, f"closed loop again {gone - 4:.1f} s after its return")
        return {"participant": [*whole(t, lost=None), few_missing(t), back, t.says("decoder lost", "decoder back")]}


def few_missing(t: Trial) -> Check:
    """An outlet that comes back is found within a second or two; what it sends before that, nobody can have."""
    lost, recording = t.report["emg"]["samples_lost"], (t.report.get("recording") or {}).get("lost", -1)
    return Check(0 <= lost <= 6000 and 0 <= recording <= 6000, f"{lost} samples sent before the listener, {recording} before the recorder was back")


@case(
    "outlet gone 5 s",
    decoder="`decoder lost` and `decoder back` once each; heard again within 3 s",
    recorder="every answer that was sent is recorded, of both lives of the outlet",
)
def _(folder: Path) -> Seen:
    with trial(folder, seconds=18, decoder=["outlet"]) as t:
        t.until(lambda: "decoder lost" in t.events, what="decoder lost")
        took = t.until(lambda: "decoder back" in t.events, 15, "decoder back")
        t.end()
        once = t.events.count("decoder lost") == t.events.count("decoder back") == 1
        return {
            "decoder": [t.code(), t.reports(), t.lost(), t.steady(), Check(once, "lost and back once"), Check(took < 8, f"heard {took - 4:.1f} s after its return")],
            "recorder": [t.recording(), answers_kept(t), t.clean(), t.quiet()],
        }


def answers_kept(t: Trial) -> Check:
    """As `both_ends`, but what an outlet sends in its first moments, before anybody can have found it, is not held against it."""
    sent = int((t.folder / "sent.json").read_text())
    held = count_samples(t.run_dir).get(f"{t.id}_prediction", 0)
    return Check(sent - held <= 150, f"{sent} answers sent, {held} recorded")


@contextlib.contextmanager
def taken(base: int, count: int) -> Iterator[None]:
    """Holds ports, TCP and UDP."""
    held = []
    try:
        for port in range(base, base + count):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                one = socket.socket(socket.AF_INET, kind)
                one.bind(("0.0.0.0", port))
                if kind == socket.SOCK_STREAM:
                    one.listen()
                held.append(one)
        yield
    finally:
        for one in held:
            one.close()


@case("port taken", participant="all of LSL's ports: refused with code 2, with the port range and what to do")
def _(folder: Path) -> Seen:
    with taken(15800, 12), trial(folder, seconds=8, ports=(15800, 12)) as t:
        t.end()
        return {"participant": [t.code(2), t.says("port range"), t.clean(), t.quiet()]}


@case("port taken", decoder="the UDP port of the adapter: said with the key that sets it, not started again; the session goes on")
def _(folder: Path) -> Seen:
    free = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
    gestures = {"open": [0, 0, 0, 0, 0], "fist": [1, 1, 1, 1, 1]}
    changes = {"decoder": {"kind": "udp", "udp": {"port": port, "gestures": gestures}}, "participant.wait_for_decoder_s": 1.0}
    with contextlib.closing(free), trial(folder, changes, 6) as t:
        t.end()
        return {"decoder": [*whole(t), t.says("decoder.udp.port", "will not be started again"), t.lost()]}


# --- corrupt files ----------------------------------------------------------------------------------------------------


def half_of(source: Path, place: Path) -> Path:
    """A file cut in the middle."""
    place.parent.mkdir(parents=True, exist_ok=True)
    content = source.read_bytes()
    place.write_bytes(content[: len(content) // 2])
    return place


POLICY = REPO / "models" / "policy_phase2" / "policy.safetensors"


@case("corrupt checkpoint", participant="code 2 with the file and what is wrong with it; nothing left behind")
def _(folder: Path) -> Seen:
    cut = half_of(POLICY, folder / "cut.safetensors")
    with trial(folder, {"participant.policy": str(cut)}, 6) as t:
        took = t.end()
        return {"participant": [t.code(2), t.says("cut.safetensors"), t.clean(), t.quiet(), Check(took < 60, f"after {took:.0f} s")]}


@case("corrupt checkpoint", learner="the habit cannot be read: `learner lost` with the file; the session goes on")
def _(folder: Path) -> Seen:
    cut = half_of(POLICY, folder / "cut.safetensors")
    changes = {"participant.adapt": {"learner": "internal_model", "habit": str(cut)}}
    with trial(folder, changes, 10) as t:
        t.end()
        return {"learner": [*whole(t), t.says("learner lost", "cut.safetensors"), t.lost()]}


@case("corrupt ONNX", decoder="said with the file, not started again; the session goes on, open loop")
def _(folder: Path) -> Seen:
    cut = half_of(REPO / "models" / "decoder_tcn" / "decoder.onnx", folder / "cut.onnx")
    with trial(folder, {"decoder.model": str(cut), "participant.wait_for_decoder_s": 1.0}, 6) as t:
        t.end()
        return {"decoder": [*whole(t), t.says("cut.onnx: not an ONNX model", "will not be started again"), t.lost()]}


@case("corrupt YAML", participant="refused at once with code 2, the file and the place; no run folder")
def _(folder: Path) -> Seen:
    folder.mkdir(parents=True, exist_ok=True)
    with trial(folder, seconds=6) as t:
        t.clear()  # only for its environment
        t.file.write_text("name: a\nparticipant: {id: b\nseed: 3\n")
        code, out, took = t.beside("run", str(t.file), "--runs", str(folder / "none"))
        said = "not readable as YAML" in out and "experiment.yaml" in out and "Traceback" not in out
        return {"participant": [Check(code == 2 and said, f"code {code} after {took:.1f} s"), Check(not (folder / "none").exists(), "no run folder")]}


@case(
    "corrupt YAML",
    decoder="the run folder's copy is damaged, then the decoder is killed: it cannot start again, which is said; session and "
    "report are whole",
    recorder="as the decoder: it has read it before and goes on to the end",
)
def _(folder: Path) -> Seen:
    with trial(folder, seconds=16) as t:
        t.until_running(3.0)
        (t.run_dir / "config.yaml").write_text("name: [broken\n")
        t.signal("decoder", signal.SIGKILL)
        t.end()
        return {"decoder": [t.code(), t.reports(), t.says("will not be started again"), t.lost(), t.steady()], "recorder": [t.recording(), t.clean(), t.quiet()]}


def experiment_of(t: Trial) -> dict[str, Any]:
    """The run folder's own copy."""
    return yaml.safe_load((t.run_dir / "config.yaml").read_text())
