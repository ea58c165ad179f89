"""Copies of decoders: pairs of EMG and answers put together, and a network that learns to answer alike."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from myoloop.errors import MyoloopError
from myoloop.learn.copying import KEPT_OUT, CopyConfig, agreement, agreement_with, copy_decoder
from myoloop.learn.supervised import Recordings, Trained, TrainingConfig
from myoloop.streams.pairs import Pairs, load_pairs, save_pairs, stretches

RATE, FRAME, CHANNELS = 500.0, 10, 4


def session(seconds: float, seed: int, every: int = 1) -> Pairs:
    """Bursts on four channels, each answered as a finger (the fifth never): flexed while its RMS of 100 ms is over 20 uV. An
    answer comes after every `every` frames of 20 ms."""
    rng = np.random.default_rng(seed)
    frames = round(seconds * RATE / FRAME)
    loud = np.repeat(rng.random((frames // 25 + 1, CHANNELS)) < 0.5, 25, axis=0)[:frames]
    emg = rng.normal(size=(frames * FRAME, CHANNELS)) * np.repeat(np.where(loud, 40.0, 5.0), FRAME, axis=0)
    stamps = 50.0 + np.arange(len(emg)) / RATE
    ends = np.arange(every * FRAME, len(emg) + 1, every * FRAME)
    power = np.stack([np.sqrt(np.mean(emg[max(0, end - 50) : end] ** 2, axis=0)) for end in ends])
    answers = np.concatenate([1 / (1 + np.exp(-(power - 20.0) / 3)), np.full((len(ends), 1), 0.02)], axis=1)
    return Pairs(emg.astype(np.float32), stamps, stamps[ends - 1], answers.astype(np.float32), RATE)


def test_each_frame_has_the_last_answer_about_its_own_emg() -> None:
    heard = session(10.0, 0, every=3)
    emg, answers = stretches(heard, FRAME, 50)
    assert emg.shape == (9, 500, CHANNELS) and answers.shape == (9, 50, 5), "the first second begins without an answer"
    first = round((heard.stamps[np.flatnonzero(heard.emg[:, 0] == emg[0, 0, 0])[0]] - 50.0) * RATE)
    for frame in range(50):
        end = 50.0 + (first + (frame + 1) * FRAME - 1) / RATE
        own = np.flatnonzero((heard.answered <= end + 1e-9) & (heard.answered > end - FRAME / RATE + 1e-9))
        assert np.array_equal(
            answers[0, frame], heard.answers[own[-1]] if len(own) else np.full(5, np.nan), equal_nan=True
        )
    assert np.isnan(answers[..., 0]).mean() == pytest.approx(2 / 3, abs=0.02), "two of three frames were not answered"


def test_stretches_leave_out_gaps_and_emg_that_nobody_answered() -> None:
    heard = session(20.0, 1)
    late = heard.stamps + np.where(np.arange(len(heard.stamps)) > 5250, 0.1, 0.0)  # 50 samples are missing
    torn = heard._replace(stamps=late, answered=heard.answered + np.where(heard.answered > 60.5, 0.1, 0.0))
    whole, broken = stretches(heard, FRAME, 100)[0], stretches(torn, FRAME, 100)[0]
    assert len(whole) == 10 and len(broken) == 9
    silent = (heard.answered > 54.0) & (heard.answered < 56.0)
    deaf = heard._replace(answered=heard.answered[~silent], answers=heard.answers[~silent])
    assert len(stretches(deaf, FRAME, 100)[0]) == 9
    assert len(stretches(heard._replace(answered=np.zeros(0), answers=np.zeros((0, 5))), FRAME, 100)[0]) == 0
    late = heard.answered > 55.9
    begun = heard._replace(answered=heard.answered[late], answers=heard.answers[late])
    assert len(stretches(begun, FRAME, 700)[0]) == 1, "the longest stretch starts where the answers do"


def test_pairs_read_back_the_same_and_other_files_are_refused(tmp_path: Path) -> None:
    heard = session(1.0, 2)
    save_pairs(heard, tmp_path / "pairs.npz")
    again = load_pairs(tmp_path / "pairs.npz")
    assert again.rate_hz == RATE and all(np.array_equal(a, b) for a, b in zip(heard, again, strict=True))
    (tmp_path / "other.npz").write_bytes(b"no")
    with pytest.raises(MyoloopError, match=r"other\.npz holds no EMG with answers"):
        load_pairs(tmp_path / "other.npz")


def test_copy_learns_to_answer_as_the_original_and_says_how_far() -> None:
    config = CopyConfig(hidden=16, stretch_s=2.0)
    quick = dataclasses.replace(config.training, updates=80, crop_s=1.5, batch=16)
    config = dataclasses.replace(config, training=quick)
    gestures = {"rest": (0.0,) * 5, "first": (1.0, 0, 0, 0, 0), "second": (0.0, 1, 0, 0, 0)}
    copy = copy_decoder(config, [session(60.0, 3), session(30.0, 4)], RATE / FRAME, gestures)
    assert copy.stretches >= 43 and copy.kept_out.fingers > 0.9 and copy.kept_out.gestures is not None
    fresh = agreement_with(copy.network, copy.params, session(20.0, 5), RATE / FRAME, None, 2.0)
    assert fresh.fingers > 0.9 and fresh.gestures is None and fresh.steps == 10 * 75
    other = session(20.0, 5)._replace(answers=1.0 - session(20.0, 5).answers)
    assert agreement_with(copy.network, copy.params, other, RATE / FRAME, None, 2.0).fingers < 0.1


def test_what_tells_the_agreement_is_neither_learned_from_nor_used_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, np.ndarray] = {}

    def trained(
        network: object, config: object, taught: Recordings, chosen: Recordings, *_: object, **__: object
    ) -> Trained:
        seen.update(taught=taught.emg[:, 0, 0], chosen=chosen.emg[:, 0, 0])
        return Trained({}, (), 1.0)

    def answered(network: object, params: object, emg: np.ndarray) -> np.ndarray:
        seen["kept"] = emg[:, 0, 0]
        return np.zeros((len(emg), 100, 5))

    monkeypatch.setattr("myoloop.learn.copying.train", trained)
    monkeypatch.setattr("myoloop.learn.copying.run_offline", answered)
    copy = copy_decoder(CopyConfig(stretch_s=2.0), [session(60.0, 3)], RATE / FRAME)
    parts = [set(part.tolist()) for part in seen.values()]
    assert len(set.union(*parts)) == sum(map(len, parts)) == copy.stretches
    assert len(seen["kept"]) >= copy.stretches // KEPT_OUT and len(seen["chosen"]) >= copy.stretches // KEPT_OUT


def test_agreement_counts_gestures_as_well_as_fingers() -> None:
    gestures = {"rest": (0, 0, 0, 0, 0), "fist": (1, 1, 1, 1, 1)}
    odds = np.full((1, 4, 5), -3.0)
    odds[0, 2:] = [4, 4, 4, 4, -1]
    answers = np.zeros((1, 4, 5))
    answers[0, 2:] = 1.0
    found = agreement(odds, answers, gestures, warm=0)
    assert found.fingers == pytest.approx(0.9) and found.gestures == 1.0 and found.steps == 4


def test_too_little_to_copy_is_refused() -> None:
    assert TrainingConfig().augmentation.gain_sd > 0 and CopyConfig().training.augmentation.gain_sd == 0
    with pytest.raises(MyoloopError, match="at least 10 are needed"):
        copy_decoder(CopyConfig(stretch_s=2.0), [session(6.0, 6)], RATE / FRAME)
    with pytest.raises(MyoloopError, match="one rate"):
        copy_decoder(CopyConfig(), [session(6.0, 6), session(6.0, 6)._replace(rate_hz=1000.0)], RATE / FRAME)
