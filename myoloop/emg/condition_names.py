"""Names of conditions and the checks of what a file says about them; what they do: conditions.py. Loads no JAX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from myoloop.errors import MyoloopError, unknown_name

PERSON = ("ageing", "als", "stroke")
"""Conditions of the motor units: built into the person."""

DRIVE = ("parkinsonian_tremor", "essential_tremor", "co_contraction")
"""Conditions of the drive: may change during a run."""

RUN_CONDITIONS = (*DRIVE, "fatigue", "mains_hum", "motion_artefact", "ecg", "rotation", "displacement")
"""Conditions that come and go during a run; also lost_contact:<channel label>."""

MOVING = ("rotation", "displacement")
"""Those that need an armband that may move: strength 1 is 30 degrees towards volar, 20 mm towards the wrist."""


def check_conditions(
    conditions: Mapping[str, object], labels: Sequence[str], movable: bool = True, where: str = ""
) -> None:
    """Refuses, by MyoloopError, a name that is no condition (did you mean), a strength that is not 0..1, and rotation or
    displacement of an armband that stays. labels: of the channels, for lost_contact."""
    known = [*PERSON, *RUN_CONDITIONS, *(f"lost_contact:{label}" for label in labels)]
    for name, strength in conditions.items():
        if name not in known:
            raise unknown_name("condition", name, known, where)
        check_strength(name, strength, where)
        if name in MOVING and not movable:
            raise stays(name, where)


def check_strength(name: str, strength: object, where: str = "") -> None:
    """Refuses, by MyoloopError, a strength that is not a number from 0 to 1."""
    if isinstance(strength, bool) or not isinstance(strength, int | float | np.floating) or not 0 <= strength <= 1:
        shown = f"{strength:g}" if isinstance(strength, float) else repr(strength)
        place = f"{where}: " if where else ""
        raise MyoloopError(f"{place}strength of {name} is {shown}: expected 0 to 1.")


def stays(name: str, where: str = "") -> MyoloopError:
    """The error for a movement of an armband that was built to stay."""
    place = f"{where}: " if where else ""
    return MyoloopError(
        f"{place}{name}: this armband stays where it is. Set movable_band: true (under participant in the experiment file; "
        "a field of ParticipantConfig), or build_emg(..., moves=Moves())."
    )
