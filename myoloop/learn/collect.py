"""Make recordings to learn from: participants follow references, and their EMG is kept with what was asked of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from myoloop.body.engine import BodyState
from myoloop.errors import MyoloopError
from myoloop.learn.supervised import Recordings
from myoloop.participant import Act, ParticipantConfig, Participants
from myoloop.task.reference import ReferenceConfig


class Block(NamedTuple):
    """Recordings made together."""

    kind: str
    """Kind of the reference."""
    seed: int
    """Seed of the reference, and of noise and discharges."""
    recordings: int
    """How many, each with a reference of its own."""
    seconds: float
    """Length of each."""


def collect(
    config: ParticipantConfig,
    blocks: tuple[Block, ...],
    split: str = "any",
    on_second: Callable[[float], None] = lambda seconds: None,
    target: str = "flexed",
) -> Recordings:
    """Roll out every block and put the recordings after one another.

    Args:
      config: who is recorded, with which armband; its reference is replaced by the blocks'.
      blocks: what to record; all of one length. Different seeds give different references, noise and discharges.
      split: "training" or "held_out" refuses seeds of the other kind (task/reference.py).
      on_second: called with the participant seconds recorded since the last call.
      target: of decoder.contract.TARGETS: whether the labels are 0 and 1, or the flexion asked for.

    Raises:
      MyoloopError: a seed of the wrong split, blocks of different lengths, or two blocks with one seed and kind: they
        would be copies.
    """
    if len({block.seconds for block in blocks}) != 1:
        raise MyoloopError(f"recordings must have one length; found {sorted({b.seconds for b in blocks})} s.")
    if len({(block.kind, block.seed) for block in blocks}) != len(blocks):
        raise MyoloopError(f"two blocks with the same kind and seed would hold the same recordings: {blocks}.")
    parts = []
    for block in blocks:
        reference = ReferenceConfig(kind=block.kind, seed=block.seed, split=split)
        people = Participants(dataclasses.replace(config, reference=reference), participants=block.recordings)
        seeds = noise_seeds(block)
        parts.append(rollout(people, seeds, round(block.seconds * config.control_hz), on_second, target))
    return Recordings(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def rollout(
    people: Participants,
    seeds: np.ndarray,
    steps: int,
    on_second: Callable[[float], None] = lambda seconds: None,
    target: str = "flexed",
) -> Recordings:
    """EMG (B, steps x samples, channels) of `steps` control steps from rest, and the labels (B, steps, 5).

    The label of a step is the one asked for at its end, when its newest EMG sample is taken.
    """
    acts, labels = act_out(people, seeds, steps, lambda act: act.chunk, on_second, target)
    return Recordings(np.concatenate(acts, axis=1), labels)


def act_out(
    people: Participants,
    seeds: np.ndarray,
    steps: int,
    keep: Callable[[Act], np.ndarray],
    on_second: Callable[[float], None] = lambda seconds: None,
    target: str = "flexed",
) -> tuple[list[np.ndarray], np.ndarray]:
    """What `keep` takes of each of `steps` control steps from rest, and the labels (B, steps, 5) at their ends; with target
    "flexion" the flexion asked for."""
    people.reset(seeds)
    kept, labels = [], []
    for done in play(people, steps, on_second):
        kept.append(keep(done.act))
        labels.append(done.target if target == "flexed" else done.flexion)
    return kept, np.stack(labels, axis=1)


class Played(NamedTuple):
    """One control step, from its beginning to its end."""

    act: Act
    """What was decided and emitted."""
    body: BodyState
    """Where it led to: at the end."""
    target: np.ndarray
    """(B, 5) labels asked for at the end."""
    flexion: np.ndarray
    """(B, 5) flexion asked for at the end, 0..1."""


def play(
    people: Participants, steps: int, on_second: Callable[[float], None] = lambda seconds: None
) -> Iterator[Played]:
    """The next `steps` control steps. on_second: called with the participant seconds since the last call."""
    second = round(people.config.control_hz)
    act = people.act()
    for step in range(steps):
        body = people.move()
        coming = people.act()  # what is asked for at its beginning is asked for at the end of this one
        yield Played(act, body, coming.target, coming.reference)
        act = coming
        if (step + 1) % second == 0:
            on_second(float(people.participants))


def noise_seeds(block: Block) -> np.ndarray:
    """(recordings,) seeds of discharges and noise: different for all recordings of all blocks."""
    kind = {"continuous": 0, "discrete": 1}.get(block.kind, 2)
    words = np.random.SeedSequence([block.seed, kind]).generate_state(block.recordings)
    return words.astype(np.int64) % (2**31)
