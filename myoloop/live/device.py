"""Emulated amplifiers in real time: a participant's EMG from LSL to whoever connects as to the real device."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from myoloop.devices.muovi import MuoviProbe
from myoloop.devices.network import DeviceLoop
from myoloop.devices.trigno import TrignoStation
from myoloop.emg.armband import armband_from
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment
from myoloop.live.board import Board, log, make_run_dir
from myoloop.live.threaded import Threaded
from myoloop.streams.follower import Block, StreamFollower
from myoloop.streams.network import use_loopback
from myoloop.streams.outlets import stream_name


class LiveDevices(Threaded):
    """Serves the experiment's amplifiers from a thread of its own, until stopped."""

    def __init__(self, experiment: Experiment, run_dir: str | Path | None = None):
        """
        Args:
          experiment: whose `devices` section names the amplifiers.
          run_dir: where the status goes; None: nowhere.

        Raises:
          MyoloopError: no amplifier is named, a port is taken, or the run folder cannot be written.
        """
        use_loopback()
        settings = experiment.devices
        if not settings.any:
            raise MyoloopError("the experiment emulates no amplifier: give it a section like `devices: {trigno: {}}`.")
        self._channels = armband_from(experiment.participant.armband).channels
        self._stream = stream_name(experiment.participant.id, "emg")
        run_folder = make_run_dir(run_dir) if run_dir else None
        self._board = Board(run_folder, "device", self.status)
        self._source = ""
        self._received = self._lost = 0
        self._last_stamp: float | None = None
        super().__init__(device=self._run)
        self.error: BaseException | None = None
        self.devices: dict[str, TrignoStation | MuoviProbe] = {}
        """the amplifiers by name"""
        self._loop = DeviceLoop()
        try:
            if settings.trigno is not None:
                station = TrignoStation(self._loop, settings.trigno, self._channels, self._board.say)
                self.devices["trigno"] = station
            if settings.muovi is not None:
                self.devices["muovi"] = MuoviProbe(self._loop, settings.muovi, self._board.say)
        except MyoloopError:
            self._loop.close()
            raise
        self._board.start()

    def close(self) -> None:
        """Stops, hangs up, writes the last status."""
        self.stop()
        for device in self.devices.values():
            device.close()
        self._board.close()
        self._loop.close()

    def status(self) -> dict[str, Any]:
        """Where the amplifiers stand: JSON-able numbers and strings."""
        level, message = ("ok", f"serving {self._source}") if self._source else ("warn", "waiting for EMG")
        if self.error:
            level, message = "error", str(self.error)
        return {
            "level": level,
            "message": message,
            "source": self._source,
            "samples_received": self._received,
            "samples_lost": self._lost,
            "devices": {name: device.status() for name, device in self.devices.items()},
        }

    def _run(self) -> None:
        sys.setswitchinterval(5e-4)  # s: the status thread must not hold the samples up
        follower = StreamFollower(f"name='{self._stream}'", buffer_s=5.0)
        try:
            while not self._stop.is_set():
                block = follower.read(timeout=0.2)
                self._source = follower.info.name() if follower.info else ""
                if block is not None:
                    self._take(block)
        except Exception as error:  # the thread's last word: it must reach the report
            self.error = error
            if not isinstance(error, MyoloopError):
                log.exception("the devices stopped")
            self._board.say(f"the devices stopped: {error}")
        finally:
            follower.close()

    def _take(self, block: Block) -> None:
        if block.samples.shape[1] != self._channels:
            raise MyoloopError(
                f"'{block.info.name()}' has {block.samples.shape[1]} channels, the experiment's armband {self._channels}: use "
                "the same experiment file for participant and devices."
            )
        if self._last_stamp is not None:
            gap = round((block.stamps[0] - self._last_stamp) * block.info.nominal_srate()) - 1
            self._lost += max(0, gap)
        self._last_stamp = float(block.stamps[-1])
        self._received += len(block.stamps)
        for device in self.devices.values():
            device.feed(block.samples)
