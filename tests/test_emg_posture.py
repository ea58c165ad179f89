"""What the posture does under the electrodes: directions, bounds, and the signatures in the signal."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from myoloop.body.model import load_hand
from myoloop.body.mujoco_engine import MujocoEngine
from myoloop.body.names import FLEXION_JOINTS, FOREARM_MUSCLES, JOINTS
from myoloop.emg import ground_truth
from myoloop.emg import posture as at
from myoloop.emg.armband import armband
from myoloop.emg.conductor import Conductor
from myoloop.emg.config import EmgConfig
from myoloop.emg.synthesis import build_emg, healthy, init_emg, synthesise

FDP3, EDC3, PT = (FOREARM_MUSCLES.index(name) for name in ("FDP3", "EDC3", "PT"))


@pytest.fixture(scope="module")
def person():
    return build_emg(armband("semg_rd16"), EmgConfig(units_scale=0.2, conductor=Conductor(kind="half_space")))


@pytest.fixture(scope="module")
def postures():
    """Of the body: neutral, a fist, pronated, supinated."""
    engine = MujocoEngine(load_hand(), participants=4, threads=1)
    qpos = np.zeros((4, len(JOINTS)))
    for finger in FLEXION_JOINTS:
        for joint in finger:
            qpos[1, joint] = 0.9 * engine.hand.joint_range[joint, 1]
    qpos[2, 0], qpos[3, 0] = 1.4, -1.4
    body = engine.reset(qpos)
    return at.posture(body.qpos[:, 0], body.length, body.length[0], 0.3)


def test_neutral_posture_changes_nothing(postures):
    for field in postures:
        np.testing.assert_array_equal(field[0], 0.0)


def test_pronation_turns_the_skin_with_the_hand_and_within_bounds(postures):
    turn = np.asarray(postures.skin_turn_deg)
    assert 5.0 < turn[2] < at.MOST_TURN_DEG and turn[3] == pytest.approx(-turn[2])
    at_wrist, at_elbow = (at.posture(np.full(1, 1.4), np.ones((1, 26)), np.ones(26), z) for z in (0.9, 0.0))
    assert at_elbow.skin_turn_deg[0] == 0.0 and turn[2] < at_wrist.skin_turn_deg[0] <= at.MOST_TURN_DEG
    assert postures.fibre_strain[2, PT] < 0 < postures.fibre_strain[3, PT]  # pronator teres shortens in pronation


def test_a_fist_draws_flexors_to_the_elbow_and_extensors_to_the_wrist(postures):
    shift, strain = np.asarray(postures.muscle_shift_mm[1]), np.asarray(postures.fibre_strain[1])
    assert shift[FDP3] < -3.0 and shift[EDC3] > 2.0
    assert strain[FDP3] < -0.1 and strain[EDC3] > 0.1
    assert np.abs(shift).max() <= at.MOST_SHIFT_MM and np.abs(strain).max() <= at.MOST_STRAIN


def test_longer_fibres_conduct_as_thinner_ones_of_the_same_volume():
    strain = 0.2
    diameter = (at.VELOCITY - 0.95) / at.SLOPE_VELOCITY  # um, Nandedkar & Stalberg 1983
    thin = diameter / np.sqrt(1.0 + strain)
    slower = at.SLOPE_VELOCITY * thin + 0.95
    assert float(at.slowing(np.float32(strain))) == pytest.approx(at.VELOCITY / slower, rel=0.01)
    assert at.slowing(np.float32(-0.2)) < 1.0 < at.slowing(np.float32(0.2))


def test_stretched_fibres_have_wider_muaps_and_a_lower_spectrum(person):
    strain = np.repeat(np.array([[-0.3], [0.0], [0.3]], np.float32), 26, axis=1)
    now = healthy(person, 3)._replace(fibre_strain=strain)
    out, _ = synthesise(person, init_emg(person, [3, 3, 3]), np.full((3, 26), 0.4), 2000, now)
    hertz, power = signal.welch(np.asarray(out.chunk), 2000, nperseg=1024, axis=1)
    short, neutral, long = (power * hertz[:, None]).sum(axis=(1, 2)) / power.sum(axis=(1, 2))
    assert short > 1.02 * neutral > 1.04 * long
    width = [_width(ground_truth.muaps(person, strain=s)) for s in (-0.3, 0.0, 0.3)]
    expected = [float(at.slowing(np.float32(s))) for s in (-0.3, 0.0, 0.3)]
    np.testing.assert_allclose(np.array(width) / width[1], expected, rtol=0.03)


def _width(waves):
    """Median over units of the time, in samples, from the energy's 10th to its 90th percentile, on the loudest channel."""
    energy = (waves**2).sum(axis=2)
    loud = waves[np.arange(len(waves)), energy.argmax(axis=1)]
    part = np.cumsum(loud**2, axis=1) / (loud**2).sum(axis=1, keepdims=True)
    at_part = np.array([[np.interp(q, row, np.arange(row.size)) for q in (0.1, 0.9)] for row in part])
    return float(np.median(at_part[:, 1] - at_part[:, 0]))


def test_only_working_muscles_count_for_the_stretch(person):
    rows = np.zeros((3, 26))
    rows[:, FDP3] = 0.5
    strain = np.zeros((3, 26), np.float32)
    strain[0, EDC3] = 0.3  # long, but silent
    strain[2, FDP3] = 0.3
    now = healthy(person, 3)._replace(fibre_strain=strain)
    out, _ = synthesise(person, init_emg(person, [3, 3, 3]), rows, 2000, now)
    np.testing.assert_array_equal(out.chunk[0], out.chunk[1])
    assert not np.allclose(out.chunk[1], out.chunk[2], rtol=0.1)
