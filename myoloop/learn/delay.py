"""Delay of a decoder's answers in the batch: whole control steps."""

from __future__ import annotations

from myoloop.errors import MyoloopError


def whole_steps(delay_s: float, control_hz: float) -> int:
    """How many control steps a delay is.

    Raises:
      MyoloopError: it is negative, or no whole number of control steps.
    """
    steps = round(delay_s * control_hz)
    if delay_s < 0 or abs(delay_s * control_hz - steps) > 1e-6:
        raise MyoloopError(
            f"delay_s is {delay_s:g}: expected 0 or a whole number of control steps of {1 / control_hz:g} s, as "
            f"{max(1, steps) / control_hz:g}. Delays between these exist live only (section link of an experiment)."
        )
    return steps
