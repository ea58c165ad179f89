"""The viewer: listens to a participant's streams like any LSL client and shows them on a web page, in a process of its own.

It never holds anybody up: what it cannot draw in time it leaves out, and while no browser is there it draws nothing.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pylsl

from myoloop.assets import NONE, OWN, shipped_decoders
from myoloop.emg.armband import armband_from
from myoloop.emg.condition_names import RUN_CONDITIONS
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment
from myoloop.live.board import Board, log, read_status
from myoloop.live.threaded import Threaded
from myoloop.sections import LinkSettings
from myoloop.streams.commands import Command, CommandSender, Delay
from myoloop.streams.follower import Block, StreamFollower
from myoloop.streams.network import use_loopback
from myoloop.streams.outlets import stream_name

SHOWN = ("emg", "target", "feedback", "kinematics", "reference", "excitation", "events")
"""Streams that the page shows."""
HAND_S, CHARTS_S, FIGURES_S = 0.05, 0.125, 0.5
"""How often each part is drawn at most."""
POLL_S = 0.02
TOLD_S = 10.0
"""How long a message stays on the page."""
NEEDED = ("viser", "mjviser")


class LiveViewer(Threaded):
    """Serves the page until stopped; sessions and participants may come and go meanwhile."""

    def __init__(self, experiment: Experiment, run_dir: str | Path | None = None, write_status: bool = True):
        """
        Args:
          experiment: whose participant is shown; `experiment.view` says where the page is served.
          run_dir: the session's folder, whose status files tell the figures; None: only what the streams say.
          write_status: keep `viewer.status.json` there; false for a second viewer.

        Raises:
          MyoloopError: viser or mjviser is missing, or `view.host` is not an address of this machine.
        """
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise MyoloopError(f"the viewer needs {' and '.join(missing)}: pip install 'myoloop[view]'.")
        check_host(experiment.view.host)
        use_loopback()
        from myoloop.view.page import About, Page  # MuJoCo and viser: seconds
        from myoloop.view.server import open_server, url_of
        from myoloop.view.signals import Signals

        self.experiment = experiment
        self._id = experiment.participant.id
        self._run_dir = Path(run_dir) if run_dir else None
        band = armband_from(experiment.participant.armband)
        self._channels = len(band.channel_labels)
        self._fresh = lambda: Signals(self._channels)
        self.signals = self._fresh()
        """what the page shows"""
        self._uid = ""
        self._frames = self._most_clients = 0
        self._busy_s = 0.0
        self._heard = 0  # messages of the participant
        self._note: tuple[float, str] | None = None
        self._sender = CommandSender(self._id)
        self.server = open_server(experiment.view.host, experiment.view.port)
        self.url = url_of(self.server)
        """where the page is"""
        link = experiment.link or LinkSettings()  # type: ignore[call-arg]
        me = experiment.participant
        decoders = (OWN, *shipped_decoders(), NONE) if run_dir else ()
        moving = ("displacement",) if me.movable_band else ()
        about = About(
            experiment.name, self._id, band.channel_labels, me.movable_band,
            (*(name for name in RUN_CONDITIONS if name not in ("rotation", "displacement")), *moving,
             *(f"lost_contact:{label}" for label in band.channel_labels)),
            decoders, Delay(**link.model_dump()),
        )  # fmt: skip
        self.page = Page(self.server, about, self._send)
        super().__init__(viewer=self._run)
        self.error: BaseException | None = None
        self._board = Board(self._run_dir if write_status else None, "viewer", self.status)
        if not is_loopback(experiment.view.host):
            self._board.say(
                f"view.host is {experiment.view.host}: whoever reaches this machine can watch the session and control it"
            )
        self._board.say(f"watch it in a browser: {self.url}")
        self._board.start()

    def status(self) -> dict[str, Any]:
        """Where the viewer stands: JSON-able numbers and strings."""
        return {
            "url": self.url,
            "level": "error" if self.error else "ok",
            "message": str(self.error) if self.error else f"serving {self.url}",
            "browsers": len(self.server.get_clients()),
            "most_browsers": self._most_clients,
            "frames": self._frames,
            "emg_samples_missing": self.signals.missing,
            "commands_sent": self._sender.sent,
            "cpu_s": round(time.process_time(), 2),
        }

    def subscribe(self, watcher: Any) -> None:
        """Nothing is recorded here: there are no records to watch."""

    def close(self) -> None:
        self.stop()
        self._sender.close()
        self.server.stop()
        self._board.close()

    # --- commands --------------------------------------------------------------------------------------------------

    def _send(self, command: Command) -> None:
        """Called from threads of the server."""
        if not self._sender.send(command):
            self._note = time.monotonic(), f"{command.command}: the participant does not listen"

    # --- the loop --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        followers = {s: StreamFollower(f"name='{stream_name(self._id, s)}'", buffer_s=5.0) for s in SHOWN}
        drawn = dict.fromkeys(("hand", "charts", "figures"), 0.0)
        try:
            while not self._stop.wait(POLL_S):
                for stream, follower in followers.items():
                    while (block := follower.read(timeout=0.0)) is not None:
                        self._take(stream, block)
                self.page.work()
                browsers = len(self.server.get_clients())
                self._most_clients = max(browsers, self._most_clients)
                if browsers:
                    self._draw(drawn)
        except Exception as error:  # the thread's last word: it must reach the session
            self.error = error
            log.exception("the viewer stopped")
            self._board.say(f"the viewer stopped: {type(error).__name__}: {error}")
        finally:
            for follower in followers.values():
                follower.close()

    def _draw(self, drawn: dict[str, float]) -> None:
        now = time.monotonic()
        if now - drawn["hand"] >= HAND_S:
            drawn["hand"] = now
            self._frames += self.page.draw_hand(self.signals)
        if now - drawn["charts"] >= CHARTS_S:
            drawn["charts"] = now
            self.page.charts.draw(self.signals)
        if now - drawn["figures"] >= FIGURES_S:
            drawn["figures"] = now
            self.page.draw_figures(self.signals, self._seen())

    def _seen(self) -> dict[str, Any]:
        """The participant's last status, with what belongs beside it on the page."""
        status: dict[str, Any] = {}
        if self._run_dir is not None:
            status = read_status(self._run_dir, "participant") or {}
            decoder = read_status(self._run_dir, "decoder") or {}
            status["decoder"] = decoder.get("name") or status.get("prediction_source")
            said = status.get("messages", [])
            if len(said) > self._heard:
                self._note = time.monotonic(), said[-1]
            self._heard = len(said)
        elif np.isfinite(self.signals.emg.newest):
            status["phase"] = "running" if pylsl.local_clock() - self.signals.emg.newest < 1.0 else "silent"
        if self._note and time.monotonic() - self._note[0] < TOLD_S:
            status["said"] = self._note[1]
        return status

    def _take(self, stream: str, block: Block) -> None:
        signals = self.signals
        if stream == "emg":
            if block.info.uid() != self._uid:  # another participant, or the same one again: nothing of before goes on
                self._uid = block.info.uid()
                events, signals = signals.events, self._fresh()
                signals.events, self.signals = events, signals
            if block.samples.shape[1] != self._channels:
                raise MyoloopError(
                    f"'{block.info.name()}' has {block.samples.shape[1]} channels, the experiment's armband "
                    f"{self._channels}: show it with the experiment that it runs."
                )
            signals.add_emg(block.samples, block.stamps, block.info.nominal_srate())
        elif stream == "events":
            for sample, stamp in zip(block.samples, block.stamps, strict=True):
                text = sample[0].decode("utf-8", "replace") if isinstance(sample[0], bytes) else str(sample[0])
                signals.add_event(text, float(stamp))
        else:
            signals.tracks[stream].add(block.samples, block.stamps)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_host(host: str) -> None:
    """Refuses, by MyoloopError, what is not an address of this machine."""
    own = {address.address.split("%")[0] for found in psutil.net_if_addrs().values() for address in found}
    if not is_loopback(host) and host not in (own | {"0.0.0.0", "::"}):
        ours = ", ".join(sorted(a for a in own if a.count(".") == 3))
        raise MyoloopError(f"view.host is '{host}': expected an address of this machine ({ours}), or 0.0.0.0 for all.")
