"""The one error users meet, and the wording of its most common kind."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MyoloopError(Exception):
    """A problem the user can act on: the message says what was found, what was expected and what to do."""


def unknown_name(kind: str, name: object, known: Iterable[str], where: str = "") -> MyoloopError:
    """The error for a name that is not among the known ones, with the nearest one suggested.

    Args:
      kind: what the name stands for, e.g. "armband preset".
      name: what was found.
      known: the names that would have been accepted.
      where: the place it was found, e.g. "experiments/mine.yaml"; may be empty.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    place = f"{where}: " if where else ""
    return MyoloopError(f"{place}unknown {kind} '{name}'.{hint} Known: {', '.join(names)}.")
