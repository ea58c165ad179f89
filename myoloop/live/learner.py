"""The learner's process: hears a live participant over a pipe, learns, sends policies back. live/adaptation.py starts it.

It learns at low priority, on one core, and ends when the participant says so or is gone; what it has learned is in the run
folder then, as it is every so often before.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import os
import signal
import sys
import threading
import time
from collections import deque
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from myoloop.errors import MyoloopError
from myoloop.learn.online import OnlineConfig, OnlineLearner, Thinking
from myoloop.live.channel import END, pack_policy, unpack_experience, unpack_greeting
from myoloop.machine import stand_back
from myoloop.policy.learned import LearnedPolicy, load_policy, save_policy, told_all, told_as

NICE = 10
"""How much the participant and its decoder go before it."""
POLICY, CURVE = "policy.safetensors", "learning.csv"
"""Files in the run folder."""


class LearnerProcess:
    """Everything between the pipe and the learner."""

    def __init__(self, channel: Connection):
        self._channel = channel
        greeting = unpack_greeting(channel.recv_bytes())
        self._adapt: dict[str, Any] = greeting["adapt"]
        self._run_dir = Path(greeting["run_dir"]) if greeting["run_dir"] else None
        self._about = {"adapt": self._adapt, "policy": Path(greeting["policy"]).name, "seed": greeting["seed"]}
        policy = told_all(load_policy(greeting["policy"]).policy)
        habit = told_as(load_policy(self._adapt["habit"]).policy, policy.cues) if self._adapt["habit"] else None
        self._learner = OnlineLearner(
            policy, config_from(self._adapt, greeting["seed"], policy, greeting["later_s"]), habit
        )
        self._heard: deque[bytes] = deque()
        self._news, self._over = threading.Event(), threading.Event()
        self._saved = time.monotonic()
        self._unwritten: set[str] = set()
        self._warm = False

    def stop(self) -> None:
        """Ends after what is being thought; callable from a signal handler."""
        self._over.set()
        self._news.set()

    def run(self) -> None:
        """Until the participant ends."""
        threading.Thread(target=self._listen, daemon=True).start()
        self._learner.warm_up()
        self._warm = True
        stand_back(NICE)
        try:
            self._channel.send_bytes(pack_policy({}, {}))  # ready
            while not self._over.is_set():
                self._news.wait()
                self._news.clear()
                while self._heard:
                    self._learner.hear(*unpack_experience(self._heard.popleft()))
                line = self._learner.think()
                if line is not None:
                    self._channel.send_bytes(pack_policy(self._learner.params, line._asdict()))
                    self._write(line)
        except OSError:
            pass  # the participant is gone: what was learned is kept
        finally:
            self._save()

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while (message := self._channel.recv_bytes()) != END:
                self._heard.append(message)
                self._news.set()
        if not self._warm:
            os._exit(0)  # it compiles, which cannot be ended, and there is nothing to keep
        self.stop()

    def _write(self, line: Thinking) -> None:
        if self._run_dir is None:
            return
        path = self._run_dir / CURVE
        begins = not path.exists()
        try:
            with path.open("a", newline="", encoding="utf-8") as file:
                table = csv.writer(file)
                if begins:
                    table.writerow(Thinking._fields)
                table.writerow([f"{x:.6g}" for x in line])
        except OSError as error:
            self._complain(CURVE, error)
        if time.monotonic() - self._saved > self._adapt["save_every_s"]:
            self._save()

    def _save(self) -> None:
        if self._run_dir is not None and self._learner.lines:
            self._saved = time.monotonic()
            about = self._about | self._learner.lines[-1]._asdict()
            try:
                save_policy(self._run_dir / POLICY, self._learner.policy, about)
            except (OSError, MyoloopError) as error:
                self._complain(POLICY, error)

    def _complain(self, name: str, error: Exception) -> None:
        """A full disk is said once for each file, and ends nothing."""
        if name not in self._unwritten:
            self._unwritten.add(name)
            print(f"{name} cannot be written: {getattr(error, 'strerror', None) or error}", file=sys.stderr, flush=True)


def config_from(adapt: dict[str, Any], seed: int, policy: LearnedPolicy, later_s: float = 0.0) -> OnlineConfig:
    """The learner's configuration from what an experiment says (experiment.AdaptSettings); later_s: how much longer than else
    an answer may take."""
    config = OnlineConfig(seed=seed)
    config = dataclasses.replace(config, late_s=config.late_s + later_s)
    model = config.internal_model
    stretches = max(1, round(adapt["remembered_s"] * policy.control_hz / config.stretch))
    forward = dataclasses.replace(model.forward, remembered=stretches)
    wanted = {name: adapt[name] for name in ("effort", "movement", "balanced", "learning_rate")}
    objective = dataclasses.replace(model.objective, **wanted)
    return dataclasses.replace(config, internal_model=dataclasses.replace(model, forward=forward, objective=objective))


def main() -> None:
    """python -m myoloop.live.learner FD"""
    try:
        process = LearnerProcess(Connection(int(sys.argv[1])))
    except MyoloopError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    signal.signal(signal.SIGTERM, lambda *_: process.stop())
    process.run()


if __name__ == "__main__":
    main()
