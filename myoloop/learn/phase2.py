"""Phase 2: the participant learns to use a decoder that stays as it is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from myoloop.assets import POLICY, find_file
from myoloop.body.leverage import leverage
from myoloop.body.model import Hand
from myoloop.decoder.weights import DecoderWeights, load_decoder
from myoloop.emg.armband import Armband, armband
from myoloop.emg.circumstances import Circumstances
from myoloop.emg.condition_names import DRIVE, MOVING, PERSON, check_conditions
from myoloop.emg.conditions import no_disorder, set_condition
from myoloop.emg.config import EmgConfig
from myoloop.emg.synthesis import EmgParams, build_emg, healthy
from myoloop.errors import MyoloopError, unknown_name
from myoloop.learn.delay import whole_steps
from myoloop.learn.gradient import GradientConfig, GradientLearner
from myoloop.learn.internal_model import InternalModelConfig, InternalModelLearner
from myoloop.learn.learner import Learner
from myoloop.learn.ppo import PpoConfig
from myoloop.learn.ppo_learner import PpoLearner, check_minibatches
from myoloop.learn.rollout import Interface, Loop
from myoloop.learn.through_forward import actor_of, unit_leverage
from myoloop.learn.trainer import Parts
from myoloop.policy.actions import ActionConfig
from myoloop.policy.learned import check_habit, load_policy, told_as
from myoloop.policy.networks import NetworkConfig
from myoloop.task.reference import EXTENDED, FLEXED
from myoloop.task.tracking import RewardConfig, TrackingConfig, make_tracking

LEARNERS = ("internal_model", "ppo", "gradient")


def _task() -> TrackingConfig:
    """Gestures as the decoder was trained on; where `ppo` learns, the movement counts a tenth of what it does in phase 1 (the
    wrist a third)."""
    small = RewardConfig(
        joint=0.05, joint_far=0.05, tip=0.025, tip_far=0.04, wrist=0.05, wrist_far=0.05, effort=1.0, smoothness=0.3
    )
    return TrackingConfig(discrete=(1.0, 1.0), assignment="permuted", reward=small)


@dataclass(frozen=True)
class Phase2Config:
    """Everything that decides what is learned. Same configuration, same seed, same machine: same numbers."""

    KIND: ClassVar[str] = "phase2_state"
    steps: int = 400_000
    """Control steps of all participants together, 20 ms of participant time each."""
    environments: int = 64
    """Participants side by side: the same person in as many situations."""
    unroll: int = 48
    """Control steps of each between two updates."""
    seed: int = 0
    """Seed of everything random but the person."""
    learner: str = "internal_model"
    """Who improves the policy: internal_model, ppo or gradient."""
    policy: str = POLICY
    """File of the policy to start from; empty: from nothing."""
    habit: str = ""
    """File of the policy whose movement internal_model and gradient keep; empty: the policy's own."""
    decoder: str = "models/decoder_tcn/decoder.safetensors"
    """File of the decoder to learn to use."""
    armband: str = "semg_rd16"
    """Armband preset."""
    person: int = 0
    """Seed of the participant's anatomy."""
    rotation_deg: float = 0.0
    """Degrees around the forearm by which the armband is now worn otherwise than when the decoder was trained."""
    conditions: dict[str, float] = field(default_factory=dict)
    """What is wrong with the recording, strengths 0 to 1 by name: fatigue, mains_hum, motion_artefact, ecg, or
    lost_contact:<channel label>."""
    cues: tuple[str, ...] = ("target", "prediction")
    """What the policy is told besides: target (what is asked for: labels, or flexions where the decoder answers these),
    prediction (the decoder's last answer)."""
    delay_s: float = 0.0
    """s by which the decoder's answers are heard later than at the end of the control step whose EMG they answer; whole control
    steps."""
    persistence: float = 0.8
    """Correlation of the exploration from step to step, for internal_model and gradient; PPO's is white."""
    engine: str = "mujoco"
    """Who integrates the physics: mujoco (C, CPU), mjx (JAX) or warp."""
    threads: int = 0
    """Threads of engine mujoco; 0: all cores."""
    physics_dt: float = 0.005
    """s: step of the physics; see docs/physics-settings.md."""
    control_hz: float = 50.0
    """Control steps a second."""
    task: TrackingConfig = field(default_factory=_task)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """Where it begins from nothing; else the policy's."""
    action: ActionConfig = field(default_factory=ActionConfig)
    """Where it begins from nothing; else the policy's."""
    internal_model: InternalModelConfig = field(default_factory=InternalModelConfig)
    gradient: GradientConfig = field(default_factory=GradientConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)
    critic: tuple[int, ...] = (256, 128)
    """Width of PPO's critic's hidden layers."""
    worth: float = 1.0
    """PPO's reward of a step in which the decoder is sure of all that was asked."""

    def build(self, hand: Hand, control_dt: float) -> Parts:
        """See learn.trainer.Run.

        Raises:
          MyoloopError: settings that do not fit together.
        """
        if self.learner not in LEARNERS:
            raise unknown_name("learner", self.learner, LEARNERS)
        band = armband(self.armband)
        samples = round(band.rate_hz * control_dt)
        decoder = load_decoder(find_file(self.decoder, kind="decoder"))
        _check(decoder, band, samples, self.decoder)
        emg = build_emg(worn(band, self.rotation_deg), EmgConfig(seed=self.person))
        network, action, begin, habit = self.network, self.action, None, None
        cues = self.cues
        if decoder.target == "flexion":
            cues = tuple("flexion" if cue == "target" else cue for cue in cues)
        if self.policy:
            old = load_policy(find_file(self.policy, kind="policy")).policy
            if old.look_ahead_s != self.task.look_ahead_s or old.control_hz != self.control_hz:
                raise MyoloopError(
                    f"{self.policy} looks {old.look_ahead_s} s ahead at {old.control_hz:g} Hz; the task is told "
                    f"{self.task.look_ahead_s} s ahead at {self.control_hz:g} Hz: give the task the policy's."
                )
            old = told_as(old, cues)
            network, action, begin = old.network, old.action, (old.params, old.normaliser)
        if self.habit:
            if not self.policy:
                raise MyoloopError("habit: from nothing there is no movement to keep: leave it out, or name a policy.")
            kept = told_as(load_policy(find_file(self.habit, kind="habit")).policy, cues)
            check_habit(old, kept)
            habit = kept.params
        loop = Loop(
            task=make_tracking(hand, self.task, self.environments, control_dt),
            emg=emg,
            network=network,
            action=action,
            samples=samples,
            interface=Interface(decoder.params, decoder.config, self.worth, decoder.target),
            cues=cues,
            circumstances=_circumstances(self.conditions, band, emg, self.environments),
            persistence=0.0 if self.learner == "ppo" else self.persistence,
            delay=whole_steps(self.delay_s, self.control_hz),
        )
        learner: Learner
        if self.learner == "ppo":
            check_minibatches(self.ppo, self.environments, self.unroll)
            learner = PpoLearner(self.ppo, loop, self.critic, begin)
        else:
            if not loop.policy.feedforward:
                raise MyoloopError(
                    f"learner '{self.learner}' improves feed-forward policies; this one has recurrent {network.recurrent}, "
                    f"bottleneck {network.bottleneck}: use learner ppo, or another policy."
                )
            turning = unit_leverage(leverage(hand, np.stack([EXTENDED, FLEXED])))
            turning = turning if self.policy else 0.0 * turning  # from nothing there is no habit to keep
            if self.learner == "gradient" and self.conditions:
                raise MyoloopError(f"learner 'gradient' expects a good recording; found conditions {self.conditions}.")
            if self.learner == "internal_model":
                learner = InternalModelLearner(self.internal_model, actor_of(loop), self.unroll, begin, turning, habit)
            else:
                learner = GradientLearner(self.gradient, loop, self.unroll, begin, turning, habit)
        return Parts(loop, learner, f"phase 2, {self.learner}")


def worn(band: Armband, rotation_deg: float) -> Armband:
    """The armband put on turned by so many degrees."""
    return replace(band, first_angle_deg=band.first_angle_deg + rotation_deg)


def _circumstances(conditions: dict[str, float], band: Armband, emg: EmgParams, batch: int) -> Circumstances | None:
    """Everybody's; None where there are no conditions."""
    if not conditions:
        return None
    check_conditions(conditions, band.channel_labels, where="conditions")
    now, disorder = healthy(emg, batch), no_disorder(batch)
    for name, strength in conditions.items():
        if name in (*PERSON, *DRIVE, *MOVING):
            raise MyoloopError(
                f"conditions: {name} does not belong to the recording: phase 2 knows fatigue, mains_hum, motion_artefact, ecg, "
                "lost_contact:<channel label>, and --rotation-deg."
            )
        now, disorder = set_condition(band, now, disorder, name, strength)
    return now


def _check(decoder: DecoderWeights, band: Armband, samples: int, path: str) -> None:
    network = decoder.config
    if (network.channels, network.rate_hz) != (band.channels, band.rate_hz):
        raise MyoloopError(
            f"{path} reads {network.channels} channels at {network.rate_hz:g} Hz; armband '{band.name}' gives "
            f"{band.channels} at {band.rate_hz:g} Hz: train a decoder for this armband, or name the one it was made for."
        )
    if samples % network.samples_per_call:
        raise MyoloopError(
            f"{path} answers every {network.samples_per_call} samples, a control step has {samples}: they must divide."
        )
