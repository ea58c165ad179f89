"""How long LSL takes on this machine: one way, and there and back through another process.

Chunks are as a participant sends them. Both ends are on one machine, so that one clock stamps them.
`python -m myoloop.streams.timing NAME` is the other process.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pylsl

from myoloop.errors import MyoloopError
from myoloop.streams.follower import StreamFollower
from myoloop.streams.network import use_loopback

OPEN_S = 20.0
"""How long the two may take to find each other."""
LATE_S = 0.5
"""How long the last answers are waited for."""


class Ways(NamedTuple):
    """Times in milliseconds."""

    one_way_ms: np.ndarray
    """from before the push to after the pull in the other process"""
    round_trip_ms: np.ndarray
    """from before the push to after the pull of the answer here"""
    sent: int
    """chunks"""


def measure_lsl(
    seconds: float,
    channels: int = 16,
    samples: int = 40,
    period_s: float = 0.02,
    tick: Callable[[], None] = lambda: None,
) -> Ways:
    """Sends a chunk (samples, channels) every `period_s` to an echo in another process; `tick` is called after each.

    Raises:
      MyoloopError: the two did not find each other.
    """
    use_loopback()
    name = f"timing{os.getpid()}"
    info = pylsl.StreamInfo(f"{name}_out", "Timing", channels, samples / period_s, pylsl.cf_float32, f"{name}_out")
    outlet = pylsl.StreamOutlet(info)
    echo = subprocess.Popen([sys.executable, "-m", "myoloop.streams.timing", name, str(samples)], stdin=subprocess.PIPE)
    back = StreamFollower(f"name='{name}_back'")
    try:
        until = time.monotonic() + OPEN_S
        while back.info is None or not outlet.have_consumers():
            back.read(0.05)
            if time.monotonic() > until or echo.poll() is not None:
                raise MyoloopError(
                    "LSL could not be measured: a stream of another process on this machine was not found within "
                    f"{OPEN_S:g} s. Is multicast or loopback blocked by a firewall?"
                )
        time.sleep(0.3)
        chunk = np.random.default_rng(0).normal(size=(samples, channels)).astype(np.float32)
        there: list[float] = []
        both: list[float] = []
        count = max(1, round(seconds / period_s))
        due = pylsl.local_clock()
        for _ in range(count):
            due += period_s
            while (ahead := due - pylsl.local_clock()) > 0:
                _collect(back, ahead, there, both)
            outlet.push_chunk(chunk, pylsl.local_clock())
            tick()
        until = time.monotonic() + LATE_S
        while len(both) < count and time.monotonic() < until:
            _collect(back, 0.05, there, both)
        return Ways(1e3 * np.array(there), 1e3 * np.array(both), count)
    finally:
        back.close()
        assert echo.stdin is not None
        echo.stdin.close()  # it ends with it, also if this process is killed
        with contextlib.suppress(subprocess.TimeoutExpired):
            echo.wait(5.0)
        echo.kill()


def _collect(back: StreamFollower, timeout: float, there: list[float], both: list[float]) -> None:
    """Takes answers: when their chunk was sent, and when it was there."""
    block = back.read(timeout)
    if block is None:
        return
    now = pylsl.local_clock()
    for sent, arrived in np.asarray(block.samples, float):
        there.append(arrived - sent)
        both.append(now - sent)


def echo(name: str, samples: int) -> None:
    """Answers every chunk of so many samples with its stamp and the time of its arrival, until stdin closes."""
    use_loopback()
    sys.setswitchinterval(5e-4)
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(f"{name}_back", "Timing", 2, 0.0, pylsl.cf_double64, f"{name}_back"))
    follower = StreamFollower(f"name='{name}_out'")
    os.set_blocking(0, False)
    looked, count = 0.0, 0
    while True:
        block = follower.read(0.2)
        now = pylsl.local_clock()
        for stamp in block.stamps if block is not None else ():
            count += 1
            if count % samples == 0:  # a chunk may come in pieces; its stamp is that of its last sample
                outlet.push_sample([float(stamp), now])
        if now - looked > 0.5:
            looked = now
            with contextlib.suppress(BlockingIOError):
                if os.read(0, 1) == b"":
                    return


if __name__ == "__main__":
    echo(sys.argv[1], int(sys.argv[2]))
