"""What a process takes - memory, threads, file descriptors, CPU - over time, and whether it grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import psutil

TENTH = 0.1
"""Part of a course that its begin and its end are taken from."""


class Vitals(NamedTuple):
    """One look at a process."""

    time_s: float
    """since the course began"""
    memory_mb: float
    """what would be free if it ended (USS), 10^6 bytes"""
    threads: int
    files: int
    """open file descriptors"""
    cpu_s: float
    """that it has used so far"""


def look(process: psutil.Process, time_s: float) -> Vitals | None:
    """How a process is now; None if it is gone, or about to be."""
    try:
        with process.oneshot():
            cpu = process.cpu_times()
            memory = process.memory_full_info().uss
            return Vitals(time_s, 1e-6 * memory, process.num_threads(), process.num_fds(), cpu.user + cpu.system)
    except psutil.Error:
        return None


def grown(course: Sequence[Vitals], warm_up_s: float) -> dict[str, Any] | None:
    """How much a process takes at the end of its course against after its warm-up, by medians over a tenth of the time each.

    Args:
      course: in the order of time.
      warm_up_s: what came before is left out.

    Returns:
      `memory_mb` at the begin and the end and `memory_growth` (part of the begin), the same of threads and files, `cpu` (part
      of a core); None if there are fewer than ten looks.
    """
    rows = np.array([look for look in course if look.time_s >= warm_up_s], float).reshape(-1, len(Vitals._fields))
    if len(rows) < 10:
        return None
    count = max(1, round(TENTH * len(rows)))
    begin, end = np.median(rows[:count], axis=0), np.median(rows[-count:], axis=0)
    at = {name: column for column, name in enumerate(Vitals._fields)}
    memory = begin[at["memory_mb"]], end[at["memory_mb"]]
    return {
        "memory_mb": [round(float(x), 2) for x in memory],
        "memory_growth": round(float(memory[1] / memory[0] - 1), 5),
        "threads": [int(begin[at["threads"]]), int(end[at["threads"]])],
        "files": [int(begin[at["files"]]), int(end[at["files"]])],
        "cpu": round(float((rows[-1, at["cpu_s"]] - rows[0, at["cpu_s"]]) / (rows[-1, 0] - rows[0, 0])), 3),
        "seconds": round(float(rows[-1, 0] - rows[0, 0]), 1),
    }
