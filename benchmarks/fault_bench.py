"""A session of real processes with something done to it, and what it left: used by benchmarks/fault_matrix.py."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml

from myoloop.errors import MyoloopError
from myoloop.live.board import read_status
from myoloop.streams.rowlog import read_events
from myoloop.streams.xdf import count_samples, read_xdf

REPO = Path(__file__).resolve().parent.parent
HOOKS = Path(__file__).resolve().parent / "fault_hooks"
WALL_CLOCK = HOOKS / "wallclock.c"
"""A wall clock that can be moved for some processes only. (libfaketime 0.9.10 also touches sleeping, which then fails.)"""
MARK = "MYOLOOP_FAULT_BENCH"
"""Environment variable by which a session's processes are found, whoever started them."""
START_S = 180.0
END_S = 180.0
PARTIAL = ("*.part", ".probe*", "recording.on", ".latest*", "*.tmp")
"""Files that only exist while somebody writes."""


class Check(NamedTuple):
    """One thing that is to hold."""

    ok: bool
    seen: str
    """what was measured, in a few words; empty: nothing worth a word if all is well"""


class Stuck(Exception):
    """A session did not get where the cell wants it; the cell has failed."""


class Trial:
    """One session of `myoloop run` in a folder of its own, with LSL to itself."""

    def __init__(
        self,
        folder: Path,
        changes: dict[str, Any] | None = None,
        seconds: float = 12.0,
        hook: str = "",
        env: dict[str, str] | None = None,
        ports: Sequence[int] = (),
        runs: Path | None = None,
        arguments: Sequence[str] = (),
        decoder: Sequence[str] = (),
    ):
        """
        Args:
          folder: for the experiment file, the output and the run folder.
          changes: dotted keys of the shipped experiment to other values.
          seconds: length of the session.
          hook: what goes wrong inside a part, see fault_hooks/sitecustomize.py.
          env: more environment.
          ports: (base, count) of LSL's ports; default: liblsl's.
          runs: folder of the run folder, instead of one in `folder`.
          arguments: more of `myoloop run`.
          decoder: arguments of fault_decoder.py, which takes the place of the shipped decoder.
        """
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.mark = uuid.uuid4().hex[:12]
        self.id = f"f{self.mark[:6]}"
        self.runs = runs or folder / "runs"
        lsl = [
            f"[lab]\nSessionID = fault-{self.mark}\nKnownPeers = {{127.0.0.1}}",
            "[multicast]\nResolveScope = machine",
        ]
        base, count = ports or (0, 256)
        lsl += [
            "[ports]\nIPv6 = disable",
            *([f"BasePort = {base}"] if base else []),
            f"PortRange = {count}",
            "[log]\nlevel = -3",
        ]
        (folder / "lsl_api.cfg").write_text("\n".join(lsl))
        experiment = yaml.safe_load((REPO / "experiments" / "closed_loop.yaml").read_text())
        experiment |= {"ros": False, "record": True, "duration_s": seconds, "name": "fault"}
        experiment["participant"]["id"] = self.id
        for key in ("decoder.model", "participant.policy"):
            section, last = key.split(".")
            experiment[section][last] = str(REPO / experiment[section][last])
        if decoder:
            command = [sys.executable, str(REPO / "benchmarks" / "fault_decoder.py"), self.id, *decoder]
            experiment["decoder"] = {"kind": "external", "command": [*command, "--count", str(folder / "sent.json")]}
        for key, value in (changes or {}).items():
            here = experiment
            *sections, last = key.split(".")
            for section in sections:
                here = here.setdefault(section, {})
            here[last] = value
        self.file = folder / "experiment.yaml"
        self.file.write_text(yaml.safe_dump(experiment))
        self.env = {
            **os.environ, "LSLAPICFG": str(folder / "lsl_api.cfg"), MARK: self.mark, "COLUMNS": "250",
            "PYTHONPATH": os.pathsep.join([str(HOOKS), str(REPO)]), "MYOLOOP_FAULT": hook, **(env or {}),
        }  # fmt: skip
        self._arguments = list(arguments)
        self._out = folder / "out.txt"
        self.process = self.start()

    # --- running ------------------------------------------------------------------------------------------------------

    def start(self) -> subprocess.Popen[bytes]:
        with self._out.open("ab") as out:
            command = [
                sys.executable,
                "-m",
                "myoloop",
                "run",
                str(self.file),
                "--runs",
                str(self.runs),
                *self._arguments,
            ]
            return subprocess.Popen(
                command, stdout=out, stderr=out, env=self.env, cwd=self.folder, start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job would ignore it
            )  # fmt: skip

    def beside(self, *arguments: str, seconds: float = 90.0) -> tuple[int, str, float]:
        """Another `myoloop` command in the same network: its exit code, what it said, how long it took."""
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "myoloop", *arguments], env={**self.env, "MYOLOOP_FAULT": ""}, cwd=self.folder,
            capture_output=True, text=True, timeout=seconds,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr, time.monotonic() - begun

    @property
    def run_dir(self) -> Path:
        return (self.runs / "latest").resolve()

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace") if self._out.exists() else ""

    @property
    def logs(self) -> str:
        """What all parts wrote to their logs."""
        return "\n".join(log.read_text(errors="replace") for log in sorted(self.run_dir.glob("logs/*.log")))

    def status(self, part: str) -> dict[str, Any]:
        if part == "learner":
            return (read_status(self.run_dir, "participant") or {}).get("learner") or {}
        return read_status(self.run_dir, part) or {}

    def pid(self, part: str) -> int:
        """Of a part's process; 0 if it has none."""
        told = {"learner": "myoloop.live.learner", "software": "fault_decoder.py"}.get(part, f"-m myoloop {part} ")
        for process in self.left():
            with contextlib.suppress(psutil.Error):
                if told in " ".join(process.cmdline()) + " ":
                    return int(process.pid)
        return 0

    def until(self, reached: Callable[[], Any], seconds: float = START_S, what: str = "the wanted state") -> float:
        """Waits; returns how long it took.

        Raises:
          Stuck: it was not reached, or the session ended before.
        """
        begun = time.monotonic()
        while not reached():
            if time.monotonic() - begun > seconds:
                raise Stuck(f"no {what} within {seconds:g} s")
            if self.process.poll() is not None and not reached():
                raise Stuck(f"the session ended before {what}: {self.out.strip()[-200:]}")
            time.sleep(0.05)
        return time.monotonic() - begun

    def until_running(self, seconds: float = 2.0) -> None:
        """Until so many seconds have been played."""
        self.until(lambda: self.phase == "running" and self.status("participant")["time_s"] >= seconds, what="running")

    @property
    def phase(self) -> str:
        return str(self.status("participant").get("phase", ""))

    def signal(self, part: str, number: int) -> int:
        """Sends a signal to a part (or the `session` itself); returns its process id."""
        pid = self.process.pid if part == "session" else self.pid(part)
        if not pid:
            raise Stuck(f"there is no {part} to signal")
        os.kill(pid, number)
        return pid

    def stop_for(self, part: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        pid = self.signal(part, signal.SIGSTOP)
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def throttle(self, part: str, seconds: float, share: float = 0.1, period_s: float = 0.1) -> None:
        """Lets a part run for a share of the time only."""
        pid, until = self.pid(part), time.monotonic() + seconds
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < until and self.process.poll() is None:
                os.kill(pid, signal.SIGSTOP)
                time.sleep((1 - share) * period_s)
                os.kill(pid, signal.SIGCONT)
                time.sleep(share * period_s)

    def end(self, seconds: float = END_S) -> float:
        """Waits until the session is over; returns how long that took.

        Raises:
          Stuck: it does not end.
        """
        begun = time.monotonic()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.clear()
            raise Stuck(f"the session did not end within {seconds:g} s") from None
        return time.monotonic() - begun

    def finish(self) -> float:
        """Ends the session as its user would, by Ctrl-C; returns how long that took."""
        self.signal("session", signal.SIGINT)
        return self.end()

    def left(self) -> list[psutil.Process]:
        """Processes of this session that are alive."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def clear(self) -> None:
        """Ends whatever is left."""
        for process in self.left():
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5.0)

    # --- what was seen ------------------------------------------------------------------------------------------------

    @property
    def report(self) -> dict[str, Any]:
        try:
            return json.loads((self.run_dir / "report.json").read_text())
        except (OSError, ValueError):
            return {}

    @property
    def events(self) -> list[str]:
        return [text for _, text in read_events(self.run_dir / "events.jsonl")]

    def code(self, wanted: int = 0) -> Check:
        code = self.process.returncode
        return Check(code == wanted, f"exit code {code}")

    def says(self, *texts: str, where: str = "") -> Check:
        """Whether the session (its screen, its messages, its events) names the fault."""
        said = " ".join(
            (where or "\n".join([self.out, *self.events, *map(str, self.report.get("messages", []))])).split()
        )
        missing = [text for text in texts if text not in said]
        return Check(not missing, f"does not say: {'; '.join(missing)}" if missing else f"says “{texts[0]}”")

    def reports(self, steps: int = 50) -> Check:
        """Whether the report is there and is about something."""
        report, page = self.report, self.run_dir / "report.html"
        made = report.get("loop", {}).get("steps", 0)
        whole = bool(report) and page.exists() and page.stat().st_size > 10_000 and made >= steps
        return Check(whole, f"report of {made} steps" if report else "no report")

    def recording(self, lost: int | None = 0, streams: int = 7) -> Check:
        """Whether the recording is readable and holds all that was sent; `lost`: how many samples may be missing, None: any."""
        try:
            session = read_xdf(self.run_dir)
        except MyoloopError as error:
            return Check(False, f"recording: {error}")
        counts = count_samples(self.run_dir)
        kept = self.report.get("recording") or {}
        missing = kept.get("lost")
        if not self.report:  # nobody counted
            return Check(len(session.streams) >= streams, f"recording readable, {sum(counts.values())} samples")
        few = lost is None or (missing is not None and missing <= lost)
        bad = (
            [n for n, c in (kept.get("streams") or {}).items() if c["sent"] and c["recorded"] < c["sent"]]
            if missing
            else []
        )
        where = f" ({', '.join(name.removeprefix(self.id + '_') for name in bad)})" if bad else ""
        ok = few and len(session.streams) >= streams
        return Check(ok, f"recording: {sum(counts.values())} samples, {missing} missing{where}")

    def clean(self, seconds: float = 5.0) -> Check:
        """Whether nothing is left behind: processes (after a moment), partial files."""
        until = time.monotonic() + seconds
        while (left := self.left()) and time.monotonic() < until:
            time.sleep(0.1)
        names = []
        for process in left:
            with contextlib.suppress(psutil.Error):
                names.append(" ".join(process.cmdline()[:5]))
        files = [path.name for pattern in PARTIAL for path in [*self.run_dir.glob(pattern), *self.runs.glob(pattern)]]
        self.clear()
        return Check(not names and not files, f"left behind: {names + files}" if names or files else "")

    def lost(self, most: int = 0) -> Check:
        """EMG samples that the session's own listener did not get."""
        lost = self.report.get("emg", {}).get("samples_lost")
        return Check(lost is not None and lost <= most, f"{lost} EMG samples lost")

    def steady(self, share: float = 0.02) -> Check:
        """Whether the participant kept its pace: overruns as part of the steps; not judged on a machine that is overloaded."""
        loop = self.report.get("loop", {})
        part = loop.get("overruns", 0) / max(1, loop.get("steps", 0))
        return judged_if_quiet(Check(part <= share, f"overruns {100 * part:.1f} %"))

    def quiet(self) -> Check:
        """Whether nobody ended in a traceback."""
        return Check(
            "Traceback" not in self.out + self.logs, "a traceback" if "Traceback" in self.out + self.logs else ""
        )


def judged_if_quiet(check: Check) -> Check:
    """The check, or that it was not judged: with more than two processes waiting for each core lateness says nothing."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if check.ok or load <= 2 * cores:
        return check
    return Check(True, f"{check.seen} (not judged: load average {load:.0f} on {cores} cores)")


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: float):  # type: ignore[no-untyped-def]
    """A file system of its own of this size, for who may mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={round(megabytes * 1024)}k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def wall_clock(folder: Path) -> tuple[dict[str, str], Callable[[float], None]]:
    """Environment of processes whose wall clock can be set, and what sets it (s from the true one)."""
    folder.mkdir(parents=True, exist_ok=True)
    off, library = folder / "off", folder / "wallclock.so"
    off.write_text("0")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(WALL_CLOCK), "-ldl"], check=True)
    env = {"LD_PRELOAD": str(library), "MYOLOOP_WALL_CLOCK": str(off)}

    def jump(seconds: float) -> None:
        off.write_text(str(seconds))

    return env, jump
