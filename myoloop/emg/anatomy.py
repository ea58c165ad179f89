"""Where the forearm muscles lie, how long their fibres are and how many motor units they have: one table, 26 rows.

Angles are seen at the forearm of a right arm: 0 deg radial (thumb side), +90 volar, 180 ulnar, -90 dorsal.
Levels are fractions of the forearm from the elbow (0) to the wrist (1). Depths are measured from the skin.

Sources, one letter a cell (in this order: angle, depth, PCSA, fibre length, belly, units):
  N  mn_params.py of the NeuroMotion forearm (Ma et al. 2024): depths as there; angles mapped to ours, all within 4 deg
     but FCU, whose two heads (129 and 189) are one here; counts as there, where no origin is given.
  L  Lieber et al. 1990/1992, Jacobson et al. 1992 (cadavers). Checked against the OpenSim wrist model, which is built on
     them: its fibre lengths are these times 2.7/2.2 (sarcomeres, um; within 1 mm), its forces these areas times 45 N/cm2
     (ECR, EDC, EDM, EIP, EPL) or 30 N/cm2 (the others; within 0.01 cm2).
  M  the same papers from memory, not checked.
  C  levels at which the tendon paths of the MyoHand model cross the forearm (EIP, EPB, PQ start at 66-84 %,
     EPL, FPL, APL at 39-43 %).
  E  estimate: anatomical atlases for position, UNITS_PER_CM2 for counts.

Muscles that the body model lacks (brachioradialis, supinator, anconeus) have no row: their EMG is missing.
"""

from __future__ import annotations

from typing import NamedTuple

from myoloop.body.names import FOREARM_MUSCLES

FOREARM_LENGTH_MM = 250.0  # elbow crease to wrist crease, adult (estimate; 23-29 cm is common)
UNITS_PER_CM2 = (
    80.0  # units per cm2 of PCSA where no count is known: between the counts marked N (66-69 but FCU 123, PL 140)
)
FIBRES_PER_MM2 = 200.0
"""Muscle fibres per mm2 of PCSA. Measured: 185 (men) to 250 (women), one over the fibre area of 5400 and 4000 um2 in biopsies
of 91 adults (vastus lateralis: Toft et al. 2003). Amplitudes are proportional to it, and to the area of a fibre:
with source.FIBRE_DIAMETER_MM only 48 % of a muscle conducts, so amplitudes are calibrated: to an RMS of 10-50 uV at 10 %
and 100-500 uV at full excitation (docs/emg-model.md)."""


class Muscle(NamedTuple):
    """One row of the table."""

    angle_deg: float
    """Angle of the middle of the muscle."""
    half_width_deg: float
    """Half of the angle it covers (all rows estimated from the cross-section area)."""
    depth_mm: tuple[float, float]
    """Nearest and farthest muscle fibre under the skin."""
    pcsa_cm2: float
    """Physiological cross-section: the number of fibres follows from it."""
    fibre_mm: float
    """Length of a muscle fibre, tendon to tendon."""
    belly: tuple[float, float]
    """Levels at which the muscle has fibres."""
    units: int | None
    """Motor units; None: UNITS_PER_CM2 * PCSA."""
    source: str
    """One letter for angle, depth, PCSA, fibre length, belly, units."""

    def unit_count(self) -> int:
        """Motor units of the muscle at full scale."""
        return self.units if self.units is not None else round(UNITS_PER_CM2 * self.pcsa_cm2)

    def fibre_count(self) -> float:
        """Muscle fibres of the muscle."""
        return self.pcsa_cm2 * 100.0 * FIBRES_PER_MM2


MUSCLE_TABLE: dict[str, Muscle] = {
    #              angle  +-  depth        PCSA  fibre  belly         units  source
    "ECRL": Muscle(-48, 12, (9, 15), 1.46, 76.0, (0.00, 0.45), 204, "NNLLEN"),
    "ECRB": Muscle(-78, 12, (13, 22), 2.73, 48.0, (0.05, 0.55), 186, "NNLLEN"),
    "ECU": Muscle(-143, 12, (9, 17), 2.60, 51.0, (0.10, 0.75), 180, "NNMMEN"),
    "FCR": Muscle(80, 11, (7, 15), 1.99, 52.0, (0.05, 0.55), None, "EELLEE"),
    "FCU": Muscle(159, 20, (7, 17), 3.42, 42.0, (0.05, 0.85), 422, "NNLLEN"),
    "PL": Muscle(100, 7, (7, 11), 0.69, 52.0, (0.05, 0.45), 164, "NNLLEN"),
    "PT": Muscle(55, 12, (8, 16), 4.13, 37.0, (0.00, 0.45), None, "EEMMEE"),
    "PQ": Muscle(70, 25, (20, 28), 2.07, 23.0, (0.84, 0.99), None, "EEMMCE"),
    "FDS5": Muscle(138, 7, (13, 19), 0.40, 42.0, (0.20, 0.70), None, "EELLEE"),
    "FDS4": Muscle(124, 9, (11, 18), 1.61, 60.0, (0.10, 0.65), None, "EELLEE"),
    "FDS3": Muscle(108, 10, (12, 19), 2.53, 61.0, (0.10, 0.65), None, "EELLEE"),
    "FDS2": Muscle(64, 12, (17, 23), 1.71, 38.0, (0.20, 0.80), 158, "NNLMEN"),
    "FDP5": Muscle(165, 12, (17, 25), 2.20, 61.0, (0.10, 0.75), None, "EELLEE"),
    "FDP4": Muscle(148, 12, (19, 27), 1.72, 65.0, (0.10, 0.75), None, "EELLEE"),
    "FDP3": Muscle(130, 12, (20, 28), 2.23, 68.0, (0.10, 0.75), None, "EELLEE"),
    "FDP2": Muscle(108, 14, (21, 29), 1.77, 61.0, (0.15, 0.80), None, "EELLEE"),
    "EDC5": Muscle(-114, 6, (8, 14), 0.40, 53.0, (0.15, 0.60), 34, "NNLLEN"),
    "EDC4": Muscle(-106, 7, (8, 15), 0.86, 51.0, (0.10, 0.60), 57, "NNLLEN"),
    "EDC3": Muscle(-96, 7, (8, 15), 1.02, 59.0, (0.05, 0.60), 61, "NNLLEN"),
    "EDC2": Muscle(-88, 6, (10, 17), 0.52, 57.0, (0.15, 0.65), 34, "NNLLEN"),
    "EDM": Muscle(-122, 6, (9, 15), 0.64, 55.0, (0.15, 0.70), None, "EELLEE"),
    "EIP": Muscle(-118, 10, (12, 19), 0.56, 48.0, (0.66, 0.92), None, "EELLCE"),
    "EPL": Muscle(-100, 10, (14, 21), 0.98, 44.0, (0.41, 0.80), None, "EELLCE"),
    "EPB": Muscle(-70, 10, (12, 19), 0.47, 55.0, (0.66, 0.90), None, "EELLCE"),
    "FPL": Muscle(60, 12, (18, 26), 2.08, 45.0, (0.39, 0.85), None, "EELLCE"),
    "APL": Muscle(-72, 12, (14, 22), 1.93, 58.0, (0.40, 0.80), None, "EELLCE"),
}
"""The rows in model order. Finger parts of FDS, FDP and EDC share one muscle belly: the count 186 of EDC (N) is
divided by PCSA, the angle of EDC (N, -97) is the middle of its four parts. FDS2 has two bellies in series: its fibres are
those of one (38 mm; 68 mm for both in the OpenSim model)."""

DEEPEST_MM = max(muscle.depth_mm[1] for muscle in MUSCLE_TABLE.values())
"""Depth of the deepest fibre: a forearm's radius must exceed it."""

assert tuple(MUSCLE_TABLE) == FOREARM_MUSCLES
