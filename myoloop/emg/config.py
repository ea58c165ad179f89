"""What can be asked of the EMG model: one frozen dataclass, a sentence and a unit per field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from myoloop.emg.conductor import Conductor
from myoloop.errors import MyoloopError, unknown_name

LAWS = ("fuglevand", "deluca")
"""Recruitment and rate coding, see rate_laws.py."""


@dataclass(frozen=True)
class EmgConfig:
    """Physiology of one person's forearm. Defaults: a healthy adult."""

    seed: int = 0
    """Who it is: draws unit positions, sizes, velocities and innervation zones."""
    law: str = "fuglevand"
    """Recruitment and rate coding: fuglevand (Fuglevand et al. 1993) or deluca (onion skin, De Luca & Hostage 2010)."""
    units_scale: float = 1.0
    """Part of the motor units that are kept (fibres are shared among them); 1: full counts."""
    conductor: Conductor = Conductor()  # noqa: RUF009 (frozen)
    """Tissues of the limb: layered cylinder (default) or half space, fat, skin, bone, conductivities."""
    recruitment_range: float = 40.0
    """Threshold of the last unit over that of the first (RR 30-50: Fuglevand et al. 1993)."""
    last_recruited: float = 0.65
    """Excitation that recruits the last unit (0.6-0.75 of the maximum: Fuglevand 1993, De Luca & Hostage 2010)."""
    min_rate_hz: float = 8.0
    """Discharge rate at recruitment (5-10 Hz: Fuglevand 1993; Enoka & Duchateau 2017)."""
    peak_rate_first_hz: float = 35.0
    """Highest rate of the first unit (30-40 Hz: Enoka & Duchateau 2017); onion skin: above that of the last."""
    peak_rate_last_hz: float = 25.0
    """Highest rate of the last unit, reached at excitation 1 (10 Hz below the first: Fuglevand 1993)."""
    isi_cov: float = 0.13
    """Standard deviation over mean of the interspike interval (it falls from 0.30 to 0.13: Moritz et al. 2005)."""
    isi_cov_onset: float = 0.3
    """The same for a unit just recruited; it falls to isi_cov 0.1 of excitation later (Moritz et al. 2005)."""
    refractory_ms: float = 11.0
    """Shortest interspike interval outside doublets, ms (doublets are 2-10 ms: Bawa & Calancie 1983)."""
    doublet_probability: float = 0.1
    """Part of the units recruited by a fast onset that start with a doublet (5 % untrained, 33 % trained: Van Cutsem
    et al. 1998)."""
    common_drive_cov: float = 0.015
    """Fluctuation of a muscle's excitation that its units share, over its mean: calibrated, with it the force is as
    steady as Moritz et al. 2005 measured (benchmarks/emg_force.py)."""
    size_range: float = 84.0
    """Fibres of the largest unit over those of the smallest (21 to 1770 in FDI: Enoka & Fuglevand 2001)."""
    twitch_range: float = 100.0
    """Peak twitch force of the last unit over that of the first (RP 100: Fuglevand et al. 1993)."""
    contraction_ms: float = 90.0
    """Contraction time of the slowest unit, ms; the fastest takes a third (90 to 30 ms: Fuglevand et al. 1993)."""
    velocity_mean: float = 4.0
    """Mean conduction velocity of muscle fibres, m/s, as NeuroMotion has it for the forearm. Units of tibialis anterior: 3.7
    (Andreassen & Arendt-Nielsen 1987)."""
    velocity_sd: float = 0.3
    """Its spread between units, m/s, as NeuroMotion has it; larger units are faster (Andreassen & Arendt-Nielsen 1987, whose
    units range over 2.6-5.3)."""
    zone_spread: float = 0.1
    """Spread of the innervation zone over the fibre length, total (Farina & Merletti 2001)."""
    mains_hz: float = 50.0
    """Frequency of mains hum: 50, or 60 in the Americas."""
    lowrank_error: float = 0.03
    """Largest error that the shared MUAP shapes may make, over the RMS of the signal."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "law":
                if value not in LAWS:
                    raise unknown_name("motor-unit law", value, LAWS, "EmgConfig")
            elif field.name == "conductor":
                if not isinstance(value, Conductor):
                    raise MyoloopError(f"EmgConfig: conductor is {value!r}; expected a Conductor (see conductor_from).")
            elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise MyoloopError(f"EmgConfig: {field.name} is {value!r}; expected a number.")
        limits = {
            "units_scale": (0.01, 1.0),
            "recruitment_range": (1.5, 1000.0),
            "last_recruited": (0.05, 0.9),
            "min_rate_hz": (0.5, 50.0),
            "peak_rate_last_hz": (self.min_rate_hz, 80.0),
            "peak_rate_first_hz": (self.peak_rate_last_hz, 80.0),
            "isi_cov": (0.0, 0.5),
            "isi_cov_onset": (0.0, 0.5),
            "doublet_probability": (0.0, 1.0),
            "refractory_ms": (1.0, 1000.0 / self.peak_rate_first_hz if self.peak_rate_first_hz else 1.0),
            "common_drive_cov": (0.0, 0.5),
            "size_range": (1.0, 1000.0),
            "twitch_range": (1.0, 1000.0),
            "contraction_ms": (30.0, 300.0),
            "velocity_mean": (2.5, 5.5),
            "velocity_sd": (0.0, 1.0),
            "zone_spread": (0.0, 0.5),
            "mains_hz": (1.0, 400.0),
            "lowrank_error": (1e-4, 0.2),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise MyoloopError(f"EmgConfig: {name} is {getattr(self, name)!r}; expected {low:g} to {high:g}.")


VELOCITY_RANGE = (2.5, 5.5)
"""Conduction velocities of human motor units, m/s: draws are kept inside (2.6-5.3: Andreassen & Arendt-Nielsen 1987)."""


def config_from(settings: Mapping[str, object], where: str = "anatomy", base: EmgConfig | None = None) -> EmgConfig:
    """An EmgConfig from what a file says: fields of it, without `seed` and `conductor`, over those of `base`.

    Raises MyoloopError: unknown field (did you mean), impossible value.
    """
    known = [field.name for field in fields(EmgConfig) if field.name not in ("seed", "conductor")]
    for key in settings:
        if key not in known:
            raise unknown_name("field", key, known, where)
    try:
        return replace(base or EmgConfig(), **settings)  # type: ignore[arg-type]
    except MyoloopError as error:
        raise MyoloopError(f"{where}: {error}") from error
