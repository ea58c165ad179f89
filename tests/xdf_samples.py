"""Small XDF files, written by hand after the format's specification (github.com/sccn/xdf/wiki/Specifications)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

FILE_HEADER, STREAM_HEADER, SAMPLES, STREAM_FOOTER = 1, 2, 3, 6


def chunk(tag: int, content: bytes) -> bytes:
    return b"\x04" + struct.pack("<I", len(content) + 2) + struct.pack("<H", tag) + content


def stream(
    number: int,
    name: str,
    kind: str,
    rate: float,
    samples: np.ndarray | Sequence[str],
    stamps: Sequence[float],
    labels: Sequence[str] = (),
    desc: str = "",
    footer: bool = True,
) -> bytes:
    """Header, samples and footer of one stream: (n, channels) float32, or n texts."""
    text = not isinstance(samples, np.ndarray)
    width = 1 if text else samples.shape[1]
    channels = "".join(f"<channel><label>{x}</label><unit>microvolts</unit></channel>" for x in labels)
    header = (
        f'<?xml version="1.0"?><info><name>{name}</name><type>{kind}</type><channel_count>{width}</channel_count>'
        f"<nominal_srate>{rate}</nominal_srate><channel_format>{'string' if text else 'float32'}</channel_format>"
        f"<source_id>{name}</source_id><hostname>here</hostname><desc>{desc}<channels>{channels}</channels></desc></info>"
    )
    identity = struct.pack("<I", number)
    body = identity + b"\x04" + struct.pack("<I", len(stamps))
    for sample, stamp in zip(samples, stamps, strict=True):
        body += b"\x08" + struct.pack("<d", stamp)
        if text:
            raw = str(sample).encode()
            body += b"\x04" + struct.pack("<I", len(raw)) + raw
        else:
            body += np.asarray(sample, "<f4").tobytes()
    end = f'<?xml version="1.0"?><info><sample_count>{len(stamps)}</sample_count></info>'.encode()
    parts = chunk(STREAM_HEADER, identity + header.encode()) + chunk(SAMPLES, body)
    return parts + (chunk(STREAM_FOOTER, identity + end) if footer else b"")


def write_xdf(path: Path, *streams: bytes) -> Path:
    header = chunk(FILE_HEADER, b'<?xml version="1.0"?><info><version>1.0</version></info>')
    path.write_bytes(b"XDF:" + header + b"".join(streams))
    return path


GESTURES = '{"rest": [0, 0, 0, 0, 0], "fist": [1, 1, 1, 1, 1]}'


def prompted(
    path: Path, blocks: int = 3, rate: float = 1000.0, hold_s: float = 2.0, rest_s: float = 2.0, channels: int = 4
) -> Path:
    """A session of prompts: the EMG's first channel is the sample's number, the second 1 during a fist."""
    length = blocks * (hold_s + rest_s)
    begin = 100.0
    stamps = begin + np.arange(round(length * rate)) / rate
    emg = np.zeros((len(stamps), channels), np.float32)
    emg[:, 0] = np.arange(len(stamps))
    events, times = ["session start"], [begin]
    for k in range(blocks):
        here = begin + k * (hold_s + rest_s)
        events += ["prompt rest", "prompt fist"]
        times += [here, here + rest_s]
        emg[(stamps >= here + rest_s) & (stamps < here + rest_s + hold_s), 1] = 1.0
    desc = f"<gestures>{escape(GESTURES)}</gestures>"
    return write_xdf(
        path,
        stream(1, "me_emg", "EMG", rate, emg, stamps.tolist(), [f"EMG{k + 1}" for k in range(channels)]),
        stream(2, "me_events", "Markers", 0, [*events, "session end"], [*times, begin + length], ["event"], desc),
    )
