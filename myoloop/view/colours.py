"""What the colours mean, on the page and in films alike: red, green, blue, 0..255."""

from __future__ import annotations

import numpy as np

BONE = (237, 227, 204)
GHOST = (140, 215, 170)
"""The posture asked for."""
FLEXED = (38, 166, 91)
"""A fingertip that the decoder says is flexed."""
EXTENDED = (150, 155, 162)
"""One that it says is extended."""
INK = "#1d2733"
ASKED = "#a9dfbf"
"""What is asked for, in charts."""
SAID = "#1f5fae"
"""What the decoder says, in charts."""
REST = np.array([92, 106, 140])
"""A muscle that is not excited."""
STRONG = np.array([226, 47, 38])
"""One that is excited by `FULL` or more."""
FULL = 0.5
"""Excitation from which on a muscle is drawn in full colour: gestures take about a tenth to a half of the muscles' range."""


def tip_colours(prediction: np.ndarray) -> np.ndarray:
    """(5, 3) uint8 colours of the fingertips for probabilities of flexed (5,)."""
    return np.where(np.asarray(prediction)[:, None] > 0.5, FLEXED, EXTENDED).astype(np.uint8)


def muscle_colours(excitation: np.ndarray) -> np.ndarray:
    """(n, 3) uint8 colours of muscles for excitations (n,), 0..1: from slate to red."""
    share = np.clip(np.asarray(excitation, float)[:, None] / FULL, 0, 1) ** 0.7  # differences between weak ones show
    return np.round(REST + share * (STRONG - REST)).astype(np.uint8)
