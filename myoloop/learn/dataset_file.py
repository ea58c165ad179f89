"""Datasets on disk: a folder with `dataset.json` and shards, HDF5 files of one group per recording (docs/datasets.md).

A shard is written under another name and renamed when it is complete, so that a file with a shard's name is a whole one;
every chunk of it carries a checksum. Loads no JAX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from myoloop.body.names import FINGERS, JOINTS, MUSCLES
from myoloop.emg.armband import Armband
from myoloop.errors import MyoloopError, unknown_name

MARK = "myoloop dataset"
LAYOUT_VERSION = 1
"""Raised when old files can no longer be read as new ones."""

INDEX = "dataset.json"
UNFINISHED = ".part"
"""Ending of a shard that is being written."""


class Layout(NamedTuple):
    """One array of a recording."""

    dims: tuple[str, ...]
    """What its axes count; sizes are in SIZES or the armband's."""
    dtype: str
    unit: str
    meaning: str


LAYOUT = {
    "emg": Layout(("samples", "channels"), "float32", "microvolts", "what the armband delivers"),
    "labels": Layout(("steps", "fingers"), "uint8", "0 or 1", "1: asked to be flexed at the end of the step"),
    "flexion": Layout(("steps", "fingers"), "float32", "0 to 1", "flexion asked for at the end of the step"),
    "angles_deg": Layout(("steps", "joints"), "float32", "degrees", "joint angles reached at the end of the step"),
    "excitation": Layout(("steps", "muscles"), "float32", "0 to 1", "neural drive held during the step"),
    "spikes_muscle": Layout(("discharges",), "uint8", "index", "whose unit fired: an index into `muscles`"),
    "spikes_unit": Layout(("discharges",), "uint16", "index", "unit of that muscle, in order of recruitment"),
    "spikes_sample": Layout(("discharges",), "int32", "samples", "when, at `internal_rate_hz` from the start"),
}
"""Arrays of a recording, by name. A step's samples are those of the control step: sample = step * samples_per_step."""

SIZES = {"fingers": len(FINGERS), "joints": len(JOINTS), "muscles": len(MUSCLES)}

FILE_ATTRIBUTES = {
    "mark": f'"{MARK}"',
    "layout": f"version of this layout: {LAYOUT_VERSION}",
    "complete": "true: the shard was written to its end",
    "rate_hz": "EMG samples per second",
    "internal_rate_hz": "rate at which discharges are timed, Hz",
    "control_hz": "control steps per second",
    "samples_per_step": "EMG samples of a control step",
    "muap_delay_samples": "internal samples between a discharge and the first effect of its MUAP",
    "channels": "labels of the EMG's columns",
    "fingers": "names of the columns of `labels` and `flexion`",
    "joints": "names of the columns of `angles_deg`",
    "muscles": "names of the columns of `excitation`",
    "armband": "the preset's fields, JSON; where it sits on a person is each recording's",
    "config": "settings of the whole dataset, JSON",
    "policy_sha256": "of the policy's file; empty for the baseline, and for exported sessions",
    "made_by": "versions of myoloop and its libraries, and the git revision where there was one, JSON",
}
"""Attributes of a shard."""

FIGURES = {
    "radius_mm": "of the forearm",
    "fat_mm": "thickness of the fat",
    "first_angle_deg": "of channel 1: 0 radial, 90 volar",
    "level": "of the armband: 0 elbow, 1 wrist",
    "velocity_mean": "conduction velocity, m/s",
    "units_scale": "part of the table's motor units",
    "zone_spread": "of the innervation zones, over the fibre length",
    "recruitment_range": "last threshold over the first",
    "last_recruited": "excitation that recruits the last unit",
    "min_rate_hz": "discharge rate at recruitment",
}
"""What was drawn of a person."""

RECORDING_ATTRIBUTES = {
    "split": "training, validation, test or test_same_people",
    "person": "seed of the person",
    **FIGURES,
    "donning": "how often this person had put the armband on anew",
    "conditions": "name -> strength 0..1, JSON; {}: healthy",
    "kind": "of the reference",
    "reference_seed": "its seed",
    "reference_index": "which of this seed's references",
    "noise_seed": "of noise and discharges",
    "policy": "who drove the muscles: a policy's file, or baseline",
    "diverged": "true: the physics failed and began again; the loader leaves the recording out",
}
"""Attributes of a recording."""


class ShardWriter:
    """Appends to the recordings of one shard; the file gets its name when it is complete.

    Example:
      with ShardWriter(path, about, recordings, samples=120_000, steps=3000) as shard:
          shard.append(0, "emg", chunk)

    Leaving the block by an exception deletes what was written.
    """

    def __init__(
        self,
        path: Path,
        about: Mapping[str, Any],
        recordings: Sequence[Mapping[str, Any]],
        samples: int,
        steps: int,
        again: str = "go on with --resume; finished shards are unharmed",
    ):
        """
        Args:
          path: of the finished shard.
          about: all of FILE_ATTRIBUTES but mark, layout and complete.
          recordings: RECORDING_ATTRIBUTES of each but diverged.
          samples, steps: how long each recording will be.
          again: what to do after a full disk.
        """
        self.path, self._again = path, again
        self._unfinished = path.with_name(f".{path.name}{UNFINISHED}")
        self._samples, self._steps = samples, steps
        with self._said():
            self._file = h5py.File(self._unfinished, "w")
            self._file.attrs.update({"mark": MARK, "layout": LAYOUT_VERSION, **about})
            self._arrays = []
            for number, attributes in enumerate(recordings):
                group = self._file.create_group(f"recording-{number:03d}")
                group.attrs.update({**attributes, "diverged": False})
                self._arrays.append({name: self._create(group, name) for name in LAYOUT})

    def append(self, recording: int, name: str, rows: np.ndarray) -> None:
        """Adds rows to an array of a recording."""
        array = self._arrays[recording][name]
        with self._said():
            array.resize(len(array) + len(rows), axis=0)
            array[len(array) - len(rows) :] = rows

    def diverged(self, recording: int) -> None:
        """Notes that the physics of a recording failed."""
        self._file[f"recording-{recording:03d}"].attrs["diverged"] = True

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._file.close()
            self._unfinished.unlink(missing_ok=True)
            return
        for number, arrays in enumerate(self._arrays):
            found = len(arrays["emg"]), len(arrays["labels"])
            assert found == (self._samples, self._steps), f"recording {number} has {found} samples and steps"
        with self._said():
            self._file.attrs["complete"] = True
            self._file.close()
            _to_disk(self._unfinished)
            os.replace(self._unfinished, self.path)
            _to_disk(self.path.parent)

    def _create(self, group: h5py.Group, name: str) -> h5py.Dataset:
        """An empty array. A second of EMG is a chunk: what a crop reads. EMG is noise, which compression makes 12 % smaller
        and four times as slow to read (measured); times of discharges become twenty times smaller."""
        layout = LAYOUT[name]
        sizes = SIZES | {"channels": len(self._file.attrs["channels"])}
        tail = tuple(sizes[dim] for dim in layout.dims[1:])
        second = round(float(self._file.attrs["rate_hz"]))
        rows = {"samples": min(second, self._samples), "steps": min(500, self._steps), "discharges": 16384}
        packed = {} if name == "emg" else {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        array = group.create_dataset(
            name,
            shape=(0, *tail),
            maxshape=(None, *tail),
            chunks=(rows[layout.dims[0]], *tail),
            dtype=layout.dtype,
            fletcher32=True,
            **packed,
        )
        array.attrs["unit"] = layout.unit
        for axis, dim in enumerate(layout.dims):
            array.dims[axis].label = dim
        return array

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """A full disk, or a folder that is gone, is an error that users understand."""
        try:
            yield
        except OSError as error:
            raise MyoloopError(
                f"{self.path}: cannot be written ({error}). Check the folder and the space on the disk, then {self._again}."
            ) from error


class Index(NamedTuple):
    """What dataset.json says."""

    folder: Path
    config: dict[str, Any]
    """Settings of the dataset, as JSON gives them."""
    policy_sha256: str
    made_by: dict[str, str]
    shards: tuple[dict[str, Any], ...]
    """Of every shard, also of those still to come: file, split, recordings (their number)."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of shards that are not there."""
        return tuple(shard["file"] for shard in self.shards if not (self.folder / shard["file"]).is_file())


def shard_attributes(index: Index, band: Armband, control_hz: float, muap_delay: int) -> dict[str, Any]:
    """What a shard says of itself: FILE_ATTRIBUTES but for mark, layout and complete.

    Args:
      index: of its dataset.
      band: what everybody in it wears.
      control_hz: control steps per second.
      muap_delay: internal samples between a discharge and the first effect of its MUAP.
    """
    return {
        "rate_hz": band.rate_hz,
        "internal_rate_hz": band.internal_rate_hz,
        "control_hz": control_hz,
        "samples_per_step": round(band.rate_hz / control_hz),
        "muap_delay_samples": muap_delay,
        "channels": list(band.channel_labels),
        "fingers": list(FINGERS),
        "joints": list(JOINTS),
        "muscles": list(MUSCLES),
        "armband": json.dumps(dataclasses.asdict(band)),
        "config": json.dumps(index.config),
        "policy_sha256": index.policy_sha256,
        "made_by": json.dumps(index.made_by),
    }


def index_content(index: Index) -> bytes:
    """dataset.json."""
    content = {"mark": MARK, "layout": LAYOUT_VERSION, **index._asdict()}
    del content["folder"]
    return (json.dumps(content, indent=1) + "\n").encode()


def read_index(folder: str | Path) -> Index:
    """What a dataset's folder should hold.

    Raises MyoloopError: no such folder, not a dataset, a damaged index, another version of the layout.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MyoloopError(f"{folder}: no such folder. Give the folder of a dataset (training/dataset.py makes one).")
    path = folder / INDEX
    if not path.is_file():
        raise MyoloopError(
            f"{folder}: no {INDEX} in it, so it is no dataset. Give a folder that training/dataset.py made."
        )
    try:
        found = json.loads(path.read_text())
        mark, version = found["mark"], found["layout"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise MyoloopError(f"{path}: damaged, or not of a dataset ({error!r}). Copy it again.") from error
    _check_mark(path, mark, version)
    try:
        shards = tuple({"file": str(s["file"]), "split": str(s["split"]), **s} for s in found["shards"])
        return Index(folder, dict(found["config"]), str(found["policy_sha256"]), dict(found["made_by"]), shards)
    except (KeyError, TypeError, ValueError) as error:
        raise MyoloopError(f"{path}: damaged: {error!r}. Copy it again.") from error


def open_shard(path: Path, index: Index | None = None) -> h5py.File:
    """A shard to read from, checked but for its numbers, whose checksums are looked at when they are read.

    Args: index: of the dataset that it should belong to.

    Raises MyoloopError: missing, truncated, damaged, unfinished, of another layout or of another dataset.
    """
    if not path.is_file():
        raise MyoloopError(f"{path}: this shard is missing. Copy it again, or record it: training/dataset.py --resume.")
    with reading(path):
        file = h5py.File(path, "r")
        attributes = dict(file.attrs)
    _check_mark(path, attributes.get("mark"), attributes.get("layout"))
    with reading(path):
        if not attributes.get("complete", False):
            raise KeyError("it was not written to its end")
        for name in FILE_ATTRIBUTES:
            attributes[name]
        for recording in file.values():
            for name in RECORDING_ATTRIBUTES:
                recording.attrs[name]
            for name, layout in LAYOUT.items():
                if recording[name].dtype != layout.dtype:
                    raise KeyError(f"{recording.name}/{name} holds {recording[name].dtype}, expected {layout.dtype}")
        config = json.loads(attributes["config"])
    if index is not None and (config, attributes["policy_sha256"]) != (index.config, index.policy_sha256):
        raise MyoloopError(
            f"{path}: this shard belongs to a dataset of other settings than {index.folder / INDEX} says. Delete it and "
            "run training/dataset.py --resume, or put it back where it came from."
        )
    return file


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What HDF5 says about a file that is cut off or damaged becomes an error that names the file."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        size = path.stat().st_size if path.is_file() else 0
        raise MyoloopError(
            f"{path}: truncated or damaged ({size} bytes): {error}. Copy it again, or delete it and record it anew: "
            "training/dataset.py --resume."
        ) from error


def array_layout(name: str) -> Layout:
    """The layout of an array; MyoloopError for a name that is not in it."""
    if name not in LAYOUT:
        raise unknown_name("array of a dataset", name, LAYOUT)
    return LAYOUT[name]


def _to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, would outlive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_mark(path: Path, mark: object, version: object) -> None:
    if mark != MARK:
        raise MyoloopError(f"{path}: not of a myoloop dataset. Give a folder or shard that training/dataset.py made.")
    if version != LAYOUT_VERSION:
        raise MyoloopError(
            f"{path}: dataset of layout {version}, this myoloop reads layout {LAYOUT_VERSION}. Use the myoloop that made "
            "it, or record it again (its settings are in its config)."
        )
