"""Another decoder in a running session: asked for by a command, carried out by who supervises the processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from myoloop.assets import NONE, OWN, shipped_decoders
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment, save_experiment
from myoloop.processes import Child, command_for, environment_for, parts_of
from myoloop.sections import DecoderSettings

PARTS = ("decoder", "software")
"""The processes that a switch ends, and that the experiment's own decoder may have."""


class DecoderSwitch:
    """Ends the decoder's processes and starts another's; the participant goes on meanwhile, and hears silence."""

    def __init__(self, experiment: Experiment, run_dir: Path, parts: dict[str, Child]):
        """
        Args:
          experiment: as it began.
          run_dir: its folder: each decoder's configuration and status stay there.
          parts: the session's processes by name, changed in place.
        """
        self._experiment, self._run_dir, self._parts = experiment, run_dir, parts
        self._done = 0
        self._ended: list[Child] = []

    def decoders(self) -> list[Child]:
        """All decoder processes that the session has had."""
        return [child for child in [*self._ended, *self._parts.values()] if child.name == "decoder"]

    def follow(self, status: dict[str, Any] | None, say: Callable[[str], None]) -> bool:
        """Does what the participant's status asks for, if it is new; whether there is another decoder now."""
        wanted = (status or {}).get("decoder_wanted")
        if not wanted or wanted[0] == self._done or not self._parts:
            return False
        self._done, name = wanted
        for part in [part for part in PARTS if part in self._parts]:
            child = self._parts.pop(part)
            child.end()
            self._ended.append(child)
            keep_status(self._run_dir, part)
        if name == NONE:
            say("decoder: none")
            return False
        try:
            for part, child in self._make(name).items():
                self._parts[part] = child
                child.start()
        except MyoloopError as error:
            say(f"decoder {name}: {error}")
            return False
        say(f"decoder: {name}")
        return True

    def _make(self, name: str) -> dict[str, Child]:
        experiment = self._experiment
        if name != OWN:
            model = str(shipped_decoders()[name])
            decoder = DecoderSettings.model_validate({"name": name, "kind": "onnx", "model": model})
            experiment = experiment.model_copy(update={"decoder": decoder})
        config = self._run_dir / f"config.decoder-{self._done}.yaml"
        save_experiment(experiment, config)
        made = {}
        for part in [part for part in parts_of(experiment) if part in PARTS]:
            command = command_for(part, experiment, config, self._run_dir)
            log = self._run_dir / "logs" / f"{part}.log"
            made[part] = Child(part, command, log, environment_for(experiment))
        return made


def keep_status(run_dir: Path, name: str) -> None:
    """Puts an ended process's status aside as `<name>.1.status.json`, then 2 and so on: each life counts in the report."""
    ended = run_dir / f"{name}.status.json"
    if ended.exists():
        number = 1
        while (kept := run_dir / f"{name}.{number}.status.json").exists():
            number += 1
        ended.replace(kept)
