"""Recordings made by participants to train on, and the decoder that ships."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from myoloop.assets import CHECKOUT
from myoloop.decoder import export
from myoloop.decoder.contract import check_against
from myoloop.decoder.runtime import OnnxDecoder
from myoloop.decoder.weights import load_decoder
from myoloop.emg.armband import armband
from myoloop.errors import MyoloopError
from myoloop.learn.collect import Block, collect, noise_seeds
from myoloop.learn.decoder_sets import RecordingConfig
from myoloop.learn.decoder_sets import recorded as recorded_sets
from myoloop.learn.metrics import score
from myoloop.participant import ParticipantConfig
from myoloop.task.reference import ReferenceConfig, held_out_seed, labels, make_reference

CONFIG = ParticipantConfig(armband=armband("myo8"))
EVERY = sorted(folder.name for folder in (CHECKOUT / "models").glob("decoder_*"))
SHIPPED = [name for name in EVERY if name.startswith("decoder_tcn")]
"""Those of one person that say flexed or not."""


@pytest.fixture(scope="module")
def recorded():
    return collect(CONFIG, (Block("discrete", 3, 2, 4.0),), "training")


def test_a_recording_carries_the_label_asked_for_at_the_end_of_each_frame(recorded):
    assert recorded.emg.shape == (2, 800, 8)
    reference = make_reference(ReferenceConfig(kind="discrete", seed=3), participants=2)
    asked = np.stack([labels(reference, np.float32(0.02 * (step + 1))) for step in range(200)], axis=1)
    assert np.mean(asked == recorded.labels) > 0.999  # a change may fall on a frame's very end
    assert 0 < recorded.labels.mean() < 1


def test_the_same_blocks_give_the_same_recordings_and_a_recording_does_not_depend_on_the_others(recorded):
    again = collect(CONFIG, (Block("discrete", 3, 2, 4.0), Block("continuous", 3, 1, 4.0)), "training")
    np.testing.assert_array_equal(again.emg[:2], recorded.emg)
    np.testing.assert_array_equal(again.labels[:2], recorded.labels)
    assert not np.array_equal(again.emg[2], recorded.emg[0])


def test_sets_of_one_person_hold_what_was_asked_for_and_flexion_instead_of_labels(recorded):
    asked = RecordingConfig(
        armband="myo8", discrete=2, continuous=0, validation=1, test=0, seconds=4.0, reference_seed=3
    )
    sets = recorded_sets(asked, "flexion", lambda name, seconds: None)
    assert sets.tests == {} and sets.who == "person 0"
    np.testing.assert_array_equal(sets.training.emg, recorded.emg)
    assert np.mean((sets.training.labels > 0.5) == (recorded.labels > 0.5)) > 0.8  # a label changes half-way, at once
    between = (sets.training.labels > 0.02) & (sets.training.labels < 0.98)
    assert between.mean() > 0.05 and sets.training.labels.min() >= 0 and sets.training.labels.max() <= 1
    with pytest.raises(MyoloopError, match="no recordings for validation"):
        recorded_sets(dataclasses.replace(asked, validation=0), "flexed", lambda name, seconds: None)


def test_no_two_recordings_share_noise():
    blocks = [Block(kind, seed, 50, 60.0) for kind in ("discrete", "continuous") for seed in (1, 2, held_out_seed(1))]
    seeds = np.concatenate([noise_seeds(block) for block in blocks])
    assert len(set(seeds.tolist())) == len(seeds)


def test_training_on_held_out_references_is_refused():
    with pytest.raises(MyoloopError, match="held_out"):
        collect(CONFIG, (Block("discrete", held_out_seed(0), 1, 1.0),), "training")


def test_copies_and_unequal_lengths_are_refused():
    with pytest.raises(MyoloopError, match="the same recordings"):
        collect(CONFIG, (Block("discrete", 1, 2, 1.0), Block("discrete", 1, 4, 1.0)))
    with pytest.raises(MyoloopError, match="one length"):
        collect(CONFIG, (Block("discrete", 1, 2, 1.0), Block("discrete", 2, 2, 2.0)))


@pytest.mark.parametrize("name", EVERY)
def test_a_shipped_decoder_fits_its_armband_and_its_checkpoint(name):
    folder = CHECKOUT / "models" / name
    made_with = json.loads((folder / "metrics.json").read_text())["config"]
    band = armband(made_with.get("recording", made_with)["armband"])
    decoder = OnnxDecoder(folder / "decoder.onnx")
    check_against(decoder.info, band.rate_hz, band.channel_labels)
    saved = load_decoder(folder / "decoder.safetensors")
    assert (saved.channel_labels, saved.target) == (decoder.channel_labels, decoder.info.target)
    assert export.parity(folder / "decoder.onnx", saved.config, saved.params, seconds=1.0) <= export.PARITY


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_decoder_reads_a_reference_it_has_never_seen(name):
    folder = CHECKOUT / "models" / name
    made_with = json.loads((folder / "metrics.json").read_text())["config"]
    config = ParticipantConfig(
        armband=armband(made_with["armband"]), person=made_with["person"], policy=made_with["policy"]
    )
    unseen = collect(config, (Block("discrete", held_out_seed(500), 3, 20.0),), "held_out")
    answers = []
    for emg in unseen.emg:
        answers.append([prediction for _, prediction in OnnxDecoder(folder / "decoder.onnx").push(emg)])
    odds = np.log(np.clip(answers, 1e-6, 1 - 1e-6)) - np.log1p(-np.clip(answers, 1e-6, 1 - 1e-6))
    found = score(odds, unseen.labels)
    assert found.accuracy > 0.72
    assert min(found.accuracy_per_finger) > 0.60
