"""The page in the browser: what it draws is what MuJoCo and the streams say, and it answers over HTTP."""

from __future__ import annotations

import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from browser import Browser

from myoloop.body.model import load_hand
from myoloop.body.names import FINGERS, JOINTS, MUSCLES
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment
from myoloop.live.viewer import LiveViewer, check_host
from myoloop.streams.commands import CommandInbox, Delay, Push, Target
from myoloop.streams.outlets import FEEDBACK_LABELS, ParticipantOutlets
from myoloop.view.colours import EXTENDED, FLEXED, REST, STRONG, muscle_colours, tip_colours
from myoloop.view.page import WAYS, figures, push
from myoloop.view.posture import Bones
from myoloop.view.signals import BINS, WINDOW_S, Envelope, Signals

RATE = 2000.0


@pytest.fixture(scope="module")
def posture() -> np.ndarray:
    """(23,) degrees, inside the joints' ranges."""
    low, high = np.degrees(load_hand().joint_range).T
    return low + np.random.default_rng(2).uniform(0.2, 0.8, len(JOINTS)) * (high - low)


def experiment(port: int = 0, **view: Any) -> Experiment:
    return Experiment.model_validate(
        {"ros": False, "participant": {"id": "viewtest"}, "view": {"port": port, **view}, "name": "page_test"}
    )


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveViewer]:
    viewer = LiveViewer(experiment(), tmp_path_factory.mktemp("viewer"))
    viewer.start()
    yield viewer
    viewer.close()


def wait(there: Callable[[], Any], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until
        time.sleep(0.02)


# --- the hand ------------------------------------------------------------------------------------------------------


def test_bones_are_where_mujocos_forward_kinematics_puts_them(posture: np.ndarray) -> None:
    hand = load_hand(visual=True)
    data = mujoco.MjData(hand.model)
    data.qpos[:] = np.radians(posture)
    mujoco.mj_forward(hand.model, data)
    placed = Bones(load_hand(visual=True)).place(posture)
    np.testing.assert_allclose(placed.positions, data.xpos, atol=1e-12)
    np.testing.assert_allclose(placed.quaternions, data.xquat, atol=1e-12)


def test_tendons_are_drawn_as_long_as_they_are(posture: np.ndarray) -> None:
    bones = Bones(load_hand(visual=True))
    for joints in (np.zeros(len(JOINTS)), posture):
        pieces = bones.place(joints).tendons
        drawn = np.bincount(
            bones.muscle_of, np.linalg.norm(pieces[:, 1] - pieces[:, 0], axis=1), minlength=len(MUSCLES)
        )
        length = bones.data.ten_length[bones.model.actuator_trnid[:, 0]]
        assert np.all(drawn <= length + 1e-5), "chords are never longer than the arcs that they replace"
        np.testing.assert_allclose(drawn, length, rtol=0.06)


def test_the_browsers_meshes_lie_where_mujocos_geoms_do(viewer: LiveViewer, posture: np.ndarray) -> None:
    scene = viewer.page.scene
    said = np.array([0.9, 0.1, 0.8, 0.2, 0.7])
    scene.show(posture, posture, np.zeros(len(MUSCLES)), said)
    model, data = scene.bones.model, scene.bones.data
    rotated = np.zeros(3)
    for k, body in enumerate(load_hand().fingertip_bodies):
        handle = scene._tip_handles[k]
        ours = []
        for vertex in np.asarray(handle.vertices, float)[::50]:
            mujoco.mju_rotVecQuat(rotated, vertex, np.asarray(handle.batched_wxyzs[0], float))
            ours.append(rotated + handle.batched_positions[0])
        theirs = []
        for geom in np.flatnonzero((model.geom_bodyid == body) & (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH)):
            mesh = model.geom_dataid[geom]
            first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
            turn = data.geom_xmat[geom].reshape(3, 3)
            theirs.append(model.mesh_vert[first : first + count] @ turn.T + data.geom_xpos[geom])
        cloud = np.concatenate(theirs)
        nearest = np.linalg.norm(np.array(ours)[:, None] - cloud[None], axis=2).min(axis=1)
        assert nearest.max() < 1e-5, FINGERS[k]
        assert tuple(np.ravel(handle.batched_colors)) == (FLEXED if said[k] > 0.5 else EXTENDED)
    for group in scene._hand._mesh_groups:
        if group.handle.visible:
            np.testing.assert_allclose(group.handle.batched_positions, data.xpos[group.body_ids], atol=1e-6)


def test_colours_go_from_rest_to_strong_and_tips_are_green_when_flexed() -> None:
    ramp = muscle_colours(np.array([0.0, 0.1, 0.5, 1.0]))
    assert tuple(ramp[0]) == tuple(REST) and tuple(ramp[2]) == tuple(ramp[3]) == tuple(STRONG)
    assert ramp[0, 0] < ramp[1, 0] < ramp[2, 0]
    assert [tuple(c) for c in tip_colours(np.array([0.51, 0.5]))] == [FLEXED, EXTENDED]


# --- signals -------------------------------------------------------------------------------------------------------


def test_every_peak_shows_in_the_envelope_however_it_arrives() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 1, (int(WINDOW_S * RATE), 3)).astype(np.float32)
    samples[5003, 1], samples[9001, 2] = 50.0, -70.0
    stamps = 1000.0 + np.arange(len(samples)) / RATE
    whole, parts = Envelope(3), Envelope(3)
    whole.add(samples, stamps)
    for chunk in np.array_split(np.arange(len(samples)), 333):
        parts.add(samples[chunk], stamps[chunk])
    trace = parts.trace(parts.newest)
    np.testing.assert_array_equal(trace.values, whole.trace(whole.newest).values)
    assert trace.values.shape == (3, 2 * BINS) and trace.time[-1] < 0 and trace.time[0] >= -WINDOW_S
    for channel, at, peak in ((1, 5003, 50.0), (2, 9001, -70.0)):
        found = np.flatnonzero(trace.values[channel] == peak)
        assert len(found) == 1
        assert abs(trace.time[found[0]] - (stamps[at] - stamps[-1])) < 2 * WINDOW_S / BINS


def test_what_did_not_come_is_a_gap_and_counts_as_missing_unless_it_was_a_pause() -> None:
    signals = Signals(2)
    chunk = np.ones((40, 2), np.float32)
    for begin in (10.0, 10.02, 11.02, 13.04):  # gaps of 0.98 and 2 s
        signals.add_emg(chunk, begin + np.arange(40) / RATE, RATE)
    signals.add_event("clock moved 2.000", 13.03)
    assert signals.missing == round(0.98 * RATE)
    trace = signals.emg.trace(signals.emg.newest)
    there = np.isfinite(trace.values[0])
    assert there.any() and not there.all()
    assert not there[(trace.time > -1.5) & (trace.time < -0.2)].any()


def test_answers_are_judged_against_the_target_of_their_own_step() -> None:
    signals = Signals(2)
    stamps = 50.0 + 0.02 * np.arange(100)
    signals.add_emg(np.zeros((4000, 2)), 50.0 + np.arange(4000) / RATE, RATE)
    target = np.tile(np.array([1, 0, 1, 0, 1], np.float32), (100, 1))
    answers = np.tile(np.array([0.9, 0.1, 0.2, 0.4, 0.6], np.float32), (100, 1))
    feedback = np.full((100, len(FEEDBACK_LABELS)), 0.02, np.float32)
    feedback[:, :5] = answers
    signals.target.add(target[10:], stamps[10:])  # streams connect one after another
    signals.feedback.add(feedback[:90], stamps[:90])
    np.testing.assert_allclose(signals.accuracy(), [1, 1, 0, 1, 1])
    time_s, asked, said = signals.fingers()
    assert len(time_s) == len(asked) == len(said) == 80


def test_figures_hold_no_html_of_others_and_say_nothing_before_they_know() -> None:
    shown = figures({}, np.full(5, np.nan), 0, ["<script>alert(1)</script>"])
    assert "<script>" not in shown and "nan" not in shown and "waiting for the participant" in shown
    status = {"phase": "running", "level": "warn", "message": "late", "accuracy": 0.905, "conditions": {"fatigue": 0.5}}
    shown = figures(status, np.array([1.0, 0.5, 1.0, 1.0, 1.0]), 7, [])
    for words in ("running", "late", "90.5%", "fatigue 0.5", "50%", ">7<"):
        assert words in shown


def test_a_push_has_the_force_that_the_slider_says() -> None:
    for way in WAYS:
        assert np.linalg.norm(push("ring", way, 4.0).force_n) == pytest.approx(4.0)
    assert push("ring", "towards the palm", 4.0) == Push(finger="ring", force_n=(-4.0, 0.0, 0.0), duration_s=0.5)


# --- the process ---------------------------------------------------------------------------------------------------


def outlets() -> ParticipantOutlets:
    labels = [f"c{k}" for k in range(16)]
    return ParticipantOutlets("viewtest", labels, RATE, 50.0)


def test_the_page_is_served_and_a_second_viewer_takes_the_next_port(viewer: LiveViewer) -> None:
    with urllib.request.urlopen(viewer.url, timeout=60) as answer:
        assert answer.status == 200 and b"<html" in answer.read(2000).lower()
    second = LiveViewer(experiment(viewer.server.get_port()), None)
    try:
        assert second.url != viewer.url
        with urllib.request.urlopen(second.url, timeout=60) as answer:
            assert answer.status == 200
        assert second.server.request_share_url() is None, "nothing is published beyond this machine"
    finally:
        second.close()


def test_streams_are_shown_also_after_the_participant_came_again_and_nothing_is_drawn_without_a_browser(
    viewer: LiveViewer,
) -> None:
    def shown(turn: int) -> bool:
        signals = viewer.signals
        there = len(signals.fingers()[0]) > 5 and any(f"turn {turn}" in text for text in signals.events)
        hand = np.all(signals.joints.last == turn) and np.all(signals.reference.last == 2.0)
        return there and bool(hand) and np.allclose(signals.drawn_excitation(), 0.2, rtol=1e-6)

    for turn in range(2):
        before = viewer.signals
        sending = outlets()
        end = time.monotonic() + 60
        k = 0
        while time.monotonic() < end and not (viewer.signals is not before and shown(turn)):
            stamp = 1e6 + 100 * turn + 0.02 * k
            k += 1
            sending.emg(np.full((40, 16), 5.0, np.float32), stamp)
            sending.state(stamp, np.ones(5), np.full(23, float(turn)), np.full(23, 2.0), np.full(39, 0.2))
            sending.feedback(stamp, np.full(5, 0.75), 0.02, 20.0)
            sending.event(f"turn {turn}", stamp)
            time.sleep(0.02)
        sending.close()
        signals = viewer.signals
        assert signals is not before
        assert any(f"turn {turn}" in text for text in signals.events)
        assert np.all(signals.joints.last == turn) and np.all(signals.reference.last == 2.0)
        np.testing.assert_allclose(signals.drawn_excitation(), 0.2, rtol=1e-6)
        np.testing.assert_allclose(signals.accuracy(), 1.0)
    status = viewer.status()
    assert status["frames"] == 0 and status["level"] == "ok"


def test_a_slider_sends_one_command_when_it_is_let_go(viewer: LiveViewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("myoloop.streams.commands.LISTENED_S", 60.0)
    done: list[Any] = []
    inbox = CommandInbox("viewtest", done.append, lambda _: None)
    try:
        with monkeypatch.context() as held:
            held.setattr(viewer.page, "work", lambda: None)  # however long this machine takes for the three
            for delay in (10.0, 60.0, 120.0):  # on its way
                viewer.page._soon(Delay(delay_ms=delay))
        wait(lambda: done)
        time.sleep(0.2)
        assert done == [Delay(delay_ms=120.0)]
    finally:
        inbox.close()


def test_hosts_that_are_not_of_this_machine_are_refused_by_name() -> None:
    for host in ("127.0.0.1", "localhost", "0.0.0.0"):
        check_host(host)
    with pytest.raises(MyoloopError, match="192\\.0\\.2\\.7"):
        check_host("192.0.2.7")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed here")
def test_a_browser_finds_hand_charts_and_controls_and_a_click_is_a_command(
    viewer: LiveViewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("myoloop.streams.commands.LISTENED_S", 60.0)
    done: list[Any] = []
    inbox = CommandInbox("viewtest", done.append, lambda _: None)
    browser = Browser(viewer.url, tmp_path)
    try:
        browser.wait("document.querySelectorAll('.uplot').length === 7 && !!document.querySelector('canvas')")
        for words in ("myoloop: page_test", "Push a finger", "Ask for a posture", "Decoder", "of the last 30 s"):
            browser.wait(f"document.body.innerText.includes('{words}')")
        browser.click("Ask")
        wait(lambda: done)
        assert done == [Target(values=(1, 1, 1, 1, 1), duration_s=5.0)]
        browser.evaluate("location.reload()")
        browser.wait("document.querySelectorAll('.uplot').length === 7")
        wait(lambda: viewer.status()["browsers"] == 1)
    finally:
        browser.close()
        inbox.close()
    wait(lambda: viewer.status()["browsers"] == 0)
    assert 1 <= viewer.status()["most_browsers"] <= 2  # the page that was left may go after the one that comes
