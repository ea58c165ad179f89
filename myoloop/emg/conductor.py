"""What the limb is made of: the settings of the volume conductor, chosen by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from myoloop.errors import MyoloopError, unknown_name

KINDS = ("cylinder", "half_space")

STANDARD_SKIN_MM = 1.3  # epidermis and dermis of the forearm (dermis 1.0 +- 0.2 mm in a survey; this value from memory)
STANDARD_FAT_MM = 3.0  # thin adult forearm (estimate; the thinnest of Kuiken et al. 2003)
STANDARD_COVER_MM = STANDARD_SKIN_MM + STANDARD_FAT_MM
"""Skin and fat over the muscles of anatomy.MUSCLE_TABLE, whose depths count from the skin."""


@dataclass(frozen=True)
class Conductor:
    """Tissues between the fibres and the electrodes. Hashable; the defaults are a lean adult forearm.

    More or less fat or skin than the standard moves the electrodes, not the muscles: a fatter limb is a wider one.
    """

    kind: str = "cylinder"
    """`cylinder` (Farina et al. 2004) or `half_space` (analytic check: muscle only, flat, point electrodes)."""
    skin_mm: float = STANDARD_SKIN_MM
    """Thickness of the skin, mm."""
    fat_mm: float = STANDARD_FAT_MM
    """Thickness of the fat under it, mm."""
    bone_mm: float = 0.0
    """Radius of a bone in the axis of the limb, mm; 0: none. A forearm has two, off the axis."""
    muscle_radial: float = 0.09
    """Conductivity of muscle across the fibres, S/m (Botelho et al. 2019). In ten living forearms: 0.13, 0.10-0.16
    (Kangasmaa et al. 2025)."""
    muscle_axial: float = 0.4
    """Conductivity of muscle along the fibres, S/m (Botelho et al. 2019). In ten living forearms: 0.56, 0.52-0.60 (same)."""
    fat: float = 0.04
    """Conductivity of fat, S/m (Botelho et al. 2019)."""
    skin: float = 4.9e-4
    """Conductivity of the skin, S/m: dry (Botelho et al. 2019; 2e-4 at 10 kHz in tables of dry skin, 2.9e-3 wet). Other models
    take 1.0 for all of it."""
    bone: float = 0.02
    """Conductivity of cortical bone, S/m (0.0204 at 10 kHz: Gabriel et al. 1996)."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("kind of volume conductor", self.kind, KINDS, "conductor")
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            number = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
            thickness = field.name.endswith("_mm")
            if not number or value < 0 or (value == 0 and not thickness):
                unit = "mm, 0 or more" if thickness else "S/m, above 0"
                raise MyoloopError(f"conductor: {field.name} is {value!r}; expected {unit}.")

    @property
    def cover_mm(self) -> float:
        """Skin and fat, mm."""
        return self.skin_mm + self.fat_mm

    def limb_radius(self, band_radius_mm: float) -> float:
        """Radius of this limb where one with standard skin and fat has `band_radius_mm`."""
        return band_radius_mm + self.cover_mm - STANDARD_COVER_MM

    def muscle_radius(self, band_radius_mm: float) -> float:
        """Radius of the muscle under the fat."""
        return band_radius_mm - STANDARD_COVER_MM


def conductor_from(setting: str | Mapping[str, object], where: str = "conductor") -> Conductor:
    """A conductor from what a file says: its kind, or a mapping of fields. Raises MyoloopError (did you mean)."""
    if isinstance(setting, str):
        setting = {"kind": setting}
    if not isinstance(setting, Mapping):
        raise MyoloopError(f"{where}: found {setting!r}; expected {' or '.join(KINDS)}, or a mapping of fields.")
    known = [field.name for field in dataclasses.fields(Conductor)]
    for key in setting:
        if key not in known:
            raise unknown_name("field", key, known, where)
    try:
        return Conductor(**setting)  # type: ignore[arg-type]
    except MyoloopError as error:
        raise MyoloopError(str(error).replace("conductor", where, 1)) from error
