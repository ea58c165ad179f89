"""Delay, jitter, loss and copies between a prediction's arrival and its use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import yaml

from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment, load_experiment
from myoloop.live.feedback import FeedbackHold
from myoloop.live.link import Link, lag_s
from myoloop.live.person import participant_config
from myoloop.sections import LinkSettings
from myoloop.streams.predictions import Prediction

REPO = Path(__file__).parent.parent


def prediction(number: int) -> Prediction:
    """The n-th: its EMG is of 0.02 n s, it arrives 4 ms later."""
    return Prediction(np.full(5, (number % 10) / 10, np.float32), 0.02 * number, 0.02 * number + 0.004, number)


def used(link: Link, count: int, more: int = 60) -> list[int]:
    """Number of the prediction that each of a row of control steps uses, one arriving a step; -1: none yet."""
    found = []
    for step in range(1, count + more):
        arrived = deque([prediction(step - 1)] if step <= count else [])
        latest = link.step(arrived, now=0.02 * step)
        found.append(-1 if latest is None else latest.number)
        assert latest is None or latest.arrived <= 0.02 * step
    return found


def test_without_settings_every_step_uses_the_prediction_before_it() -> None:
    assert used(Link(LinkSettings(), 0), 100, 1) == list(range(100))


@pytest.mark.parametrize(("delay_ms", "steps"), [(10, 0), (15, 0), (17, 1), (60, 3), (300, 15)])
def test_a_prediction_is_used_by_the_first_step_after_its_arrival_and_the_delay(delay_ms: float, steps: int) -> None:
    """It arrives 16 ms before the next step."""
    assert used(Link(LinkSettings(delay_ms=delay_ms), 0), 100, 1)[steps:] == list(range(100 - steps))


def test_an_older_prediction_never_replaces_a_newer_one() -> None:
    link = Link(LinkSettings(delay_ms=20, jitter_ms=200), 0)
    found = used(link, 2000)
    assert found == sorted(found) and found[-1] == 1999
    heard = [p.number for p in link.recent]
    assert sorted(heard) == list(range(2000)) and heard != sorted(heard), "others overtook it, and it is still heard"
    newest = np.maximum.accumulate(heard)
    assert link.overtaken == np.sum(np.array(heard) < newest) > 500


def test_jitter_is_even_and_never_shortens_the_delay() -> None:
    link = Link(LinkSettings(delay_ms=100, jitter_ms=50), 1)
    used(link, 4000)
    waits = np.array([p.arrived - prediction(p.number).arrived for p in link.recent])
    assert waits.min() >= 0.1 and waits.max() <= 0.15
    assert waits.mean() == pytest.approx(0.125, abs=0.001) and waits.std() == pytest.approx(0.05 / 12**0.5, abs=0.001)


def test_dropped_predictions_are_counted_and_never_heard() -> None:
    link = Link(LinkSettings(drop=0.3), 0)
    used(link, 4000)
    assert link.dropped == 4000 - len(link.recent) and link.dropped == pytest.approx(1200, abs=100)
    silent = Link(LinkSettings(drop=1.0), 0)
    assert set(used(silent, 50)) == {-1} and silent.dropped == 50


def test_a_copy_does_not_count_as_new() -> None:
    plain, doubled = (Link(LinkSettings(delay_ms=40, duplicate=share), 0) for share in (0.0, 1.0))
    assert used(plain, 200) == used(doubled, 200)
    assert doubled.duplicated == 200 and doubled.overtaken == 0 and len(doubled.recent) == 400
    racing = Link(LinkSettings(jitter_ms=300, duplicate=1.0), 0)
    used(racing, 3000)
    firsts = {p.number: p.arrived - prediction(p.number).arrived for p in reversed(racing.recent)}
    assert np.mean(list(firsts.values())) == pytest.approx(0.1, abs=0.005), (
        "of two, the earlier counts: a third of the jitter"
    )
    used_s = [p.arrived for p in racing.recent if p.number == 7]
    assert len(used_s) == 2 and used_s == sorted(used_s)
    link, hold = Link(LinkSettings(jitter_ms=200, duplicate=1.0), 0), FeedbackHold(0.2, lambda _: None)
    firsts = [
        hold.step(latest, 0.02 * step).latency_ms
        for step in range(1, 500)
        if (latest := link.step(deque([prediction(step - 1)]), 0.02 * step))
    ]
    heard = [p.number for p in link.recent]
    assert np.isfinite(firsts).sum() <= len(set(np.maximum.accumulate(heard))) < len(set(heard)) < len(heard)


def test_the_same_seed_draws_the_same_and_losses_do_not_change_the_jitter() -> None:
    def waits(seed: int, **more: float) -> dict[int, float]:
        link = Link(LinkSettings(jitter_ms=80, **more), seed)
        used(link, 300)
        return {p.number: p.arrived for p in reversed(link.recent)}

    assert waits(0) == waits(0) != waits(1)
    lossy = waits(0, drop=0.5)
    assert 0 < len(lossy) < 300 and lossy == {n: waits(0)[n] for n in lossy}


def test_the_decoder_counts_as_lost_when_nothing_gets_through_not_because_it_is_late() -> None:
    events: list[str] = []
    hold, link = FeedbackHold(0.2 + 1.0, events.append), Link(LinkSettings(delay_ms=1000), 0)
    feedback = [hold.step(link.step(deque([prediction(k)]), 0.02 * (k + 1)), 0.02 * (k + 1)) for k in range(300)]
    assert events == [] and not any(f.stale for f in feedback[60:])
    assert np.nanmin([f.latency_ms for f in feedback]) >= 1000


def test_who_learns_is_asked_what_is_asked_when_the_answer_is_heard() -> None:
    asked = {
        "link": {"delay_ms": 100, "jitter_ms": 30},
        "participant": {"adapt": "online"},
        "decoder": {"kind": "external"},
    }
    assert participant_config(Experiment.model_validate(asked)).lag_s == pytest.approx(0.12)
    assert participant_config(Experiment()).lag_s == 0.0 == lag_s(LinkSettings(), 50.0)
    assert lag_s(LinkSettings(delay_ms=300), 50.0) == pytest.approx(0.3)


def test_settings_out_of_range_are_refused_by_name(tmp_path: Path) -> None:
    for text, named in (
        ("link: {delay_ms: 1500}", "link.delay_ms is 1500"),
        ("link: {drop: 1.2}", "link.drop is 1.2"),
        ("link: {delay: 100}", "Did you mean 'delay_ms'"),
    ):
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        with pytest.raises(MyoloopError, match=named):
            load_experiment(file)
    file.write_text("name: mine")
    assert load_experiment(file, {"link.delay_ms": 120}).link == LinkSettings(delay_ms=120)


def test_a_session_reports_the_injected_delay_in_its_latency(tmp_path: Path) -> None:
    """Real processes and streams, the shipped decoder."""
    experiment = yaml.safe_load((REPO / "experiments" / "closed_loop.yaml").read_text())
    experiment["decoder"]["model"] = str(REPO / experiment["decoder"]["model"])
    experiment["participant"]["id"] = "linktest"
    link = {"delay_ms": 100, "jitter_ms": 20, "drop": 0.1, "duplicate": 0.1}
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment | {"ros": False, "link": link}))
    command = [sys.executable, "-m", "myoloop", "run", str(file), "--runs", str(tmp_path / "runs"), "--duration", "4"]
    env = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "runs" / "latest" / "report.json").read_text())
    told = report["decoder"]["link"]
    assert {name: told[name] for name in link} == link
    assert told["dropped"] > 0 and told["duplicated"] > 0 and told["received"] <= report["decoder"]["predictions"]
    assert report["loop"]["feedback_latency_ms"]["median"] >= 120.0, "the delay, and the control step before it"
    assert report["task"]["accuracy"] is not None
    page = (tmp_path / "runs" / "latest" / "report.html").read_text()
    assert "delay_ms: 100" in page and f"{told['dropped']} dropped" in page
