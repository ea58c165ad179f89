"""Where shipped files lie: experiments, models and node executables, from a checkout or an installation."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from myoloop.errors import MyoloopError

CHECKOUT = Path(__file__).resolve().parent.parent
POLICY = "models/policy_phase1/policy.safetensors"
"""The policy that drives participants unless another is named, for `find_file`."""


def share_folders() -> list[Path]:
    """Folders that may hold experiments/, models/ and launch/: this checkout, then installed prefixes."""
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    folders = [CHECKOUT] if (CHECKOUT / "package.xml").is_file() else []
    return folders + [p / "share" / "myoloop" for p in [*prefixes, Path(sys.prefix)]]


def find_file(name: str | Path, beside: Path | None = None, kind: str = "file") -> Path:
    """The absolute path of a file named relative to `beside`, to the working folder, or to a share folder.

    Args:
      name: absolute or relative path.
      beside: a folder to look in first, e.g. that of the experiment file.
      kind: what it is, for the message.

    Raises:
      MyoloopError: it is in none of them; the message lists where it was looked for.
    """
    path = Path(name).expanduser()
    if path.is_absolute():
        candidates = [path]
    else:
        candidates = [*([beside / path] if beside else []), Path.cwd() / path, *(f / path for f in share_folders())]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    places = "\n  ".join(str(c) for c in dict.fromkeys(candidates))
    raise MyoloopError(f"{kind} '{name}' not found. Looked for it at:\n  {places}")


def find_node(name: str) -> Path:
    """The node executable `name` (lib/myoloop/NAME of an installation, or nodes/ of this checkout)."""
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    candidates = [p / "lib" / "myoloop" / name for p in [*prefixes, Path(sys.prefix)]] + [CHECKOUT / "nodes" / name]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    places = ", ".join(str(c) for c in dict.fromkeys(candidates))
    raise MyoloopError(f"node executable '{name}' not found (looked at {places}). Install myoloop: `make run` does.")


OWN, NONE = "own", "none"
"""Instead of a shipped decoder's name: the experiment's own, and no decoder at all."""


def shipped_decoders() -> dict[str, Path]:
    """The decoders that ship, by the names of their folders in models/."""
    found: dict[str, Path] = {}
    for folder in share_folders():
        for model in sorted((folder / "models").glob("*/decoder.onnx")):
            found.setdefault(model.parent.name, model)
    return found
