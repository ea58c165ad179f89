"""Evaluation: the figures are what they are called, and the program writes them."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from myoloop.body.model import load_hand
from myoloop.learn.evaluation import KINDS, Controller, EvaluationConfig, follow, mean_posture, recovery, take_pushes
from myoloop.policy.actions import ActionConfig
from myoloop.policy.learned import LearnedPolicy, save_policy
from myoloop.policy.networks import NetworkConfig, make_policy
from myoloop.policy.normaliser import init_normaliser
from myoloop.policy.observation import observation_layout
from myoloop.task.reference import ReferenceConfig, held_out_seed, joint_angles, make_reference
from myoloop.task.tracking import FINGER_JOINTS

REPO = Path(__file__).resolve().parents[1]
SHORT = EvaluationConfig(participants=2, seconds=1.4, pushes=4)


@pytest.fixture(scope="module")
def hand():
    return load_hand()


def constant(value):
    """Every muscle at one excitation, whatever is asked."""
    return Controller(lambda b: (), lambda memory, body, reference, t: (np.full((len(body.qpos), 39), value), memory))


def test_mean_posture_errors_are_the_spread_of_the_reference(hand):
    found = mean_posture(hand, SHORT)
    reference = make_reference(ReferenceConfig("discrete", "permuted", held_out_seed(0)), 2)
    wanted = np.stack([np.asarray(joint_angles(reference, t)) for t in np.arange(1.0, 1.4, 0.02)])
    spread = np.degrees(np.abs(wanted - wanted.mean(axis=0)))[..., list(FINGER_JOINTS)].mean()
    assert found["discrete permuted"].joint_error_deg == pytest.approx(spread, rel=1e-4)
    assert found["discrete permuted"].effort == 0.0
    every = [found[" ".join(kind)].joint_error_deg for kind in KINDS]
    assert found["all"].joint_error_deg == pytest.approx(np.mean(every))


def test_following_counts_effort_and_errors_of_what_was_done(hand):
    seconds = []
    found = follow(constant(0.1), hand, SHORT, seconds.append)
    assert found["all"].effort == pytest.approx(0.01)
    assert found["all"].keypoint_error_mm > 10 and found["all"].joint_error_deg > 5
    assert len(seconds) == len(KINDS)
    assert len(found["all"].per_joint_deg) == 20 and len(found["all"].per_finger_mm) == 5


def test_a_push_of_nothing_is_recovered_from_at_once_and_a_hard_one_moves_the_finger(hand):
    none = EvaluationConfig(participants=2, seconds=1.4, pushes=4, push_n=0.0)
    still = take_pushes(constant(0.05), hand, none, normal_mm=5.0)
    assert still.median_s == 0.0 and still.never == 0
    hard = EvaluationConfig(participants=2, seconds=1.4, pushes=4, push_n=20.0)
    pushed = take_pushes(constant(0.05), hand, hard, normal_mm=5.0)
    assert pushed.peak_mm > 2.0 * still.peak_mm  # a silent hand still sinks a little meanwhile


def test_recovery_counts_from_when_the_error_stays_small():
    error = np.full((20, 3), 9.0)
    error[4:, 0] = 1.0  # small from the fifth step on
    error[2:4, 1] = 1.0  # small for two steps only, then for good from the eleventh
    error[10:, 1] = 1.0
    seconds, never = recovery(error, np.full(3, 2.0), 0.02)
    np.testing.assert_allclose(seconds, [0.08, 0.20, 2.0])
    assert never.tolist() == [False, False, True]


def test_a_hand_that_cramps_after_the_push_does_not_recover(hand):
    def excite(memory, body, reference, t):
        return np.full((len(body.qpos), 39), 0.8 if t >= 2.0 else 0.0), memory

    found = take_pushes(Controller(lambda b: (), excite), hand, EvaluationConfig(pushes=8), normal_mm=1.0)
    assert found.never > 0 and found.p90_s == 2.0


def test_the_program_judges_a_policy_beside_the_baseline_and_the_mean_posture(hand, tmp_path):
    network, ahead = NetworkConfig((8,)), (0.02, 0.1)
    size = observation_layout(ahead).size
    policy = LearnedPolicy(
        make_policy(network, size, 39).init(jax.random.key(0)),
        init_normaliser(size),
        jnp.asarray(hand.joint_range, jnp.float32),
        network, ActionConfig(), ahead, 50.0, "untrained",
    )  # fmt: skip
    save_policy(tmp_path / "policy.safetensors", policy, {})
    command = [sys.executable, "training/evaluate.py", "--policy", str(tmp_path / "policy.safetensors")]
    command += ["--out", str(tmp_path), "--participants", "2", "--seconds", "1.2", "--pushes", "4"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    for name in ("policy", "baseline", "mean_posture"):
        assert {"joint_error_deg", "keypoint_error_mm", "effort", "recovery_s"} <= set(result[name])
    assert result["mean_posture"]["effort"] is None and result["policy"]["effort"] > 0
    assert result == json.loads((tmp_path / "evaluation.json").read_text())
    assert (tmp_path / "evaluation.png").stat().st_size > 10_000
