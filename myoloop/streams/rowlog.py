"""Logs on disk that grow row by row and are readable after a crash."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from myoloop.errors import MyoloopError

Column = tuple[str, int]
"""A column's name and width; every value is float32 but the first column, `time`, which is float64."""


class RowLog:
    """Appends fixed-width rows to `<stem>.rows`; their layout stands in `<stem>.json`.

    Rows reach the operating system at once, so that a killed process loses none. A full disk stops the log, is said
    once, and never stops the caller.
    """

    def __init__(self, stem: Path, columns: Sequence[Column], say: Callable[[str], None]):
        """
        Args:
          stem: path without suffix.
          columns: (name, width) in order; a `time` column (float64 seconds) is put before them.
          say: gets one line if writing fails.
        """
        self._dtype = _dtype(columns)
        self._row = np.zeros((), self._dtype)
        self._path = stem.with_suffix(".rows")
        self._say = say
        stem.with_suffix(".json").write_text(json.dumps({"columns": columns}), encoding="utf-8")
        self._file = self._path.open("wb", buffering=0)
        self.rows = 0
        self.failed: str | None = None
        """why the log stopped, or None"""

    def append(self, time: float, **values: object) -> None:
        """Writes one row; every column but `time` by name."""
        if self.failed:
            return
        self._row["time"] = time
        for name, value in values.items():
            self._row[name] = value
        try:
            whole = self._file.write(self._row.tobytes()) == self._row.nbytes
            problem = "" if whole else "no space left"
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            self.failed = f"{self._path.name} stops after {self.rows} rows: {problem}"
            self._say(self.failed)
            return
        self.rows += 1

    def close(self) -> None:
        self._file.close()


class EventLog:
    """Appends {time, event} lines to a JSON-lines file; a full disk is said once and never stops the caller."""

    def __init__(self, path: Path, say: Callable[[str], None]):
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._say = say
        self._failed = False

    def append(self, time: float, event: str) -> None:
        if self._failed:
            return
        try:
            self._file.write(json.dumps({"time": time, "event": event}) + "\n")
        except OSError as error:
            self._failed = True
            self._say(f"{self._file.name} stops: {error.strerror}")

    def close(self) -> None:
        self._file.close()


def read_events(path: Path) -> list[tuple[float, str]]:
    """(time, event) of every whole line; an absent file holds none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    events = []
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            row = json.loads(line)
            events.append((float(row["time"]), str(row["event"])))
    return events


def read_rows(stem: Path) -> np.ndarray:
    """The rows of a log as a structured array; a half-written last row is left out.

    Raises:
      MyoloopError: there is no such log, or its layout is damaged.
    """
    try:
        columns = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))["columns"]
        dtype = _dtype(columns)
        raw = stem.with_suffix(".rows").read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MyoloopError(
            f"no readable log '{stem.name}' in {stem.parent}: {error}. Is this the folder of a session that ran?"
        ) from error
    return np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype)


def _dtype(columns: Sequence[Column]) -> np.dtype:
    return np.dtype([("time", "<f8"), *((name, "<f4", (width,) if width > 1 else ()) for name, width in columns)])
