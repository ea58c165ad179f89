"""The page: the hand in the middle, charts on the left, figures and controls on the right."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import viser

from myoloop.body.names import FINGERS
from myoloop.streams.commands import (
    Command,
    Condition,
    Delay,
    Pause,
    Push,
    Reset,
    Resume,
    Rotate,
    SwitchDecoder,
    Target,
)  # fmt: skip
from myoloop.view.charts import Charts
from myoloop.view.colours import EXTENDED, FLEXED, GHOST, STRONG
from myoloop.view.scene import HandScene
from myoloop.view.signals import Signals

SETTLED_S = 0.3
"""A slider counts as let go when it has not moved for this long."""
GESTURES = {
    "open hand": (0, 0, 0, 0, 0),
    "fist": (1, 1, 1, 1, 1),
    "pinch": (1, 1, 0, 0, 0),
    "point": (1, 0, 1, 1, 1),
    **{finger: tuple(int(k == i) for i in range(5)) for k, finger in enumerate(FINGERS)},
}
"""What a click may ask for: 1 = flexed, thumb to little."""
WAYS = {
    "towards the palm": (-1.0, 0.0, 0.0),
    "towards the back of the hand": (1.0, 0.0, 0.0),
    "towards the thumb": (0.0, 0.0, 1.0),
    "towards the little finger": (0.0, 0.0, -1.0),
}
"""Directions of a push in the world's axes: the palm looks along -x, the thumb is up."""


class About(NamedTuple):
    """What the page is told of the session before it begins."""

    name: str
    participant: str
    channel_labels: Sequence[str]
    movable_band: bool
    conditions: Sequence[str]
    """those that may come and go during a run, rotation left out"""
    decoders: Sequence[str]
    """names that may be switched to, the present one first; empty: nobody could do it"""
    link: Delay
    """what is injected into the feedback when the session begins"""


class Page:
    """Builds the page once; all browsers share it, so that every one shows the same state of the controls."""

    def __init__(self, server: viser.ViserServer, about: About, send: Callable[[Command], None]):
        """
        Args:
          server: where it is shown.
          about: see `About`.
          send: called from threads of the server with each command; may take seconds.
        """
        self._server, self._about, self._send = server, about, send
        self._drawn = float("nan")  # stamp of the posture that was drawn last
        self._pending: dict[str, tuple[float, Command]] = {}
        gui = server.gui
        gui.configure_theme(show_logo=False, show_share_button=False, control_width="medium", brand_color=(31, 95, 174))
        gui.set_panel_label(f"myoloop: {about.name}")
        self.scene = HandScene(server)
        panel = gui.add_panel()
        with panel.add_tab("Signals"):
            self.charts = Charts(server, about.channel_labels)
        panel.dock_left()
        panel.set_width(480)
        gui.main_panel.dock_right()
        gui.main_panel.set_width(330)
        self._figures = gui.add_html(figures({}, np.full(5, np.nan), 0, []))
        self._add_controls()

    # --- controls --------------------------------------------------------------------------------------------------

    def _add_controls(self) -> None:
        gui, about = self._server.gui, self._about
        self._pause = gui.add_button("Pause")
        self._paused = False
        self._pause.on_click(lambda _: self._send(Resume() if self._paused else Pause()))
        with gui.add_folder("Ask for a posture"):
            gesture = gui.add_dropdown("Posture", tuple(GESTURES), initial_value="fist")
            seconds = gui.add_slider("For (s)", 1, 30, 1, 5)
            gui.add_button("Ask").on_click(
                lambda _: self._send(Target(values=GESTURES[gesture.value], duration_s=float(seconds.value)))  # type: ignore[arg-type]
            )
        with gui.add_folder("Push a finger"):
            finger = gui.add_dropdown("Finger", FINGERS, initial_value="index")
            way = gui.add_dropdown("Way", tuple(WAYS))
            newtons = gui.add_slider("Force (N)", 0.5, 10, 0.5, 3)
            gui.add_button("Push for 0.5 s").on_click(
                lambda _: self._send(push(finger.value, way.value, newtons.value))
            )
        with gui.add_folder("Armband, person and feedback"):
            turn = gui.add_slider("Band (deg)", 0, 30, 1, 0, disabled=not about.movable_band, hint=turn_hint(about))
            turn.on_update(lambda _: self._soon(Rotate(degrees=float(turn.value))))
            name = gui.add_dropdown("Condition", tuple(about.conditions))
            strength = gui.add_slider("Strength", 0, 1, 0.05, 0)
            strength.on_update(lambda _: self._soon(Condition(name=name.value, strength=float(strength.value))))
            delay = gui.add_slider("Delay (ms)", 0, 500, 10, about.link.delay_ms)
            jitter = gui.add_slider("Jitter (ms)", 0, 200, 10, about.link.jitter_ms)
            for slider in (delay, jitter):
                slider.on_update(lambda _: self._soon(delayed(about.link, float(delay.value), float(jitter.value))))
            if about.decoders:
                decoder = gui.add_dropdown("Decoder", tuple(about.decoders))
                decoder.on_update(lambda _: self._send(SwitchDecoder(name=decoder.value)))
        gui.add_button("Reset body and reference", color="gray").on_click(lambda _: self._send(Reset()))

    def _soon(self, command: Command) -> None:
        """Sends it when its slider has been let go."""
        self._pending[command.command] = (time.monotonic() + SETTLED_S, command)

    # --- drawing ---------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Sends what is due; call it often."""
        now = time.monotonic()
        for kind, (due, _) in list(self._pending.items()):
            if now >= due:
                self._send(self._pending.pop(kind)[1])  # the newest, also if it was let go just now

    def draw_hand(self, signals: Signals) -> bool:
        """The hand as it is now, if it has moved on; whether it has."""
        if signals.joints.newest == self._drawn or not np.isfinite(signals.joints.last).all():
            return False
        self._drawn = signals.joints.newest
        wanted = signals.reference.last if np.isfinite(signals.reference.last).all() else None
        said = np.nan_to_num(signals.feedback.last[:5], nan=0.0)
        self.scene.show(signals.joints.last, wanted, signals.drawn_excitation(), said)
        return True

    def draw_figures(self, signals: Signals, status: dict[str, Any]) -> None:
        """The figures and the last events."""
        paused = status.get("phase") == "paused"
        if paused != self._paused:
            self._paused = paused
            self._pause.label = "Resume" if paused else "Pause"
        shown = figures(status, signals.accuracy(), signals.missing, list(signals.events)[-4:])
        if shown != self._figures.content:
            self._figures.content = shown


def delayed(link: Delay, delay_ms: float, jitter_ms: float) -> Delay:
    """Another delay; what the experiment loses and repeats stays."""
    return link.model_copy(update={"delay_ms": delay_ms, "jitter_ms": jitter_ms})


def push(finger: str, way: str, newtons: float) -> Push:
    """The command of the button."""
    x, y, z = (float(newtons) * part for part in WAYS[way])
    return Push(finger=finger, force_n=(x, y, z), duration_s=0.5)


def turn_hint(about: About) -> str:
    if about.movable_band:
        return "Turns the armband towards volar."
    return "This armband stays: run the session with --set participant.movable_band=true."


def figures(status: dict[str, Any], accuracy: np.ndarray, missing: int, events: Sequence[str]) -> str:
    """HTML of the figures: where the session stands, how right the decoder is, what is late or lost."""
    cells = [
        ("time", _number(status.get("time_s"), "{:.1f} s")),
        ("feedback latency", _number(status.get("feedback_latency_ms"), "{:.1f} ms")),
        ("accuracy", _number(status.get("accuracy"), "{:.1%}")),
        ("of the last 30 s", _number(_finite(np.mean(accuracy)), "{:.1%}")),
        ("control step", _number(status.get("step_ms"), "{:.1f} ms")),
        ("late steps", _number(status.get("overruns"), "{}")),
        ("stale steps", _number(status.get("stale_steps"), "{}")),
        ("answers refused", _number(status.get("predictions_refused"), "{}")),
        ("EMG lost here", str(missing)),
        ("decoder", html.escape(str(status.get("decoder") or "–"))),
    ]
    shown = [
        f"<td>{name}</td><td style='text-align:right;padding-right:10px'><b>{value}</b></td>" for name, value in cells
    ]
    body = "".join(f"<tr>{left}{right}</tr>" for left, right in zip(shown[::2], shown[1::2], strict=True))
    body += f"<tr><td>conditions</td><td colspan=3><b>{html.escape(_conditions(status.get('conditions') or {}))}</b></td></tr>"
    fingers = "".join(
        f"<td style='text-align:center'>{name}<br><b>{_number(_finite(share), '{:.0%}')}</b></td>"
        for name, share in zip(FINGERS, accuracy, strict=True)
    )
    phase, level = str(status.get("phase") or "waiting for the participant"), status.get("level")
    colour = {"error": "#c0392b", "warn": "#b7791f"}.get(str(level), "#1f8a4c")
    said = str(status.get("said") or status.get("message") or "")
    note = html.escape(said) if said and said != phase else ""
    told = "".join(f"<div>{html.escape(text)}</div>" for text in reversed(list(events))) or "<div>none yet</div>"
    return (
        "<div style='font:11.5px sans-serif;padding:6px 12px'>"
        f"<div><b style='font-size:14px;color:{colour}'>{html.escape(phase)}</b> {note}</div>"
        f"<table style='width:100%;border-spacing:0 1px'>{body}</table>"
        f"<table style='width:100%;margin-top:2px;color:#444'><tr>{fingers}</tr></table>"
        f"<div style='margin-top:4px;color:#666'>{LEGEND}</div>"
        "<div style='margin-top:3px;color:#666'>Last events</div>"
        f"<div style='height:58px;overflow:hidden;font-family:monospace;font-size:11px'>{told}</div></div>"
    )


def _dot(colour: Sequence[int], text: str) -> str:
    red, green, blue = colour
    return f"<span style='color:rgb({red},{green},{blue})'>&#9679;</span>&nbsp;{text}"


LEGEND = " ".join(
    [
        _dot(FLEXED, "decoded flexed"),
        _dot(EXTENDED, "extended"),
        _dot(GHOST, "asked for"),
        _dot(STRONG.tolist(), "muscle excited"),
    ]
)
"""What the hand's colours mean."""


def _conditions(now: dict[str, float]) -> str:
    return ", ".join(f"{name} {strength:g}" for name, strength in now.items()) or "none"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _number(value: Any, shape: str) -> str:
    return "–" if value is None else shape.format(value)
