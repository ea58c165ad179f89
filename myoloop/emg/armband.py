"""Armbands: where the electrodes sit and what the amplifier does to the signal. Presets, or your own from a mapping."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from myoloop.emg.anatomy import DEEPEST_MM
from myoloop.errors import MyoloopError, unknown_name

MONTAGES: dict[str, tuple[tuple[float, float], ...]] = {
    "monopolar": ((0.0, 1.0),),
    "bipolar": ((-0.5, 1.0), (0.5, -1.0)),
    "double_differential": ((-1.0, -1.0), (0.0, 2.0), (1.0, -1.0)),
}
"""Electrodes of a channel: (place along the fibre in units of the spacing, weight). The reference is far away."""

ELECTRODE_SHAPES = ("circle", "rectangle")

SYNTHESIS_HZ = 2000.0  # EMG has its power below 500 Hz (Merletti & Farina 2016): devices are made from 2 kHz or more


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)


@dataclass(frozen=True)
class Armband:
    """One device: geometry, amplifier, units. Angles as in anatomy.py: 0 radial, +90 volar, 180 ulnar, -90 dorsal."""

    name: str
    """What streams and reports call it."""
    channels: int
    """Number of channels, spread evenly around the forearm."""
    rate_hz: float
    """Samples per second that the device delivers."""
    montage: str = "bipolar"
    """One of MONTAGES."""
    spacing_mm: float = 20.0
    """Distance between neighbouring electrodes of a channel along the fibres."""
    electrode_mm: tuple[float, float] = (5.0, 5.0)
    """Size of an electrode along the limb and around it (SENIAM asks for 10 mm or less)."""
    electrode_shape: str = "circle"
    """`circle` (its diameter is the first of electrode_mm) or `rectangle`."""
    rows: int = 1
    """Rows of channels along the limb; channels / rows stand side by side in each."""
    row_spacing_mm: float = 0.0
    """Distance between rows along the limb."""
    column_spacing_mm: float = 0.0
    """Arc between neighbouring columns, for a grid on one side of the limb; 0: spread evenly all around."""
    radius_mm: float = 42.0
    """Radius of the forearm under the band, with standard skin and fat (circumference 264 mm; estimate for an adult)."""
    level: float = 0.30
    """Place along the forearm: 0 elbow, 1 wrist."""
    first_angle_deg: float = 0.0
    """Angle of channel 1; the others follow towards volar (evenly, or by column_spacing_mm)."""
    low_hz: float = 20.0
    """Lower edge of the amplifier's band (-3 dB)."""
    high_hz: float = 450.0
    """Upper edge of the amplifier's band (-3 dB)."""
    order: int = 2
    """Order of each edge of the Butterworth band-pass."""
    noise_uv: float = 2.5
    """Noise floor inside the band, microvolts RMS."""
    lsb_uv: float = 0.0
    """Microvolts per count; 0: not quantised."""
    bits: int = 16
    """Resolution of the converter: counts are clipped to -2^(bits-1) .. 2^(bits-1)-1."""
    source: str = ""
    """Where the numbers come from."""

    def __post_init__(self) -> None:
        where = f"armband '{self.name}'"
        if isinstance(self.electrode_mm, list):  # as a file has it
            object.__setattr__(self, "electrode_mm", tuple(self.electrode_mm))
        for field in ("channels", "rate_hz", "radius_mm", "low_hz", "high_hz", "order", "bits", "rows"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
                raise MyoloopError(f"{where}: {field} is {value!r}; expected a number above 0.")
        for field in ("channels", "order", "bits", "rows"):
            if getattr(self, field) != int(getattr(self, field)):
                raise MyoloopError(f"{where}: {field} is {getattr(self, field)!r}; expected a whole number.")
        for field in ("noise_uv", "lsb_uv"):
            value = getattr(self, field)
            if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise MyoloopError(f"{where}: {field} is {value!r}; expected microvolts, 0 or more.")
        if self.montage not in MONTAGES:
            raise unknown_name("montage", self.montage, MONTAGES, where)
        if self.montage != "monopolar" and not (math.isfinite(self.spacing_mm) and self.spacing_mm > 0):
            raise MyoloopError(f"{where}: spacing_mm is {self.spacing_mm!r}; electrodes need a distance above 0.")
        if not 0.0 <= self.level <= 1.0:
            raise MyoloopError(f"{where}: level is {self.level!r}; expected 0 (elbow) to 1 (wrist).")
        if not math.isfinite(self.first_angle_deg):
            raise MyoloopError(f"{where}: first_angle_deg is {self.first_angle_deg!r}; expected degrees.")
        if self.radius_mm <= DEEPEST_MM:
            raise MyoloopError(
                f"{where}: radius_mm is {self.radius_mm:g}; muscles reach {DEEPEST_MM:g} mm deep, so the forearm "
                "must be wider than that."
            )
        self._check_electrodes(where)
        if not self.low_hz < self.high_hz:
            raise MyoloopError(f"{where}: the band {self.low_hz:g}-{self.high_hz:g} Hz is empty; low_hz must be lower.")
        if self.high_hz >= self.internal_rate_hz / 2:
            raise MyoloopError(
                f"{where}: high_hz is {self.high_hz:g}, at or above half of the {self.internal_rate_hz:g} Hz at which "
                "its EMG is made; lower it."
            )

    def _check_electrodes(self, where: str) -> None:
        """Electrodes have a size, fit beside each other and on the limb."""
        if self.electrode_shape not in ELECTRODE_SHAPES:
            raise unknown_name("electrode_shape", self.electrode_shape, ELECTRODE_SHAPES, where)
        size = self.electrode_mm
        if not (isinstance(size, tuple) and len(size) == 2 and all(_is_number(value) and value > 0 for value in size)):
            raise MyoloopError(f"{where}: electrode_mm is {size!r}; expected two lengths above 0: along and around.")
        for field in ("row_spacing_mm", "column_spacing_mm"):
            if not _is_number(getattr(self, field)) or getattr(self, field) < 0:
                raise MyoloopError(f"{where}: {field} is {getattr(self, field)!r}; expected mm, 0 or more.")
        if self.channels % self.rows:
            raise MyoloopError(f"{where}: {self.channels} channels do not make {self.rows} equal rows.")
        around = 2 * math.pi * self.radius_mm
        if self.columns * self.column_spacing_mm > around:
            raise MyoloopError(
                f"{where}: {self.columns} columns {self.column_spacing_mm:g} mm apart do not fit around a limb of "
                f"{around:.0f} mm."
            )
        along, across = size[0], size[0] if self.electrode_shape == "circle" else size[1]
        gaps = [(across, self.column_spacing_mm or around / self.columns, "neighbouring columns")]
        if self.montage != "monopolar":
            gaps.append((along, self.spacing_mm, "the electrodes of a channel (spacing_mm)"))
        if self.rows > 1:
            gaps.append((along, self.row_spacing_mm, "neighbouring rows (row_spacing_mm)"))
        for width, gap, between in gaps:
            if width >= gap:
                raise MyoloopError(
                    f"{where}: an electrode of {width:g} mm is wider than the {gap:g} mm between {between}: they would "
                    "touch. Make electrode_mm smaller or the distance larger."
                )

    @property
    def columns(self) -> int:
        """Channels side by side around the limb, in every row."""
        return self.channels // self.rows

    @property
    def decimation(self) -> int:
        """Internal samples per device sample: the least whole number that gives SYNTHESIS_HZ or more."""
        return max(1, math.ceil(SYNTHESIS_HZ / self.rate_hz - 1e-9))

    @property
    def internal_rate_hz(self) -> float:
        """Rate at which EMG is synthesised and filtered before decimation."""
        return self.rate_hz * self.decimation

    @property
    def angles_deg(self) -> tuple[float, ...]:
        """Angle of each channel, in -180..180; row by row."""
        step = math.degrees(self.column_spacing_mm / self.radius_mm) or 360.0 / self.columns
        turns = [self.first_angle_deg + (i % self.columns) * step for i in range(self.channels)]
        return tuple((turn + 180.0) % 360.0 - 180.0 for turn in turns)

    @property
    def channel_labels(self) -> tuple[str, ...]:
        """EMG1, EMG2, ..."""
        return tuple(f"EMG{i + 1}" for i in range(self.channels))


PRESETS: dict[str, Armband] = {
    "semg_rd16": Armband(
        name="semg_rd16",
        channels=16,
        rate_hz=2000.0,
        spacing_mm=20.0,
        low_hz=20.0,
        high_hz=850.0,
        noise_uv=2.5,
        source="sEMG-RD (Kaifosh et al. 2025): 16 bipolar pairs 20 mm apart, 2 kHz, 20-850 Hz, 2.5 uV RMS; worn at the wrist, "
        "here on the forearm; electrodes estimated",
    ),
    "myo8": Armband(
        name="myo8",
        channels=8,
        rate_hz=200.0,
        spacing_mm=15.0,  # estimate: three bars a pod
        electrode_mm=(5.0, 10.0),  # estimate
        electrode_shape="rectangle",
        low_hz=20.0,  # estimate
        high_hz=450.0,  # estimate: recorded spectra (median 54-72 Hz of 100) show that it aliases
        noise_uv=6.0,  # with lsb_uv 1.5 counts RMS: a recorded armband at rest shows 1.4-2.5
        lsb_uv=4.0,  # estimate: Thalmic never published the gain
        bits=8,
        source="Thalmic Myo: 8 channels, 200 Hz, signed 8-bit counts, hum removed unless raw data are asked for (its "
        "developers' blog); gain, band and electrodes estimated from recordings",
    ),
    "trigno16": Armband(
        name="trigno16",
        channels=16,
        rate_hz=2000.0,  # what the SDK's EMG port delivers; the sensors' own rates are 1926 or 2148 Hz
        spacing_mm=10.0,
        electrode_mm=(1.0, 5.0),
        electrode_shape="rectangle",
        low_hz=20.0,
        high_hz=450.0,
        noise_uv=0.75,
        lsb_uv=0.336,  # 22 mV over 16 bits
        bits=16,
        source="Delsys: 20-450 Hz (2 poles below, 4 above; here 2), 22 mV in 16 bits from the guide of the Duo sensor; "
        "bars 5 x 1 mm, 10 mm apart, and noise below 0.75 uV quoted from memory; sixteen sensors evenly around the forearm",
    ),
    "muovi32": Armband(
        name="muovi32",
        channels=32,
        rate_hz=2000.0,
        montage="monopolar",
        rows=2,
        row_spacing_mm=20.0,  # estimate: the probe takes any array of 32
        electrode_mm=(5.0, 5.0),  # estimate
        low_hz=10.0,
        high_hz=500.0,
        noise_uv=2.0,  # estimate
        lsb_uv=0.2861,
        bits=16,
        source="OT Bioelettronica Muovi: 32 monopolar channels, 2 kHz, int16 of 286.1 nV, +-9.375 mV (gain 8: constants of the "
        "Biosignal-Device-Interface); band from memory; two rows of sixteen assumed",
    ),
    "gforce8": Armband(
        name="gforce8",
        channels=8,
        rate_hz=1000.0,
        spacing_mm=15.0,  # estimate: the electrodes of a pod
        electrode_mm=(5.0, 10.0),  # estimate
        electrode_shape="rectangle",
        low_hz=20.0,
        high_hz=500.0,
        noise_uv=4.0,  # estimate: one count
        lsb_uv=4.0,  # estimate: OYMotion gives counts only
        bits=8,
        source="OYMotion gForcePro+: 8 channels, 1000 Hz in 8 bits; gain, band and electrodes estimated",
    ),
    "hd_grid": Armband(
        name="hd_grid",
        channels=64,
        rate_hz=2000.0,
        montage="monopolar",
        rows=8,
        row_spacing_mm=10.0,
        column_spacing_mm=10.0,
        first_angle_deg=-148.0,  # its middle over EDC
        electrode_mm=(3.0, 3.0),  # estimate
        low_hz=10.0,
        high_hz=500.0,
        noise_uv=2.0,  # estimate
        lsb_uv=0.2861,
        bits=16,
        source="High-density grid for decomposition: 8 x 8 electrodes 10 mm apart over the extensors, amplifier as muovi32",
    ),
}


def armband(name: str, /, **overrides: object) -> Armband:
    """The preset of that name, with fields replaced: `armband("semg_rd16", first_angle_deg=10)`.

    Raises MyoloopError for an unknown preset or field (did you mean), or for impossible values.
    """
    if name not in PRESETS:
        raise unknown_name("armband preset", name, PRESETS)
    _check_fields(overrides, f"armband '{name}'")
    return dataclasses.replace(PRESETS[name], **overrides)  # type: ignore[arg-type]


def armband_from(mapping: str | Mapping[str, object], where: str = "") -> Armband:
    """An armband from what an experiment file says: a preset's name or a mapping.

    A mapping with `preset` changes that preset; one without describes a device of your own and needs at least name,
    channels and rate_hz. `where` names the file in error messages.
    """
    if isinstance(mapping, str):
        return armband(mapping)
    if not isinstance(mapping, Mapping):
        raise MyoloopError(f"{where or 'armband'}: found {mapping!r}; expected a preset's name or a mapping of fields.")
    fields = dict(mapping)
    if "preset" in fields:
        return armband(str(fields.pop("preset")), **fields)
    _check_fields(fields, where or "armband")
    missing = [key for key in ("name", "channels", "rate_hz") if key not in fields]
    if missing:
        raise MyoloopError(f"{where or 'armband'}: {', '.join(missing)} missing; give them, or name a preset.")
    return Armband(**fields)  # type: ignore[arg-type]


def _check_fields(fields: Mapping[str, object], where: str) -> None:
    known = [field.name for field in dataclasses.fields(Armband)]
    for key in fields:
        if key not in known:
            raise unknown_name("field", key, known, where)
