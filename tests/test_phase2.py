"""Phase 2: learners that think through a forward model, what they remember, and runs that repeat."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from myoloop.assets import POLICY, find_file
from myoloop.body.engine import Posture
from myoloop.body.model import load_hand
from myoloop.body.names import FOREARM_MUSCLES
from myoloop.decoder import networks, tcn
from myoloop.decoder.weights import save_decoder
from myoloop.emg.armband import armband
from myoloop.emg.synthesis import build_emg, init_emg, synthesise
from myoloop.errors import MyoloopError
from myoloop.learn.expected_power import power, tabulate
from myoloop.learn.gradient import GradientConfig
from myoloop.learn.internal_model import ForwardConfig, InternalModelConfig, InternalModelLearner, divergence
from myoloop.learn.phase2 import Phase2Config
from myoloop.learn.ppo import PpoConfig, Rollout
from myoloop.learn.rollout import Experience, Interface, Loop, decide, init_loop, judged, wished
from myoloop.learn.through_forward import (
    Actor,
    ObjectiveConfig,
    chosen,
    empty_memory,
    heard,
    improve_policy,
    optimiser,
    rarity,
    remember,
)
from myoloop.learn.trainer import Trainer
from myoloop.policy.actions import ActionConfig
from myoloop.policy.learned import load_policy, told_as
from myoloop.policy.networks import NetworkConfig, make_policy
from myoloop.policy.normaliser import init_normaliser
from myoloop.policy.observation import observation_layout
from myoloop.task.tracking import TrackingConfig, asked_flexion, asked_labels, make_tracking

BAND = armband("myo8")
NETWORK = tcn.TcnConfig(channels=BAND.channels, rate_hz=BAND.rate_hz, spatial_filters=8, temporal_filters=2, hidden=8)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A decoder that was never trained: its answers are as good as any to learn to predict."""
    path = tmp_path_factory.mktemp("decoder") / "decoder.safetensors"
    params = tcn.init_params(NETWORK, jax.random.key(1))
    save_decoder(path, NETWORK, params, BAND.channel_labels, "untrained")
    return path, params


def _small(decoder, learner, **other):
    objective = ObjectiveConfig(updates=2, stretches=4)
    return Phase2Config(
        steps=96, environments=2, unroll=8, threads=1, learner=learner, policy="", decoder=str(decoder[0]),
        armband=BAND.name, network=NetworkConfig((16,)), critic=(16,), ppo=PpoConfig(minibatches=2, epochs=1),
        internal_model=InternalModelConfig(
            ForwardConfig(windows=(1, 1, 2), hidden=(16,), members=2, updates=3, stretches=4, remembered=2, first_rollouts=1),
            objective,
        ),
        gradient=GradientConfig(objective, past=4, remembered=2),
        **other,
    )  # fmt: skip


def test_expected_power_is_the_mean_power_of_the_emg_behind_every_filter(decoder):
    emg = build_emg(BAND)
    table = tabulate(emg, NETWORK, decoder[1])
    seconds, rng = 20, np.random.default_rng(0)
    for _ in range(3):
        drive = np.where(rng.random(26) < 0.4, rng.uniform(0.02, 0.15, 26), 0.0).astype(np.float32)[
            None
        ]  # nothing clips
        out, _ = synthesise(emg, init_emg(emg, 3), drive, seconds * round(BAND.rate_hz))
        found = np.asarray(tcn.frame_power(NETWORK, decoder[1], out.chunk)[0, 50:].mean(axis=0))
        expected = np.asarray(power(table, jnp.asarray(drive))[0])
        assert 0.9 < np.median(expected / found) < 1.1
        assert np.abs(np.log(expected / found)).max() < np.log(1.35)
    slope = jax.grad(lambda e: power(table, e).sum())(jnp.full((1, 39), 0.1))
    assert (np.asarray(slope)[0, : len(FOREARM_MUSCLES)] > 0).all() and (np.asarray(slope)[0, 26:] == 0).all()


def test_answers_to_powers_are_those_to_the_emg_with_these_powers(decoder):
    emg = jax.random.normal(jax.random.key(0), (2, 12 * NETWORK.samples_per_call, BAND.channels)) * 30
    odds, _ = tcn.logits(NETWORK, decoder[1], tcn.init_state(NETWORK, 2), emg)
    again = tcn.logits_of_power(NETWORK, decoder[1], tcn.frame_power(NETWORK, decoder[1], emg))
    np.testing.assert_allclose(again, odds, atol=1e-5)
    with pytest.raises(MyoloopError, match="reads 16 powers a frame"):
        tcn.logits_of_power(NETWORK, decoder[1], jnp.ones((1, 3, 5)))


def _experience(number, participants=2, steps=3):
    """Excitations that say which rollout, participant and step they are of."""
    stamp = 100.0 * number + 10.0 * np.arange(participants)[None, :] + np.arange(steps)[:, None]
    wide = jnp.asarray(np.repeat(stamp[..., None], 39, axis=2))
    rollout = Rollout(wide[..., :4], *[None] * 8)
    return Experience(rollout, None, None, wide, wide[..., :5], wide[..., :5])


def test_the_newest_rollouts_are_remembered_with_what_was_done_before_them():
    memory = empty_memory(2, participants=2, steps=3, past=4, observations=4, muscles=39)
    for number in (1, 2, 3):
        memory = remember(memory, heard(_experience(number)), _experience(number).excitation)
    # the third took the place of the first; before it lies the end of the second, and of the first what fits
    np.testing.assert_array_equal(memory.excitation[0, :, 0], [102, 200, 201, 202, 300, 301, 302])
    np.testing.assert_array_equal(memory.excitation[1, :, 0], [112, 210, 211, 212, 310, 311, 312])
    np.testing.assert_array_equal(memory.excitation[3, :, 0], [0, 110, 111, 112, 210, 211, 212])
    np.testing.assert_array_equal(memory.odds[0, :, 0], [300, 301, 302])
    np.testing.assert_array_equal(memory.tail[1, :, 7], [212, 310, 311, 312])
    assert int(memory.filled) == 3


def test_a_policy_learns_through_a_forward_model_what_it_was_never_told():
    """The model: finger f is flexed where muscle f pulls harder than 0.1. The policy sees the labels."""
    policy = make_policy(NetworkConfig((32,)), 5, 39)
    actor = Actor(policy, ActionConfig(), 5, 16)
    labels = (jax.random.uniform(jax.random.key(0), (16, 6, 5)) > 0.5).astype(jnp.float32)
    memory = empty_memory(1, 16, 6, 2, 5, 39)._replace(obs=2 * labels - 1, labels=labels, filled=jnp.int32(1))
    params = policy.init(jax.random.key(1))

    def forward(gain, excitation):
        return gain * (jnp.log(excitation[None, :, 2:, :5] + 1e-3) - jnp.log(0.1))

    one_joint = jnp.zeros((1, 1, 39)).at[0, 0, :2].set(jnp.array([1.0, -1.0]))  # muscles 0 and 1 against each other

    habitual = chosen(actor, params, init_normaliser(5), memory.obs)
    memory = memory._replace(habitual=habitual)

    def trained(config):
        args = (
            config,
            actor,
            forward,
            2.0,
            memory,
            init_normaliser(5),
            one_joint,
            params,
            optimiser(config).init(params),
        )
        return improve_policy(*args, jax.random.key(2))

    config = ObjectiveConfig(updates=1, stretches=16, learning_rate=3e-3, movement=0.0)
    _, _, first = trained(config)
    _, _, free = trained(dataclasses.replace(config, updates=300))
    _, _, bound = trained(dataclasses.replace(config, updates=300, movement=300.0))
    _, _, lazy = trained(dataclasses.replace(config, updates=300, effort=200.0))
    assert first.wanted_loss > 0.6 and free.wanted_loss < 0.15
    assert (
        bound.strayed < 0.1 * free.strayed and bound.wanted_loss < 0.4
    )  # both pull where one is asked to, and three are free
    assert lazy.effort < 0.7 * free.effort and lazy.wanted_loss > free.wanted_loss


def test_every_combination_of_labels_weighs_the_same_where_gestures_are_balanced() -> None:
    labels = np.zeros((2, 10, 5))
    labels[0, :3], labels[1, 0] = 1.0, (1, 1, 0, 0, 0)
    weights = np.asarray(rarity(jnp.asarray(labels)))
    fist, pinch = weights[0, :3], weights[1, 0]
    np.testing.assert_allclose([fist.sum(), pinch, weights.sum() - fist.sum() - pinch], 20 / 3, rtol=1e-5)
    assert np.ptp(fist) == 0 and abs(weights.mean() - 1) < 1e-5


def test_the_divergence_of_answers_is_zero_where_they_agree_and_that_of_the_textbook_elsewhere():
    odds = jnp.array([-3.0, 0.0, 2.0])
    np.testing.assert_allclose(divergence(odds, odds), 0.0, atol=1e-6)
    p, q = 1 / (1 + np.exp(-2.0)), 0.5
    textbook = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    np.testing.assert_allclose(divergence(jnp.array(0.0), jnp.array(2.0)), textbook, rtol=1e-5)


@pytest.fixture(scope="module")
def bare(decoder):
    """A loop without EMG: what a step is worth with a decoder, and how it explores, can be seen alone."""
    hand = load_hand()
    task = make_tracking(hand, TrackingConfig(), 3)
    loop = Loop(task, None, NetworkConfig((8,)), ActionConfig(), persistence=0.9)
    state = init_loop(loop, jax.random.key(0), 0.0)
    body = Posture(np.zeros((3, 23)), np.zeros((3, 23)), np.zeros((3, 39)), np.zeros(3), np.array([False, False, True]))
    return loop, loop.replace(interface=Interface(decoder[1], NETWORK, worth=2.0)), state, body


def test_right_answers_are_paid_to_the_forearm_and_nobody_is_paid_whose_body_diverged(bare):
    plain, loop, state, body = bare
    asked = asked_labels(loop.task, state.task, loop.task.control_dt)
    quiet = jnp.zeros((3, 39))
    sure, mixed = 8.0 * (2 * asked - 1), jnp.zeros((3, 5))
    for odds, worth in ((sure, 2.0), (-sure, 0.0), (mixed, 1.0)):
        _, reward, _ = judged(loop, state._replace(odds=odds), body, quiet)
        np.testing.assert_allclose(reward[:, -1], [worth, worth, 0.0], atol=2e-3)
    _, without, _ = judged(plain, state, body, quiet)
    np.testing.assert_allclose(reward[:, :-1], without, atol=1e-6)
    np.testing.assert_array_equal(loop.credit[-1], np.arange(39) < 26)
    np.testing.assert_array_equal(loop.credit[:-1], plain.credit)


def test_flexions_are_paid_by_nearness_and_asked_for_where_a_decoder_answers_them(bare):
    _, labelled, state, body = bare
    loop = labelled.replace(interface=labelled.interface.replace(target="flexion"))
    asked = jnp.clip(asked_flexion(loop.task, state.task, loop.task.control_dt), 1e-6, 1 - 1e-6)
    half = jnp.abs(0.5 - asked).mean(axis=1)
    for odds, worth in ((jnp.log(asked / (1 - asked)), jnp.ones(3)), (jnp.zeros((3, 5)), 1 - half)):
        _, reward, _ = judged(loop, state._replace(odds=odds), body, jnp.zeros((3, 39)))
        np.testing.assert_allclose(reward[:2, -1], 2.0 * worth[:2], atol=2e-3)
    np.testing.assert_array_equal(wished(loop, state.task, 0.3), asked_flexion(loop.task, state.task, 0.3))
    np.testing.assert_array_equal(wished(labelled, state.task, 0.3), asked_labels(loop.task, state.task, 0.3))


def test_a_policy_that_meets_a_decoder_of_flexion_is_told_flexions(decoder, tmp_path):
    path = tmp_path / "decoder.safetensors"
    save_decoder(path, NETWORK, decoder[1], BAND.channel_labels, "untrained", "flexion")
    loop = _small((path, decoder[1]), "ppo").build(load_hand(), 0.02).loop
    assert loop.cues == ("flexion", "prediction") and loop.interface.target == "flexion"


@pytest.mark.parametrize("learner", ["internal_model", "gradient"])
def test_the_movement_of_an_earlier_policy_can_be_kept(decoder, learner):
    after = "models/policy_phase2/policy.safetensors"
    config = dataclasses.replace(_small(decoder, learner), policy=after, habit=POLICY)
    learned = config.build(load_hand(), 0.02).learner.start(jax.random.key(0))
    first, second = (load_policy(find_file(path)).policy for path in (POLICY, after))
    told = ("target", "prediction")
    jax.tree.map(np.testing.assert_array_equal, learned.habit, told_as(first, told).params)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), learned.habit, told_as(second, told).params)
    assert max(jax.tree.leaves(moved)) > 0.01
    with pytest.raises(MyoloopError, match="from nothing there is no movement to keep"):
        dataclasses.replace(config, policy="").build(load_hand(), 0.02)


def test_exploration_persists_as_configured_and_keeps_its_size(bare):
    loop, _, state, body = bare
    params, normaliser = loop.policy.init(jax.random.key(0)), init_normaliser(154)
    step = jax.jit(lambda state: decide(loop, params, normaliser, state, body)[0])
    noise = []
    for _ in range(400):
        state = step(state)
        noise.append(np.asarray(state.noise).ravel())
    late = np.stack(noise[50:])
    assert late.std() == pytest.approx(1.0, abs=0.08)
    assert np.mean(late[1:] * late[:-1]) / late.var() == pytest.approx(0.9, abs=0.03)


def test_the_internal_model_learns_what_the_decoder_answers():
    """The answers depend on what two muscles did up to three steps ago."""
    size = observation_layout((0.02,)).size
    actor = Actor(make_policy(NetworkConfig((8,)), size, 39), ActionConfig(), size, 16)
    forward = ForwardConfig(
        windows=(1, 1, 1, 1), hidden=(32,), members=2, updates=300, stretches=16, remembered=1, learning_rate=3e-3
    )
    learner = InternalModelLearner(InternalModelConfig(forward), actor, 20, None, jnp.zeros((1, 23, 39)))
    start = learner.start(jax.random.key(0))
    excitation = jax.random.uniform(jax.random.key(1), (16, 23, 39))
    odds = 4.0 * (excitation[:, 3:, :5] - excitation[:, :-3, 5:10])
    memory = start.memory._replace(excitation=excitation, odds=odds, filled=jnp.int32(1))
    answers = learner._forward(start.params["model"], excitation)
    before = float(divergence(answers, odds[None]).mean())
    model, _ = jax.jit(learner._fitted)(start, memory, jax.random.key(2))
    after = float(divergence(learner._forward(model, excitation), odds[None]).mean())
    assert after < 0.15 * before


@pytest.mark.parametrize(("learner", "delay_s"), [("internal_model", 0.1), ("gradient", 0.0), ("ppo", 0.0)])
def test_a_run_goes_on_bit_for_bit_with_every_learner(decoder, learner, delay_s, tmp_path):
    config = _small(decoder, learner, delay_s=delay_s)
    first = Trainer(config)
    rows = [first.update() for _ in range(3)]
    first.save(tmp_path)
    ahead = first.update()
    second = Trainer(config)
    second.restore(tmp_path)
    again = second.update()
    jax.tree.map(np.testing.assert_array_equal, first.learned, second.learned)
    assert again.reward == ahead.reward and again.accuracy == ahead.accuracy
    assert all(0 <= row.accuracy <= 1 and row.loss > 0 for row in rows)
    moved = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()),
        first.learned.params["policy"],
        Trainer(config).learned.params["policy"],
    )
    assert max(jax.tree.leaves(moved)) > 0
    policy = second.policy
    assert policy.cues == ("target", "prediction") and policy.name.startswith(f"phase 2, {learner}")


def test_answers_are_heard_as_many_steps_later_as_the_delay_says(decoder):
    """Told nothing of the answers, participants with and without delay do the same; only what they hear, and are asked when
    they hear it, differs. Without delay an answer is heard at once, and nothing waits."""
    hand, steps, delay = load_hand(), 10, 3
    body = Posture(np.zeros((2, 23)), np.zeros((2, 23)), np.zeros((2, 39)), np.zeros(2), np.zeros(2, bool))
    step, judge = jax.jit(decide), jax.jit(judged)
    answered, heard_then, paid, asked = ({} for _ in range(4))
    for behind in (0, delay):
        loop = _small(decoder, "ppo", delay_s=behind * 0.02, cues=("target",)).build(hand, 0.02).loop
        size = observation_layout(loop.task.config.look_ahead_s, loop.cues).size
        params, normaliser = loop.policy.init(jax.random.key(0)), init_normaliser(size)
        state = init_loop(loop, jax.random.key(0), 0.0)
        rows = []
        for _ in range(steps):
            state, made = step(loop, params, normaliser, state, body)
            task, reward, _ = judge(loop, state, body, made.excitation)
            state = state._replace(task=task)
            rows.append([np.asarray(x) for x in (made.odds, state.odds, reward[:, -1], made.labels)])
            ahead = np.asarray(asked_labels(loop.task, task, behind * 0.02))
            np.testing.assert_array_equal(made.labels, ahead)
        answered[behind], heard_then[behind], paid[behind], asked[behind] = map(np.stack, zip(*rows, strict=True))
        assert (state.coming is None) == (behind == 0)
    np.testing.assert_array_equal(answered[0], answered[delay])
    np.testing.assert_array_equal(heard_then[0], answered[0])
    np.testing.assert_array_equal(heard_then[delay][delay:], answered[0][:-delay])
    assert (heard_then[delay][:delay] == 0).all() and np.abs(answered[0]).min() > 0
    right = 1 - np.abs(1 / (1 + np.exp(-heard_then[delay])) - asked[0]).mean(axis=2)
    np.testing.assert_allclose(paid[delay], right, atol=1e-5)  # of what is heard now, by what is asked now


@pytest.mark.parametrize("kind", ["gru", "lda"])
def test_the_loop_in_training_holds_any_kind_of_decoder_and_gradient_only_a_tcn(kind, tmp_path):
    sizes = {} if kind == "lda" else {"spatial_filters": 8, "temporal_filters": 2, "hidden": 8}
    network = networks.make_config(kind, channels=BAND.channels, rate_hz=BAND.rate_hz, **sizes)
    params = networks.init_params(network, jax.random.key(1))
    params = {**params, "head": jax.tree.map(lambda leaf: leaf + 0.1, params["head"])}
    path = tmp_path / "decoder.safetensors"
    save_decoder(path, network, params, BAND.channel_labels, "untrained")
    hand = load_hand()
    loop = _small((path, params), "ppo").build(hand, 0.02).loop
    before = init_loop(loop, jax.random.key(0), 0.0)
    body = Posture(np.zeros((2, 23)), np.zeros((2, 23)), np.zeros((2, 39)), np.zeros(2), np.zeros(2, bool))
    size = observation_layout(loop.task.config.look_ahead_s, loop.cues).size
    after, made = decide(loop, loop.policy.init(jax.random.key(0)), init_normaliser(size), before, body)
    out, _ = synthesise(loop.emg, before.emg, made.excitation, loop.samples)
    odds, state = networks.logits(network, params, before.decoder, out.chunk)
    np.testing.assert_allclose(made.odds, odds[:, -1], atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), after.decoder, state)
    with pytest.raises(MyoloopError, match=f"filters of a TCN; the decoder is of kind '{kind}'"):
        _small((path, params), "gradient").build(hand, 0.02)


def test_the_armband_may_sit_otherwise_and_lose_contact(decoder):
    """The same seeds: only the electrodes have changed."""
    config = _small(
        decoder, "internal_model", conditions={f"lost_contact:{BAND.channel_labels[2]}": 1.0}, rotation_deg=20.0
    )
    loop = config.build(load_hand(), 0.02).loop
    good = _small(decoder, "internal_model").build(load_hand(), 0.02).loop
    chunks = []
    for each in (loop, good):
        drive = np.full((2, 39), 0.1, np.float32)
        out, _ = synthesise(each.emg, init_emg(each.emg, [0, 1]), drive, 200, each.circumstances)
        chunks.append(np.asarray(out.chunk)[:, 50:].std(axis=(0, 1)))
    assert good.circumstances is None
    np.testing.assert_array_equal(
        np.asarray(loop.circumstances.contact) == 0, np.arange(8)[None] == np.array([[2], [2]])
    )
    others = np.delete(np.arange(BAND.channels), 2)
    assert (np.abs(chunks[0][others] / chunks[1][others] - 1) > 0.02).sum() >= 4


def test_settings_that_do_not_fit_together_are_refused(decoder):
    config = _small(decoder, "internal_model")
    for change, message in (
        ({"learner": "internal-model"}, "internal_model"),
        ({"armband": "semg_rd16"}, "reads 8 channels at 200 Hz; armband 'semg_rd16' gives 16 at 2000 Hz"),
        ({"network": NetworkConfig((16,), recurrent=4)}, "improves feed-forward policies"),
        ({"cues": ("target", "applause")}, "applause"),
        ({"decoder": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"delay_s": 0.05}, "delay_s is 0.05: expected 0 or a whole number of control steps of 0.02 s"),
        ({"delay_s": -0.02}, "delay_s is -0.02"),
        ({"conditions": {"fatige": 1.0}}, "fatigue"),
        ({"conditions": {"essential_tremor": 1.0}}, "does not belong to the recording"),
        ({"conditions": {"fatigue": 1.0}, "learner": "gradient"}, "expects a good recording"),
    ):
        with pytest.raises(MyoloopError, match=message):
            Trainer(dataclasses.replace(config, **change))
