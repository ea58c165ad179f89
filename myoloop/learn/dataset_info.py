"""What `myoloop dataset info` says about a dataset or one of its shards. Loads no JAX."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from myoloop.errors import MyoloopError
from myoloop.learn.dataset_file import LAYOUT, open_shard, read_index, reading


class _Totals(NamedTuple):
    """What was counted."""

    recordings: Counter[str]
    """By split."""
    people: dict[str, set[int]]
    references: dict[str, set[int]]
    seconds: dict[str, float]
    kinds: Counter[str]
    conditions: Counter[str]
    made_by: Counter[str]
    diverged: int


def describe(path: str | Path) -> str:
    """Lines about a dataset's folder, or about one shard and its arrays.

    Raises MyoloopError: neither of the two, damaged, or of another version of the layout. Missing shards are listed.
    """
    path = Path(path)
    if path.is_dir():
        return _describe_folder(path)
    if not path.exists():
        raise MyoloopError(f"{path}: no such file or folder. Give a dataset's folder, or one of its shards.")
    return _describe_shards([path], [f"shard {path}: {_megabytes([path])}"], arrays=True)


def _describe_folder(folder: Path) -> str:
    index = read_index(folder)
    there = [folder / shard["file"] for shard in index.shards if shard["file"] not in index.missing]
    for path in there:
        open_shard(path, index).close()
    head = [f"dataset {folder}: {len(there)} of {len(index.shards)} shards, {_megabytes(there)}"]
    if index.missing:
        head.append(f"missing: {', '.join(index.missing)} (record them with training/dataset.py --resume)")
    if not there:
        return "\n".join(head)
    return _describe_shards(there, head, arrays=False)


def _describe_shards(paths: list[Path], lines: list[str], arrays: bool) -> str:
    totals = _Totals(Counter(), {}, {}, {}, Counter(), Counter(), Counter(), 0)
    for path in paths:
        with open_shard(path) as file, reading(path):
            about = dict(file.attrs)
            config = json.loads(about["config"])
            totals = _counted(totals, file)
            title = next(iter(file))
            shapes = [
                f"  {name:<14} {file[title][name].shape!s:<14} {layout.dtype:<8} {layout.unit}: {layout.meaning}"
                for name, layout in LAYOUT.items()
            ]
    band = json.loads(about["armband"])
    lines += [
        f"armband {band['name']}: {len(about['channels'])} channels at {about['rate_hz']:g} Hz; control steps at "
        f"{about['control_hz']:g} Hz; driven by {config['policy']}",
        f"made by {'; '.join(totals.made_by)}",
        "",
        f"{'split':<18}{'recordings':>11}{'people':>8}{'references':>12}{'minutes':>9}",
    ]
    for split in totals.recordings:
        lines.append(
            f"{split:<18}{totals.recordings[split]:>11}{len(totals.people[split]):>8}{len(totals.references[split]):>12}"
            f"{totals.seconds[split] / 60:>9.1f}"
        )
    lines += ["", f"references: {_listed(totals.kinds)}", f"conditions: {_listed(totals.conditions)}"]
    if totals.diverged:
        lines.append(f"physics failed in {totals.diverged} recordings: the loader leaves them out")
    if arrays:
        lines += ["", f"arrays of {title}:", *shapes]
    return "\n".join(lines)


def _counted(totals: _Totals, file: h5py.File) -> _Totals:
    made: dict[str, Any] = json.loads(file.attrs["made_by"])
    totals.made_by[", ".join(f"{name} {version}" for name, version in made.items())] += 1
    diverged = totals.diverged
    for group in file.values():
        split = str(group.attrs["split"])
        totals.recordings[split] += 1
        totals.people.setdefault(split, set()).add(int(group.attrs["person"]))
        totals.references.setdefault(split, set()).add(int(group.attrs["reference_seed"]))
        seconds = len(group["labels"]) / float(file.attrs["control_hz"])
        totals.seconds[split] = totals.seconds.get(split, 0.0) + seconds
        totals.kinds[str(group.attrs["kind"])] += 1
        totals.conditions.update(json.loads(group.attrs["conditions"]).keys() or ["healthy"])
        diverged += bool(group.attrs["diverged"])
    return totals._replace(diverged=diverged)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _megabytes(paths: list[Path]) -> str:
    return f"{sum(path.stat().st_size for path in paths) / 1e6:.1f} MB"
