"""`myoloop export dataset`: run folders, whose config.yaml tells who took part, become a dataset (docs/datasets.md)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from myoloop.assets import share_folders
from myoloop.body.names import JOINTS
from myoloop.emg.people import Person
from myoloop.errors import MyoloopError, unknown_name
from myoloop.experiment import Experiment, load_saved
from myoloop.learn.dataset_export import Cut, Taken, check_takes, cut, refuse_filled, units_of, write
from myoloop.learn.dataset_plan import SPLITS, Planned
from myoloop.live.person import participant_config, population_config
from myoloop.participant import ParticipantConfig
from myoloop.population_settings import TURNS
from myoloop.streams.xdf import read_participants, recording_files
from myoloop.task.motion_file import load_motion
from myoloop.task.recorded import finger_shares
from myoloop.task.reference import HELD_OUT_FROM, KINDS

CONFIG = "config.yaml"
"""The experiment in a run folder."""


class _Source(NamedTuple):
    """A recording on the command line, and who of it is exported."""

    path: Path
    name: str
    sent: tuple[str, ...]
    """Ids of everybody whose streams were recorded."""
    ids: tuple[str, ...]
    """Of those who are exported."""
    takes: tuple[Taken, ...]
    """One a participant."""


def export_dataset(
    recordings: Sequence[Path],
    out: Path,
    splits: Sequence[str] = (),
    seconds: float = 10.0,
    participants: Sequence[str] = (),
) -> list[str]:
    """Writes recorded sessions as a dataset of layout 1.

    Args:
      recordings: run folders, or .xdf files with the config.yaml of their session beside them.
      out: folder of the dataset; new or empty.
      splits: of SPLITS, one a recording; none: all are for training.
      seconds: length of the stretches that the sessions are cut into.
      participants: whom to export of a population, by id; none: all whose streams were recorded.

    Returns:
      What a user should be told: a line a participant and session, and what to mind.

    Raises:
      MyoloopError: the folder is filled; splits that are unknown, too many or too few, or share references or people; no
        config.yaml; an unknown participant; a recording that lacks a stream, is too short or of another device.
    """
    refuse_filled(out)
    splits = tuple(splits) or ("training",) * len(recordings)
    _check_splits(splits, recordings)
    sources = [_source(path, split, participants) for path, split in zip(recordings, splits, strict=True)]
    _check_ids(participants, sources)
    takes = [taken for source in sources for taken in source.takes]
    _check_seconds(seconds, takes)
    check_takes(takes)
    cuts, said = [], []
    for source in sources:
        for taken, session in zip(source.takes, read_participants(source.path, source.ids), strict=True):
            cuts.append(cut(taken, session, seconds))
            said += [_left(cuts[-1], seconds), *(f"{taken.name}: {note}" for note in session.notes)]
    settings = {
        "sessions": [source.name for source in sources],
        "splits": list(splits),
        "participants": list(participants),
    }
    write(out, cuts, seconds, settings)
    return said + _held_out(takes)


def _check_splits(splits: Sequence[str], recordings: Sequence[Path]) -> None:
    for split in splits:
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS, "--splits")
    if not recordings or len(splits) != len(recordings):
        raise MyoloopError(
            f"{len(recordings)} recordings and {len(splits)} --splits: expected a recording or more, and one split for each."
        )
    real = [path.resolve() for path in recordings]
    if twice := [path for path, r in zip(recordings, real, strict=True) if real.count(r) > 1]:
        raise MyoloopError(f"{twice[0]} is given {real.count(twice[0].resolve())} times: name each recording once.")


def _check_ids(participants: Sequence[str], sources: Sequence[_Source]) -> None:
    there = sorted({name for source in sources for name in source.sent})
    for name in participants:
        if name not in there:
            raise unknown_name("participant", name, there, "--participants")


def _check_seconds(seconds: float, takes: Sequence[Taken]) -> None:
    steps = seconds * takes[0].control_hz
    if not math.isfinite(steps) or round(steps) < 1 or abs(steps - round(steps)) > 1e-6:
        raise MyoloopError(
            f"--seconds {seconds:g} are {steps:g} control steps at {takes[0].control_hz:g} Hz; expected a whole number, 1 or "
            "more."
        )


def _source(path: Path, split: str, wanted: Sequence[str]) -> _Source:
    """Who of a recording is exported, by its config.yaml."""
    folder = path if path.is_dir() else path.parent
    if (folder / TURNS).is_file():
        raise MyoloopError(
            f"{path}: the folder of a population that came in turn; each has a session of its own. Give the folders in "
            f"{folder / 'participants'}."
        )
    recording_files(path)
    if not (folder / CONFIG).is_file():
        raise MyoloopError(
            f"{folder / CONFIG}: not there, and only it tells who took part. Give a run folder, or put the file beside "
            "the config.yaml of its session."
        )
    experiment = load_saved(folder / CONFIG)
    population = experiment.population
    me = experiment.participant.id
    config = participant_config(experiment) if population is None else population_config(experiment)
    names = [me] if population is None else population.names(me)
    sent = names if population is None else population.published(me)
    ids = [name for name in sent if not wanted or name in wanted]
    if not ids:
        raise MyoloopError(
            f"{path} holds the streams of {', '.join(sent) or 'nobody'}: expected one of {', '.join(wanted) or 'them'}. "
            "Name others with --participants, or leave this recording out."
        )
    name = _short(path)
    takes = tuple(
        _taken(f"{name}, {each}" if population else name, split, experiment, config, names.index(each)) for each in ids
    )
    return _Source(path, name, tuple(sent), tuple(ids), takes)


def _taken(name: str, split: str, experiment: Experiment, config: ParticipantConfig, number: int) -> Taken:
    """A participant of a session, by its place in the batch."""
    me, population, everybody = experiment.participant, experiment.population, _people(config)
    own = config.own_conditions[number] if config.own_conditions else {}
    index = number if population is not None and population.motion == "own" else 0
    asked = me.reference
    return Taken(
        name=name,
        recording=Planned(
            split=split,
            person=everybody[number],
            donning=0,
            kind=asked.kind,
            reference_seed=asked.seed,
            reference_index=index,
            noise_seed=experiment.seed,
            conditions={k: float(s) for k, s in {**config.conditions, **own}.items() if s},
        ),
        band=config.armband,
        control_hz=me.control_hz,
        policy=_shipped(me.policy) + (" (went on learning)" if me.adapt else ""),
        motion=f"the motion of {asked.path}" if asked.path else f"{asked.kind} references of seed {asked.seed}",
        share=_share(experiment),
        units=units_of(everybody),
    )


def _people(config: ParticipantConfig) -> tuple[Person, ...]:
    """Everybody in a session's batch."""
    return config.people or (Person(dataclasses.replace(config.anatomy, seed=config.person), config.armband),)


def _share(experiment: Experiment) -> np.ndarray:
    """(23, 5) see task.recorded.finger_shares: a motion file may hold some joints only."""
    asked = experiment.participant.reference
    joints = load_motion(asked.path, asked.clip_deg).joints if asked.path else JOINTS
    return finger_shares([JOINTS.index(joint) for joint in joints])


def _left(each: Cut, seconds: float) -> str:
    """What became of a session."""
    emg, count = each.session.need("emg"), len(each.stretches)
    rest = len(emg.stamps) / emg.rate_hz - count * seconds
    return (
        f"{each.taken.name}: {count} x {seconds:g} s for {each.taken.recording.split}, {max(0.0, rest):.2f} s left out"
    )


def _held_out(takes: Sequence[Taken]) -> list[str]:
    """What to mind about references that nothing may learn from."""
    learned = {
        taken.recording.reference_seed
        for taken in takes
        if taken.recording.split in ("training", "validation") and taken.recording.kind in KINDS
    }
    if not (held := sorted(seed for seed in learned if seed >= HELD_OUT_FROM)):
        return []
    return [
        f"mind: reference seed {held[0]} is one that is held out for testing (from {HELD_OUT_FROM} on): a decoder that learns "
        "from this dataset must not be judged by a session with that seed"
    ]


def _short(path: Path) -> str:
    """A recording's name without what only this machine knows."""
    real, here = path.resolve(), Path.cwd().resolve()
    return str(real.relative_to(here)) if real.is_relative_to(here) else real.name


def _shipped(policy: str) -> str:
    """A policy's file as an experiment file would name it, if it ships."""
    for folder in share_folders():
        if Path(policy).is_relative_to(folder):
            return str(Path(policy).relative_to(folder))
    return policy
