"""Use of a decoder, many participants side by side: what is counted, and that the answers reach who is told of them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from myoloop.body.model import load_hand
from myoloop.decoder import tcn
from myoloop.decoder.weights import TcnWeights, save_tcn
from myoloop.emg.armband import armband
from myoloop.errors import MyoloopError
from myoloop.learn.closed_loop import UseConfig, use
from myoloop.participant import ParticipantConfig, Participants
from myoloop.policy.actions import ActionConfig
from myoloop.policy.learned import LearnedPolicy, save_policy
from myoloop.policy.networks import NetworkConfig, make_policy
from myoloop.policy.normaliser import init_normaliser
from myoloop.policy.observation import observation_layout
from myoloop.task.reference import ReferenceConfig, held_out_seed

REPO = Path(__file__).resolve().parents[1]
BAND = armband("myo8")
NETWORK = tcn.TcnConfig(channels=BAND.channels, rate_hz=BAND.rate_hz, spatial_filters=8, temporal_filters=2, hidden=8)
CONFIG = UseConfig(participants=2, seconds=2.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An untrained decoder, and an untrained policy that is told its answers."""
    folder, ahead, cues = tmp_path_factory.mktemp("use"), (0.02, 0.1), ("target", "prediction")
    weights = TcnWeights(NETWORK, tcn.init_params(NETWORK, jax.random.key(1)), BAND.channel_labels, "untrained", {})
    save_tcn(folder / "decoder.safetensors", NETWORK, weights.params, BAND.channel_labels, "untrained")
    size = observation_layout(ahead, cues).size
    policy = LearnedPolicy(
        make_policy(NetworkConfig((16,)), size, 39).init(jax.random.key(3)), init_normaliser(size),
        jnp.asarray(load_hand().joint_range, jnp.float32), NetworkConfig((16,)), ActionConfig(), ahead, 50.0, "untrained", cues,
    )  # fmt: skip
    save_policy(folder / "policy.safetensors", policy, {})
    return folder, weights


def test_use_is_what_the_same_steps_give_one_by_one(files):
    folder, weights = files
    who = ParticipantConfig(armband=BAND, policy=str(folder / "policy.safetensors"))
    found = use(who, weights, CONFIG)
    reference = ReferenceConfig("discrete", "permuted", held_out_seed(200), "held_out")
    people = Participants(ParticipantConfig(armband=BAND, policy=who.policy, reference=reference), 2, threads=1)
    people.reset([0, 1])
    state, right, effort, odds = tcn.init_state(NETWORK, 2), [], [], None
    for step in range(100):
        act = people.act()
        if step > 50:  # an answer counts against what is asked for when it is there: a step after its EMG was asked for
            right.append((odds > 0) == (act.target > 0.5))
        if step >= 50:
            effort.append(np.mean(act.excitation**2))
        answers, state = tcn.logits(NETWORK, weights.params, state, act.chunk)
        odds = np.asarray(answers[:, -1])
        people.perceive(1 / (1 + np.exp(-odds)))
        people.move()
    act = people.act()
    right.append((odds > 0) == (act.target > 0.5))
    assert found.scores.accuracy == pytest.approx(np.mean(right), abs=1e-6)
    assert found.effort == pytest.approx(np.mean(effort), rel=1e-4)
    assert found.odds.shape == (50, 2, 5) and found.excitation.shape == (50, 2, 39)
    blind = use(who, weights, UseConfig(participants=2, seconds=2.0, told=False))
    assert np.abs(blind.excitation - found.excitation).max() > 1e-4
    assert json.dumps(found.figures())


def test_a_decoder_for_another_armband_is_refused(files):
    with pytest.raises(MyoloopError, match="reads 8 channels at 200 Hz; armband 'semg_rd16' gives 16 at 2000 Hz"):
        use(ParticipantConfig(), files[1], CONFIG)


def test_the_programs_measure_and_draw(files, tmp_path):
    folder, _ = files
    run = tmp_path / "run"
    command = [sys.executable, "training/phase2.py", "--run", str(run), "--steps", "32", "--environments", "2"]
    command += [
        "--unroll",
        "8",
        "--policy",
        "",
        "--decoder",
        str(folder / "decoder.safetensors"),
        "--armband",
        BAND.name,
    ]
    command += [
        "--network.hidden",
        "16",
        "--internal-model.forward.updates",
        "2",
        "--internal-model.objective.updates",
        "2",
    ]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert 0 <= json.loads(done.stdout.splitlines()[-1])["accuracy"] <= 1
    command = [sys.executable, "training/use.py", "--policies", f"before={folder / 'policy.safetensors'}"]
    command += [
        f"after={run / 'policy.safetensors'}",
        "--decoder",
        str(folder / "decoder.safetensors"),
        "--armband",
        BAND.name,
    ]
    command += ["--participants", "2", "--seconds", "1.5", "--no-open-loop", "--out", str(tmp_path / "use.json")]
    done = subprocess.run(
        [*command, "--publish", str(tmp_path / "model")], cwd=REPO, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    used = json.loads(done.stdout.splitlines()[-1])
    assert used == json.loads((tmp_path / "use.json").read_text())
    shipped = (tmp_path / "model" / "README.md").read_text()
    assert f"{100 * used['after']['closed']['accuracy']:.1f}" in shipped and "internal_model" in shipped
    twin = tmp_path / "twin"
    shutil.copytree(run, twin)
    other = json.loads((twin / "config.json").read_text()) | {"seed": 1}
    (twin / "config.json").write_text(json.dumps(other))
    command = [sys.executable, "training/figures.py", "--runs", f"after={run},{twin}"]
    command += ["--before", str(run / "policy.safetensors"), "--out", str(tmp_path)]
    command += ["--test.participants", "2", "--test.seconds", "1.5"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    arm = json.loads((tmp_path / "adaptation.json").read_text())["arms"]["after"]
    assert arm["steps"] == 32 and arm["accuracy"] == used["after"]["closed"]["accuracy"]
    assert arm["seeds"] == [0, 1] and arm["accuracy_ci"] == 0.0  # the same policy twice
    assert (tmp_path / "adaptation.png").stat().st_size > 10_000
