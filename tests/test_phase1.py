"""Phase 1: runs that repeat, resume and survive a kill; engines that agree; policies as files."""

import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from myoloop import checkpoint
from myoloop.body.mjx_physics import MjxPhysics
from myoloop.body.model import load_hand
from myoloop.body.mujoco_engine import MujocoEngine
from myoloop.errors import MyoloopError
from myoloop.learn.phase1 import Phase1Config
from myoloop.learn.ppo import PpoConfig
from myoloop.learn.rollout import DeviceCollector, HostCollector, Loop, init_loop
from myoloop.learn.trainer import VERSION, Trainer, from_json
from myoloop.policy import learned as policies
from myoloop.policy.actions import ActionConfig, to_excitation
from myoloop.policy.learned import load_policy, save_policy
from myoloop.policy.networks import NetworkConfig
from myoloop.policy.observation import observation_layout
from myoloop.task.tracking import TrackingConfig, make_tracking

REPO = Path(__file__).resolve().parents[1]
SMALL = Phase1Config(
    steps=192, environments=4, unroll=8, threads=1,
    task=TrackingConfig(episode_s=0.3), network=NetworkConfig((16,)), critic=(16,), ppo=PpoConfig(minibatches=2, epochs=2),
)  # fmt: skip
SMALL_ARGS = (  # noqa: SIM905
    "--steps 192 --environments 4 --unroll 8 --threads 1 --task.episode-s 0.3 --network.hidden 16 --critic 16 "
    "--ppo.minibatches 2 --ppo.epochs 2"
).split()
TIMED = ("seconds", "steps_per_s", "physics_share")


def _untimed(rows):
    return [{k: v for k, v in row._asdict().items() if k not in TIMED} for row in rows]


@pytest.fixture(scope="module")
def whole():
    """A run of six updates without a break."""
    trainer = Trainer(SMALL)
    while not trainer.done:
        trainer.update()
    return trainer


def test_a_run_that_was_saved_goes_on_bit_for_bit_and_equal_seeds_give_equal_runs(whole, tmp_path):
    first = Trainer(SMALL)
    for _ in range(3):
        first.update()
    first.save(tmp_path)
    second = Trainer(SMALL)
    second.restore(tmp_path)
    assert second.steps == 96
    while not second.done:
        second.update()
    for row, expected in zip(_untimed(second.rows), _untimed(whole.rows), strict=True):
        assert row == pytest.approx(expected, rel=1e-4, nan_ok=True)  # through the CSV's digits
    jax.tree.map(np.testing.assert_array_equal, second.learned, whole.learned)
    np.testing.assert_array_equal(second.collector.save(), whole.collector.save())
    assert first.rows[1].reward == whole.rows[1].reward


def test_a_killed_run_resumes_and_one_asked_to_stop_leaves_a_checkpoint_of_its_last_update(tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, str(REPO / "training" / "phase1.py"), "--run", str(run)]
    killed = _begun([*command, *SMALL_ARGS, "--steps", "320000", "--save-every-s", "0"], run / "curves.csv")
    killed.kill()
    killed.wait()
    saved = checkpoint.load(run / "state.safetensors", kind="phase1_state", version=VERSION).config["steps"]
    resumed = _begun([*command, "--resume", "--steps", "320000", "--save-every-s", "0"], run / "curves.csv", saved)
    resumed.terminate()
    out, _ = resumed.communicate(timeout=240)
    assert resumed.returncode == 0
    told = json.loads(out.splitlines()[-1])
    kept = checkpoint.load(run / "state.safetensors", kind="phase1_state", version=VERSION).config["steps"]
    assert told["steps"] == kept > saved and told["steps_per_s"] > 0
    assert (run / "curves.png").stat().st_size > 10_000
    last = (run / "curves.csv").read_text().splitlines()[-1]
    assert int(float(last.split(",")[0])) == kept


def _begun(command, curves, steps=0):
    """A training process that has saved more than `steps` steps."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    until = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < until:
        lines = curves.read_text().splitlines() if curves.exists() else []
        if len(lines) > 1 and float(lines[-1].split(",")[0]) > steps:
            break
        time.sleep(0.05)
    return process


def test_a_run_is_not_resumed_with_other_settings(whole, tmp_path):
    whole.save(tmp_path)
    other = Trainer(SMALL.__class__(**{**SMALL.__dict__, "seed": 5}))
    with pytest.raises(MyoloopError, match="other settings of seed"):
        other.restore(tmp_path)
    with pytest.raises(MyoloopError, match="another version"):
        from_json(Phase1Config, {"colour": 1})


def test_settings_that_do_not_divide_are_refused():
    with pytest.raises(MyoloopError, match="do not divide into 7 minibatches"):
        Trainer(Phase1Config(environments=4, unroll=8, ppo=PpoConfig(minibatches=7)))


@pytest.fixture(scope="module")
def small_loop():
    hand = load_hand()
    task = make_tracking(hand, TrackingConfig(), 2)
    return hand, Loop(task, None, NetworkConfig((16,)), ActionConfig())


class _Learned:
    """As much of ppo.Learned as collectors read."""

    def __init__(self, policy, size):
        from myoloop.policy.normaliser import init_normaliser

        self.params = {"policy": policy.init(jax.random.key(0))}
        self.normaliser = init_normaliser(size)


def test_host_and_device_collect_the_same_experience(small_loop):
    """MuJoCo in C between jitted turns, and MJX in one scan: same observations and rewards over 0.1 s."""
    hand, loop = small_loop
    learned = _Learned(loop.policy, observation_layout(loop.task.config.look_ahead_s).size)
    host = HostCollector(loop, MujocoEngine(hand, 2, threads=1))
    device = DeviceCollector(loop, MjxPhysics(hand, 2))
    found = []
    for collector in (host, device):
        state = collector.start(jax.random.key(1), 0.0)
        state, experience = collector.collect(learned, state, 5, 0.0)
        found.append(experience)
    a, b = found
    np.testing.assert_allclose(a.rollout.obs, b.rollout.obs, atol=2e-3)
    np.testing.assert_allclose(a.rollout.reward, b.rollout.reward, atol=1e-3)
    np.testing.assert_allclose(a.rollout.action, b.rollout.action, atol=2e-3)
    np.testing.assert_allclose(a.rollout.last, b.rollout.last, atol=2e-3)
    np.testing.assert_allclose(a.figures.tip_error_mm, b.figures.tip_error_mm, atol=0.05)


def test_an_episode_that_is_over_is_bootstrapped_from_before_its_reset(small_loop):
    hand, loop = small_loop
    size = observation_layout(loop.task.config.look_ahead_s).size
    short = make_tracking(hand, TrackingConfig(episode_s=0.1), 2)
    collector = HostCollector(loop.replace(task=short), MujocoEngine(hand, 2, threads=1))
    learned = _Learned(loop.policy, size)
    state = collector.start(jax.random.key(1), 0.0)
    before = np.asarray(state.task.began)
    state, first = collector.collect(learned, state, 5, 0.0)
    np.testing.assert_array_equal(state.task.began, before)  # the reset waits for the next rollout
    last = np.asarray(first.rollout.last)
    state, second = collector.collect(learned, state, 5, 0.0)
    assert (np.asarray(state.task.began) != before).all()
    assert np.abs(np.asarray(second.rollout.obs[0]) - last).max() > 0.1
    assert not np.asarray(first.rollout.ended).any()


def test_a_body_that_diverged_is_paid_nothing_and_begins_again(small_loop):
    hand, loop = small_loop
    learned = _Learned(loop.policy, observation_layout(loop.task.config.look_ahead_s).size)
    engine = MujocoEngine(hand, 2, threads=1)
    collector = HostCollector(loop, engine)
    state = collector.start(jax.random.key(1), 0.0)
    saved = engine.save()
    saved[1, 5] = np.nan
    engine.load(saved)
    state, experience = collector.collect(learned, state, 4, 0.0)
    rollout = experience.rollout
    assert np.asarray(rollout.ended)[:, 1].all() and not np.asarray(rollout.ended)[:, 0].any()
    assert (np.asarray(rollout.reward)[:, 1] == 0).all() and (np.asarray(rollout.reward)[:, 0] != 0).all()
    assert np.isfinite(np.asarray(rollout.obs)).all()
    began = np.asarray(state.task.began)
    state, experience = collector.collect(learned, state, 2, 0.0)
    assert state.task.began[1] != began[1] and state.task.began[0] == began[0]
    assert not np.asarray(experience.rollout.ended).any()


def test_participants_have_different_references_and_kinds(small_loop):
    hand, _ = small_loop
    task = make_tracking(hand, TrackingConfig(discrete=(0.5, 0.5)), 16)
    loop = Loop(task, None, NetworkConfig((8,)), ActionConfig())
    state = init_loop(loop, jax.random.key(0), 0.0).task
    assert len(set(np.asarray(state.time).tolist())) == 16
    assert set(np.asarray(state.kind).tolist()) == {0, 1}
    late = init_loop(
        loop.replace(task=make_tracking(hand, TrackingConfig(discrete=(0.0, 1.0)), 16)), jax.random.key(0), 1.0
    )
    assert (np.asarray(late.task.kind) == 1).all()


def test_at_action_zero_muscles_are_nearly_silent():
    quiet = np.asarray(to_excitation(ActionConfig(), jnp.zeros(39)))
    assert (quiet < 0.06).all()
    assert (np.asarray(to_excitation(ActionConfig(), jnp.full(39, 3.0))) > 0.95).all()
    linear = ActionConfig("linear", 0.25, 0.05)
    np.testing.assert_allclose(
        to_excitation(linear, jnp.array([-1.0, 0.0, 1.0, 4.0])), [0.0, 0.05, 0.3, 1.0], rtol=1e-6
    )
    with pytest.raises(MyoloopError, match="unknown action mapping 'liner'"):
        ActionConfig("liner")


@pytest.fixture
def policy_file(whole, tmp_path):
    save_policy(tmp_path / "policy.safetensors", whole.policy, {"steps": 1})
    return tmp_path / "policy.safetensors"


def test_a_policy_decides_the_same_after_loading(whole, policy_file):
    engine = MujocoEngine(load_hand(), 3, threads=1)
    body, wanted = engine.posture(), np.zeros((3, 3, 23), np.float32)
    found = load_policy(policy_file)
    a, _ = policies.excitation(whole.policy, body, wanted, whole.policy.start(3))
    b, _ = policies.excitation(found.policy, body, wanted, found.policy.start(3))
    np.testing.assert_array_equal(a, b)
    assert found.about == {"steps": 1}
    assert str(REPO) not in policy_file.read_bytes().decode("latin-1")


def test_a_policy_for_another_observation_is_refused(whole, policy_file, monkeypatch):
    real = policies.observation_layout

    def other(look_ahead_s, cues=()):
        layout = real(look_ahead_s, cues)
        return layout._replace(names=("muscle_length", *layout.names[1:]))

    monkeypatch.setattr(policies, "observation_layout", other)
    with pytest.raises(MyoloopError, match="made for the observation joint_angle"):
        load_policy(policy_file)


def test_a_policy_of_another_version_or_kind_is_refused(whole, policy_file, tmp_path, monkeypatch):
    with pytest.raises(MyoloopError, match="holds a 'policy', expected a 'decoder_tcn'"):
        checkpoint.load(policy_file, kind="decoder_tcn")
    monkeypatch.setattr(policies, "VERSION", 2)
    with pytest.raises(MyoloopError, match="of version 1, this myoloop reads version 2"):
        load_policy(policy_file)
