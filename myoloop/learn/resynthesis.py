"""The same movement, recorded otherwise: what participants do is kept once, and its EMG is synthesised again for other people,
placements and conditions, from the same excitations and with the same seeds. So cases differ in nothing but what they change.
The loop stays open: a tremor does not move the hand here, and nobody adapts to a decoder.

run, seeds = record_drive(band, recordings=6, seconds=20.0, reference=reference)
people = Population(band, EmgConfig())
cases = [Case("rotation", "", 15.0, "degrees", people.add("turned", lambda: build_emg(turned)))]
for case, recording, emg in resynthesise(people, cases, run, seeds): ...
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from myoloop.emg.armband import Armband
from myoloop.emg.conditions import Disorder, disordered, no_disorder, set_condition
from myoloop.emg.config import EmgConfig
from myoloop.emg.synthesis import Circumstances, EmgParams, healthy, init_emg, stack_params, synthesise
from myoloop.learn.collect import act_out
from myoloop.participant import ParticipantConfig, Participants
from myoloop.task.reference import ReferenceConfig

BATCH = 24
"""Participants synthesised at once."""
_STEPS = 50  # control steps per call: a second


class Case(NamedTuple):
    """One way in which a recording differs."""

    group: str
    name: str
    value: float
    unit: str
    person: str
    """Key of the person and the armband's place."""
    disturb: Callable[[Circumstances, Disorder], tuple[Circumstances, Disorder]] | None = None
    """Changes what comes and goes during a run."""


class Run(NamedTuple):
    """What was recorded."""

    excitation: np.ndarray
    """(steps, recordings, 39)"""
    labels: np.ndarray
    """(recordings, steps, 5), of the end of each step"""


@dataclass
class Population:
    """Persons by key, each built when first asked for."""

    band: Armband
    config: EmgConfig
    made: dict[str, EmgParams] = field(default_factory=dict)

    def add(self, key: str, make: Callable[[], EmgParams]) -> str:
        """Key of this person."""
        if key not in self.made:
            self.made[key] = make()
        return key


def without(
    band: Armband, count: int, first: int = 0
) -> Callable[[Circumstances, Disorder], tuple[Circumstances, Disorder]]:
    """`count` channels without contact, spread evenly over the band, channel `first` + 1 among them."""
    off = first + (np.arange(min(count, band.channels)) * band.channels / max(count, 1)).astype(int)
    off = off % band.channels

    def disturb(circumstances: Circumstances, disorder: Disorder) -> tuple[Circumstances, Disorder]:
        contact = np.array(circumstances.contact)
        contact[:, off] = 0.0
        return circumstances._replace(contact=contact), disorder  # type: ignore[arg-type]

    return disturb


def condition(
    band: Armband, name: str, strength: float
) -> Callable[[Circumstances, Disorder], tuple[Circumstances, Disorder]]:
    """A condition of the drive or the recording at a strength."""
    return lambda circumstances, disorder: set_condition(band, circumstances, disorder, name, strength)


def record_drive(
    band: Armband, recordings: int, seconds: float, reference: ReferenceConfig, person: int = 0
) -> tuple[Run, np.ndarray]:
    """What participants do on references, and the seeds of their EMG, one a recording."""
    participant = ParticipantConfig(armband=band, person=person, reference=reference)
    people = Participants(participant, participants=recordings)
    seeds = np.arange(recordings) + 7000
    steps = round(seconds * participant.control_hz)
    excitation, labels = act_out(people, seeds, steps, lambda act: act.excitation)
    return Run(np.stack(excitation), labels), seeds


def resynthesise(
    people: Population, cases: list[Case], run: Run, seeds: np.ndarray, control_hz: float = 50.0
) -> Iterator[tuple[int, int, np.ndarray]]:
    """(case, recording, EMG (samples, C) microvolts) of every case and recording."""
    keys = list(people.made)
    stacked = stack_params([people.made[key] for key in keys])
    arrays, muscle = jax.tree.map(np.asarray, stacked.replace(muscle=None)), stacked.muscle  # type: ignore[attr-defined]
    tasks = [(c, r) for c in range(len(cases)) for r in range(len(seeds))]
    samples = round(people.band.rate_hz / control_hz)
    for first in range(0, len(tasks), BATCH):
        part = tasks[first : first + BATCH]
        part += part[-1:] * (BATCH - len(part))
        who = np.array([keys.index(cases[c].person) for c, _ in part])
        params = jax.tree.map(lambda leaf, who=who: jnp.asarray(leaf[who]), arrays).replace(muscle=muscle)
        each = np.array([r for _, r in part])
        now = _together([_disturbed(params, cases[c]) for c, _ in part])
        state, chunks = init_emg(params, seeds[each]), []
        for start in range(0, len(run.excitation), _STEPS):
            drive = run.excitation[start : start + _STEPS, each]
            times = (np.arange(start, start + len(drive)) / control_hz).astype(np.float32)
            chunk, state = _stretch(params, state, drive, times, now, samples=samples)
            chunks.append(np.asarray(chunk))
        emg = np.concatenate(chunks).transpose(1, 0, 2, 3)
        for n in range(min(len(tasks) - first, BATCH)):
            yield part[n][0], part[n][1], emg[n].reshape(-1, people.band.channels)


def _disturbed(params: EmgParams, case: Case) -> tuple[Circumstances, Disorder]:
    """Of one participant."""
    calm = healthy(params, 1), no_disorder(1)
    return case.disturb(*calm) if case.disturb else calm


def _together(each: list[tuple[Circumstances, Disorder]]) -> tuple[Circumstances, Disorder]:
    return jax.tree.map(lambda *rows: np.concatenate([np.asarray(row) for row in rows]), *each)  # type: ignore


def _scan(  # type: ignore[no-untyped-def]
    params, state, drive: Array, times: Array, now: tuple[Circumstances, Disorder], samples: int
):
    """(steps, B, samples, C) and the state after them."""

    def step(state, each):  # type: ignore[no-untyped-def]
        excitation, time = each
        excitation = disordered(now[1], excitation, state.key, time)
        out, state = synthesise(params, state, excitation, samples, now[0])
        return state, out.chunk

    state, chunk = jax.lax.scan(step, state, (drive, times))
    return chunk, state


_stretch = jax.jit(_scan, static_argnames="samples")


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean over recordings and its 95 % confidence interval (Student's t), held to 0..1."""
    from scipy import stats

    mean = float(values.mean())
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return mean, max(mean - half, 0.0), min(mean + half, 1.0)
