"""What about this machine and its set-up is known to disturb timing, and what to do about it."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from myoloop.machine import processor

BUSY = 0.15
"""Part of all cores that others may use."""
STOLEN = 0.01
"""Part of the time that a virtual machine's host may keep a core waiting."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "XLA_FLAGS")


class Finding(NamedTuple):
    """One circumstance."""

    name: str
    found: str
    good: bool | None
    """None: cannot be told, or is neither"""
    advice: str
    """what to do if it is not good; empty if it is"""


def look_around(seconds: float = 2.0) -> list[Finding]:
    """Everything that can be found out without being root, over a few quiet seconds."""
    before, begun = psutil.cpu_times(), time.monotonic()
    psutil.cpu_percent()
    time.sleep(seconds)
    busy, after = psutil.cpu_percent() / 100, psutil.cpu_times()
    stolen = (getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)) / max(1e-9, time.monotonic() - begun)
    return [
        _cores(), _load(busy), _governor(), _virtual(stolen / (psutil.cpu_count() or 1)), _memory(), _battery(), _priority(),
        _threads(os.environ),
    ]  # fmt: skip


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    advice = "" if usable > 1 else "participant and decoder share one core: give the process a second one."
    return Finding("processor", f"{processor()}, {usable} cores usable", usable > 1, advice)


def _load(busy: float) -> Finding:
    others = sorted(_busy_processes(), reverse=True)[:3]
    names = (
        f" (mostly {', '.join(f'{name} {100 * share:.0f} %' for share, name in others)})"
        if others and busy > BUSY
        else ""
    )
    found = f"{100 * busy:.0f} % of all cores in use before the measurement{names}"
    advice = "" if busy <= BUSY else "end other programs, or move them to other cores (taskset), and measure again."
    return Finding("other load", found, busy <= BUSY, advice)


def _busy_processes(seconds: float = 0.3) -> list[tuple[float, str]]:
    """Part of a core that each process uses now, for those that use much."""
    watched = [p for p in psutil.process_iter() if p.pid != os.getpid()]
    for process in watched:
        _percent(process)
    time.sleep(seconds)
    return [
        (share, name) for process in watched if (share := _percent(process) / 100) > 0.1 and (name := _name(process))
    ]


def _percent(process: psutil.Process) -> float:
    try:
        return float(process.cpu_percent())
    except psutil.Error:
        return 0.0


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return ""


def _governor(root: Path = Path("/sys/devices/system/cpu")) -> Finding:
    kinds = set()
    for file in root.glob("cpu[0-9]*/cpufreq/scaling_governor"):
        try:
            kinds.add(file.read_text(encoding="ascii").strip())
        except OSError:
            continue
    if not kinds:
        return Finding("CPU governor", "the system does not tell (usual in virtual machines)", None, "")
    good = kinds <= {"performance"}
    advice = "" if good else "cores that save power wake late: `sudo cpupower frequency-set -g performance`."
    return Finding("CPU governor", ", ".join(sorted(kinds)), good, advice)


def _virtual(stolen: float) -> Finding:
    try:
        guest = "hypervisor" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        guest = None
    if guest is None:
        return Finding("virtual machine", "cannot be told", None, "")
    if not guest:
        return Finding("virtual machine", "no", True, "")
    found = f"yes; its host kept the cores waiting {100 * stolen:.1f} % of the time"
    bad = "another guest takes the time: ask for dedicated cores, or measure on a machine of your own."
    return Finding("virtual machine", found, stolen <= STOLEN, "" if stolen <= STOLEN else bad)


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    good = memory.available > 2e9
    advice = "" if good else "a participant takes about 0.7 GB, a decoder 0.1: free some, or the system begins to swap."
    return Finding("memory", f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB available", good, advice)


def _battery() -> Finding:
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is None:
        return Finding("power", "mains, or not known", True, "")
    plugged = battery.power_plugged is not False
    return Finding(
        "power", "mains" if plugged else "battery", plugged, "" if plugged else "on battery, cores run slower."
    )


def _priority() -> Finding:
    limit = resource.getrlimit(resource.RLIMIT_RTPRIO)[0] if hasattr(resource, "RLIMIT_RTPRIO") else 0
    allowed = limit == resource.RLIM_INFINITY or limit > 0 or os.geteuid() == 0
    found = "this user may ask for real-time priority" if allowed else "this user may not ask for real-time priority"
    advice = (
        "" if allowed else "if steps start late: `rtprio` in /etc/security/limits.conf, then `chrt -f 10 myoloop run`."
    )
    return Finding("real-time priority", found, None, advice)


def _threads(environment: Mapping[str, str]) -> Finding:
    told = {name: environment[name] for name in THREADS if environment.get(name)}
    wide = [name for name in THREADS[:3] if told.get(name, "1") not in ("1", "")]
    found = (
        ", ".join(f"{name}={value}" for name, value in told.items()) or "none set (`myoloop run` sets one a process)"
    )
    advice = f"unset {', '.join(wide)}: libraries that start a thread for each core disturb each other." if wide else ""
    return Finding("thread settings", found, not wide, advice)
