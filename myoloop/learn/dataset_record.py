"""Record a dataset: shard by shard, second by second to the disk, and on again after a kill.

record_dataset("data/forearms", DatasetConfig(people=16))
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

import myoloop
from myoloop import checkpoint
from myoloop.assets import find_file
from myoloop.body.names import FOREARM_MUSCLES
from myoloop.emg.armband import armband
from myoloop.emg.circumstances import no_circumstances
from myoloop.emg.condition_names import PERSON
from myoloop.emg.conditions import no_disorder, set_condition
from myoloop.emg.params import EmgParams
from myoloop.emg.synthesis import Discharges, Spikes, block_samples
from myoloop.errors import MyoloopError
from myoloop.learn.collect import Played, play
from myoloop.learn.dataset_file import (
    INDEX,
    LAYOUT,
    UNFINISHED,
    Index,
    ShardWriter,
    index_content,
    open_shard,
    read_index,
    shard_attributes,
)
from myoloop.learn.dataset_plan import DatasetConfig, Shard, attributes, participant_config, plan, reference_config
from myoloop.participant import Participants
from myoloop.policy import BASELINE
from myoloop.task.reference import make_reference

LOCK = ".lock"
_LIBRARIES = ("jax", "numpy", "mujoco", "h5py")


def record_dataset(
    folder: str | Path,
    config: DatasetConfig,
    resume: bool = False,
    on_second: Callable[[float], None] = lambda seconds: None,
    on_shard: Callable[[Shard, bool], None] = lambda shard, recorded: None,
    threads: int = 0,
) -> Index:
    """Record every shard that is missing.

    Args:
      folder: where; made if it is not there.
      config: what. The same settings give the same arrays, byte by byte, on the same machine.
      resume: go on in a folder that holds some of the shards.
      on_second: called with the participant seconds recorded since the last call.
      on_shard: called when a shard is complete, and whether it was recorded now or before.
      threads: for the physics of engine `mujoco`; 0: all cores.

    Raises:
      MyoloopError: the folder holds something already (without `resume`), a dataset of other settings, a damaged shard, or
        another process records in it; settings that cannot be recorded; a full disk.
    """
    folder = Path(folder)
    shards = plan(config)
    index = Index(
        folder,
        json.loads(json.dumps(dataclasses.asdict(config))),
        _policy_sha256(config.policy),
        _made_by(),
        tuple({"file": s.name, "split": s.recordings[0].split, "recordings": len(s.recordings)} for s in shards),
    )
    _check_folder(folder, resume, index)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        for orphan in folder.glob(f".*{UNFINISHED}"):
            orphan.unlink()
        if not (folder / INDEX).exists():
            checkpoint.write_atomically(folder / INDEX, index_content(index))
        crew: tuple[Shard, Participants] | None = None
        for shard in shards:
            path = folder / shard.name
            if path.exists():
                open_shard(path, index).close()
                on_shard(shard, False)
                continue
            if crew is not None and not _same_crew(crew[0], shard):
                crew = None  # with what was compiled for them, 100 MB: the next people have other numbers of units
                jax.clear_caches()
            if crew is None:
                crew = shard, Participants(participant_config(config, shard), len(shard.recordings), threads)
            _record_shard(path, config, shard, crew[1], index, on_second)
            on_shard(shard, True)
    return index


def batch_discharges(params: EmgParams, spikes: Spikes) -> list[Discharges]:
    """`discharges` of every participant at once, but with `unit` counted within its muscle: that number does not depend
    on who else is in the batch."""
    when = np.asarray(spikes.when)
    who, block, nth, unit = np.nonzero(when >= 0)
    sample = when[who, block, nth, unit].astype(np.int64) + block * block_samples(params.band)
    order = np.lexsort((sample, who))  # stable, as `discharges` sorts
    who, unit, sample = who[order], unit[order], (sample + np.asarray(spikes.start)[who])[order]
    muscles = np.asarray(params.muscle)
    muscle = muscles[unit]
    unit = unit - np.searchsorted(muscles, np.arange(len(FOREARM_MUSCLES)))[muscle]
    ends = np.searchsorted(who, np.arange(1, len(when)))
    return [Discharges(*part) for part in zip(*(np.split(a, ends) for a in (unit, muscle, sample)), strict=True)]


def _record_shard(
    path: Path,
    config: DatasetConfig,
    shard: Shard,
    people: Participants,
    index: Index,
    on_second: Callable[[float], None],
) -> None:
    """From rest to the end; a second of everybody is in memory at a time."""
    _begin(people, config, shard)
    second, diverged = round(config.control_hz), np.zeros(len(shard.recordings), bool)
    described = [attributes(planned, config.policy) for planned in shard.recordings]
    samples = people.samples * config.steps
    band, delay = armband(config.armband), people.emg_params.muap_delay
    about = shard_attributes(index, band, config.control_hz, delay)
    with ShardWriter(path, about, described, samples, config.steps) as file:
        kept: list[list[dict[str, np.ndarray]]] = []
        for step, played in enumerate(play(people, config.steps, on_second), start=1):
            kept.append(_rows(people, played))
            diverged |= np.asarray(played.body.diverged)
            if step % second == 0 or step == config.steps:
                for number, steps in enumerate(zip(*kept, strict=True)):
                    for name in LAYOUT:
                        file.append(number, name, np.concatenate([rows[name] for rows in steps]))
                kept.clear()
        for failed in np.flatnonzero(diverged):
            file.diverged(int(failed))


def _begin(people: Participants, config: DatasetConfig, shard: Shard) -> None:
    """Everybody at rest, with the shard's references and each recording's own conditions."""
    people.reset([recording.noise_seed for recording in shard.recordings])
    band, moves = people.emg_params.band, people.emg_params.moves
    rows = []
    for recording in shard.recordings:
        now = no_circumstances(1, band.channels), no_disorder(1)
        for name, strength in recording.conditions.items():
            if name not in PERSON:
                now = set_condition(band, *now, name, strength, moves)
        rows.append(now)
    circumstances, disorder = jax.tree.map(lambda *leaves: np.concatenate(leaves), *rows)
    reference = make_reference(reference_config(config, shard), len(shard.recordings))
    start = {"reference": reference, "circumstances": circumstances, "disorder": disorder, "conditions": shard.illness}
    people.restore(people.save() | start)


def _rows(people: Participants, played: Played) -> list[dict[str, np.ndarray]]:
    """What a step adds to the arrays of each recording."""
    act, body = played.act, played.body
    angles = np.rad2deg(np.asarray(body.qpos)).astype(np.float32)
    return [
        {
            "emg": act.chunk[b],
            "labels": played.target[b : b + 1].astype(np.uint8),
            "flexion": played.flexion[b : b + 1],
            "angles_deg": angles[b : b + 1],
            "excitation": act.excitation[b : b + 1],
            "spikes_muscle": fired.muscle.astype(np.uint8),
            "spikes_unit": fired.unit.astype(np.uint16),
            "spikes_sample": fired.sample.astype(np.int32),
        }
        for b, fired in enumerate(batch_discharges(people.emg_params, act.spikes))
    ]


def _same_crew(built: Shard, shard: Shard) -> bool:
    """Whether the participants built for one shard can record another."""
    return (built.people, built.illness) == (shard.people, shard.illness)


def _made_by() -> dict[str, str]:
    """Versions worth knowing when the arrays are to be made again."""
    versions = {"myoloop": myoloop.__version__} | {name: metadata.version(name) for name in _LIBRARIES}
    revision = checkpoint.git_revision()
    return versions | ({"git": revision} if revision else {})


def _policy_sha256(policy: str) -> str:
    if policy == BASELINE:
        return ""
    return hashlib.sha256(Path(find_file(policy, kind="policy")).read_bytes()).hexdigest()


def _check_folder(folder: Path, resume: bool, wanted: Index) -> None:
    """Refuses a folder that is not empty, unless it holds the same dataset and `resume` is asked for."""
    if folder.exists() and not folder.is_dir():
        raise MyoloopError(f"{folder}: a file; expected a folder to record into. Name another.")
    held = sorted(path.name for path in folder.glob("[!.]*"))
    if not held:
        return
    if INDEX not in held:
        raise MyoloopError(f"{folder}: not empty, and no dataset (it holds {held[0]}). Name a new or an empty folder.")
    if not resume:
        raise MyoloopError(f"{folder}: holds a dataset already. Go on with --resume, or name another folder.")
    found = read_index(folder)
    ours = _flat(wanted.config) | {"policy's content": wanted.policy_sha256[:12]}
    theirs = _flat(found.config) | {"policy's content": found.policy_sha256[:12]}
    differ = [name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]
    if differ:
        listed = "; ".join(f"{name}: {theirs.get(name)!r} there, {ours.get(name)!r} asked" for name in differ)
        raise MyoloopError(
            f"{folder}: holds a dataset of other settings ({listed}). Resume with the settings it was begun with, or name "
            "another folder."
        )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process records in a folder; the lock goes with its process, however that ends."""
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise MyoloopError(
                f"{folder}: another process records here. Wait for it, or end it and use --resume."
            ) from error
        yield
