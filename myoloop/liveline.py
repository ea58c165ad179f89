"""The line a session shows while it runs: time, target against prediction, accuracy, latency, losses."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from myoloop.experiment import Experiment

PLAIN_EVERY_S = 5.0
"""Without a terminal, a plain line is printed this often."""


class LiveLine:
    """Context manager that redraws one line on a terminal, or prints it now and then into a file or pipe."""

    def __init__(self, experiment: Experiment, console: Console):
        self._duration = experiment.duration_s
        self._console = console
        self._live = Live(console=console, refresh_per_second=5, transient=True) if console.is_terminal else None
        self._printed = 0.0

    def __enter__(self) -> LiveLine:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._live.__exit__(None, None, None)

    def say(self, message: str) -> None:
        """Prints a message above the line."""
        self._console.print(Text(message, style="yellow"), soft_wrap=True)

    def show(self, status: dict[str, Any] | None, missing: int) -> None:
        """Redraws with the participant's last status and the number of EMG samples that somebody misses."""
        line = self._line(status, missing)
        if self._live:
            self._live.update(line)
        elif time.monotonic() - self._printed > PLAIN_EVERY_S:
            self._printed = time.monotonic()
            self._console.print(line, soft_wrap=True)

    def _line(self, status: dict[str, Any] | None, missing: int) -> Text:
        if status is None:
            return Text(
                "starting the participant (it builds its motor units and compiles: some seconds) ...", style="dim"
            )
        if status.get("population") and status["phase"] == "running":
            return self._many(status, missing)
        if status["phase"] != "running" or status["target"] is None:
            return Text(f"{status['phase']} ...", style="dim")
        line = Text(f"{status['time_s']:5.1f}/{self._duration:g} s  ")
        line.append("asked ").append(_hand(status["target"]), style="bold")
        line.append("  decoded ")
        for asked, said in zip(status["target"], status["prediction"], strict=True):
            line.append(_finger(said), style="green" if (said > 0.5) == (asked > 0.5) else "red")
        accuracy = "-" if status["accuracy"] is None else f"{100 * status['accuracy']:.1f} %"
        latency = "-" if status["feedback_latency_ms"] is None else f"{status['feedback_latency_ms']:.1f} ms"
        line.append(f"  accuracy {accuracy}  latency {latency}  step {status['step_ms']} ms  lost {missing}")
        if learner := status.get("learner"):
            line.append(f"  learner {learner['phase']}, {learner['swaps']} policies")
        if status["level"] != "ok":
            line.append(f"  {status['message']}", style="yellow")
        return line

    def _many(self, status: dict[str, Any], missing: int) -> Text:
        """The same for a population: how the accuracies are spread."""
        found = status["population"]
        line = Text(f"{status['time_s']:5.1f}/{self._duration:g} s  {found['participants']} participants")
        if right := found["accuracies"]:  # sorted
            middle, quarter = right[len(right) // 2], right[len(right) // 4]
            line.append(
                f"  accuracy median {100 * middle:.1f} %, lower quartile {100 * quarter:.1f}, worst {100 * right[0]:.1f}"
            )
        latency = found["feedback_latency_ms"]
        line.append(
            f"  latency {'-' if latency is None else f'{latency:.1f} ms'}  step {found['step_ms']} ms  lost {missing}"
        )
        return line


def _finger(value: float) -> str:
    return "●" if value > 0.5 else "○"


def _hand(values: list[float]) -> str:
    """One mark a finger, thumb to little: full when flexed."""
    return "".join(_finger(v) for v in values)
