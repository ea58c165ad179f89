"""The charts beside the hand: EMG of all channels, target against prediction of each finger, latency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import viser
from viser import uplot

from myoloop.body.names import FINGERS
from myoloop.view.colours import ASKED, INK, SAID
from myoloop.view.signals import BINS, WINDOW_S, Signals

GRID = {"show": True, "stroke": "#eceff3", "width": 1}
FONT = "11px sans-serif"
EMG_COLOURS = ("#2f5d8c", "#3b8276")
STEPS_UV = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""What the distance between two channels may stand for."""
NO_POINTS = uplot.Series_Points(show=False)
NO_CURSOR = uplot.Cursor(show=False)
NO_LEGEND = uplot.Legend(show=False)


def _time_axis(label: str = "") -> uplot.Axis:
    shown = {"label": label, "labelSize": 16, "labelFont": FONT} if label else {}
    return uplot.Axis(grid=GRID, font=FONT, size=24, stroke=INK, **shown)  # type: ignore[typeddict-item]


def _value_axis(label: str, splits: Sequence[float] | None = None, size: int = 34) -> uplot.Axis:
    ticks = {"splits": tuple(splits)} if splits else {}
    return uplot.Axis(label=label, labelSize=16, labelFont=FONT, font=FONT, size=size, stroke=INK, grid=GRID, **ticks)  # type: ignore[typeddict-item, arg-type]


class Charts:
    """The charts' handles; made inside the container that is to hold them."""

    def __init__(self, server: viser.ViserServer, channel_labels: Sequence[str]):
        gui = server.gui
        count = len(channel_labels)
        empty = np.array([-WINDOW_S, 0.0])
        self._gap_uv = 100.0
        x = uplot.Scale(time=False, range=(-WINDOW_S, 0.0))
        emg = [
            uplot.Series(stroke=EMG_COLOURS[k % 2], width=1, label=name, points=NO_POINTS)
            for k, name in enumerate(channel_labels)
        ]
        self._emg = gui.add_uplot(
            (empty, *[np.full(2, np.nan)] * count),
            (uplot.Series(label="s"), *emg),
            title=self._emg_title(),
            scales={"x": x, "y": uplot.Scale(range=(0.0, count + 1.0), dir=-1)},
            axes=(_time_axis(), _value_axis("EMG channel", range(1, count + 1))),
            cursor=NO_CURSOR, legend=NO_LEGEND, height=270, padding=(4, 10, 0, 0),
        )  # fmt: skip
        self._fingers = [self._finger(gui, name, x) for name in FINGERS]
        self._latency = gui.add_uplot(
            (empty, np.full(2, np.nan)),
            (uplot.Series(label="s"), uplot.Series(stroke=SAID, width=1, label="ms", points=NO_POINTS)),
            title="feedback latency",
            scales={"x": x, "y": uplot.Scale(range=(0.0, None))},  # type: ignore[typeddict-item]
            axes=(_time_axis("seconds ago"), _value_axis("ms")),
            cursor=NO_CURSOR, legend=NO_LEGEND, height=104, padding=(4, 10, 0, 0),
        )  # fmt: skip

    @staticmethod
    def _finger(gui: viser.GuiApi, name: str, x: uplot.Scale) -> viser.GuiUplotHandle:
        empty = np.array([-WINDOW_S, 0.0])
        asked = uplot.Series(fill=ASKED, stroke=ASKED, width=1, label="asked", points=NO_POINTS)
        said = uplot.Series(stroke=SAID, width=1.5, label="decoded", points=NO_POINTS)
        first = (
            {"title": "flexed? asked for: green area, decoded: blue line (probability)"} if name == FINGERS[0] else {}
        )
        return gui.add_uplot(
            (empty, np.full(2, np.nan), np.full(2, np.nan)),
            (uplot.Series(label="s"), asked, said),
            scales={"x": x, "y": uplot.Scale(range=(-0.08, 1.08))},
            axes=(uplot.Axis(show=False), _value_axis(name, (0.0, 1.0))),
            cursor=NO_CURSOR, legend=NO_LEGEND, height=70 if first else 48, padding=(4, 10, 2, 0), **first,  # type: ignore[arg-type]
        )  # fmt: skip

    def _emg_title(self) -> str:
        return (
            f"EMG: lowest and highest of every {1e3 * WINDOW_S / BINS:g} ms; one channel's space is {self._gap_uv:g} µV"
        )

    def draw(self, signals: Signals) -> None:
        """Shows what is there now."""
        self._draw_emg(signals)
        time, target, said = signals.fingers()
        if len(time) > 1:
            for k, chart in enumerate(self._fingers):
                chart.data = (time, target[:, k].astype(float), said[:, k].astype(float))
        latency = signals.latency()
        if len(latency.time) > 1:
            self._latency.data = (latency.time, *latency.values.astype(float))

    def _draw_emg(self, signals: Signals) -> None:
        trace = signals.emg.trace(signals.emg.newest)
        if not np.isfinite(trace.values).any():
            return
        peak = float(np.nanpercentile(np.abs(trace.values), 96))
        gap = next((step for step in STEPS_UV if step >= peak), STEPS_UV[-1])
        if gap > self._gap_uv or peak < 0.3 * self._gap_uv:  # not to and fro
            self._gap_uv = gap
            self._emg.title = self._emg_title()
        lines = np.arange(1, len(trace.values) + 1)[:, None] - trace.values / self._gap_uv
        self._emg.data = (trace.time, *np.round(lines, 3).astype(float))
