"""benchmarks/decoder_robustness.py: the decoder fails where it should, and nothing but the case has changed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from myoloop.emg.armband import armband
from myoloop.emg.config import EmgConfig
from myoloop.emg.synthesis import build_emg
from myoloop.errors import MyoloopError
from myoloop.learn import resynthesis
from myoloop.learn.collect import rollout
from myoloop.participant import ParticipantConfig, Participants
from myoloop.task.reference import ReferenceConfig, held_out_seed

REPO = Path(__file__).parent.parent
_spec = importlib.util.spec_from_file_location("decoder_robustness", REPO / "benchmarks" / "decoder_robustness.py")
assert _spec and _spec.loader
robustness = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = robustness  # its dataclasses look themselves up
_spec.loader.exec_module(robustness)

CONFIG = robustness.Config(recordings=3, seconds=6.0)


@pytest.fixture(scope="module")
def recorded():
    """Excitations and labels of the benchmark, and its EMG: the armband turned by 0, 15 and 30 degrees, half of the
    electrodes off."""
    band = armband(CONFIG.armband)
    people = resynthesis.Population(band, EmgConfig())
    run, seeds = resynthesis.record_drive(band, CONFIG.recordings, CONFIG.seconds, robustness.reference_of(CONFIG))
    home = people.add("home", lambda: build_emg(band))
    cases = [resynthesis.Case("rotation", "", 0.0, "", home)]
    for degrees in (15.0, 30.0):
        turned = armband(CONFIG.armband, first_angle_deg=degrees)
        key = people.add(f"{degrees}", lambda b=turned: build_emg(b))
        cases.append(resynthesis.Case("rotation", "", degrees, "", key))
    cases.append(resynthesis.Case("electrodes", "", 8, "", home, resynthesis.without(band, 8)))
    emg = {(case, one): signal for case, one, signal in resynthesis.resynthesise(people, cases, run, seeds)}
    return run, seeds, {c: np.stack([emg[c, r] for r in range(CONFIG.recordings)]) for c in range(len(cases))}


def test_undisturbed_case_is_the_recording_itself(recorded):
    _, seeds, emg = recorded
    reference = ReferenceConfig(kind="discrete", seed=held_out_seed(CONFIG.seed), split="held_out")
    people = Participants(ParticipantConfig(reference=reference), participants=CONFIG.recordings)
    own = rollout(people, seeds, 50)
    np.testing.assert_allclose(emg[0][:, : own.emg.shape[1]], own.emg, atol=0.05)  # microvolts of some 100


def test_shipped_decoder_falls_with_rotation_and_lost_electrodes(recorded):
    run, _, emg = recorded
    answer = robustness.decoder_of(CONFIG.decoder, armband(CONFIG.armband))
    right = [float(((answer(emg[c]) > 0) == (run.labels > 0.5)).mean()) for c in range(4)]
    assert right[0] > 0.72
    assert right[0] > right[1] + 0.1 > right[2] + 0.1
    assert right[3] < right[0] - 0.1


def test_onnx_and_weights_of_the_shipped_decoder_answer_alike(recorded):
    _, _, emg = recorded
    band, part = armband(CONFIG.armband), emg[0][:1, :4000]
    fast, streamed = (robustness.decoder_of(CONFIG.decoder / name, band)(part) for name in ("", "decoder.onnx"))
    np.testing.assert_allclose(1 / (1 + np.exp(-fast)) - 0.5, streamed, atol=1e-3)


def test_decoder_of_another_armband_is_refused():
    with pytest.raises(MyoloopError, match=r"16 channels at 2000 Hz.*armband 'myo8'"):
        robustness.decoder_of(CONFIG.decoder, armband("myo8"))


def test_interval_holds_the_mean_and_curves_that_rise_do_not_fall():
    mean, low, high = resynthesis.interval(np.array([0.8, 0.9, 0.85]))
    assert low < mean < high and mean == pytest.approx(0.85)

    def curve(*accuracy):
        return [robustness.Row("fat", "", n, "mm", a, a - 0.01, a + 0.01) for n, a in enumerate(accuracy)]

    assert robustness.falls(curve(0.9, 0.915, 0.7)) == {"fat: ": True}
    assert robustness.falls(curve(0.9, 0.7, 0.8)) == {"fat: ": False}
