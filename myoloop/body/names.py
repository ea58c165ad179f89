"""Names of MyoHand's muscles, joints and fingers, in model order and without the model's `_r` suffix."""

from __future__ import annotations

FOREARM_MUSCLES = (
    "ECRL", "ECRB", "ECU", "FCR", "FCU", "PL", "PT", "PQ",
    "FDS5", "FDS4", "FDS3", "FDS2", "FDP5", "FDP4", "FDP3", "FDP2",
    "EDC5", "EDC4", "EDC3", "EDC2", "EDM", "EIP", "EPL", "EPB", "FPL", "APL",
)  # fmt: skip
"""Extrinsic muscles: actuators 0..25, those an armband on the forearm can see."""

HAND_MUSCLES = (
    "OP",
    "RI2", "LU_RB2", "UI_UB2", "RI3", "LU_RB3", "UI_UB3",
    "RI4", "LU_RB4", "UI_UB4", "RI5", "LU_RB5", "UI_UB5",
)  # fmt: skip
"""Intrinsic muscles of the hand: actuators 26..38, silent at the forearm."""

MUSCLES = FOREARM_MUSCLES + HAND_MUSCLES

JOINTS = (
    "pro_sup", "deviation", "flexion",
    "cmc_flexion", "cmc_abduction", "mp_flexion", "ip_flexion",
    "mcp2_flexion", "mcp2_abduction", "pm2_flexion", "md2_flexion",
    "mcp3_flexion", "mcp3_abduction", "pm3_flexion", "md3_flexion",
    "mcp4_flexion", "mcp4_abduction", "pm4_flexion", "md4_flexion",
    "mcp5_flexion", "mcp5_abduction", "pm5_flexion", "md5_flexion",
)  # fmt: skip
"""Degrees of freedom: forearm and wrist 0..2, thumb 3..6, then four a finger, index to little."""

FINGERS = ("thumb", "index", "middle", "ring", "little")

FLEXION_JOINTS = ((3, 5, 6), (7, 9, 10), (11, 13, 14), (15, 17, 18), (19, 21, 22))
"""Indexes into JOINTS of every finger's three flexion joints, from the palm to the tip."""

WRIST_JOINTS = (0, 1, 2)
"""Indexes into JOINTS of forearm rotation, wrist deviation and wrist flexion."""
