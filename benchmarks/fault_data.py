"""More cells of benchmarks/fault_matrix.py: what is sent is wrong, too much or not there, and files are damaged."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from fault_bench import REPO, Check, Trial, judged_if_quiet
from fault_cells import LEARNS, LONG_S, Seen, case, trial, whole

from myoloop.streams.xdf import count_samples

# --- wrong shape ------------------------------------------------------------------------------------------------------


@case(
    "wrong shape",
    participant="an armband that the decoder does not read: said with both rates; open loop; decoder not restarted",
)
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
        counted = Check(refused > 100 and said == 1, f"{refused} refused, said {said} x")
        heard = Check(took < 9, f"heard again {took - 5:.1f} s after")
        decoder = [t.code(), t.reports(), t.steady(), t.lost(), counted, heard]
        return {"decoder": decoder, "recorder": [t.recording(), again, t.clean(), t.quiet()]}


@case(
    "wrong shape", learner="a policy that does not fit is refused and said; the participant goes on with the last one"
)
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
        return {
            "participant": [
                *whole(t),
                t.lost(),
                Check(refused > 200, f"{refused} chunks refused"),
                t.says("decoder lost"),
            ]
        }


@case(
    "NaN",
    decoder="refused, counted, said once; the last good answer is held and marked stale",
    recorder="recorded as sent; the report reads it",
)
def _(folder: Path) -> Seen:
    with trial(folder, seconds=15, decoder=["nan"]) as t:
        t.end()
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
    with trial(folder, LEARNS, LONG_S, hook=f"learner:{how}") as t:
        t.until(lambda: t.status("learner").get("refused", 0) > 1, what="policies refused")
        t.finish()
        good = t.report["emg"]["rms_uv"]
        emg = Check(bool(good) and all(value == value and value < 1e4 for value in good), "EMG finite")
        swaps = t.status("learner").get("swaps")
        seen = [
            *whole(t),
            t.says("policy refused"),
            emg,
            Check(swaps == 0, f"{swaps} taken over"),
            t.steady(0.05),
            t.lost(),
        ]
    return {"learner": seen}


def both_ends(t: Trial) -> Check:
    """Answers counted by the faulty decoder itself, and in the recording."""
    sent = int((t.folder / "sent.json").read_text())
    held = count_samples(t.run_dir).get(f"{t.id}_prediction", 0)
    return Check(held >= sent, f"{sent} answers sent, {held} recorded")


# --- flood ------------------------------------------------------------------------------------------------------------


@case(
    "flood",
    participant="60 s of EMG as fast as it can (clock `free`): nothing fails, all recorded, what a decoder misses is counted",
)
def _(folder: Path) -> Seen:
    with trial(folder, {"clock": "free"}, 60) as t:
        t.end()
        factor = t.report["loop"]["factor"]
        missed = t.report["decoder"]["samples_lost"]
        return {
            "participant": [
                *whole(t),
                Check((factor or 0) > 2, f"{factor} x real time"),
                Check(missed is not None, f"decoder missed {missed}"),
            ]
        }


@case(
    "flood",
    decoder="200 copies of each answer, 10,000 a second for 5 s: no step late, feedback latency as before",
    recorder="every one of them is recorded",
)
def _(folder: Path) -> Seen:
    with trial(folder, seconds=15, decoder=["flood"]) as t:
        t.end()
        latency = t.report["loop"]["feedback_latency_ms"] or {}
        fast = judged_if_quiet(Check(latency.get("p95", 1e3) < 45, f"latency p95 {latency.get('p95')} ms"))
        return {
            "decoder": [t.code(), t.reports(), t.steady(0.03), t.lost(), fast],
            "recorder": [t.recording(), both_ends(t), t.clean(), t.quiet()],
        }


# --- outlets and ports ------------------------------------------------------------------------------------------------


@case(
    "outlet gone 5 s",
    participant="its EMG outlet goes and comes back: all listeners find it again within 5 s; recorded whole",
)
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
    return Check(
        0 <= lost <= 6000 and 0 <= recording <= 6000,
        f"{lost} samples sent before the listener, {recording} before the recorder was back",
    )


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
            "decoder": [
                t.code(),
                t.reports(),
                t.lost(),
                t.steady(),
                Check(once, "lost and back once"),
                Check(took < 8, f"heard {took - 4:.1f} s after its return"),
            ],
            "recorder": [t.recording(), answers_kept(t), t.clean(), t.quiet()],
        }


def answers_kept(t: Trial) -> Check:
    """As `both_ends`, but for what an outlet sends in its first moments, before anybody can have found it."""
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


@case(
    "port taken",
    decoder="the UDP port of the adapter: said with the key that sets it, not started again; the session goes on",
)
def _(folder: Path) -> Seen:
    free = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
    gestures = {"open": [0, 0, 0, 0, 0], "fist": [1, 1, 1, 1, 1]}
    changes = {
        "decoder": {"kind": "udp", "udp": {"port": port, "gestures": gestures}},
        "participant.wait_for_decoder_s": 1.0,
    }
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
        return {
            "participant": [
                t.code(2),
                t.says("cut.safetensors"),
                t.clean(),
                t.quiet(),
                Check(took < 60, f"after {took:.0f} s"),
            ]
        }


@case("corrupt checkpoint", learner="the habit cannot be read: code 2 with the file, before the session begins")
def _(folder: Path) -> Seen:
    cut = half_of(POLICY, folder / "cut.safetensors")
    with trial(folder, {"participant.adapt": {"learner": "internal_model", "habit": str(cut)}}, 10) as t:
        t.end()
        return {"learner": [t.code(2), t.says("cut.safetensors"), t.clean(), t.quiet()]}


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
        return {
            "participant": [
                Check(code == 2 and said, f"code {code} after {took:.1f} s"),
                Check(not (folder / "none").exists(), "no run folder"),
            ]
        }


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
        return {
            "decoder": [t.code(), t.reports(), t.says("will not be started again"), t.lost(), t.steady()],
            "recorder": [t.recording(), t.clean(), t.quiet()],
        }
