"""Many participants in one batch: each as if alone, with streams and a decoder of its own, and a report of their spread."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pylsl
import pytest
import yaml

from myoloop.assets import find_file
from myoloop.capacity import find_most
from myoloop.decoder.batch import BatchDecoder
from myoloop.decoder.runtime import OnnxDecoder
from myoloop.emg.conductor import Conductor
from myoloop.emg.config import EmgConfig
from myoloop.emg.people import sample_people
from myoloop.errors import MyoloopError
from myoloop.experiment import checked, load_experiment
from myoloop.live.hearing import Answers, Hearing, InsideInbox
from myoloop.live.population import LivePopulation
from myoloop.participant import ParticipantConfig, Participants
from myoloop.report import _lost
from myoloop.report_population import Crowd, population_figures, spread
from myoloop.report_turns import read_turns
from myoloop.streams.outlets import PARTICIPANT_STREAMS
from myoloop.streams.rowlog import read_rows

REPO = Path(__file__).parent.parent
MODEL = "models/decoder_multiuser/decoder.onnx"
QUICK = EmgConfig(units_scale=0.05, conductor=Conductor(kind="half_space"))


def experiment(**changes: Any) -> dict[str, Any]:
    """An experiment of quick people."""
    return {
        "ros": False,
        "record": False,
        "participant": {
            "id": "crowd",
            "anatomy": {"units_scale": 0.05},
            "conductor": "half_space",
            "wait_for_decoder_s": 5,
        },
        "population": {"participants": 3},
        "decoder": {"model": str(find_file(MODEL))},
    } | changes


def test_participants_of_a_batch_are_as_each_alone() -> None:
    drawn, ill = sample_people(5, 3, None, QUICK), ({}, {"fatigue": 1.0, "ageing": 1.0}, {})
    crowd = Participants(ParticipantConfig(people=drawn, own_conditions=ill, alike=True), 3, threads=1)
    crowd.reset([4, 4, 4])
    acts = [(crowd.act(), crowd.move()) for _ in range(15)]
    alone = Participants(ParticipantConfig(people=drawn[1:2], conditions=ill[1]), 1, threads=1)
    alone.reset([4])
    for act, body in acts:
        single, own_body = alone.act(), alone.move()
        assert np.abs(act.chunk[1] - single.chunk[0]).max() < 1e-3 * single.chunk.std() + 1e-3
        assert np.allclose(body.qpos[1], own_body.qpos[0], atol=1e-5)
        assert np.array_equal(act.target[0], act.target[1]) and np.array_equal(act.target[1], single.target[0])
    assert not np.allclose(acts[-1][0].chunk[0], acts[-1][0].chunk[2], rtol=0.5)


def test_a_model_answers_a_batch_as_it_answers_each_and_refuses_nan_of_one_alone() -> None:
    many, each = BatchDecoder(find_file(MODEL), 3), [OnnxDecoder(find_file(MODEL)) for _ in range(3)]
    rng = np.random.default_rng(0)
    for step in range(12):
        chunks = rng.normal(0, 50, (3, 30, 16)).astype(np.float32)  # not the model's own 40 samples
        if step == 5:
            chunks[1, 7, 3] = np.nan
        alone = [decoder.push(chunk) for decoder, chunk in zip(each, chunks, strict=True)]
        together = many.push(chunks)
        for n in range(3):
            mine = [(used, values[n]) for used, values, good in together if good[n]]
            assert [used for used, _ in mine] == [used for used, _ in alone[n]]
            for (_, values), (_, expected) in zip(mine, alone[n], strict=True):
                assert np.allclose(values, expected, atol=1e-5)
    assert many.refused_inputs.tolist() == [0, 1, 0] == [decoder.refused_inputs for decoder in each]
    with pytest.raises(MyoloopError, match=r"\(3, samples, 16\)"):
        many.push(np.zeros((2, 40, 16)))


class Inbox:
    """Counts answers; answers when told to."""

    def __init__(self, answers: bool) -> None:
        self.accepted, self.asked, self.answers = int(answers), 0, answers

    def answered(self, since: float, timeout: float) -> bool:
        self.asked += 1
        return self.answers


def test_lockstep_does_not_wait_twice_for_a_decoder_that_fell_silent() -> None:
    quick, silent, never = Inbox(True), Inbox(True), Inbox(False)
    answers = Answers([quick, silent, never])
    assert answers.count == 2 and answers.there(0.0, 0.01)
    silent.answers = False
    assert answers.there(0.0, 0.01) and answers.missed == 1
    asked = silent.asked
    assert answers.there(0.0, 0.01) and silent.asked == asked and never.asked == 0
    silent.answers, silent.accepted = True, 2
    assert answers.there(0.0, 0.01) and silent.asked == asked + 1
    quick.answers = silent.answers = False
    assert not answers.there(0.0, 0.01)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], set[str]]:
    """Two published, the second of whom nobody answers, and one inside: run folder, status, streams found on the network."""
    folder = tmp_path_factory.mktemp("mixed")
    population = {"persons": [3, {"person": 4, "conditions": {"fatigue": 0.5}}, 5], "ids": ["ann", "bob", "cid"]}
    raw = experiment(duration_s=3, population=population | {"publish": ["ann", "bob"]})
    raw["participant"]["wait_for_decoder_s"] = 1
    live = LivePopulation(checked(raw, "mixed"), folder)
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo("ann_prediction", "Control", 5, 0, pylsl.cf_float32, "ann"))
    over = threading.Event()

    def answer() -> None:
        while not over.wait(0.02):
            outlet.push_chunk(np.full((1, 5), 0.25, np.float32), pylsl.local_clock())

    speaker = threading.Thread(target=answer)
    speaker.start()
    wanted = {f"{name}_{kind}" for name in ("ann", "bob") for kind in PARTICIPANT_STREAMS}
    found: set[tuple[str, str]] = set()
    until = time.monotonic() + 60
    while not wanted <= {name for name, _ in found} and time.monotonic() < until:
        found = {(info.name(), info.source_id()) for info in pylsl.resolve_streams(1.0)}
    live.start()
    while live.running:
        time.sleep(0.05)
    status = live.status()
    live.close()
    over.set()
    speaker.join()
    assert live.error is None
    return folder, status, found


def test_each_published_participant_has_streams_of_its_own_and_nobody_else(mixed: Any) -> None:
    folder, status, found = mixed
    for name in ("ann", "bob"):
        assert {(f"{name}_{kind}", f"myoloop_{name}_{kind}") for kind in PARTICIPANT_STREAMS} <= found
        assert status["participants"][name]["sent"]["emg"] == status["steps"] * 40 == 3 * 2000
    assert not any(name.startswith("cid_") for name, _ in found)
    assert sorted(each.name for each in (folder / "participants").iterdir()) == ["ann", "bob"]


def test_a_decoder_silent_for_one_does_not_affect_the_others(mixed: Any) -> None:
    folder, status, _ = mixed
    ann, bob = (read_rows(folder / "participants" / name / "steps") for name in ("ann", "bob"))
    assert len(ann) == len(bob) == 150 and status["phase"] == "finished"
    assert np.isfinite(ann["prediction_age_s"]).mean() > 0.2 and np.allclose(ann["prediction"][-1], 0.25)
    assert np.isnan(bob["prediction_age_s"]).all() and np.all(bob["prediction"] == 0.5)
    rows = read_rows(folder / "population")
    inside = rows["feedback_latency_ms"].reshape(150, 3)[1:, 2]
    assert np.isfinite(inside).all(), "the third, answered inside, hears a new answer in every step but the first"


def test_a_population_of_one_is_kept_like_any(tmp_path: Path) -> None:
    raw = experiment(duration_s=0.2, clock="free", population={"participants": 1, "publish": "none"})
    live = LivePopulation(checked(raw, "one"), tmp_path)
    live.start()
    while live.running:
        time.sleep(0.02)
    live.close()
    rows = read_rows(tmp_path / "population")
    assert live.error is None and len(rows) == 10 and rows["power"].shape == (10, 16)


def test_who_they_were_is_kept(mixed: Any) -> None:
    people = json.loads((mixed[0] / "people.json").read_text())
    assert [(each["id"], each["person"], each["published"]) for each in people] == [
        ("ann", 3, True), ("bob", 4, True), ("cid", 5, False)
    ]  # fmt: skip
    assert people[1]["conditions"] == {"fatigue": 0.5} and len({each["traits"]["fat_mm"] for each in people}) == 3


def test_one_command_scores_a_decoder_on_a_population(tmp_path: Path) -> None:
    raw = yaml.safe_load((REPO / "experiments" / "population.yaml").read_text())
    raw["participant"] |= experiment()["participant"]
    raw["population"]["participants"], raw["duration_s"] = 4, 6
    raw["decoder"]["model"] = str(find_file(MODEL))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(raw))
    command = [sys.executable, "-m", "myoloop", "run", "mine.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    run_dir = tmp_path / "runs" / "latest"
    report = json.loads((run_dir / "report.json").read_text())
    found, rows = report["population"], read_rows(run_dir / "population")
    right = (rows["prediction"] > 0.5) == (rows["target"] > 0.5)
    expected = right.reshape(300, 4, 5)[1:].mean(axis=(0, 2))  # nobody has heard anything in the first step
    assert [each["accuracy"] for each in found["people"]] == pytest.approx(expected, abs=1e-4)
    assert found["accuracy"]["median"] == pytest.approx(np.median(expected), abs=1e-4)
    assert found["worst"]["id"] == f"crowd{int(np.argmin(expected))}" and found["worst"]["words"]
    assert {each["person"] for each in found["people"]} == {each.config.seed for each in sample_people(10**6, 4)}
    rms = np.sqrt(rows["power"].reshape(300, 4, 16).mean(axis=0))
    assert [each["rms_uv"] for each in found["people"]] == pytest.approx(np.median(rms, axis=1), abs=0.01)
    assert report["loop"]["feedback_latency_ms"]["median"] == pytest.approx(20.0, abs=0.1)
    assert "<h2>The worst" in (run_dir / "report.html").read_text()


def crowd_with(fat_mm: np.ndarray, wrong: np.ndarray) -> Crowd:
    """People of whom each has `wrong` of the index's extended steps called flexed; the rest of the answers is right."""
    rng, count, steps = np.random.default_rng(1), len(fat_mm), 2000
    target = np.repeat((rng.random((steps, 5)) > 0.5)[None], count, axis=0).astype(np.float32)
    prediction = target.copy()
    flipped = (rng.random((count, steps)) < wrong[:, None]) & (target[:, :, 1] == 0)
    prediction[:, :, 1][flipped] = 1.0
    people = [
        {
            "id": f"p{n}", "person": n, "published": False, "conditions": {},
            "traits": {"fat_mm": fat, "units_scale": float(rng.random()), "band_turn_deg": float(rng.normal())},
        }
        for n, fat in enumerate(fat_mm)
    ]  # fmt: skip
    power = rng.random((count, steps, 4)).astype(np.float32)
    everywhere = np.ones((count, steps), bool)
    none = np.full(count, np.nan)
    return Crowd(people, target, prediction, everywhere, np.full(count, 0.1), np.full(count, 5.0), power, none)


def test_the_report_says_who_is_worst_which_finger_fails_and_what_goes_with_it() -> None:
    fat = np.linspace(2.0, 8.0, 12)[np.random.default_rng(3).permutation(12)]
    config = {
        "population": {"persons": [], "seed": 7, "how": "together", "motion": "same"},
        "participant": {"control_hz": 50.0, "reference": {}},
    }
    found = population_figures(crowd_with(fat, fat / 10.0), config)
    lowest = int(np.argmax(fat))
    assert found["worst"]["id"] == f"p{lowest}" and found["worst"]["fingers"][0]["finger"] == "index"
    error = found["worst"]["fingers"][0]["extended_called_flexed"]
    assert error["own"] == pytest.approx(0.8, abs=0.06) and error["own"] > error["median"]
    assert found["related"][0]["trait"] == "fat_mm" and found["related"][0]["rho"] < -0.9
    assert found["related"][0]["p_corrected"] < 0.001 and found["reliability"] > 0.8
    unlike = found["worst"]["unlike"][0]
    assert unlike["trait"] == "fat_mm" and unlike["rank"] == 1 and unlike["agrees"]
    assert any("Subcutaneous fat" in line and "holds" in line for line in found["worst"]["words"])
    alike = population_figures(crowd_with(fat, np.full(12, 0.4)), config)
    assert all(each["p_corrected"] > 0.05 for each in alike["related"] if each["trait"] == "fat_mm")
    assert alike["reliability"] < 0.6, "who is better in the first half is so in the second by chance only"
    for relations in (found["related"], alike["related"]):
        count, before = len(relations), 0.0
        assert count > 2
        for place, each in enumerate(relations):  # Holm 1979: the smallest p times all, the next times one less
            before = max(before, min(1.0, (count - place) * each["p"]))
            assert each["p_corrected"] == pytest.approx(before, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"population": {"participants": 0}}, "population.participants is 0"),
        ({"population": {}}, "say how many"),
        ({"population": {"ids": ["ann", "ann"]}}, "stands there twice"),
        ({"population": {"ids": ["two words"]}}, "letters, digits"),
        ({"population": {"persons": [1, {"persn": 2}]}}, "Did you mean 'person'"),
        ({"population": {"persons": [{"person": 1, "conditions": {"fatige": 1}}]}}, "Did you mean 'fatigue'"),
        ({"population": {"participants": 3, "persons": [1]}}, "do not agree: participants 3, persons 1"),
        ({"population": {"participants": 2, "publish": 3}}, "expected 0 to 2"),
        ({"population": {"participants": 2, "publish": ["crowd2"]}}, "unknown id 'crowd2'"),
        ({"population": {"participants": 2, "publish": "none"}, "decoder": {"kind": "external"}}, "give an ONNX model"),
        ({"decoder": {"kind": "udp"}}, "it has one port"),
        ({"view": {"on": True}}, "it shows one participant"),
        (
            {"population": {"participants": 2, "publish": "none"}, "ros": True, "record": {"mcap": True}},
            "nothing is published",
        ),
        ({"population": {"participants": 2, "publish": "none"}, "record": True}, "nothing is published"),
    ],
)
def test_populations_that_cannot_be_are_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(MyoloopError) as caught:
        checked(experiment(**changes), "mine")
    assert said in str(caught.value)


def test_the_shipped_population_is_of_people_and_motion_that_nothing_was_trained_on() -> None:
    shipped = load_experiment("experiments/population.yaml")
    assert shipped.population and shipped.population.seed >= 1_000_000
    assert shipped.participant.reference.seed >= 1_000_000


@pytest.mark.parametrize(
    ("limit", "expected"), [(0, (0, 1)), (1, (1, 2)), (5, (5, 6)), (12, (12, 13)), (40, (24, None))]
)
def test_the_largest_number_that_fits_is_found_in_few_trials(limit: int, expected: tuple[int, int | None]) -> None:
    tried: list[int] = []

    def fits(count: int) -> bool:
        tried.append(count)
        return count <= limit

    assert find_most(fits, 24) == expected and len(tried) == len(set(tried)) <= 9


@pytest.mark.parametrize("link", [None, {"delay_ms": 20}])
def test_answers_do_not_pile_up_at_a_participant_inside(link: dict[str, Any] | None) -> None:
    inbox = InsideInbox("model")
    ear = Hearing(inbox, checked(experiment(link=link), "ear"), 0, lambda text: None)
    for step in range(50):
        inbox.take(np.full(5, 0.75, np.float32), 0.02 * step, 0.02 * step)
        heard = ear.step(0.02 * step + 0.02)
    assert not inbox.recent and heard.values.tolist() == [0.75] * 5


def test_what_each_of_several_decoders_missed_while_the_time_line_moved_is_not_lost() -> None:
    lives = [{"samples_lost": 12_000 + 5, "each": {name: {} for name in "abcdef"}}]
    assert _lost(lives, {"clock_moved_s": 1.0}, {"rate_hz": 2000.0}) == 5
    assert _lost([{"samples_lost": 2003}], {"clock_moved_s": 1.0}, {"rate_hz": 2000.0}) == 3


def test_turns_that_never_began_are_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(MyoloopError, match="no participant had a turn"):
        read_turns(tmp_path, {})


def test_a_spread_is_quartiles_extremes_and_an_interval_around_the_median() -> None:
    found = spread([*np.arange(101.0), None])
    assert found is not None and found["count"] == 101
    assert [found[key] for key in ("min", "q1", "median", "q3", "max", "mean")] == [0, 25, 50, 75, 100, 50]
    assert 30 < found["median_low"] < 50 < found["median_high"] < 70
    assert spread([None]) is None and "median_low" not in (spread([1.0, 1.0, 1.0]) or {})
