"""How well participants use a decoder: without exploration, without pushes, on references that nobody was trained on.

The same step as a live session's (participant.py), many side by side, with the decoder in JAX instead of behind LSL and its
answer one control step old, as it is there when all goes well. What is asked is a reference, of which a participant is told
0.25 s ahead, or with `sudden_s` one gesture after the other that nobody could foresee, as in the motion test of Kuiken et al.
2009 (JAMA 301:619-628).
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from myoloop.body.model import Hand
from myoloop.body.names import FINGERS
from myoloop.decoder import networks
from myoloop.decoder.weights import DecoderWeights
from myoloop.errors import MyoloopError
from myoloop.learn.delay import whole_steps
from myoloop.learn.metrics import FlexionScores, Scores, score, score_flexion
from myoloop.participant import Act, ParticipantConfig, Participants
from myoloop.task.kinematics import build_kinematics, fingertips
from myoloop.task.reference import ReferenceConfig, held_out_seed
from myoloop.task.tracking import FINGER_JOINTS
from myoloop.task.trials import TrialRules, gesture_trials


@dataclass(frozen=True)
class UseConfig:
    """What is asked."""

    participants: int = 16
    """Side by side: one person, so many references."""
    seconds: float = 30.0
    """Length, s; the first second, in which the hand comes from rest, does not count."""
    kind: str = "discrete"
    """Of the references: discrete or continuous."""
    reference: int = 200
    """Number of the held-out reference seed."""
    noise: int = 0
    """Seed of discharges and noise."""
    told: bool = True
    """Whether the participants perceive the decoder's answers; else they work blindly (open loop)."""
    dwell_s: float = 0.2
    """s for which all five answers must stay right in a trial (task/trials.py)."""
    delay_s: float = 0.0
    """s by which answers are heard later than at the end of the step whose EMG they answer; whole control steps."""
    sudden_s: float = 0.0
    """s for which each of a row of random gestures is asked suddenly and held; also the time limit of a trial. 0: the reference
    is followed."""


class Use(NamedTuple):
    """How it went."""

    scores: Scores
    """Of the answers against what was asked at the steps' ends."""
    effort: float
    """Mean squared excitation of the 39 muscles."""
    joint_error_deg: float
    """Mean absolute error of the finger joints against the gesture asked for, degrees: what the movement lost."""
    keypoint_error_mm: float
    """Mean distance of the fingertips from where the gesture has them, millimetres."""
    trials: dict[str, Any]
    """task.trials.gesture_trials, over all participants."""
    excitation: np.ndarray
    """(steps, B, 39)"""
    odds: np.ndarray
    """(steps, B, 5) log-odds of the answers heard at the steps' ends."""
    labels: np.ndarray
    """(steps, B, 5)"""
    reached: np.ndarray
    """(steps, B, 23) joint angles at the steps' ends, rad."""
    wanted: np.ndarray
    """(steps, B, 23) what was asked for then, rad."""
    flexion: FlexionScores | None
    """Of the answers of a decoder of flexion against the flexion asked for; None for labels."""

    def figures(self) -> dict[str, Any]:
        """What a JSON file keeps."""
        return {
            "accuracy": round(self.scores.accuracy, 4),
            "accuracy_per_finger": [round(x, 4) for x in self.scores.accuracy_per_finger],
            "settled_accuracy": round(self.scores.settled_accuracy, 4),
            "loss": round(self.scores.loss, 4),
            "effort": round(self.effort, 5),
            "joint_error_deg": round(self.joint_error_deg, 2),
            "keypoint_error_mm": round(self.keypoint_error_mm, 2),
            "trials": self.trials,
            **({"flexion": self.flexion._asdict()} if self.flexion else {}),
        }


def use(
    participant: ParticipantConfig,
    decoder: DecoderWeights,
    config: UseConfig,
    conditions: dict[str, float] | None = None,
    on_second: Callable[[float], None] = lambda seconds: None,
    watch: Callable[[Participants, Act], None] | None = None,
) -> Use:
    """Participants follow references while the decoder answers.

    Args:
      participant: who; its reference is replaced by the test's.
      decoder: for the participant's armband.
      conditions: circumstances from the start on, by name (`Participants.set_condition`).
      on_second: called with the participant time that has passed, s.
      watch: called with every step that counts, before the body moves: for what is not kept here, as spikes and EMG.

    Raises:
      MyoloopError: a decoder for another armband, or a delay that is no whole number of control steps.
    """
    band, network = participant.armband, decoder.config
    if (network.channels, network.rate_hz) != (band.channels, band.rate_hz):
        raise MyoloopError(
            f"the decoder reads {network.channels} channels at {network.rate_hz:g} Hz; armband '{band.name}' gives "
            f"{band.channels} at {band.rate_hz:g} Hz: use the armband that it was trained for."
        )
    reference = ReferenceConfig(config.kind, "permuted", held_out_seed(config.reference), "held_out")
    people = Participants(dataclasses.replace(participant, reference=reference), config.participants)
    for name, strength in (conditions or {}).items():
        people.set_condition(name, strength)
    people.reset(np.arange(config.participants) + 1000 * config.noise)
    hz = participant.control_hz
    gestures = _sudden(config, hz)
    answer = jax.jit(networks.logits, static_argnums=0)
    state, acts, reached, answers = networks.init_state(network, config.participants), [], [], []
    steps, delay = round(config.seconds * hz), whole_steps(config.delay_s, hz)
    unheard = deque([np.zeros((config.participants, len(FINGERS)), np.float32)] * delay)
    for step in range(steps + 1):
        if step in gestures:
            people.set_target(gestures[step])
        act = people.act()
        if watch and round(hz) <= step < steps:
            watch(people, act)
        acts.append(act)
        odds, state = answer(network, decoder.params, state, act.chunk)
        unheard.append(np.asarray(odds[:, -1]))
        answers.append(unheard.popleft())
        if config.told:
            people.perceive(1.0 / (1.0 + np.exp(-answers[-1])))
        reached.append(people.move().qpos)
        if (step + 1) % round(hz) == 0:
            on_second(1.0)
    rules = TrialRules(config.dwell_s, config.sudden_s) if config.sudden_s else TrialRules(config.dwell_s)
    judged = _judge(people.hand, acts, np.stack(reached), np.stack(answers), hz, rules)
    if decoder.target != "flexion":
        return judged
    flexion = np.stack([act.reference for act in acts[-len(judged.odds) :]])
    return judged._replace(flexion=score_flexion(np.swapaxes(judged.odds, 0, 1), np.swapaxes(flexion, 0, 1)))


def _sudden(config: UseConfig, hz: float) -> dict[int, np.ndarray]:
    """Step -> (B, 5) labels asked from then on: random gestures, each another than the one before; empty for a reference."""
    if not config.sudden_s:
        return {}
    rng = np.random.default_rng(held_out_seed(config.reference))
    count, gestures = 2 ** len(FINGERS), {}
    number = rng.integers(count, size=config.participants)
    for step in range(0, round(config.seconds * hz) + 1, round(config.sudden_s * hz)):
        number = (number + rng.integers(1, count, size=config.participants)) % count
        gestures[step] = ((number[:, None] >> np.arange(len(FINGERS))) & 1).astype(np.float32)
    return gestures


def _judge(hand: Hand, acts: list[Act], reached: np.ndarray, odds: np.ndarray, hz: float, rules: TrialRules) -> Use:
    """Answers and bodies at the end of a step against what was asked for at the beginning of the next."""
    skip = round(hz)
    odds, reached = odds[skip:-1], reached[skip:-1]
    labels = np.stack([act.target for act in acts[skip + 1 :]])
    wanted = np.stack([act.wanted for act in acts[skip + 1 :]])
    excitation = np.stack([act.excitation for act in acts[skip:-1]])
    kinematics = build_kinematics(hand)
    apart = np.asarray(fingertips(kinematics, reached.reshape(-1, 23).astype(np.float32))) - np.asarray(
        fingertips(kinematics, wanted.reshape(-1, 23))
    )
    each = zip(np.swapaxes(labels, 0, 1), np.swapaxes(odds > 0, 0, 1), strict=True)
    return Use(
        scores=score(np.swapaxes(odds, 0, 1), np.swapaxes(labels, 0, 1), 1e3 / hz),
        effort=float(np.mean(excitation**2)),
        joint_error_deg=float(np.degrees(np.abs(reached - wanted)[..., list(FINGER_JOINTS)].mean())),
        keypoint_error_mm=float(1e3 * np.linalg.norm(apart, axis=-1).mean()),
        trials=gesture_trials(each, 1.0 / hz, rules),
        excitation=excitation,
        odds=odds,
        labels=labels,
        reached=reached,
        wanted=wanted,
        flexion=None,
    )
