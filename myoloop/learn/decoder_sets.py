"""What a decoder learns from, is chosen by and is judged on: recorded for it, or read from a dataset on disk. No reference that
it is judged on, and nobody of the new people, has taught it anything."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from myoloop.assets import POLICY
from myoloop.decoder import networks
from myoloop.emg.armband import armband
from myoloop.errors import MyoloopError
from myoloop.learn.collect import Block, collect
from myoloop.learn.dataset import Dataset, FromDisk, load_dataset, splits
from myoloop.learn.dataset_plan import DatasetConfig
from myoloop.learn.supervised import Recordings, Source
from myoloop.participant import ParticipantConfig
from myoloop.task.reference import held_out_seed


@dataclass(frozen=True)
class RecordingConfig:
    """Recordings of one person, made for a decoder."""

    armband: str = "semg_rd16"
    """Armband preset that the participant wears."""
    person: int = 0
    """Seed of the participant's anatomy: the decoder is made for this one."""
    policy: str = POLICY
    """Who drives the muscles while recording: a policy's file, or "baseline"."""
    discrete: int = 28
    """Recordings with discrete references to train on."""
    continuous: int = 12
    """Recordings with continuous references to train on."""
    validation: int = 6
    """Recordings with discrete references that choose the best state."""
    test: int = 12
    """Recordings per kind of held-out references."""
    seconds: float = 60.0
    """Length of each recording, s."""
    reference_seed: int = 1000
    """Seed of the first reference; training uses this and the next, validation the one after."""


class Sets(NamedTuple):
    """Recordings by what they are for."""

    training: Source
    validation: Recordings
    tests: dict[str, Recordings]
    """By name; the decoder is judged by the first. Empty where none were asked for."""
    facts: dict[str, str]
    """Rows of a model card."""
    who: str
    """Whose EMG it is."""


def recorded(config: RecordingConfig, target: str, on_second: Callable[[str, float], None]) -> Sets:
    """Recordings of one person.

    Args:
      target: of decoder.contract.TARGETS.
      on_second: called with the name of the set at work and the participant seconds since the last call.
    """
    seed, seconds = config.reference_seed, config.seconds
    blocks = {
        "training": (
            Block("discrete", seed, config.discrete, seconds),
            Block("continuous", seed + 1, config.continuous, seconds),
        ),
        "validation": (Block("discrete", seed + 2, config.validation, seconds),),
        "held-out discrete": (Block("discrete", held_out_seed(100), config.test, seconds),),
        "held-out continuous": (Block("continuous", held_out_seed(101), config.test, seconds),),
    }
    band = armband(config.armband)
    who = ParticipantConfig(armband=band, person=config.person, policy=config.policy)
    data = {}
    for name, each in blocks.items():
        split = "held_out" if name.startswith("held-out") else "training"
        used = tuple(block for block in each if block.recordings)
        if not used and split == "held_out":
            continue
        if not used:
            raise MyoloopError(f"no recordings for {name}: ask for at least one (--discrete, --validation).")
        data[name] = collect(who, used, split, lambda done, name=name: on_second(name, done), target)  # type: ignore[misc]
    minutes = (config.discrete + config.continuous) * seconds / 60
    facts = {
        "participant": f"person {config.person} with `{config.armband}`, {band.channels} channels at {band.rate_hz:g} Hz",
        "driven by": config.policy,
        "training": f"{minutes:.0f} participant-minutes: {config.discrete} recordings of discrete references (seed {seed}), "
        f"{config.continuous} of continuous ones (seed {seed + 1}), {seconds:g} s each",
        "validation": f"{config.validation} recordings of discrete references (seed {seed + 2})",
        "test": f"{config.test} recordings each of held-out discrete and continuous references (seeds {held_out_seed(100)}, "
        f"{held_out_seed(101)})",
    }
    tests = {name: data[name] for name in list(blocks)[2:] if name in data}
    return Sets(data["training"], data["validation"], tests, facts, f"person {config.person}")


def seconds_of(config: RecordingConfig) -> float:
    """Participant seconds that `recorded` records."""
    return (config.discrete + config.continuous + config.validation + 2 * config.test) * config.seconds


def from_dataset(folder: str | Path, target: str) -> Sets:
    """A dataset's splits; what is trained on stays on disk.

    Raises MyoloopError: what `load_dataset` and `splits` refuse, or a split that is empty but for the tests.
    """
    data = splits(load_dataset(folder))
    for name in ("training", "validation"):
        if not len(getattr(data, name)):
            raise MyoloopError(f"{folder}: no recordings for {name}; {_how(data.training.config, name)}.")
    many, config = len(data.training.people), data.training.config
    parts = {
        "new people": data.test,
        "people of training" if many > 1 else "held-out references": data.test_same_people,
    }
    tests = {name: part.load(target) for name, part in parts.items() if len(part)}
    if not tests:
        raise MyoloopError(f"{folder}: no recordings to test on; {_how(config, 'test_same_people')}.")
    seed = f", dataset seed {config['seed']}" if "seed" in config else ""
    asked = "of other references than training's" if _exported(config) else "of held-out references"
    facts = {
        "dataset": f"`{command_of(folder, config)}`",
        "participants": f"{many} {'people' if many > 1 else 'person'} with `{config['armband']}`, "
        f"{len(data.training.channel_labels)} channels at "
        f"{data.training.rate_hz:g} Hz{seed}",
        "driven by": str(config["policy"]),
        "training": f"{_minutes(data.training):.0f} participant-minutes: {len(data.training)} recordings of "
        f"{data.training.steps / data.training.control_hz:g} s, {' and '.join(config['kinds'])} references",
        "validation": f"{len(data.validation)} recordings, other references, {_whose(data.validation, data.training)}",
        "test": "; ".join(f"{name}: {len(part)} recordings" for name, part in parts.items() if len(part))
        + f", all {asked}",
    }
    who = f"{many} people" if many > 1 else f"person {next(iter(data.training.people))}"
    return Sets(FromDisk(data.training, target), data.validation.load(target), tests, facts, who)


def command_of(folder: str | Path, config: Mapping[str, Any]) -> str:
    """What made a dataset of these settings."""
    if _exported(config):
        given = {key: config[key] for key in ("splits", "participants", "seconds") if config[key]}
        settings = [f"--{key} {_words(value)}" for key, value in given.items()]
        return f"myoloop export dataset {_words(config['sessions'])} --out {folder} {' '.join(settings)}"
    default = dataclasses.asdict(DatasetConfig())
    settings = [
        f"--{key.replace('_', '-')} {_words(value)}" for key, value in config.items() if value != _listed(default[key])
    ]
    return f"python training/dataset.py --out {folder} {' '.join(settings)}"


def check_fits(network: networks.Config, dataset: Dataset) -> None:
    """Refuses a dataset of another armband than the decoder reads."""
    found = (len(dataset.channel_labels), dataset.rate_hz, dataset.samples_per_step)
    if found != (network.channels, network.rate_hz, network.samples_per_call):
        raise MyoloopError(
            f"{dataset.folder} holds {found[0]} channels at {found[1]:g} Hz, a label every {found[2]} samples; the decoder "
            f"reads {network.channels} at {network.rate_hz:g} Hz, {network.samples_per_call} a call: name the dataset's "
            f"armband ('{dataset.config['armband']}'), or record another dataset."
        )


def _exported(config: Mapping[str, Any]) -> bool:
    """Whether the dataset was made of recorded sessions."""
    return "sessions" in config


def _how(config: Mapping[str, Any], split: str) -> str:
    """How a dataset gets recordings of a split."""
    if _exported(config):
        return f"export a session for it, too (myoloop export dataset --splits ... {split})"
    return f"record some (training/dataset.py {'--test-people' if 'test' in split else '--help'})"


def _whose(part: Dataset, training: Dataset) -> str:
    return "the same people" if part.people <= training.people else f"{len(part.people)} other people"


def _listed(value: Any) -> Any:
    """As a JSON file has it."""
    return json.loads(json.dumps(value))


def _words(value: Any) -> str:
    """As on a command line."""
    if isinstance(value, dict):
        return " ".join(f"{key} {_words(each)}" for key, each in value.items())
    return " ".join(str(each) for each in value) if isinstance(value, list) else str(value)


def _minutes(dataset: Dataset) -> float:
    return len(dataset) * dataset.steps / dataset.control_hz / 60
