"""How a session ends: signals and kills in every state; cells of benchmarks/fault_matrix.py."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from fault_bench import Check, Trial, judged_if_quiet
from fault_cells import Case, Seen, trial

STATES = ("starting", "waiting for the decoder", "running", "reporting")
NAMES = ("SIGINT", "SIGINT twice", "SIGTERM", "kill participant", "kill decoder", "kill recorder", "kill the session")
CASES: list[Case] = []


def reach(t: Trial, state: str) -> None:
    """Waits until the session is in that state."""
    if state == "starting":
        t.until(lambda: t.pid("participant") and t.pid("recorder"), what="processes")
        time.sleep(0.5)
    elif state == "waiting for the decoder":
        t.until(lambda: t.phase == "waiting for a decoder", what="waiting")
    elif state == "running":
        t.until_running(3.0)
    else:
        t.until(lambda: t.phase in ("finished", "stopped"), what="the end of the steps")
        time.sleep(0.3)


def act(t: Trial, name: str) -> None:
    """Does it."""
    if name == "SIGINT twice":
        t.signal("session", signal.SIGINT)
        time.sleep(0.7)
        if t.process.poll() is None:
            t.signal("session", signal.SIGINT)
    elif name in ("SIGINT", "SIGTERM"):
        t.signal("session", getattr(signal, name))
    else:
        t.signal(name.removeprefix("kill the ").removeprefix("kill "), signal.SIGKILL)


def expected_of(name: str, state: str) -> str:
    """What is to be seen."""
    if name == "kill the session":
        return "its processes end by themselves; `myoloop report` makes the report"
    if name == "kill participant" and state != "reporting":
        return "session ends with code 2 and says so; report and recording are readable"
    if name in ("kill decoder", "kill recorder"):
        return "session ends with code 0; report and recording are readable"
    return "session ends with code 0; report and recording are readable"


def end_case(name: str, state: str) -> Case:
    """One cell."""

    def run(folder: Path) -> Seen:
        changes = (
            {"participant.wait_for_decoder_s": 60.0, "decoder": {"kind": "external"}} if "waiting" in state else {}
        )
        seconds = 4.0 if state == "reporting" else 12.0 if name in ("kill decoder", "kill recorder") else 40.0
        if "waiting" in state:
            seconds = 4.0
            changes["participant.wait_for_decoder_s"] = 60.0 if name in NAMES[:4] or "session" in name else 12.0
        with trial(folder, changes, seconds) as t:
            reach(t, state)
            act(t, name)
            took = t.end()
            return {state: look(t, name, state, took)}

    return Case(name, {state: expected_of(name, state)}, run)


def look(t: Trial, name: str, state: str, took: float) -> list[Check]:
    """What is left of the session."""
    stepped = state in ("running", "reporting") or name in ("kill decoder", "kill recorder")
    checks = [
        t.code({"kill the session": -9}.get(name, 2 if name == "kill participant" and state != "reporting" else 0))
    ]
    if name == "kill the session":
        checks.append(t.clean(35))
        checks[-1] = Check(
            "python" not in checks[-1].seen and "myoloop" not in checks[-1].seen,
            checks[-1].seen or "its processes have ended",
        )
        code, out, _ = t.beside("report", str(t.run_dir))
        checks.append(
            Check(code == 0, f"report afterwards: code {code}{'' if code == 0 else ': ' + out.strip()[-120:]}")
        )
    else:
        checks.append(t.clean())
    if stepped:
        checks += [t.reports(50), t.recording(None)]
    else:
        checks.append(Check(bool(t.report), "report (no step was made)" if t.report else "no report"))
        if (t.run_dir / "session.xdf").exists():
            checks.append(Check(t.recording(None).ok or not t.report, t.recording(None).seen))
    # a part that is interrupted while Python itself starts says so in its log; the screen must stay clean
    quiet = Check("Traceback" not in t.out, "") if state == "starting" else t.quiet()
    return [*checks, quiet, judged_if_quiet(Check(took < 60, f"over after {took:.0f} s"))]


def sensible(name: str, state: str) -> bool:
    """An external decoder is nobody's to kill."""
    return not (name == "kill decoder" and "waiting" in state)


def build(cases: Callable[[str, str], Case] = end_case) -> None:
    """All of them."""
    CASES.extend(cases(name, state) for name in NAMES for state in STATES if sensible(name, state))


build()
