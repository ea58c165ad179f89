"""Read a dataset for learning: choose recordings, read windows, crops or all of them; only what is asked for is loaded.

data = splits(load_dataset("data/forearms"))
crops = data.training.crops(np.random.default_rng(0), count=32, steps=125)   # crops.emg, crops.labels
choose = data.validation.load()                                             # Recordings
rotated = data.test.select(condition="rotation")
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from myoloop.errors import MyoloopError, unknown_name
from myoloop.learn.dataset_file import FIGURES, Index, array_layout, open_shard, read_index, reading
from myoloop.learn.dataset_plan import SPLITS
from myoloop.learn.supervised import Recordings
from myoloop.task.reference import KINDS

_ASKED = {"flexed": "labels", "flexion": "flexion"}  # a decoder's target -> the array that holds it

HEALTHY = "healthy"
"""What `select` calls recordings without a condition."""


class Recorded(NamedTuple):
    """One recording: where it lies, and who and what made it."""

    path: Path
    """Its shard."""
    group: str
    """Its group there."""
    split: str
    person: int
    """Seed of the person."""
    figures: Mapping[str, float]
    """What was drawn of the person, by the names of FIGURES."""
    donning: int
    conditions: Mapping[str, float]
    """Name -> strength; empty: healthy."""
    kind: str
    """Of the reference."""
    reference_seed: int
    reference_index: int
    noise_seed: int
    policy: str


class Spikes(NamedTuple):
    """Discharges of a recording in order of time, (N,) each."""

    muscle: np.ndarray
    """Index into MUSCLES."""
    unit: np.ndarray
    """Of that muscle, in order of recruitment."""
    time_s: np.ndarray
    """Seconds since the start."""


class Window(NamedTuple):
    """A stretch of a recording."""

    recorded: Recorded
    first: int
    """Its first control step."""
    emg: np.ndarray
    """(steps * samples_per_step, channels) float32, microvolts."""
    labels: np.ndarray
    """(steps, 5) float32, 0 or 1: what was asked for at the end of each step."""


@dataclass(frozen=True)
class Dataset:
    """Recordings of one dataset, or some of them; it may be handed to other processes, but belongs to one thread in each."""

    folder: Path
    recordings: tuple[Recorded, ...]
    """Without those whose physics failed."""
    left_out: int
    """How many did."""
    steps: int
    """Control steps of every recording."""
    rate_hz: float
    """EMG samples per second."""
    control_hz: float
    """Control steps per second."""
    internal_rate_hz: float
    """Ticks per second of discharges."""
    samples_per_step: int
    channel_labels: tuple[str, ...]
    config: Mapping[str, Any]
    """Settings it was made with."""

    def __len__(self) -> int:
        return len(self.recordings)

    @property
    def people(self) -> frozenset[int]:
        """Seeds of the people in it."""
        return frozenset(recorded.person for recorded in self.recordings)

    @property
    def references(self) -> frozenset[int]:
        """Seeds of the references in it."""
        return frozenset(recorded.reference_seed for recorded in self.recordings)

    def select(
        self,
        split: str | None = None,
        people: Collection[int] | None = None,
        condition: str | None = None,
        kind: str | None = None,
    ) -> Dataset:
        """The recordings that are all of this; None: whatever.

        Args:
          split: one of SPLITS.
          people: their seeds.
          condition: a name that the recording has, at any strength, or "healthy".
          kind: of the reference.

        Raises MyoloopError: an unknown split, kind, person or condition. A known one may give an empty dataset.
        """
        conditions = {HEALTHY, *self.config["conditions"]}
        for what, name, known in (
            ("split", split, SPLITS),
            ("condition", condition, conditions),
            ("reference kind", kind, {*KINDS, *self.config["kinds"]}),
        ):
            if name is not None and name not in known:
                raise unknown_name(what, name, known, str(self.folder))
        strangers = sorted(set(people or ()) - self.people)
        if strangers:
            raise MyoloopError(
                f"{self.folder}: no recording here of person {strangers[0]}; there are {_some(sorted(self.people))}."
            )

        def wanted(one: Recorded) -> bool:
            return (
                (split is None or one.split == split)
                and (people is None or one.person in people)
                and (kind is None or one.kind == kind)
                and (condition is None or condition in (one.conditions or {HEALTHY: 0.0}))
            )

        return replace(self, recordings=tuple(one for one in self.recordings if wanted(one)))

    def read(self, recording: int, name: str, first: int = 0, steps: int | None = None) -> np.ndarray:
        """An array of a recording, from control step `first` on for `steps` steps (None: to the end); see LAYOUT for its axes,
        unit and type. Discharges are not cut by steps: see `spikes`.

        Raises MyoloopError: unknown array, steps that the recording does not have, a missing or damaged shard.
        """
        layout, one = array_layout(name), self._one(recording)
        if layout.dims[0] == "discharges" and (first or steps is not None):
            raise MyoloopError(f"{name} has a row per discharge, not per step; read all of it, or use spikes().")
        steps = self.steps - first if steps is None else steps
        if first < 0 or steps < 1 or first + steps > self.steps:
            raise MyoloopError(
                f"{one.path.name}, {one.group}: steps {first} to {first + steps} asked for; it has 0 to {self.steps}."
            )
        each = self.samples_per_step if layout.dims[0] == "samples" else 1
        rows = slice(None) if layout.dims[0] == "discharges" else slice(first * each, (first + steps) * each)
        file = _opened(one.path, _stamp(one.path))
        with reading(one.path):
            return np.asarray(file[one.group][name][rows])

    def spikes(self, recording: int) -> Spikes:
        """All discharges of a recording."""
        muscle, unit, sample = (self.read(recording, f"spikes_{name}") for name in ("muscle", "unit", "sample"))
        return Spikes(muscle, unit, sample / self.internal_rate_hz)

    def windows(self, steps: int | None = None, hop: int | None = None) -> Iterator[Window]:
        """Stretches of `steps` control steps, beginning every `hop` (default: without overlap), of one recording after the
        other; None: whole recordings. The rest of a recording that fills no window is left out."""
        length = self.steps if steps is None else steps
        hop = length if hop is None else hop
        if not 0 < length <= self.steps or hop < 1:
            raise MyoloopError(
                f"windows of {length} steps every {hop} asked for; recordings have {self.steps}, and a hop is 1 or more."
            )
        for recording, one in enumerate(self.recordings):
            for first in range(0, self.steps - length + 1, hop):
                emg, labels = (self.read(recording, name, first, length) for name in ("emg", "labels"))
                yield Window(one, first, emg, labels.astype(np.float32))

    def crops(self, rng: np.random.Generator, count: int, steps: int, target: str = "flexed") -> Recordings:
        """`count` random stretches of `steps` control steps of random recordings: emg (count, samples, channels) and labels
        (count, steps, 5), 0 or 1; with target "flexion" the flexion asked for, 0 to 1."""
        self._filled()
        asked = _ASKED[target]
        if not 0 < steps <= self.steps:
            raise MyoloopError(f"crops of {steps} steps asked for; recordings have {self.steps}.")
        which = rng.integers(len(self.recordings), size=count)
        starts = rng.integers(self.steps - steps + 1, size=count)
        order = np.argsort(which, kind="stable")  # one shard after the other
        emg: list[Any] = [None] * count
        labels: list[Any] = [None] * count
        for n in order:
            recording, first = int(which[n]), int(starts[n])
            emg[n] = self.read(recording, "emg", first, steps)
            labels[n] = self.read(recording, asked, first, steps).astype(np.float32)
        return Recordings(np.stack(emg), np.stack(labels))

    def load(self, target: str = "flexed") -> Recordings:
        """All of them in memory: emg (recordings, samples, channels) and labels (recordings, steps, 5), as of `crops`."""
        self._filled()
        emg = np.empty((len(self), self.steps * self.samples_per_step, len(self.channel_labels)), np.float32)
        labels = np.empty((len(self), self.steps, 5), np.float32)
        for recording in range(len(self)):
            emg[recording], labels[recording] = self.read(recording, "emg"), self.read(recording, _ASKED[target])
        return Recordings(emg, labels)

    def _one(self, recording: int) -> Recorded:
        if not 0 <= recording < len(self.recordings):
            raise MyoloopError(f"{self.folder}: recording {recording} asked for; there are 0 to {len(self) - 1} here.")
        return self.recordings[recording]

    def _filled(self) -> None:
        if not self.recordings:
            raise MyoloopError(f"{self.folder}: no recordings were selected, so there is nothing to learn from.")


class FromDisk(NamedTuple):
    """A dataset as a source of crops (learn.supervised.Source): read from disk when they are asked for."""

    dataset: Dataset
    target: str = "flexed"
    """Of decoder.contract.TARGETS."""

    def crops(self, rng: np.random.Generator, count: int, steps: int) -> Recordings:
        """As Dataset.crops."""
        return self.dataset.crops(rng, count, steps, self.target)


class Splits(NamedTuple):
    """A dataset by what its recordings are for; any of them may be empty."""

    training: Dataset
    validation: Dataset
    test: Dataset
    """New people, new references."""
    test_same_people: Dataset
    """People of training, new references."""


def load_dataset(folder: str | Path, partial: bool = False) -> Dataset:
    """A dataset's recordings; every shard is opened, none is read.

    Args: partial: take what there is, if shards are missing (a dataset still being recorded).

    Raises MyoloopError: not a dataset, another version of the layout, missing shards, a truncated, damaged or foreign one.
    """
    index = read_index(folder)
    if index.missing and not partial:
        raise MyoloopError(
            f"{index.folder}: {len(index.missing)} of {len(index.shards)} shards are missing: {_some(index.missing)}. Record "
            "them with training/dataset.py --resume, copy them again, or load what there is with partial=True."
        )
    recordings: list[Recorded] = []
    left_out, about = 0, {}
    for shard in index.shards:
        path = index.folder / shard["file"]
        if shard["file"] in index.missing:
            continue
        with open_shard(path, index) as file, reading(path):
            about = dict(file.attrs)
            kept = [_recorded(path, name, group) for name, group in file.items() if not group.attrs["diverged"]]
            left_out += len(file) - len(kept)
            recordings += kept
    if not about:
        raise MyoloopError(f"{index.folder}: no shard is complete yet. Record them: training/dataset.py --resume.")
    return Dataset(
        folder=index.folder,
        recordings=tuple(recordings),
        left_out=left_out,
        steps=round(index.config["seconds"] * index.config["control_hz"]),
        rate_hz=float(about["rate_hz"]),
        control_hz=float(about["control_hz"]),
        internal_rate_hz=float(about["internal_rate_hz"]),
        samples_per_step=int(about["samples_per_step"]),
        channel_labels=tuple(str(label) for label in about["channels"]),
        config=index.config,
    )


def splits(dataset: Dataset) -> Splits:
    """What to learn from, to choose by and to test on; refused where they share references, or people they must not."""
    found = Splits(*(dataset.select(split=name) for name in SPLITS))
    check_apart(found.training, found.validation, people=dataset.config["validation_people"] > 0)
    check_apart(found.training, found.test)
    check_apart(found.training, found.test_same_people, people=False)
    check_apart(found.validation, found.test)
    check_apart(found.validation, found.test_same_people, people=False)
    return found


def check_apart(training: Dataset, other: Dataset, people: bool = True) -> None:
    """Refuses, by MyoloopError, to test on what was learned from; the two may come from different folders.

    Args: people: whether the people must differ, too, and not only the references.
    """
    where = f"{training.folder} (to learn from) and {other.folder}"
    shared = sorted(training.references & other.references)
    if shared:
        raise MyoloopError(
            f"{where} share references of seed {_some(shared)}: what is measured on them says nothing about new motions. "
            "Leave them out of one, or record with another reference_seed."
        )
    known = sorted(training.people & other.people)
    if people and known:
        raise MyoloopError(
            f"{where} share the people {_some(known)}: what is measured on them says nothing about new people. Select "
            "others, or compare with people=False if only the motion should be new."
        )


def _recorded(path: Path, name: str, group: h5py.Group) -> Recorded:
    about = group.attrs
    return Recorded(
        path=path,
        group=name,
        split=str(about["split"]),
        person=int(about["person"]),
        figures={figure: float(about[figure]) for figure in FIGURES},
        donning=int(about["donning"]),
        conditions=json.loads(about["conditions"]),
        kind=str(about["kind"]),
        reference_seed=int(about["reference_seed"]),
        reference_index=int(about["reference_index"]),
        noise_seed=int(about["noise_seed"]),
        policy=str(about["policy"]),
    )


@functools.lru_cache(maxsize=32)
def _opened(path: Path, stamp: tuple[int, int]) -> h5py.File:
    """An open shard. stamp: a file that was replaced is opened anew."""
    return open_shard(path)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0  # open_shard says that it is missing
    return found.st_ino, found.st_mtime_ns


def _some(names: Collection[Any]) -> str:
    """The first few."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


__all__ = ["Dataset", "FromDisk", "Index", "Recorded", "Splits", "Window", "check_apart", "load_dataset", "splits"]
