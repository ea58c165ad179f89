"""Recordings of prompted gestures as tables, in the folder layout that LibEMG reads: C_<class>_R_<repetition>.csv.

One file a repetition of a gesture, a row a sample, a column a channel, no header (LibEMG, Eddy et al. 2023, IEEE Access
11:87380-87397: RegexFilter("C_", "_R_", ...) and RegexFilter("_R_", ".csv", ...)).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from myoloop.errors import MyoloopError, unknown_name
from myoloop.streams.xdf import XdfSession

PROMPT = "prompt "
UNITS = {"volts": 1e-6, "microvolts": 1.0}
"""Of a file's values; what a microvolt is in each."""
SHORTEST_S = 0.5
"""Less is no repetition: half a second holds four of LibEMG's usual windows."""


@dataclass(frozen=True)
class CutRules:
    """What of a prompt's EMG is kept."""

    skip_s: float = 0.8
    """Left out after a prompt, s: reading it and moving there."""
    cut_s: float = 0.1
    """Left out before the next one, s."""

    def __post_init__(self) -> None:
        if not (0 <= self.skip_s <= 30 and 0 <= self.cut_s <= 30):
            raise MyoloopError(f"skip is {self.skip_s:g} s, cut {self.cut_s:g} s: expected 0 to 30 s each.")


class Repetition(NamedTuple):
    """One prompt and the EMG while it was held."""

    gesture: str
    begin: float
    """time of the prompt"""
    emg: np.ndarray
    """(samples, channels) microvolts"""


def repetitions(session: XdfSession, rules: CutRules | None = None) -> list[Repetition]:
    """The prompted gestures of a recording, in the order of time.

    A prompt ends with the next one or with the session. Where EMG is missing or too short (SHORTEST_S), it is left out.

    Raises:
      MyoloopError: there are no prompts, or no EMG.
    """
    rules = rules or CutRules()
    emg = session.need("emg")
    if not emg.rate_hz:
        raise MyoloopError(f"'{emg.name}' has no rate: expected a regular stream.")
    events = session.events
    prompts = [(time, text.removeprefix(PROMPT)) for time, text in events if text.startswith(PROMPT)]
    if not prompts:
        raise MyoloopError(
            f"the recording has no event '{PROMPT.strip()} ...': record with participant.reference.kind: prompts, as "
            "experiments/calibration.yaml does."
        )
    ends = [time for time, text in events if text.startswith((PROMPT, "session end"))]
    last = float(emg.stamps.max()) + 1 / emg.rate_hz
    found = []
    for begin, gesture in prompts:
        end = min((time for time in ends if time > begin), default=last)
        here = (emg.stamps >= begin + rules.skip_s) & (emg.stamps < end - rules.cut_s)
        expected = (end - begin - rules.skip_s - rules.cut_s) * emg.rate_hz
        count = int(np.count_nonzero(here))
        if count < SHORTEST_S * emg.rate_hz or count < expected - 1.5:
            continue
        found.append(Repetition(gesture, begin, np.asarray(emg.samples[here], np.float64)))
    return found


def write_libemg_folder(
    session: XdfSession,
    folder: Path,
    gestures: Sequence[str] | None = None,
    rules: CutRules | None = None,
    unit: Literal["volts", "microvolts"] = "volts",
) -> int:
    """Writes C_<class>_R_<repetition>.csv files, and `classes.json` with what they are.

    All gestures get as many files as the one that was held least often, taken evenly from the whole session: the rest, asked
    for before each of the others, would outnumber them.

    Args:
      session: a recording with prompts.
      folder: gets the files; it must hold none like them.
      gestures: names in the order of their class numbers; others are left out. None: as in the experiment, else as prompted.
      rules: what is kept of each prompt.
      unit: of the values.

    Returns:
      How many repetitions of each gesture were written.

    Raises:
      MyoloopError: no prompts, no repetition of a gesture, an unknown gesture, or a folder that cannot be used.
    """
    found = repetitions(session, rules)
    names = list(gestures or session.gestures or dict.fromkeys(r.gesture for r in found))
    known = {r.gesture for r in found} | set(session.gestures)
    for name in names:
        if name not in known:
            raise unknown_name("gesture", name, sorted(known))
    held = {name: [r for r in found if r.gesture == name] for name in names}
    if missing := [name for name, done in held.items() if not done]:
        raise MyoloopError(
            f"no repetition of {', '.join(missing)} was held long enough: record longer, or name the gestures that are wanted."
        )
    if folder.is_dir() and next(folder.glob("C_*_R_*.csv"), None):
        raise MyoloopError(f"{folder} already holds C_*_R_*.csv files: name another folder.")
    emg, count = session.need("emg"), min(len(done) for done in held.values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for k, done in enumerate(held.values()):
            for n, place in enumerate(np.linspace(0, len(done) - 1, count).round().astype(int)):
                np.savetxt(folder / f"C_{k}_R_{n}.csv", UNITS[unit] * done[place].emg, delimiter=",", fmt="%.9g")
        about = {
            "classes": names, "repetitions": count, "unit": unit, "rate_hz": emg.rate_hz, "channels": list(emg.labels),
            "participant": session.participant,
        }  # fmt: skip
        (folder / "classes.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
    except OSError as error:
        raise MyoloopError(f"{folder} cannot be written: {error.strerror}.") from error
    return count
