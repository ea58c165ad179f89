"""Phase 1: a policy learns to follow references, from nothing, by PPO."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from myoloop.body.model import Hand
from myoloop.emg.armband import armband
from myoloop.emg.config import EmgConfig
from myoloop.emg.synthesis import build_emg
from myoloop.learn.ppo import PpoConfig
from myoloop.learn.ppo_learner import PpoLearner, check_minibatches
from myoloop.learn.rollout import Loop
from myoloop.learn.trainer import Parts
from myoloop.policy.actions import ActionConfig
from myoloop.policy.networks import NetworkConfig
from myoloop.task.tracking import TrackingConfig, make_tracking


@dataclass(frozen=True)
class Phase1Config:
    """Everything that decides what is learned. Same configuration, same seed, same machine: same numbers."""

    KIND: ClassVar[str] = "phase1_state"
    steps: int = 24_000_000
    """Control steps of all participants together, 20 ms of participant time each."""
    environments: int = 256
    """Participants side by side."""
    unroll: int = 16
    """Control steps of each between two updates."""
    seed: int = 0
    """Seed of everything random."""
    engine: str = "mujoco"
    """Who integrates the physics: mujoco (C, CPU), mjx (JAX) or warp."""
    threads: int = 0
    """Threads of engine mujoco; 0: all cores."""
    physics_dt: float = 0.005
    """s: step of the physics; see docs/physics-settings.md."""
    control_hz: float = 50.0
    """Control steps a second."""
    emg: str = ""
    """Armband preset whose EMG is synthesised at every step (nobody listens in phase 1; to measure its price); empty: none."""
    task: TrackingConfig = field(default_factory=TrackingConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    critic: tuple[int, ...] = (256, 128)
    """Width of the critic's hidden layers."""
    action: ActionConfig = field(default_factory=ActionConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)

    def build(self, hand: Hand, control_dt: float) -> Parts:
        """See learn.trainer.Run.

        Raises:
          MyoloopError: settings that do not fit together.
        """
        check_minibatches(self.ppo, self.environments, self.unroll)
        emg = build_emg(armband(self.emg), EmgConfig()) if self.emg else None
        loop = Loop(
            task=make_tracking(hand, self.task, self.environments, control_dt),
            emg=emg,
            network=self.network,
            action=self.action,
            samples=round(emg.band.rate_hz * control_dt) if emg else 0,
        )
        return Parts(loop, PpoLearner(self.ppo, loop, self.critic), "phase 1")
