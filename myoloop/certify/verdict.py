"""What the figures say, in plain words."""

from __future__ import annotations

from typing import Any

JITTER_MS = 2.0
"""Lateness of one of a hundred control steps, when nothing else is to be done, that goes unnoticed beside a step of 20 ms."""
LSL_MS = 10.0
"""LSL's round trip of one of a hundred chunks that leaves a decoder half of a step."""
DECODER_MS = 10.0
"""Time of the decoder of one of a hundred chunks: the other half."""


def words(result: dict[str, Any]) -> dict[str, list[str]]:
    """`can` and `cannot`: sentences about what this machine carries; `because`: links that are slow by themselves.

    Args:
      result: of `procedure.certify`: `grid`, `batch`, `clock_ms`, `lsl`, `ros`, `decoder_ms`.
    """
    can, cannot = [], []
    for cell in result["grid"]:
        what = describe(cell)
        if cell["carried"]:
            latency = cell["feedback_latency_ms"]
            can.append(
                f"{what}: answers are used after {latency['median']:.0f} ms, 99 of 100 within {latency['p99']:.0f} ms"
            )
        else:
            cannot.append(f"{what}: {cell['why']}")
    if batch := result.get("batch"):
        if batch["carried"]:
            can.append(
                f"{batch['participants']} participants in one process ({batch['engine']}), 16 channels at 2000 Hz"
            )
        if batch.get("failed_at"):
            cannot.append(f"{batch['failed_at']} participants in one process ({batch['engine']})")
    return {"can": can, "cannot": cannot, "because": slow_links(result)}


def describe(cell: dict[str, Any]) -> str:
    """A cell of the grid as one reads it."""
    count = cell["participants"]
    who = "one participant" if count == 1 else f"{count} participants, each a session of its own"
    return f"{who}, {cell['channels']} channels at {cell['rate_hz']:g} Hz"


def slow_links(result: dict[str, Any]) -> list[str]:
    """Links that take more than they may, whoever is at fault."""
    said = []
    if (late := result.get("clock_ms")) and late["p99"] > JITTER_MS:
        said.append(
            f"the system wakes a sleeping process late: one of a hundred times by {late['p99']:.1f} ms (usual: 0.1)"
        )
    if (lsl := result.get("lsl")) and lsl.get("round_trip_ms"):
        if lsl["round_trip_ms"]["p99"] > LSL_MS:
            said.append(
                f"LSL is slow: one of a hundred chunks takes {lsl['round_trip_ms']['p99']:.1f} ms there and back (usual: 1)"
            )
        if lsl["lost"]:
            said.append(f"{lsl['lost']} of {lsl['sent']} LSL chunks did not come back")
    if (took := result.get("decoder_ms")) and took["p99"] > DECODER_MS:
        said.append(f"the decoder is slow: one of a hundred chunks takes {took['p99']:.1f} ms of its 20 (usual: 1)")
    return said


def headline(result: dict[str, Any]) -> str:
    """One sentence."""
    carried = [cell for cell in result["grid"] if cell["carried"]]
    if not carried:
        return "This machine, as it is now, does not carry a participant in real time."
    standard = [cell for cell in carried if (cell["channels"], cell["rate_hz"]) == (16, 2000.0)]
    if not standard:
        return f"This machine carries {describe(carried[-1])}, but not 16 channels at 2000 Hz."
    most = max(standard, key=lambda cell: cell["participants"])
    return f"This machine carries {describe(most)}, in real time."
