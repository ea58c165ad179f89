"""Use of a decoder, many participants side by side: what is counted, and that the answers reach who is told of them."""

import dataclasses
import json
import runpy
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
from myoloop.decoder.weights import DecoderWeights, save_decoder
from myoloop.emg.armband import armband
from myoloop.errors import MyoloopError
from myoloop.learn.closed_loop import UseConfig, use
from myoloop.learn.delay import late, per_participant, quartiles_to_reach
from myoloop.learn.phase2 import Phase2Config
from myoloop.learn.trainer import Row, Trainer
from myoloop.participant import ParticipantConfig, Participants
from myoloop.policy.actions import ActionConfig
from myoloop.policy.learned import LearnedPolicy, save_policy
from myoloop.policy.networks import NetworkConfig, make_policy
from myoloop.policy.normaliser import init_normaliser
from myoloop.policy.observation import observation_layout
from myoloop.task.reference import ReferenceConfig, held_out_seed
from myoloop.task.trials import TrialRules

REPO = Path(__file__).resolve().parents[1]
BAND = armband("myo8")
NETWORK = tcn.TcnConfig(channels=BAND.channels, rate_hz=BAND.rate_hz, spatial_filters=8, temporal_filters=2, hidden=8)
CONFIG = UseConfig(participants=2, seconds=2.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An untrained decoder, and an untrained policy that is told its answers."""
    folder, ahead, cues = tmp_path_factory.mktemp("use"), (0.02, 0.1), ("target", "prediction")
    weights = DecoderWeights(NETWORK, tcn.init_params(NETWORK, jax.random.key(1)), BAND.channel_labels, "untrained", {})
    save_decoder(folder / "decoder.safetensors", NETWORK, weights.params, BAND.channel_labels, "untrained")
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


def test_sudden_gestures_are_held_and_judged_with_their_time_limit(files):
    folder, weights = files
    who = ParticipantConfig(armband=BAND, policy=str(folder / "policy.safetensors"))
    watched = []
    config = UseConfig(participants=2, seconds=3.0, sudden_s=1.0, dwell_s=0.5)
    found = use(who, weights, config, watch=lambda people, act: watched.append(act.chunk.shape))
    changed = (found.labels[1:] != found.labels[:-1]).any(axis=2)
    assert (np.flatnonzero(changed.all(axis=1)) == np.flatnonzero(changed.any(axis=1))).all()
    assert np.diff(np.flatnonzero(changed[:, 0])).tolist() == [50] and len(watched) == len(found.labels) == 100
    assert found.trials["limit_s"] == 1.0 and found.trials["dwell_s"] == 0.5 and found.trials["count"] == 2
    again = use(who, weights, config)
    assert np.array_equal(found.labels, again.labels), "the same gestures for every policy"


def test_delayed_answers_are_those_of_so_many_steps_before(files):
    folder, weights = files
    who = ParticipantConfig(armband=BAND, policy=str(folder / "policy.safetensors"))
    blind = UseConfig(participants=2, seconds=2.0, told=False)
    now, later = (use(who, weights, dataclasses.replace(blind, delay_s=delay)) for delay in (0.0, 0.12))
    np.testing.assert_array_equal(later.odds[6:], now.odds[:-6])
    np.testing.assert_array_equal(later.labels, now.labels)
    assert later.scores.accuracy == pytest.approx(((later.odds > 0) == (now.labels > 0.5)).mean())
    told = use(who, weights, dataclasses.replace(blind, told=True, delay_s=0.12))
    assert np.any(told.excitation != use(who, weights, CONFIG).excitation), "they perceive the late ones"
    with pytest.raises(MyoloopError, match="whole number of control steps"):
        use(who, weights, dataclasses.replace(blind, delay_s=0.13))


def test_lateness_is_found_in_the_answers_and_not_in_their_errors():
    """Labels change at random; answers are those of some steps before, some of them wrong."""
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 2, (200, 3, 5)), 10, axis=0).astype(float)
    flips = 1.0 - 2.0 * (rng.random(labels.shape) < 0.2)
    for steps in (0, 7, -4):
        odds = np.roll(2.0 * labels - 1.0, steps, axis=0) * flips
        assert late(odds, labels, 0.02) == pytest.approx(0.02 * steps)
    assert per_participant(2.0 * labels - 1.0, labels).tolist() == [1.0, 1.0, 1.0]


def test_quartiles_of_reaching_are_those_of_the_trials():
    """Gestures of 50 steps, answered 5, 10, 15 and so on steps late."""
    labels = np.repeat([[0], [1], [0], [1], [0], [1], [0]], 50, axis=0)[:, None] * np.ones(5)
    odds = np.concatenate([np.roll(labels, 5 * k, axis=0)[50 * k : 50 * (k + 1)] for k in range(7)]) * 2 - 1
    found = quartiles_to_reach(odds, labels, 0.02, TrialRules(0.2, 1.0))
    assert found == np.round(np.percentile([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [25, 50, 75]), 3).tolist()
    assert quartiles_to_reach(-odds, labels, 0.02, TrialRules(0.2, 1.0)) != found


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("changed", ["--synergies", "4"]),
        ("limits", ["--repeats", "2", "--repeated", "2", "--free", "2", "--free-s", "2", "--iterations", "10"]),
    ],
)
def test_program_tells_what_changed_and_what_limits(name, more, files, tmp_path):
    folder, _ = files
    policy, decoder = str(folder / "policy.safetensors"), str(folder / "decoder.safetensors")
    command = [sys.executable, f"training/{name}.py", "--before", policy, "--after", policy, "--decoder", decoder]
    command += ["--armband", BAND.name, "--out", str(tmp_path), "--participants", "2", "--seconds", "3", *more]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    told, found = json.loads(done.stdout.splitlines()[-1]), json.loads((tmp_path / f"{name}.json").read_text())
    assert (tmp_path / f"{name}.png").stat().st_size > 50_000
    if name == "changed":
        assert told["before"] == told["after"] and told["synergies_shared"] == pytest.approx(1.0)
    else:
        assert found["use"]["closed"] == found["use"]["before"] == found["where"]["accuracy"]
        sometimes_or_mostly = told["wrong_in_most_repeats"] + told["wrong_in_some_repeats"]
        assert sometimes_or_mostly == pytest.approx(100 * (1 - found["chance"]["accuracy"]), abs=0.02)


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


def test_the_program_of_delays_lets_adapt_what_is_missing_and_measures_once(files, tmp_path):
    """How a run learns is tested elsewhere: here it ends as it begins, but for a policy of its own."""
    folder, _ = files
    program = runpy.run_path(str(REPO / "training" / "delays.py"))
    adapted = []

    def at_once(config, run, resume, save_every_s, title):
        adapted.append(config.delay_s)
        trainer = Trainer(config)
        trainer.steps, trainer.rows = config.steps, [Row(config.steps, *[0.0] * (len(Row._fields) - 1))]
        own = jax.tree.map(lambda x: x * (1.0 + config.delay_s), trainer.learned.params["policy"])
        trainer.learned = trainer.learned._replace(params={**trainer.learned.params, "policy": own})
        trainer.save(run)

    program["main"].__globals__["carry_out"] = at_once
    config = Phase2Config(
        steps=32, environments=2, unroll=8, policy="", decoder=str(folder / "decoder.safetensors"), armband=BAND.name,
        network=NetworkConfig((16,)),
    )  # fmt: skip
    run = program["DelaysRun"](
        delays_ms=(0, 60), adapted_ms=(0, 60), runs=tmp_path, shipped="", sudden_s=1.0, sudden_dwell_s=0.1,
        out=tmp_path / "out", test=UseConfig(participants=2, seconds=3.0), config=config,
    )  # fmt: skip
    with pytest.raises(MyoloopError, match=r"delay_60 --delay-s 0\.06 --seed 0 --steps 32"):
        program["main"](dataclasses.replace(run, train=False))
    told = program["main"](run)
    assert adapted == [0.0, 0.06]
    found = json.loads((tmp_path / "out" / "delay.json").read_text())
    none, this = found["adapted without delay"], found["adapted at this delay"]
    assert [row["delay_ms"] for row in none] == [0, 60] and none[0] == this[0], "at no delay it is the same participant"
    assert none[1]["effort"] != this[1]["effort"]
    assert (tmp_path / "out" / "delay.png").stat().st_size > 20_000
    (tmp_path / "out" / "delay.json").unlink()
    assert program["main"](dataclasses.replace(run, train=False)) == told, "what was measured is kept"
    with pytest.raises(MyoloopError, match="other settings of seed"):
        program["main"](dataclasses.replace(run, config=dataclasses.replace(config, seed=1)))
