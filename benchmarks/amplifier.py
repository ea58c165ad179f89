"""What an emulated Trigno adds: from the time of an EMG sample to its arrival in a TCP client; losses; processor time.

The last line of the output is one JSON object.

    python benchmarks/amplifier.py --seconds 600 --pause-every 60

A stream like a participant's goes out over LSL (16 channels, 2 kHz, a chunk every 20 ms, newest sample stamped with the time of
sending); `myoloop device` serves it; a client in a process of its own reads, stops for 2 s now and then, and checks every
sample.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pylsl
import tyro
import yaml

from myoloop.devices.trigno_protocol import FRAME_BYTES
from myoloop.streams.clock import RealtimeClock
from myoloop.streams.network import use_loopback

CHUNK, RATE_HZ = 40, 2000.0


@dataclass(frozen=True)
class Config:
    """What to measure."""

    seconds: float = 60.0
    """how long"""
    pause_every: float = 0.0
    """seconds between stops of the client; 0: it never stops"""
    pause_s: float = 2.0
    """length of a stop"""
    out: Path | None = None
    """JSON file for the result"""


def client(ports: dict[str, int], config: Config, samples: int, result: Any) -> None:
    """Reads until all samples are there; puts arrival times of chunk ends and what was wrong into `result`."""
    command = socket.create_connection(("127.0.0.1", ports["command"]))
    command.recv(1024)
    emg = socket.create_connection(("127.0.0.1", ports["emg"]))
    time.sleep(0.3)
    command.sendall(b"START\r\n\r\n")
    command.recv(128)
    result.send("ready")
    data, numbers, arrivals, broken = b"", [], [], 0
    begun = resting = time.monotonic()
    emg.settimeout(5.0)
    clear = 0.0
    while sum(map(len, numbers)) < samples:
        if config.pause_every and time.monotonic() - resting > config.pause_every:
            time.sleep(config.pause_s)
            resting, clear = time.monotonic(), time.monotonic() + 0.5
        try:
            data += emg.recv(1 << 20)
        except TimeoutError:
            break
        now = pylsl.local_clock()
        whole = len(data) // FRAME_BYTES * FRAME_BYTES
        rows = np.rint(1e6 * np.frombuffer(data[:whole], "<f4").reshape(-1, 16)).astype(np.int64)
        data = data[whole:]
        if not len(rows):
            continue
        broken += int(np.count_nonzero(np.ptp(rows, axis=1)))
        numbers.append(rows[:, 0])
        if time.monotonic() > clear:  # a backlog after a stop is the client's own doing
            arrivals += [(int(n), now) for n in rows[:, 0] if n % CHUNK == CHUNK - 1]
    got = np.concatenate(numbers)
    gaps = np.diff(got) - 1
    result.send({"received": len(got), "missing": int(gaps.sum()), "out_of_order": int((gaps < 0).sum()), "broken": broken,
                 "arrivals": arrivals, "seconds": time.monotonic() - begun})  # fmt: skip


def main(config: Config) -> None:
    """Measures and prints."""
    use_loopback()
    folder = Path(tempfile.mkdtemp())
    name = f"bench{os.getpid()}"
    devices = {"trigno": {"command_port": 0, "emg_port": 0, "aux_port": 0}}
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump({"participant": {"id": name, "armband": "trigno16"}, "devices": devices}))
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(f"{name}_emg", "EMG", 16, RATE_HZ, pylsl.cf_float32, name))
    serving = subprocess.Popen([sys.executable, "-m", "myoloop", "device", str(file), "--run-dir", str(folder)])
    try:
        status = folder / "device.status.json"
        while not status.exists() or not outlet.have_consumers():
            time.sleep(0.1)
        ports = json.loads(status.read_text())["devices"]["trigno"]["ports"]
        chunks = round(config.seconds * RATE_HZ / CHUNK)
        mine, theirs = multiprocessing.Pipe()
        reader = multiprocessing.Process(target=client, args=(ports, config, chunks * CHUNK, theirs))
        reader.start()
        assert mine.recv() == "ready"
        process = psutil.Process(serving.pid)
        busy = sum(process.cpu_times()[:2])
        clock, stamps = RealtimeClock(CHUNK / RATE_HZ), np.zeros(chunks)
        clock.start()
        for k in range(chunks):
            clock.wait()
            numbers = np.arange(k * CHUNK, (k + 1) * CHUNK, dtype=np.float32)
            stamps[k] = pylsl.local_clock()
            outlet.push_chunk(np.repeat(numbers[:, None], 16, axis=1), stamps[k])
        seen = mine.recv()
        busy = sum(process.cpu_times()[:2]) - busy
        reader.join()
        time.sleep(0.7)
        served = json.loads(status.read_text())["devices"]["trigno"]
    finally:
        serving.send_signal(2)
        serving.wait(10)
    delays = 1e3 * np.array([at - stamps[n // CHUNK] for n, at in seen["arrivals"]])
    quantiles = {
        key: round(float(np.percentile(delays, q)), 3) for key, q in (("median", 50), ("p95", 95), ("p99", 99))
    }
    result = {
        "seconds": config.seconds, "pause_every_s": config.pause_every, "samples_sent": chunks * CHUNK,
        **{key: seen[key] for key in ("received", "missing", "out_of_order", "broken")},
        "frames_dropped": served["frames_dropped"],
        "sample_to_tcp_ms": {**quantiles, "max": round(float(delays.max()), 3)},
        "cpu_percent_of_a_core": round(100 * busy / config.seconds, 2),
        "load_average": [round(x, 1) for x in os.getloadavg()], "cores": os.cpu_count(),
    }  # fmt: skip
    print(json.dumps(result))
    if config.out:
        config.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config))
