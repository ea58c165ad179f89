"""Learning while a session runs: answers find their steps, policies are swapped, a lost learner stops nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from myoloop.assets import POLICY, find_file
from myoloop.body.names import MUSCLES
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment
from myoloop.learn.heard import Answers, Steps
from myoloop.learn.internal_model import ForwardConfig, InternalModelConfig, divergence, mean_divergence
from myoloop.learn.online import ENOUGH, OnlineConfig, OnlineLearner
from myoloop.learn.pairing import Pairing
from myoloop.learn.through_forward import ObjectiveConfig
from myoloop.live.channel import pack_experience, pack_policy, unpack_experience, unpack_policy
from myoloop.live.learner import config_from
from myoloop.live.participant import LiveParticipant, StepRecord
from myoloop.participant import ParticipantConfig, Participants
from myoloop.policy.exploration import Exploration, still, wander
from myoloop.policy.learned import LearnedPolicy, load_policy, save_policy, told_all
from myoloop.policy.networks import NetworkConfig, make_policy
from myoloop.streams.outlets import make_outlet
from myoloop.streams.rowlog import read_events

DT = 0.02


def steps(numbers: list[int], fresh: tuple[int, ...] = ()) -> Steps:
    """Steps whose stamps are 100 s and a step each, and whose commands say their number."""
    number = np.array(numbers)
    mark = number[:, None].astype(np.float32)
    return Steps(number, 100 + DT * number, mark, np.repeat(mark, 39, 1), mark.repeat(5, 1), np.isin(number, fresh))


def answers(times: list[float], values: list[float] | None = None) -> Answers:
    values = values if values is not None else [0.75] * len(times)
    return Answers(100 + np.array(times), np.repeat(np.array(values, np.float32)[:, None], 5, 1))


def paired(pairing: Pairing) -> np.ndarray:
    """Probabilities of the first finger by step, NaN where there is no answer, of all stretches that are complete."""
    odds = [heard.odds[:, 0, 0] for heard in pairing.complete()]
    return 1 / (1 + np.exp(-np.concatenate(odds))) if odds else np.zeros(0)


def test_an_answer_belongs_to_the_step_whose_emg_it_ends_with_however_late_it_comes() -> None:
    pairing = Pairing(DT, stretch=4, past=0, late_s=0.2)
    pairing.take(steps([0, 1, 2, 3, 4, 5]), answers([]))
    assert not pairing.complete(), "answers may still come"
    pairing.take(steps([6]), answers([3 * DT, 0 * DT, 2 * DT + 0.003, 1 * DT - 0.003], [0.4, 0.1, 0.3, 0.2]))
    np.testing.assert_allclose(paired(pairing), [0.1, 0.2, 0.3, 0.4], atol=1e-6)
    assert pairing.counts["paired"] == 4 and not pairing.counts["stray"]


def test_of_two_answers_the_nearest_in_time_counts() -> None:
    pairing = Pairing(DT, stretch=2, past=0, late_s=0.02)
    pairing.take(steps([0, 1, 2, 3]), answers([-0.009, 0.001, 0.008, DT, DT], [0.1, 0.2, 0.3, 0.4, 0.5]))
    np.testing.assert_allclose(paired(pairing), [0.2, 0.4], atol=1e-6)
    assert pairing.counts["surplus"] == 3


def test_what_is_not_answered_in_time_never_is() -> None:
    pairing = Pairing(DT, stretch=3, past=0, late_s=0.1)
    pairing.take(steps(list(range(20))), answers([0.0, 2 * DT]))
    first = paired(pairing)[:3]
    assert np.isnan(first[1]) and np.isfinite(first[[0, 2]]).all()
    pairing.take(steps([20]), answers([DT, 7.0, -3.0]))
    assert pairing.counts["late"] == 2 and pairing.counts["stray"] == 1
    assert pairing.counts["paired"] == 2


def test_after_a_gap_or_a_reset_no_answer_counts_until_the_past_is_known_again() -> None:
    pairing = Pairing(DT, stretch=6, past=3, late_s=0.02)
    numbers = [0, 1, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    pairing.take(steps(numbers, fresh=(10,)), answers([DT * n for n in numbers]))
    known = np.isfinite(paired(pairing))
    assert known.tolist() == [True, True, False, False, False, True, True, False, False, False, True, True]
    assert pairing.counts["gaps"] == 3


def test_a_decoder_slower_than_the_steps_gives_fewer_pairs_and_no_wrong_ones() -> None:
    pairing = Pairing(DT, stretch=10, past=0, late_s=0.02)
    pairing.take(steps(list(range(13))), answers([0.1, 0.2]))
    assert np.flatnonzero(np.isfinite(paired(pairing))).tolist() == [5]


def test_answers_that_are_sure_have_finite_log_odds() -> None:
    pairing = Pairing(DT, stretch=2, past=0, late_s=0.02)
    pairing.take(steps([0, 1, 2, 3]), answers([0.0, DT], [0.0, 1.0]))
    odds = pairing.complete()[0].odds
    np.testing.assert_allclose(odds[:, 0, 0], [-np.log(999), np.log(999)], rtol=1e-4)


def test_answers_that_did_not_come_count_for_nothing() -> None:
    odds, answered = np.array([1.0, -2.0, 0.5], np.float32), np.array([2.0, np.nan, -1.0], np.float32)
    known = divergence(odds[[0, 2]], answered[[0, 2]]).mean()
    assert float(mean_divergence(odds, answered)) == pytest.approx(float(known), rel=1e-6)
    slope = jax.grad(lambda x: mean_divergence(x, answered))(odds)
    assert np.isfinite(slope).all() and slope[1] == 0 and slope[0] != 0
    assert float(mean_divergence(odds, np.full(3, np.nan))) == 0


def test_experience_and_policies_pass_the_channel_unchanged() -> None:
    rows = [(7, 100.5, np.ones(3, np.float32), np.zeros(39, np.float32), np.ones(5, np.float32), True)]
    told, said = unpack_experience(pack_experience(rows, [(100.48, np.full(5, 0.5, np.float32))]))
    assert told.number.tolist() == [7] and told.time.dtype == np.float64 and told.fresh.tolist() == [True]
    assert said.time.tolist() == [100.48] and said.values.shape == (1, 5)
    none = unpack_experience(pack_experience(rows, []))[1]
    assert none.values.shape == (0, 5)
    params = {"params": {"Dense_0": {"kernel": np.arange(6.0).reshape(2, 3)}}}
    again, about = unpack_policy(pack_policy(params, {"model_loss": 0.25}))
    np.testing.assert_array_equal(again["params"]["Dense_0"]["kernel"], params["params"]["Dense_0"]["kernel"])
    assert about == {"model_loss": 0.25}


def test_exploration_persists_and_repeats_with_its_seed() -> None:
    one, same, other = still(3, 1), still(3, 1), still(4, 1)
    step, found = jax.jit(wander), []
    for _ in range(300):
        one, same, other = (step(w, 0.8) for w in (one, same, other))
        found.append(np.asarray(one.noise[0]))
        np.testing.assert_array_equal(one.noise, same.noise)
    assert not np.array_equal(one.noise, other.noise)
    late = np.stack(found[30:])
    assert late.std() == pytest.approx(1.0, abs=0.08)
    assert np.mean(late[1:] * late[:-1]) / late.var() == pytest.approx(0.8, abs=0.04)


@pytest.fixture(scope="module")
def explorers() -> Participants:
    return Participants(ParticipantConfig(exploration=Exploration(0.3, seed=1)), threads=1)


def test_a_policy_is_swapped_and_exploration_ended_without_compiling_again(explorers: Participants) -> None:
    policy = explorers.policy
    assert policy is not None and policy.cues == ("target", "prediction")
    plain = Participants(ParticipantConfig(), threads=1)
    plain.reset([0])
    habitual = plain.act().excitation
    explorers.reset([0])
    act = explorers.act()
    assert act.thought is not None and act.thought.command.shape == (1, 39)
    compiled = explorers._decide._cache_size()
    noisy = act.excitation
    explorers.reset([0])
    explorers.explore(0.0)
    calm = explorers.act().excitation
    np.testing.assert_allclose(calm, habitual, atol=1e-6)
    assert np.abs(noisy - calm).max() > 1e-3
    other = jax.tree.map(lambda x: 1.1 * x, policy.params)
    explorers.reset([0])
    explorers.set_policy(other)
    assert np.abs(explorers.act().excitation - calm).max() > 1e-4
    explorers.set_policy(policy.params)
    explorers.explore(0.3)
    assert explorers._decide._cache_size() == compiled


def test_who_cannot_learn_while_acting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MyoloopError, match="baseline controller does not learn"):
        Participants(ParticipantConfig(policy="baseline", exploration=Exploration()))
    start = load_policy(find_file(POLICY)).policy
    network = NetworkConfig((8,), recurrent=4)
    params = make_policy(network, 154, len(MUSCLES)).init(jax.random.key(0))
    save_policy(tmp_path / "recurrent.safetensors", start.replace(params=params, network=network), {})
    with pytest.raises(MyoloopError, match="recurrent 4, bottleneck 0: only feed-forward"):
        Participants(ParticipantConfig(policy=str(tmp_path / "recurrent.safetensors"), exploration=Exploration()))


@pytest.fixture(scope="module")
def start() -> LearnedPolicy:
    return told_all(load_policy(find_file(POLICY)).policy)


def small(**other: int) -> OnlineConfig:
    forward = ForwardConfig(
        windows=(1, 1, 1, 1),
        hidden=(16,),
        members=2,
        updates=4,
        stretches=4,
        remembered=4,
        first_rollouts=other.pop("first", 2),
    )
    return OnlineConfig(stretch=8, internal_model=InternalModelConfig(forward, ObjectiveConfig(updates=2, stretches=4)))


def tell(learner: OnlineLearner, begin: int, count: int, answer: float = 0.7) -> None:
    """Steps with answers to all of them."""
    number = np.arange(begin, begin + count)
    rng = np.random.default_rng(begin)
    size = learner._learner.actor.observations
    learner.hear(
        Steps(
            number, DT * number, rng.normal(size=(count, size)).astype(np.float32),
            rng.uniform(0, 0.2, (count, 39)).astype(np.float32), np.ones((count, 5), np.float32), np.zeros(count, bool),
        ),
        Answers(DT * number, np.full((count, 5), answer, np.float32)),
    )  # fmt: skip


def test_the_learner_thinks_after_whole_stretches_and_waits_before_it_changes_the_policy(start: LearnedPolicy) -> None:
    learner = OnlineLearner(start, small())
    learner.warm_up()
    tell(learner, 0, 8)
    assert learner.think() is None, "a stretch is complete when the next has begun"
    tell(learner, 8, 12)
    line = learner.think()
    assert line is not None and line.stretches == 2 and line.paired == 16 and line.time_s == pytest.approx(16 * DT)
    jax.tree.map(np.testing.assert_array_equal, start.params["params"]["Dense_1"], learner.params["params"]["Dense_1"])
    tell(learner, 20, 10)
    assert learner.think() is not None
    assert not np.array_equal(
        start.params["params"]["Dense_1"]["kernel"], learner.params["params"]["Dense_1"]["kernel"]
    )
    assert learner.policy.cues == start.cues and "min of a session" in learner.policy.name


def test_answers_that_are_nothing_like_before_make_the_learner_forget_what_it_remembers(start: LearnedPolicy) -> None:
    learner = OnlineLearner(start, small())
    learner._learned = learner._learned._replace(memory=learner._learned.memory._replace(filled=jnp.int32(3)))
    for surprise in [0.1] * ENOUGH + [0.5, 0.1, 0.9]:
        learner._forget_if_odd(surprise)
    assert learner.forgotten == 0 and int(learner._learned.memory.filled) == 3, "one odd stretch says little"
    learner._forget_if_odd(0.9)
    assert learner.forgotten == 1 and int(learner._learned.memory.filled) == 0
    for surprise in [5.0] * (ENOUGH - 1) + [9.0] * 2:
        learner._forget_if_odd(surprise)
    assert learner.forgotten == 1, "what is usual now is found anew first"


def test_a_difficult_gesture_after_easy_ones_is_no_change_of_the_world(start: LearnedPolicy) -> None:
    """Prompts: five stretches each, the answers to rest known to a thousandth, those to a pinch hardly at all."""
    learner = OnlineLearner(start, small())
    draws = np.random.default_rng(0)
    for _ in range(300):
        for loss in draws.permutation([0.002, 0.05, 0.3, 1.6]):
            for _ in range(3):
                learner._forget_if_odd(float(loss * draws.uniform(0.7, 1.3)))
            for _ in range(2):
                learner._forget_if_odd(0.002)  # rest between them
    assert learner.forgotten == 0


def test_a_habit_that_acts_otherwise_is_refused(start: LearnedPolicy) -> None:
    with pytest.raises(MyoloopError, match="does not perceive and act as policy"):
        OnlineLearner(start, small(), habit=load_policy(find_file(POLICY)).policy)


def test_a_session_s_learner_learns_by_default_as_one_without_a_session() -> None:
    adapt = Experiment.model_validate({"participant": {"adapt": "online"}}).participant.adapt
    assert adapt is not None
    assert config_from(adapt.model_dump(), 0, load_policy(find_file(POLICY)).policy) == OnlineConfig()


def test_the_participant_s_process_loads_no_training() -> None:
    code = "import sys, myoloop.live.participant; print([m for m in sys.modules if m in ('optax', 'myoloop.learn.rollout')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


class Session:
    """A live participant with a learner, and a decoder that says what the thumb's flexor does; the learner is killed."""

    def __init__(self, folder: Path) -> None:
        experiment = Experiment.model_validate(
            {
                "duration_s": 3600, "ros": False, "decoder": {"kind": "external"},
                "participant": {
                    "id": "learning", "wait_for_decoder_s": 0, "policy": str(find_file(POLICY)),
                    "adapt": {"remembered_s": 20, "save_every_s": 1},
                },
                "changes": [{"at_s": 0.5, "condition": "mains_hum", "strength": 0.4}],
            }
        )  # fmt: skip
        self.folder = folder
        live = LiveParticipant(experiment, folder)
        outlet = make_outlet("learning", "prediction", ("thumb", "index", "middle", "ring", "little"), "", 0)

        def answer(record: StepRecord) -> None:
            said = np.clip(10 * record.excitation[MUSCLES.index("FPL")], 0, 1)
            outlet.push_sample(np.full(5, said, np.float32).tolist(), record.lsl_time)

        live.subscribe(answer)
        live.start()
        self._until(lambda: live.status()["learner"]["swaps"] >= 2)
        self.learning = live.status()
        os.kill(self.learning["learner"]["pid"], signal.SIGKILL)
        self._until(lambda: live.status()["learner"]["phase"] == "lost")
        before = live.status()["steps"]
        self._until(lambda: live.status()["steps"] > before + 50)
        self.deviation = float(live._people._fixed.exploration[0])  # type: ignore[index]
        live.close()
        self.after, self.error = live.status(), live.error
        self.events = [text for _, text in read_events(folder / "events.jsonl")]

    @staticmethod
    def _until(reached, seconds: float = 250.0) -> None:  # type: ignore[no-untyped-def]
        end = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(tmp_path_factory.mktemp("learning"))


def test_policies_learned_elsewhere_are_taken_over_while_the_session_runs(session: Session) -> None:
    learner = session.learning["learner"]
    assert learner["phase"] == "learning" and learner["swaps"] >= 2
    assert "learner's first policy" in session.events and (session.folder / "learning.csv").is_file()
    lines = (session.folder / "learning.csv").read_text().splitlines()
    paired = [float(dict(zip(lines[0].split(","), x.split(","), strict=True))["paired"]) for x in lines[1:]]
    assert max(paired) > 40, "answers over LSL find their steps"


def test_what_is_scheduled_happens_and_is_said(session: Session) -> None:
    assert session.events.count("condition mains_hum 0.4") == 1 and session.after["conditions"] == {"mains_hum": 0.4}


def test_a_lost_learner_is_said_once_and_the_participant_goes_on_without_exploration(session: Session) -> None:
    assert session.events.count("learner lost") == 1 and session.error is None
    assert sum("the learner ended" in message for message in session.after.get("messages", [])) <= 1
    assert session.after["steps"] > session.learning["steps"] + 50 and session.deviation == 0.0
    assert session.after["phase"] == "stopped"


def test_what_was_learned_is_a_policy_that_can_be_used(session: Session) -> None:
    saved = load_policy(session.folder / "policy.safetensors")
    assert saved.policy.cues == ("target", "prediction") and saved.about["adapt"]["learner"] == "internal_model"


def test_on_simulated_time_a_session_waits_for_its_learner_but_not_for_one_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("myoloop.live.adaptation.HANGS_S", 1.0)
    experiment = Experiment.model_validate(
        {
            "duration_s": 36000, "ros": False, "clock": "free",
            "participant": {"id": "thinking", "adapt": {"remembered_s": 20, "ahead_s": 4}},
        }
    )  # fmt: skip
    live = LiveParticipant(experiment, tmp_path)
    live.start()

    def swaps() -> int:
        return live.status()["learner"]["swaps"]

    Session._until(lambda: swaps() >= 3)
    learner = live._adaptation
    assert learner is not None
    behind = []
    for _ in range(40):
        behind.append(learner._behind_s)
        time.sleep(0.05)
    assert max(behind) < 4 + 0.1, "as soon as it has caught up with what came before it was ready"
    os.kill(live.status()["learner"]["pid"], signal.SIGSTOP)
    before = live.status()["steps"]
    Session._until(lambda: live.status()["steps"] > before + 1000)
    os.kill(live.status()["learner"]["pid"], signal.SIGCONT)
    heard = swaps()
    Session._until(lambda: swaps() > heard)
    live.close()
    assert live.error is None and live.status()["learner"]["phase"] == "ended"


def test_the_learner_ends_with_its_participant_and_keeps_what_it_learned(tmp_path: Path, start: LearnedPolicy) -> None:
    """The pipe is closed without a last word, as when the participant is killed."""
    import multiprocessing

    from myoloop.live.channel import pack_greeting

    ours, theirs = multiprocessing.Pipe()
    adapt = Experiment.model_validate({"participant": {"adapt": "online"}}).participant.adapt
    assert adapt is not None
    command = [sys.executable, "-m", "myoloop.live.learner", str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    greeting = {"policy": str(find_file(POLICY)), "seed": 0, "adapt": adapt.model_dump(), "later_s": 0.0}
    greeting["run_dir"] = str(tmp_path)
    ours.send_bytes(pack_greeting(greeting))
    assert unpack_policy(ours.recv_bytes())[0] == {}, "it says when it is ready"
    size = start.params["params"]["Dense_0"]["kernel"].shape[0]
    rows = [(n, DT * n, np.zeros(size), np.full(39, 0.01), np.ones(5), False) for n in range(100)]
    rows = [tuple(np.float32(x) if i > 1 and i < 5 else x for i, x in enumerate(row)) for row in rows]
    ours.send_bytes(pack_experience(rows, [(DT * n, np.full(5, 0.5, np.float32)) for n in range(100)]))
    params, about = unpack_policy(ours.recv_bytes())
    assert params and about["stretches"] == 2 and about["paired"] == 96
    ours.close()
    assert process.wait(120) == 0
    assert load_policy(tmp_path / "policy.safetensors").policy.control_hz == 50
