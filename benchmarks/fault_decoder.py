"""A decoder that works, then does something wrong for a while, then works again: used by benchmarks/fault_matrix.py.

python benchmarks/fault_decoder.py myo nan --count sent.json
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pylsl
import tyro

from myoloop.body.names import FINGERS
from myoloop.decoder.runtime import OnnxDecoder
from myoloop.streams.follower import StreamFollower
from myoloop.streams.outlets import make_outlet

MODEL = Path(__file__).resolve().parent.parent / "models" / "decoder_tcn" / "decoder.onnx"
FLOOD = 200


@dataclass(frozen=True)
class Config:
    """What to do wrong."""

    participant: Annotated[str, tyro.conf.Positional]
    """whose EMG"""
    fault: Annotated[Literal["none", "shape", "nan", "flood", "stamps", "outlet"], tyro.conf.Positional]
    """shape: four channels instead of five; nan; flood: 200 copies of each answer; stamps: an hour ahead; outlet: gone"""
    after: float = 4.0
    """seconds of answers before it begins"""
    lasts: float = 5.0
    """seconds that it lasts"""
    count: Path | None = None
    """JSON file for the number of answers sent"""


def outlet(participant: str, width: int = 5) -> pylsl.StreamOutlet:
    """The decoder's outlet, or one that is too narrow."""
    if width != len(FINGERS):  # another source: a stream cannot change its width
        return pylsl.StreamOutlet(
            pylsl.StreamInfo(f"{participant}_prediction", "Control", width, 0, "float32", "narrow")
        )
    return make_outlet(participant, "prediction", FINGERS, "probability of flexed", 0.0)


def main(config: Config) -> None:
    """Until it is told to stop."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    sys.setswitchinterval(5e-4)
    decoder = OnnxDecoder(MODEL)
    out: pylsl.StreamOutlet | None = outlet(config.participant)
    follower = StreamFollower(f"name='{config.participant}_emg'")
    begun, sent, wrong = 0.0, 0, False
    while not stop.is_set():
        block = follower.read(0.2)
        if block is None:
            continue
        begun = begun or time.monotonic()
        now_wrong = config.after <= time.monotonic() - begun < config.after + config.lasts
        if now_wrong != wrong:
            wrong = now_wrong
            if config.fault in ("outlet", "shape"):
                if not wrong:
                    time.sleep(0.5)  # what was sent last is on its way
                out = None
                if config.fault == "shape" or not wrong:
                    out = outlet(config.participant, 4 if wrong else 5)
        for used, answer in decoder.push(block.samples):
            if out is None:
                continue
            values, stamp = answer[None], float(block.stamps[used - 1])
            if wrong and config.fault == "shape":
                values = values[:, :4]
            if wrong and config.fault == "nan":
                values = np.full_like(values, np.nan)
            if wrong and config.fault == "flood":
                values = np.repeat(values, FLOOD, axis=0)
            if wrong and config.fault == "stamps":
                stamp += 3600.0
            out.push_chunk(np.ascontiguousarray(values), stamp)
            sent += len(values)
        if config.count:
            config.count.write_text(json.dumps(sent))
    follower.close()
    time.sleep(0.3)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
