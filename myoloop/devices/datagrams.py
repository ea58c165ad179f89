"""What LibEMG says over UDP, read as probabilities of flexed fingers. Pure functions, no sockets.

Formats (LibEMG 2.0.3): class `b"1\\n"`, class and velocity `b"1 0.76\\n"`, rejected `b"-1 0\\n"`; probabilities, with velocity
if it is on, and unix time `b"1.00 0.00 0.09 1795224348.546"`; regression and unix time `b"[ 0.99 -0.99] 1795225169.55\\n"`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from myoloop.body.names import FINGERS

LONGEST = 1024
"""Bytes of a datagram; LibEMG's are below 200."""
ROUNDING = 0.006  # LibEMG writes two digits
UNIX_FROM = 1e8  # s: 1973; anything smaller is no unix time
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
VECTOR = re.compile(r"\[([^\[\]]*)\]\s+(\S+)")


class Gestures(NamedTuple):
    """The classes of a decoder."""

    names: tuple[str, ...]
    labels: np.ndarray
    """(classes, 5) finger labels, thumb to little, 1 = flexed"""
    low: float
    """what a regression says for an extended finger"""
    high: float
    """and for a flexed one"""

    @classmethod
    def from_mapping(
        cls, gestures: Mapping[str, tuple[float, ...]], regression_range: tuple[float, float] = (-1.0, 1.0)
    ) -> Gestures:
        """As an experiment file has them, in the decoder's order."""
        labels = np.array(list(gestures.values()), np.float32).reshape(-1, len(FINGERS))
        return cls(tuple(gestures), labels, *regression_range)


class Answer(NamedTuple):
    """One prediction."""

    fingers: np.ndarray | None
    """(5,) probability of flexed; None if the decoder declined to decide (class -1)"""
    unix_time: float | None
    """when the decoder made it, if it says so, s"""


class Refusal(NamedTuple):
    """Why a message is refused."""

    kind: str
    """each kind is said once"""
    text: str


def read_datagram(data: bytes, gestures: Gestures) -> Iterator[Answer | Refusal]:
    """Every message in a datagram: usually one, several if a sender merges lines.

    Args:
      data: the datagram; LONGEST + 1 bytes or more count as oversized.
      gestures: the decoder's classes; empty ones allow regression only.
    """
    if len(data) > LONGEST:
        yield Refusal("oversized", f"a datagram of more than {LONGEST} bytes")
        return
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        yield Refusal("text", "a datagram that is not text")
        return
    lines = text.split("\n")
    ended = [True] * (len(lines) - 1) + [False]
    found = [(line.strip(), end) for line, end in zip(lines, ended, strict=True) if line.strip()]
    if not found:
        yield Refusal("empty", "an empty datagram")
    for line, end in found:
        yield _read_line(line, end, gestures)


def _read_line(line: str, ended: bool, gestures: Gestures) -> Answer | Refusal:
    if vector := VECTOR.fullmatch(line):
        values, time = _numbers(vector[1].split()), _numbers([vector[2]])
        if values is None or time is None:
            return _broken(line)
        return _regression(values, time[0], gestures)
    numbers = _numbers(line.split())
    if numbers is None:
        return _broken(line)
    if len(numbers) <= 2:
        return _class(line, numbers, ended, gestures)
    return _probabilities(numbers, gestures)


def _class(line: str, numbers: list[float], ended: bool, gestures: Gestures) -> Answer | Refusal:
    if not ended:  # a class line ends with a newline: without one the rest is missing, and 1 may have been 12
        return Refusal("incomplete", f"'{_short(line)}' has no end of line: cut off?")
    number = numbers[0]
    if number == -1:
        return Answer(None, None)
    if number != int(number) or not 0 <= number < len(gestures.names):
        known = ", ".join(f"{i} {name}" for i, name in enumerate(gestures.names)) or "none"
        return Refusal("class", f"class {number:g} is not among decoder.udp.gestures ({known})")
    return Answer(gestures.labels[int(number)], None)


def _probabilities(numbers: list[float], gestures: Gestures) -> Answer | Refusal:
    classes = len(gestures.names)
    if len(numbers) - classes not in (1, 2) or numbers[-1] < UNIX_FROM:  # time, or velocity and time
        return Refusal(
            "width",
            f"{len(numbers)} numbers: expected a class and its velocity, or {classes} probabilities (decoder.udp.gestures) and "
            "the time",
        )
    chances = np.array(numbers[:classes])
    if chances.min() < -ROUNDING or chances.max() > 1 + ROUNDING or abs(chances.sum() - 1) > ROUNDING * classes + 0.01:
        return Refusal("range", f"probabilities {chances.tolist()} that are not in 0..1 or do not add up to 1")
    chances = np.clip(chances, 0.0, None) / np.clip(chances, 0.0, None).sum()
    fingers = np.clip(chances @ gestures.labels, 0.0, 1.0).astype(np.float32)
    return Answer(fingers, numbers[-1])


def _regression(values: list[float], time: float, gestures: Gestures) -> Answer | Refusal:
    if len(values) != len(FINGERS):
        return Refusal("regression", f"a regression of {len(values)} values: expected {len(FINGERS)}, thumb to little")
    share = (np.array(values) - gestures.low) / (gestures.high - gestures.low)
    return Answer(np.clip(share, 0.0, 1.0).astype(np.float32), time if time > UNIX_FROM else None)


def _numbers(words: list[str]) -> list[float] | None:
    """The words as finite numbers; None if one of them is none."""
    if not all(NUMBER.fullmatch(word) for word in words):
        return None
    numbers = [float(word) for word in words]
    return numbers if numbers and np.all(np.isfinite(numbers)) else None


def _broken(line: str) -> Refusal:
    return Refusal("broken", f"'{_short(line)}' is no list of finite numbers")


def _short(line: str) -> str:
    return line if len(line) <= 40 else f"{line[:37]}..."
