"""XDF files read back: whole, in parts, cut short, and damaged; and what other software gets of them."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pylsl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdf_samples import prompted, stream, write_xdf

from myoloop.errors import MyoloopError
from myoloop.live.replay import LiveReplay
from myoloop.report import report_of_recording
from myoloop.streams.prompted import CutRules, repetitions, write_libemg_folder
from myoloop.streams.xdf import count_samples, read_xdf

RATE = 1000.0


def test_a_recording_is_read_with_labels_units_events_and_gestures(tmp_path: Path) -> None:
    session = read_xdf(prompted(tmp_path / "a.xdf"))
    emg = session.need("emg")
    assert (session.participant, emg.rate_hz, emg.unit) == ("me", RATE, "microvolts")
    assert emg.labels == ("EMG1", "EMG2", "EMG3", "EMG4") and emg.samples.shape == (12000, 4)
    np.testing.assert_array_equal(emg.samples[:, 0], np.arange(12000))
    assert session.events[0] == (100.0, "session start") and session.events[-1] == (112.0, "session end")
    assert session.gestures == {"rest": (0.0,) * 5, "fist": (1.0,) * 5} and not session.notes


def test_what_came_later_is_read_from_the_files_beside(tmp_path: Path) -> None:
    emg = np.ones((10, 2), np.float32)
    first = np.full((3, 5), 0.2, np.float32)
    later = np.full((4, 5), 0.8, np.float32)
    write_xdf(
        tmp_path / "session.xdf",
        stream(1, "p_emg", "EMG", 10, emg, np.arange(10.0).tolist()),
        stream(2, "p_prediction", "Control", 0, first, [1.0, 2.0, 3.0]),
    )
    write_xdf(tmp_path / "session-10.xdf", stream(1, "p_prediction", "Control", 0, later, [8.0, 8.1, 8.2, 8.3]))
    write_xdf(tmp_path / "session-2.xdf", stream(1, "p_prediction", "Control", 0, later[:1], [5.0]))
    predictions = read_xdf(tmp_path).need("prediction")
    assert predictions.stamps.tolist() == [1.0, 2.0, 3.0, 5.0, 8.0, 8.1, 8.2, 8.3]
    np.testing.assert_allclose(predictions.samples[:, 0], [0.2] * 3 + [0.8] * 5, rtol=1e-6)
    assert count_samples(tmp_path) == {"p_emg": 10, "p_prediction": 8}
    (tmp_path / "session-11.xdf").touch()  # of a recorder that was killed at once
    assert count_samples(tmp_path) == {"p_emg": 10, "p_prediction": 8}
    assert "session-11.xdf" in read_xdf(tmp_path).notes[0]


def test_two_participants_in_one_file_are_told_apart_by_name(tmp_path: Path) -> None:
    emg = np.ones((3, 2), np.float32)
    streams = [stream(k, f"{name}_emg", "EMG", 10, k * emg, [1.0, 2.0, 3.0]) for k, name in ((1, "a"), (2, "b"))]
    path = write_xdf(tmp_path / "two.xdf", *streams)
    with pytest.raises(MyoloopError, match=r"2 participants \(a, b\)"):
        read_xdf(path)
    assert read_xdf(path, "b").need("emg").samples[0, 0] == 2.0


def test_a_session_without_recording_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(MyoloopError, match="record: true"):
        read_xdf(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    return prompted(folder / "a.xdf", blocks=1, rate=50.0, hold_s=1.0, rest_s=1.0, channels=2).read_bytes()


def read_or_refuse(path: Path) -> None:
    """Reads everything that there is to read, or fails with the one error users meet."""
    for use in (
        read_xdf,
        count_samples,
        report_of_recording,
        lambda p: repetitions(read_xdf(p), CutRules(0.1, 0.0)),
    ):
        try:
            use(path)
        except MyoloopError as error:
            assert len(str(error)) > 20


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 1))
def test_a_file_that_ends_anywhere_is_read_as_far_as_it_goes_or_refused(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, cut: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.xdf"
    path.write_bytes(whole[: round(cut * len(whole))])
    read_or_refuse(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + 1] = data.draw(st.binary(min_size=0, max_size=3))
    path = tmp_path_factory.getbasetemp() / "damaged.xdf"
    path.write_bytes(bytes(raw))
    read_or_refuse(path)


@settings(max_examples=40, deadline=None)
@given(garbage=st.binary(max_size=300), magic=st.booleans())
def test_garbage_is_refused(garbage: bytes, magic: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.xdf"
    path.write_bytes(b"XDF:" * magic + garbage)
    with pytest.raises(MyoloopError, match=r"garbage\.xdf"):
        read_xdf(path)


def test_a_chunk_that_claims_billions_of_samples_is_not_believed(tmp_path: Path) -> None:
    path = prompted(tmp_path / "a.xdf", blocks=1)
    raw = path.read_bytes()
    place = raw.index(b"\x04" + (4).to_bytes(4, "little"), raw.index(b"me_events"))  # the number of events
    path.write_bytes(raw[: place + 1] + (2**31).to_bytes(4, "little") + raw[place + 5 :])
    session = read_xdf(path)
    assert len(session.need("emg").stamps) == 4000 and not session.events
    assert "damaged at byte" in session.notes[0]


def test_prompts_become_the_folder_that_libemg_reads(tmp_path: Path) -> None:
    """As examples/libemg/drive.py --reuse has it: C_<class>_R_<repetition>.csv, volts, no header, a column a channel."""
    session = read_xdf(prompted(tmp_path / "a.xdf"))
    assert write_libemg_folder(session, tmp_path / "out") == 3
    names = sorted(path.name for path in (tmp_path / "out").glob("*.csv"))
    assert names == [f"C_{c}_R_{r}.csv" for c in range(2) for r in range(3)]
    for r in range(3):
        rest, fist = (np.loadtxt(tmp_path / "out" / f"C_{c}_R_{r}.csv", delimiter=",") for c in range(2))
        assert rest.shape == fist.shape == (1100, 4), "2 s without 0.8 s after the prompt and 0.1 s before the next"
        assert not rest[:, 1].any() and np.allclose(fist[:, 1], 1e-6), "microvolts as volts, of the right prompt"
        first = 4000 * r + 2000 + 800
        np.testing.assert_allclose(fist[:, 0], 1e-6 * np.arange(first, first + 1100), rtol=1e-8)
    about = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert about["classes"] == ["rest", "fist"] and about["unit"] == "volts" and about["rate_hz"] == RATE


def test_gestures_are_numbered_as_asked_and_written_in_microvolts(tmp_path: Path) -> None:
    session = read_xdf(prompted(tmp_path / "a.xdf"))
    write_libemg_folder(session, tmp_path / "out", ["fist", "rest"], CutRules(0.5, 0.0), "microvolts")
    fist = np.loadtxt(tmp_path / "out" / "C_0_R_0.csv", delimiter=",")
    assert fist.shape == (1500, 4) and (fist[:, 1] == 1.0).all()


def test_a_prompt_with_a_gap_in_its_emg_is_left_out(tmp_path: Path) -> None:
    session = read_xdf(prompted(tmp_path / "a.xdf"))
    emg = session.streams["emg"]
    kept = np.abs(emg.stamps - 103.3) > 0.05  # in the first fist
    session.streams["emg"] = emg._replace(samples=emg.samples[kept], stamps=emg.stamps[kept])
    assert [r.gesture for r in repetitions(session)] == ["rest", "rest", "fist", "rest", "fist"]
    assert write_libemg_folder(session, tmp_path / "out") == 2


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    session = read_xdf(prompted(tmp_path / "a.xdf"))
    with pytest.raises(MyoloopError, match="Did you mean 'fist'"):
        write_libemg_folder(session, tmp_path / "out", ["rest", "fits"])
    write_libemg_folder(session, tmp_path / "out")
    with pytest.raises(MyoloopError, match="already holds"):
        write_libemg_folder(session, tmp_path / "out")
    emg_only = stream(1, "me_emg", "EMG", 10, np.ones((9, 2), np.float32), np.arange(9.0).tolist())
    with pytest.raises(MyoloopError, match="kind: prompts"):
        repetitions(read_xdf(write_xdf(tmp_path / "b.xdf", emg_only)))


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_a_replay_sends_every_sample_in_the_recordings_timing(tmp_path: Path, speed: float) -> None:
    path = prompted(tmp_path / "a.xdf", blocks=1, hold_s=1.0, rest_s=1.0)
    name = f"again{speed:g}"
    replay = LiveReplay(path, speed, name)
    emg = pylsl.StreamInlet(pylsl.resolve_byprop("name", f"{name}_emg", timeout=60)[0])
    events = pylsl.StreamInlet(pylsl.resolve_byprop("name", f"{name}_events", timeout=60)[0])
    assert emg.info().get_channel_labels() == ["EMG1", "EMG2", "EMG3", "EMG4"]
    events.open_stream(timeout=60)
    samples, stamps = [], []

    def listen() -> None:
        until = time.monotonic() + 120
        while len(stamps) < 2000 and time.monotonic() < until:
            take()
        take()  # and no more

    def take() -> None:
        chunk, times = emg.pull_chunk(timeout=0.2)
        samples.extend(chunk)
        stamps.extend(times)

    emg.open_stream(timeout=60)
    listener = threading.Thread(target=listen)
    listener.start()
    replay.start()
    while replay.running:
        replay._threads[0].join(0.1)
    listener.join(150)
    texts, times = [], []
    until = time.monotonic() + 60
    while len(texts) < 4 and time.monotonic() < until:
        more, at = events.pull_chunk(timeout=0.2)
        texts, times = texts + more, times + at
    replay.close()
    assert replay.error is None and replay.begun_s is not None
    np.testing.assert_array_equal(np.array(samples)[:, 0], np.arange(2000))
    np.testing.assert_allclose(np.array(stamps) - replay.begun_s, np.arange(2000) / RATE / speed, atol=1e-6)
    assert [t[0] for t in texts] == ["session start", "prompt rest", "prompt fist", "session end"]
    np.testing.assert_allclose(np.array(times) - replay.begun_s, np.array([0, 0, 1, 2]) / speed, atol=1e-6)


def test_a_replay_under_a_name_that_is_taken_or_at_no_speed_is_refused(tmp_path: Path) -> None:
    path = prompted(tmp_path / "a.xdf", blocks=1)
    with pytest.raises(MyoloopError, match=r"0\.01 to 100"):
        LiveReplay(path, 0.0)
    taken = pylsl.StreamOutlet(pylsl.StreamInfo("taken_emg", "EMG", 1, 10, "float32", "taken"))
    with pytest.raises(MyoloopError, match="already on the network"):
        LiveReplay(path, 1.0, "taken")
    del taken
