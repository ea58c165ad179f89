"""A population one after another: a whole session for each participant, then one report of all.

For software that reads one participant: it is started, calibrated and judged anew with everybody, as with subjects who come one
after another.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from myoloop.checkpoint import write_atomically
from myoloop.emg.person_seeds import person_seeds
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment, save_experiment
from myoloop.live.board import make_run_dir
from myoloop.population_settings import TURNS, PersonSettings
from myoloop.session import Session, fresh, link_latest


class Turns:
    """Runs the participants of an experiment whose population is `how: in_turn`."""

    def __init__(self, experiment: Experiment, runs: str | Path = "runs", console: Console | None = None):
        """
        Args:
          experiment: with a section `population`.
          runs: folder that gets a new run folder, with one for each participant in it, and the link `latest`.
          console: where is told what happens.

        Raises:
          MyoloopError: the run folder cannot be written.
        """
        assert experiment.population is not None
        self.experiment, self.console = experiment, console or Console()
        stamp = time.strftime("%Y%m%d-%H%M%S")
        self.run_dir = make_run_dir(fresh(Path(runs) / f"{stamp}-{experiment.name}"))
        save_experiment(experiment, self.run_dir / "config.yaml")
        link_latest(Path(runs), self.run_dir)
        self._stop = threading.Event()
        self._session: Session | None = None
        self.failure: str | None = None
        """why some sessions are missing, if they are"""

    def stop(self) -> None:
        """Ends the session that runs, and those to come."""
        self._stop.set()
        if self._session:
            self._session.stop()

    def run(self) -> Path:
        """Runs all sessions until the end or until stopped, then writes the report; returns the run folder.

        Raises:
          MyoloopError: not one session could be run.
        """
        population, done = self.experiment.population, []
        assert population is not None
        people = population.persons or [
            PersonSettings(person=seed, conditions={}) for seed in person_seeds(population.seed, population.count)
        ]
        names = population.names(self.experiment.participant.id)
        for number, (name, person) in enumerate(zip(names, people, strict=True)):
            self.console.print(f"[bold]{name}[/bold] (person {person.person}), {number + 1} of {len(names)}")
            about = {"id": name, "person": person.person, "conditions": person.conditions}
            done.append(about | {"failure": "its session did not end"})
            self._keep(done)
            done[-1]["failure"] = self._one(name, person, number)
            self._keep(done)
            if self._stop.is_set():
                self.failure = f"stopped after {number + 1} of {len(names)} participants"
                break
        failed = [f"{each['id']}: {each['failure']}" for each in done if each["failure"]]
        self.failure = self.failure or ("; ".join(failed) if failed else None)
        from myoloop.report import rewrite_report  # loads plotting libraries

        rewrite_report(self.run_dir)
        return self.run_dir

    def _keep(self, done: list[dict[str, Any]]) -> None:
        """Who had a turn, for the report; a full disk ends nothing."""
        try:
            write_atomically(self.run_dir / TURNS, json.dumps(done, indent=1).encode())
        except (OSError, MyoloopError) as error:
            self.console.print(f"[red]{TURNS} cannot be written: {error}[/red]")

    def _one(self, name: str, person: PersonSettings, number: int) -> str | None:
        """One participant's session in a folder of its own; why it failed."""
        me, population = self.experiment.participant, self.experiment.population
        assert population is not None
        if population.motion == "own":
            reference = me.reference.model_copy(update={"seed": me.reference.seed + number})
            me = me.model_copy(update={"reference": reference})
        own = {"person": person.person, "sample": True, "conditions": me.conditions | person.conditions}
        alone = self.experiment.model_copy(
            update={
                "population": None,
                "participant": me.model_copy(update=own),
                "name": f"{self.experiment.name}-{name}",
            }
        )
        try:
            self._session = Session(alone, run_dir=self.run_dir / "participants" / name, console=self.console)
            if self._stop.is_set():
                return "stopped"
            self._session.run()
        except MyoloopError as error:
            return str(error)
        if self._session.stopped:
            self._stop.set()
        return self._session.failure
