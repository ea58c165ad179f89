"""Small datasets for tests: recorded by quick people, or written without any."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from myoloop.emg.armband import armband
from myoloop.emg.conductor import Conductor
from myoloop.emg.config import EmgConfig
from myoloop.learn.dataset_file import INDEX, LAYOUT, SIZES, Index, ShardWriter, index_content, shard_attributes
from myoloop.learn.dataset_plan import DatasetConfig, attributes, plan

QUICK = DatasetConfig(
    seed=3,
    armband="myo8",
    people=2,
    recordings=2,
    validation_people=0,
    validation_recordings=1,
    test_people=0,
    test_recordings=1,
    seconds=1.2,
    kinds=("discrete",),
    conditions={"mains_hum": (0.5, 1.0), "ageing": (0.5, 1.0)},
    healthy=0.3,
    together=2,
    anatomy=EmgConfig(units_scale=0.05, conductor=Conductor(kind="half_space")),
)
"""Two people in four shards of two recordings."""


def write_dataset(folder: Path, config: DatasetConfig) -> Path:
    """A dataset of these settings that holds random numbers instead of recordings."""
    band, rng = armband(config.armband), np.random.default_rng(0)
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    shards = plan(config)
    listed = tuple({"file": s.name, "split": s.recordings[0].split, "recordings": len(s.recordings)} for s in shards)
    index = Index(folder, settings, "", {"myoloop": "0"}, listed)
    per_step = round(band.rate_hz / config.control_hz)
    about = shard_attributes(index, band, config.control_hz, muap_delay=0)
    sizes = SIZES | {"channels": band.channels, "steps": config.steps, "samples": config.steps * per_step}
    sizes["discharges"] = 7
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).write_bytes(index_content(index))
    for shard in shards:
        described = [attributes(planned, config.policy) for planned in shard.recordings]
        with ShardWriter(folder / shard.name, about, described, sizes["samples"], config.steps) as file:
            for number in range(len(shard.recordings)):
                for name, layout in LAYOUT.items():
                    values = rng.uniform(0, 2, [sizes[dim] for dim in layout.dims])
                    file.append(number, name, values.astype(layout.dtype))
    return folder
