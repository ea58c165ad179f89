"""Prompted gestures, as a calibration asks for them: named gestures, each held for a while, with rest between them.

    ref = make_reference(PromptsConfig({"rest": (0, 0, 0, 0, 0), "fist": (1, 1, 1, 1, 1)}))

The first gesture is the rest. A block asks for every other gesture once, in an order of its own, rest before each; when the
last block is over it all begins again. It plays as a recorded motion does (task/recorded.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np

from myoloop.body.names import FINGERS, JOINTS
from myoloop.errors import MyoloopError
from myoloop.task.recorded import GRID_HZ, Played, RecordedReference, finger_shares
from myoloop.task.reference import ReferenceConfig, posture


@dataclass(frozen=True)
class PromptsConfig:
    """Which gestures, how often, how long."""

    gestures: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Name of each gesture and its 5 labels, thumb to little, 1 = flexed; the first is the rest."""
    repetitions: int = 5
    """Blocks until it begins again."""
    hold_s: float = 3.0
    """Seconds that a gesture is held: LibEMG's own prompts last 3 s."""
    rest_s: float = 2.0
    """Seconds of rest before each."""
    seed: int = 0
    """Seed of the order inside the blocks; participants of one reference differ."""
    transition_s: float = ReferenceConfig.transition_s
    """Seconds that a change of posture takes, centred on the change of the labels."""

    def make(self, participants: int) -> RecordedReference:
        """See task.reference.make_reference.

        Raises:
          MyoloopError: less than a rest and a gesture, labels that are not five of 0 or 1, or times too short to move in.
        """
        _check(self, participants)
        played = Played(*_motion(self), True, finger_shares(list(range(len(JOINTS)))), ())
        places = [np.random.default_rng((self.seed, i)).uniform(0.0, played.length_s) for i in range(participants)]
        return RecordedReference(
            offset=jnp.asarray([0.0, *places[1:]], jnp.float32),
            since=jnp.full(participants, -1e6, jnp.float32),
            start=jnp.zeros((participants, len(JOINTS)), jnp.float32),
            held=jnp.full((participants, len(FINGERS)), jnp.nan, jnp.float32),
            played=played,
            transition_s=self.transition_s,
        )


def schedule(config: PromptsConfig) -> list[tuple[str, float]]:
    """Name and seconds of every prompt until it begins again."""
    rest, *gestures = config.gestures
    rng = np.random.default_rng(config.seed)
    prompts = []
    for _ in range(config.repetitions):
        for i in rng.permutation(len(gestures)):
            prompts += [(rest, config.rest_s)] * (config.rest_s > 0) + [(gestures[i], config.hold_s)]
    return prompts


def _motion(config: PromptsConfig) -> tuple[np.ndarray, np.ndarray]:
    """(frames, 23) rad and rad/s at GRID_HZ; raised cosines between the postures, over the end to the beginning too."""
    labels = [np.tile(config.gestures[name], (round(s * GRID_HZ), 1)) for name, s in schedule(config)]
    asked = np.concatenate(labels)
    width = round(config.transition_s * GRID_HZ)
    speed = np.sin(np.pi * (np.arange(width) + 0.5) / width)  # of a raised cosine
    wrapped = np.concatenate([asked[-width:], asked, asked[:width]])
    smooth = np.stack([np.convolve(finger, speed / speed.sum(), "same") for finger in wrapped.T], axis=1)
    qpos = np.asarray(posture(jnp.asarray(smooth[width:-width], jnp.float32)))
    return qpos, (np.roll(qpos, -1, axis=0) - np.roll(qpos, 1, axis=0)) * np.float32(GRID_HZ / 2)


def _check(config: PromptsConfig, participants: int) -> None:
    if len(config.gestures) < 2:
        raise MyoloopError(
            f"prompts need a rest and at least one gesture, found {len(config.gestures)}: give gestures like "
            "{rest: [0, 0, 0, 0, 0], fist: [1, 1, 1, 1, 1]}."
        )
    for name, labels in config.gestures.items():
        if len(labels) != len(FINGERS) or not set(labels) <= {0, 1}:
            raise MyoloopError(f"gesture '{name}' is {list(labels)}: expected 5 labels of 0 or 1, thumb to little.")
    shortest = 2 * config.transition_s
    if config.hold_s < shortest or 0 != config.rest_s < shortest:
        raise MyoloopError(
            f"hold_s is {config.hold_s:g}, rest_s {config.rest_s:g}: expected at least {shortest:g} s (a rest may also be 0), "
            f"since a change of posture takes {config.transition_s:g} s."
        )
    if participants < 1 or config.repetitions < 1 or config.seed < 0:
        raise MyoloopError(
            f"participants {participants}, repetitions {config.repetitions}, seed {config.seed}; expected at least 1, 1 and 0."
        )
