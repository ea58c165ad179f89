"""What a live process tells the others: a small status file, and the things it said."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from myoloop.errors import MyoloopError

PERIOD_S = 0.5
"""How often the status file is renewed."""

MOST = 200
"""Messages that a status keeps: the file is written twice a second, for an afternoon."""

SUPERVISED = "MYOLOOP_SUPERVISED"
"""Environment variable in which a session tells its processes its process id: they end when it does, also if it is killed."""

WITNESS_READY = "witness.ready"
"""File in the run folder by which a session says that it listens; a supervised participant waits for it."""

WITNESS_S = 20.0
"""How long a supervised participant waits for its session to listen, so that the first sample is received too."""

RECORDING = "recording.on"
"""File in the run folder while a session records: its participant keeps the streams open until it is gone."""

OVER = ("finished", "stopped", "failed")
"""Phases of a participant that makes no more steps."""

LINGER_S = 20.0
"""How long it does so at most."""

log = logging.getLogger("myoloop")


class Board:
    """Renews `<run_dir>/<name>.status.json` from a thread, and keeps every message that was said.

    The file is replaced atomically, so that a reader always finds a whole one, also after a crash.
    """

    def __init__(self, run_dir: Path | None, name: str, status: Callable[[], dict[str, Any]]):
        """
        Args:
          run_dir: folder for the file; None: no file.
          name: "participant" or "decoder".
          status: called twice a second from the thread; returns JSON-able values.
        """
        self._path = run_dir / f"{name}.status.json" if run_dir else None
        self._status = status
        self.messages: list[str] = []
        self._stop = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def say(self, message: str) -> None:
        """Logs a line and shows it in the status, which keeps the first MOST."""
        if len(self.messages) < MOST:
            self.messages.append(message)
        elif len(self.messages) == MOST:
            self.messages.append(f"more than {MOST} messages: further ones are in the log only")
        log.warning(message)

    def write(self) -> None:
        """Renews the file now; a full disk is said once."""
        if self._path is None:
            return
        status = {**self._status(), "messages": self.messages, "pid": os.getpid()}
        partial = self._path.with_suffix(".part")
        try:
            partial.write_text(json.dumps(status), encoding="utf-8")
            partial.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            if not self._failed:
                self._failed = True
                self.say(f"{self._path.name} cannot be written: {error.strerror}")

    def close(self) -> None:
        """Stops the thread and writes the final state."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)
        self.write()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            self.write()
            if supervisor_gone():
                self.say("the session that started this process is gone: ending")
                os.kill(os.getpid(), signal.SIGTERM)
                return


def supervisor_gone() -> bool:
    """Whether the session that started this process has ended, also if it did so before this process was ready to look."""
    told = os.environ.get(SUPERVISED, "")
    if not told.isdecimal():
        return False
    try:
        return psutil.Process(int(told)).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def read_status(run_dir: Path, name: str) -> dict[str, Any] | None:
    """The last status that a process wrote, or None if there is none yet."""
    try:
        status = json.loads((run_dir / f"{name}.status.json").read_text(encoding="utf-8"))
        return status if isinstance(status, dict) else None
    except (OSError, ValueError):
        return None


def wait_until_heard(run_dir: Path | None, stop: threading.Event) -> None:
    """Waits until the session of a supervised process listens, WITNESS_S at most, or until `stop`."""
    until = time.monotonic() + WITNESS_S
    if run_dir and os.environ.get(SUPERVISED):
        while not (run_dir / WITNESS_READY).exists() and time.monotonic() < until:
            if stop.wait(0.05):
                return


def steps_over(run_dir: Path | None) -> bool:
    """Whether the participant of this folder's session has made its last step."""
    status = read_status(run_dir, "participant") if run_dir else None
    return status is not None and status.get("phase") in OVER


def recorded(run_dir: Path | None) -> bool:
    """Whether the session of this folder is being recorded."""
    return run_dir is not None and (run_dir / RECORDING).exists()


def linger_while_recorded(run_dir: Path | None) -> None:
    """Waits until the session of a supervised process has closed its recording, LINGER_S at most."""
    until = time.monotonic() + LINGER_S
    if os.environ.get(SUPERVISED):
        while recorded(run_dir) and time.monotonic() < until and not supervisor_gone():
            time.sleep(0.05)


def make_run_dir(path: str | Path) -> Path:
    """The run folder, made if needed.

    Raises:
      MyoloopError: it cannot be made or written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe{os.getpid()}-{time.monotonic_ns()}"
        probe.write_bytes(b"1")
        probe.unlink()
    except OSError as error:
        raise MyoloopError(
            f"run folder '{folder}' cannot be written: {error.strerror}. Choose another place."
        ) from error
    return folder
