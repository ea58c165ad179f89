"""Results that take seconds, kept in $XDG_CACHE_HOME/myoloop (default ~/.cache/myoloop) under the hash of what made them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

KEEP_BYTES = 512 * 2**20
"""What the files of one kind may take together: the least recently used go."""

_SOURCES = ("anatomy", "bessel", "conductor", "cylinder", "muap_cylinder", "placement", "source", "volume_conductor")

Arrays = Mapping[str, Any]


def stored(kind: str, key: object, make: Callable[[], Arrays]) -> dict[str, np.ndarray]:
    """Arrays by name, as `make` gives them: read if they were made before from an equal key by the same source files.

    Args: kind names the files; key: its repr (and the bytes of arrays in a tuple) must tell all that the result depends on.

    A damaged file is made again; without a writable folder nothing is kept.
    """
    path = _folder() / f"emg-{kind}-{_digest(key)}.npz"
    if path.is_file():
        with contextlib.suppress(Exception):  # damaged: made again
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            with contextlib.suppress(OSError):
                os.utime(path)
            return found
    made = {name: np.asarray(value) for name, value in make().items()}
    with contextlib.suppress(OSError):  # no home, no space, read-only: go without a cache
        if sum(array.nbytes for array in made.values()) > KEEP_BYTES // 4:
            return made  # a grid's ring: quicker to make than to read
        _write(path, made)
        _prune(path.parent, kind)
    return made


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(name, path)  # whole or not at all, whoever else is writing
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _prune(folder: Path, kind: str) -> None:
    newest_first = sorted(folder.glob(f"emg-{kind}-*.npz"), key=lambda file: -file.stat().st_mtime)
    total = 0
    for file in newest_first:
        total += file.stat().st_size
        if total > KEEP_BYTES:
            file.unlink(missing_ok=True)


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "myoloop"


def _digest(key: object) -> str:
    """Of the key and of the physics' source files: another version makes its own."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    for part in key if isinstance(key, tuple) else (key,):
        digest.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
