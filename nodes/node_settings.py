"""Parameters of the node executables: what they mean, their ranges, and when they may be changed."""

from __future__ import annotations

from typing import NamedTuple

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

AT_CONFIGURE = "read when the node is configured; to change it, deactivate and clean up, set it, configure again"
AT_START = "read once when the process starts: give it with --ros-args -p, or in the launch file"
AT_ANY_TIME = "may be changed at any time; takes effect with the next control step"


class Setting(NamedTuple):
    """A parameter of a node."""

    name: str
    default: str | float | int | bool
    """for a setting of the live object: its value now"""
    description: str
    low: float | None = None
    high: float | None = None
    when: str = AT_CONFIGURE
    """when it is read; anything but `AT_ANY_TIME` is the reason by which a change is refused"""

    def descriptor(self) -> ParameterDescriptor:
        about = ParameterDescriptor(description=self.description, additional_constraints=self.when)
        if self.low is None or self.high is None:
            return about
        if isinstance(self.default, float):
            about.floating_point_range = [FloatingPointRange(from_value=self.low, to_value=self.high, step=0.0)]
        else:
            about.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)]
        return about


COMMON = (
    Setting("experiment", "experiments/closed_loop.yaml", "experiment file; also looked for among the shipped ones"),
    Setting("participant", "", "id of the participant; empty: the experiment's"),
    Setting("run_dir", "", "folder for status and logs of the run; empty: none"),
    Setting("autostart", False, "configure and activate without being asked; end if that fails", when=AT_START),
)
