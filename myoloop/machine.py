"""The machine that this runs on: what it is, and what may be kept on it."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import sys
from pathlib import Path
from typing import NoReturn


def processor() -> str:
    """Its name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def keep_compiled() -> None:
    """Lets JAX keep what it compiles in the user's cache folder, for this process and those that it starts: the next ones
    start a fifth sooner on an idle machine, and in half the time on a busy one.

    To be called before JAX is imported. A JAX_COMPILATION_CACHE_DIR of the user's own wins, an empty one turns it off.

    What is compiled for one processor may not run on another, so each kind has a folder of its own.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        kind = [line for line in described if line.startswith(("model name", "flags", "Features"))]
    except OSError:
        kind = [platform.processor(), platform.machine(), platform.node()]
    name = hashlib.sha256("\n".join(kind).encode()).hexdigest()[:12]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "myoloop" / f"compiled-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # nowhere to keep it
    if os.access(folder, os.W_OK):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


def leave(status: int) -> NoReturn:
    """Ends a process that was interrupted anywhere, once everything of ours is closed, without taking the libraries down: XLA
    may still compile in a thread of its own, and crashes when what it compiles for is gone."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def stand_back(nice: int = 10) -> None:
    """Lets other processes go first. Linux weighs whole sessions against each other, and `nice` only within one: so where this
    process leads a session of its own, as those of `myoloop run` do, the session stands back too."""
    os.nice(nice)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # a kernel without groups
            Path("/proc/self/autogroup").write_text(str(nice))


def give_back_memory() -> None:
    """Lets glibc return large blocks to the system when they are freed, and share one heap among threads: for processes that
    live for hours and have no hurry. To be called before threads are made.

    By itself glibc gives every thread a heap, and learns to keep blocks of the size that it has seen freed: so what a process
    takes moves by megabytes though it holds nothing more.
    """
    mmap_threshold, arena_max = -3, -8  # malloc.h; the values below: 128 kB as glibc begins with, one heap
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, 128 * 1024)
        libc.mallopt(arena_max, 1)
