"""Recorded sessions as a dataset: cut into stretches of one length, written in the layout of dataset_file.py.

Who took part is for the caller to say (myoloop/export_dataset.py): a recording does not tell it.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import myoloop
from myoloop.checkpoint import write_atomically
from myoloop.emg.armband import Armband
from myoloop.emg.motor_units import build_pool
from myoloop.emg.people import Person
from myoloop.errors import MyoloopError
from myoloop.learn.dataset_file import FIGURES, INDEX, UNFINISHED, Index, ShardWriter, index_content, shard_attributes
from myoloop.learn.dataset_plan import Planned, attributes
from myoloop.streams.aligned import EVERY_STEP, Steps, unbroken, whole_steps, without
from myoloop.streams.xdf import XdfSession
from myoloop.task.recorded import flexion_of

_CHOOSE = ("training", "validation")


class Taken(NamedTuple):
    """One participant of one session."""

    name: str
    """What messages call it."""
    recording: Planned
    """What it is for, and what its first stretch says of itself."""
    band: Armband
    """What it wears."""
    control_hz: float
    policy: str
    """Who drove the muscles."""
    motion: str
    """Kind and seed of the reference, or its file: who follows the same motion has the same."""
    share: np.ndarray
    """(23, 5) what a joint counts in a finger's flexion: task.recorded.finger_shares."""
    units: np.ndarray
    """(26,) motor units of each muscle, as the session numbered them."""


class Stretch(NamedTuple):
    """A recording of the dataset to be."""

    first: int
    """Its first step, counted in `Steps`."""
    conditions: Mapping[str, float]
    noise_seed: int


class Cut(NamedTuple):
    """A session and what of it is exported."""

    taken: Taken
    session: XdfSession
    steps: Steps
    stretches: tuple[Stretch, ...]


def units_of(people: Sequence[Person]) -> np.ndarray:
    """(26,) motor units of each muscle in a batch of these people, who are filled up to the largest."""
    return np.max([np.bincount(build_pool(person.config).muscle) for person in people], axis=0)


def check_takes(takes: Sequence[Taken]) -> None:
    """Refuses, by MyoloopError, sessions that do not go into one dataset.

    They must wear the same armband and step at one rate. Of what is learned from, chosen by and tested on no two may share a
    reference, and a test no person with the others, as `learn.dataset.splits` has it.
    """
    first = takes[0]
    for taken in takes[1:]:
        ours, theirs = _device(first), _device(taken)
        if differ := [name for name in ours if ours[name] != theirs[name]]:
            told = ", ".join(f"{name} {theirs[name]} instead of {ours[name]}" for name in differ)
            raise MyoloopError(
                f"{taken.name} is of another device than {first.name}: {told}. Export them into datasets of their own."
            )
    for one, other in itertools.combinations(takes, 2):
        a, b = one.recording, other.recording
        if a.split == b.split or {a.split, b.split} == {"test", "test_same_people"}:
            continue
        both = f"{one.name} ({a.split}) and {other.name} ({b.split})"
        if one.motion == other.motion or a.reference_seed == b.reference_seed:
            what = one.motion if one.motion == other.motion else f"references of seed {a.reference_seed}"
            raise MyoloopError(
                f"{both} share {what}: what is measured on them says nothing about new motions. Name one split for "
                "both, or record a session with another participant.reference.seed."
            )
        if "test" in (a.split, b.split) and a.person.config.seed == b.person.config.seed:
            raise MyoloopError(
                f"{both} share person {a.person.config.seed}: what is measured on them says nothing about new people. "
                "Name the split test_same_people if only the motion should be new."
            )


def cut(taken: Taken, session: XdfSession, seconds: float) -> Cut:
    """The stretches of a session: whole control steps without a gap, a reset or a change of condition in them.

    Raises:
      MyoloopError: the recording lacks a stream, is of another device or person than its configuration says, or holds no
        stretch of this length.
    """
    _check_session(taken, session)
    steps, each = round(seconds * taken.control_hz), round(taken.band.rate_hz / taken.control_hz)
    changes = _changes(session, taken.recording)
    whole = without(whole_steps(session, each), [time for time, _ in changes])
    runs = unbroken(whole, each, taken.band.rate_hz)
    stretches = []
    for begin, length in runs:
        for first in range(begin, begin + length - steps, steps):  # one step more tells what is asked for at the end
            now = [state for time, state in changes if time < whole.stamps[first]]
            now = now or [Stretch(0, taken.recording.conditions, taken.recording.noise_seed)]
            stretches.append(now[-1]._replace(first=first))
    if not stretches:
        longest = max((length - 1 for _, length in runs), default=0) / taken.control_hz
        raise MyoloopError(
            f"{taken.name}: {max(0.0, longest):g} s are the longest piece whose last label is known; expected {seconds:g} s. "
            "Give fewer --seconds, or record a longer session."
        )
    return Cut(taken, session, whole, tuple(stretches))


def write(folder: Path, cuts: Sequence[Cut], seconds: float, settings: Mapping[str, Any]) -> None:
    """Writes a dataset, a shard a session; a folder of this name appears when it is complete.

    Args:
      folder: must not be there, or be empty.
      cuts: one or more, which `check_takes` lets pass.
      seconds: of a stretch.
      settings: what else dataset.json says of how it was made.

    Raises:
      MyoloopError: the folder is filled, or cannot be written.
    """
    refuse_filled(folder)
    folder = folder.absolute()
    shards = tuple(
        {"file": f"shard-{n:04d}.h5", "split": each.taken.recording.split, "recordings": len(each.stretches)}
        for n, each in enumerate(cuts)
    )
    made_by = {"exported by myoloop": myoloop.__version__}
    index = Index(folder, _config(cuts, seconds) | dict(settings), "", made_by, shards)
    unfinished = folder.with_name(f".{folder.name}{UNFINISHED}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        for shard, each in zip(shards, cuts, strict=True):
            _write_shard(unfinished / str(shard["file"]), each, index, round(seconds * each.taken.control_hz))
        write_atomically(unfinished / INDEX, index_content(index))
        unfinished.rename(folder)
    except OSError as error:
        raise MyoloopError(f"{folder}: cannot be written ({error}). Name another folder, or make room.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def refuse_filled(folder: Path) -> None:
    """Raises MyoloopError if there is something already."""
    if folder.exists() and not folder.is_dir():
        raise MyoloopError(f"{folder}: a file; expected a folder to export into. Name another.")
    if folder.is_dir() and (held := next(folder.iterdir(), None)) is not None:
        raise MyoloopError(f"{folder}: not empty (it holds {held.name}). Name a new or an empty folder.")


def _write_shard(path: Path, each: Cut, index: Index, steps: int) -> None:
    taken, samples = each.taken, round(each.taken.band.rate_hz / each.taken.control_hz)
    delay_s = float(each.session.streams["spikes"].about("desc", "muap_delay_s") or 0.0)
    recorded_by = {"myoloop": each.session.need("emg").about("desc", "version") or "unknown"}
    about = shard_attributes(
        index._replace(made_by=recorded_by | index.made_by),
        taken.band,
        taken.control_hz,
        round(delay_s * taken.band.internal_rate_hz),
    )
    described = [
        attributes(taken.recording._replace(conditions=s.conditions, noise_seed=s.noise_seed), taken.policy)
        for s in each.stretches
    ]
    with ShardWriter(path, about, described, samples * steps, steps, "export again") as file:
        for number, stretch in enumerate(each.stretches):
            for name, rows in _arrays(each, stretch.first, steps, samples).items():
                file.append(number, name, rows)


def _arrays(each: Cut, first: int, count: int, samples: int) -> dict[str, np.ndarray]:
    """All arrays of a stretch.

    A session stamps what a step was asked for with the end of its EMG, though it was asked for at the step's beginning; what is
    asked for at its end stands in the next one. Joint angles are of the step's end.
    """
    taken, streams, steps = each.taken, each.session.streams, each.steps
    here, after = slice(first, first + count), slice(first + 1, first + 1 + count)

    def rows(stream: str, of: slice) -> np.ndarray:
        return np.asarray(streams[stream].samples[steps.rows[stream][of]], np.float32)

    oldest = steps.newest[first] - (samples - 1)
    begin = steps.stamps[first] - (samples - 1) / taken.band.rate_hz
    sample = np.rint((streams["spikes"].stamps - begin) * taken.band.internal_rate_hz).astype(np.int64)
    fired = np.flatnonzero((sample >= 0) & (sample < count * samples * taken.band.decimation))
    fired = fired[np.argsort(sample[fired], kind="stable")]
    muscle, number = np.asarray(streams["spikes"].samples, np.int64)[fired].T
    return {
        "emg": np.asarray(streams["emg"].samples[oldest : oldest + count * samples], np.float32),
        "labels": (rows("target", after) > 0.5).astype(np.uint8),
        "flexion": np.asarray(flexion_of(np.deg2rad(rows("reference", after)), taken.share)),
        "angles_deg": rows("kinematics", here),
        "excitation": rows("excitation", here),
        "spikes_muscle": muscle.astype(np.uint8),
        "spikes_unit": (number - _first_units(taken.units)[muscle]).astype(np.uint16),
        "spikes_sample": sample[fired].astype(np.int32),
    }


def _first_units(units: np.ndarray) -> np.ndarray:
    """(26,) number of each muscle's first unit: a session counts them through all muscles."""
    return np.cumsum(units) - units


def _changes(session: XdfSession, begun: Planned) -> list[tuple[float, Stretch]]:
    """When something began that a stretch must not span, and what holds from then on."""
    now, found = Stretch(0, begun.conditions, begun.noise_seed), []
    for time, text in sorted(session.events, key=lambda event: event[0]):
        if condition := re.fullmatch(r"condition (\S+) ([0-9.eE+-]+)", text):
            name, strength = condition[1], float(condition[2])
            kept = {each: s for each, s in now.conditions.items() if each != name}
            now = now._replace(conditions=kept | ({name: strength} if strength else {}))
        elif reset := re.fullmatch(r"reset (\d+)", text):
            now = now._replace(noise_seed=int(reset[1]))
        elif text != "body diverged":
            continue
        found.append((time, now))
    return found


def _check_session(taken: Taken, session: XdfSession) -> None:
    """Refuses a recording that lacks something, or that its configuration does not describe."""
    needed = ("emg", *EVERY_STEP, "spikes")
    if missing := [name for name in needed if name not in session.streams]:
        raise MyoloopError(
            f"{taken.name}: the recording has no stream {', '.join(f'{session.participant}_{name}' for name in missing)}; "
            f"expected {', '.join(needed)}. Older versions of myoloop sent less: record the session again."
        )
    emg, band = session.need("emg"), taken.band
    found, expected = (emg.labels, emg.rate_hz), (tuple(band.channel_labels), float(band.rate_hz))
    if found != expected:
        raise MyoloopError(
            f"{taken.name}: the recording holds {len(found[0])} channels ({', '.join(found[0][:3])} ...) at {found[1]:g} Hz, "
            f"config.yaml says {len(expected[0])} ({', '.join(expected[0][:3])} ...) at {expected[1]:g} Hz. Put the file "
            "beside the config.yaml of its own session."
        )
    muscle, unit = np.asarray(session.streams["spikes"].samples, np.int64).reshape(-1, 2).T
    owner = np.repeat(np.arange(len(taken.units)), taken.units)
    if len(unit) and (unit.max() >= len(owner) or not np.array_equal(owner[unit], muscle)):
        raise MyoloopError(
            f"{taken.name}: the recorded discharges are of other motor units than person {taken.recording.person.config.seed} "
            "of its config.yaml has. Put the file beside the config.yaml of its own session."
        )


def _device(taken: Taken) -> dict[str, Any]:
    """What the sessions of a dataset must have in common: the armband but for where it sits, and the control rate."""
    band = {name: getattr(taken.band, name) for name in taken.band.__dataclass_fields__ if name not in FIGURES}
    return {**band, "control_hz": taken.control_hz}


def _config(cuts: Sequence[Cut], seconds: float) -> dict[str, Any]:
    """What dataset.json says of an exported dataset; lists and mappings as JSON gives them back."""
    takes = [each.taken for each in cuts]
    strengths: dict[str, list[float]] = {}
    for stretch in itertools.chain(*(each.stretches for each in cuts)):
        for name, strength in stretch.conditions.items():
            strengths.setdefault(name, []).append(strength)
    people = {split: {t.recording.person.config.seed for t in takes if t.recording.split == split} for split in _CHOOSE}
    others = people["validation"] if not people["validation"] & people["training"] else set()
    config = {
        "seconds": seconds,
        "control_hz": takes[0].control_hz,
        "armband": takes[0].band.name,
        "policy": ", ".join(dict.fromkeys(taken.policy for taken in takes)),
        "kinds": list(dict.fromkeys(taken.recording.kind for taken in takes)),
        "conditions": {name: [min(each), max(each)] for name, each in strengths.items()},
        "validation_people": len(others),
    }
    return dict(json.loads(json.dumps(config)))
