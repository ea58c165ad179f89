"""Training from datasets on disk: programs, splits, and what does not fit."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from dataset_samples import QUICK, write_dataset

from myoloop.decoder import networks
from myoloop.decoder.runtime import OnnxDecoder
from myoloop.decoder.weights import load_decoder
from myoloop.errors import MyoloopError
from myoloop.learn.augmentation import AugmentationConfig
from myoloop.learn.decoder_card import flexion_table
from myoloop.learn.decoder_sets import check_fits, from_dataset
from myoloop.learn.metrics import score_flexion
from myoloop.learn.supervised import TrainingConfig, train

REPO = Path(__file__).parent.parent
CONFIG = dataclasses.replace(QUICK, seconds=3.0, people=4, validation_people=1, test_people=1)
MYO8 = {"channels": 8, "rate_hz": 200.0}


def program(name):
    spec = importlib.util.spec_from_file_location(name, REPO / "training" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "people", CONFIG)


def test_a_decoder_of_many_people_is_trained_from_disk_tested_on_strangers_and_described(folder, tmp_path):
    decoder = program("decoder")
    recording = decoder.RecordingConfig(armband="myo8")
    augmentation = AugmentationConfig(turn_sd=0.5)
    training = TrainingConfig(crop_s=0.5, augmentation=augmentation)
    run = decoder.DecoderRun(tmp_path, kind="lda", dataset=folder, recording=recording, training=training)
    metrics = decoder.main(run)
    assert set(metrics["scores"]) == {"new people", "people of training"}
    assert abs(metrics["accuracy"] - 0.5) < 0.1  # its labels are random
    assert metrics["onnx_parity"] < 1e-5
    saved, exported = load_decoder(tmp_path / "decoder.safetensors"), OnnxDecoder(tmp_path / "decoder.onnx")
    assert saved.name == exported.name == "lda myo8 4 people"
    card = (tmp_path / "README.md").read_text()
    assert "--kind lda" in card and "--training.augmentation.turn-sd 0.5" in card and "--armband myo8" in card
    assert "people drawn from this project's population" in card and "before calibration" in card
    assert (
        json.loads((tmp_path / "metrics.json").read_text())["calibration_error_before"].keys()
        == metrics["scores"].keys()
    )


def test_flexion_outside_its_range_in_a_dataset_is_named(folder):
    network = networks.make_config("tcn", **MYO8, spatial_filters=4, temporal_filters=2, hidden=8)
    data = from_dataset(folder, "flexion")  # its random numbers reach from 0 to 2
    with pytest.raises(MyoloopError, match=r"label is 1\.\d+; labels to train on must be flexion, 0 to 1"):
        train(network, TrainingConfig(updates=1, crop_s=1.0, batch=2), data.training, data.validation, target="flexion")


def test_a_label_outside_the_classes_in_a_shard_is_named(folder, tmp_path):
    copy = write_dataset(tmp_path / "people", CONFIG)
    with h5py.File(copy / "shard-0000.h5", "r+") as file:
        for recording in file.values():
            recording["labels"][...] = 3
    data = from_dataset(copy, "flexed")
    with pytest.raises(MyoloopError, match=r"label is 3; labels to train on must be 0 \(extended\) or 1 \(flexed\)"):
        train(networks.make_config("lda", **MYO8), TrainingConfig(batch=64), data.training, data.validation)


def test_a_dataset_of_another_armband_is_refused_with_the_one_to_name(folder):
    data = from_dataset(folder, "flexed")
    check_fits(networks.make_config("lda", **MYO8), data.training.dataset)
    with pytest.raises(MyoloopError, match=r"8 channels at 200 Hz.*reads 16 at 2000 Hz.*\('myo8'\)"):
        check_fits(networks.make_config("lda"), data.training.dataset)


def test_a_dataset_without_recordings_to_choose_by_or_to_test_on_is_refused(tmp_path):
    for change, message in (
        ({"validation_recordings": 0}, "no recordings for validation"),
        ({"test_recordings": 0}, "no recordings to test on"),
    ):
        folder = write_dataset(tmp_path / next(iter(change)), dataclasses.replace(CONFIG, **change))
        with pytest.raises(MyoloopError, match=message):
            from_dataset(folder, "flexed")


def test_every_seed_of_the_table_learns_from_people_of_its_own_and_never_from_those_it_is_chosen_by(folder, tmp_path):
    table = program("decoder_table")
    config = table.TableConfig(tmp_path, folder, share=0.5)
    sources = [table.of_many(config, seed)[0].dataset for seed in range(4)]
    assert all(len(source.people) == 2 for source in sources)
    assert len({source.people for source in sources}) > 1
    assert not any(
        source.people & from_dataset(folder, "flexed").training.dataset.select("validation").people
        for source in sources
    )


def test_the_table_states_intervals_over_seeds_and_draws_them(tmp_path):
    table = program("decoder_table")
    config = table.TableConfig(tmp_path, tmp_path)
    rng = np.random.default_rng(0)
    found = {
        name: {case: rng.uniform(0.6, 0.7, 3).tolist() for case in table.CASES} for name in ("tcn", "lda", table.MANY)
    }
    result = table.summary(config, found)
    assert len(result["rows"]) == 15
    for row in result["rows"]:
        assert row["low"] < min(row["seeds"]) and max(row["seeds"]) < row["high"]
        assert row["accuracy"] == pytest.approx(np.mean(row["seeds"]), abs=1e-3)
    table.plot(tmp_path / "decoders.png", result)
    assert (tmp_path / "decoders.png").stat().st_size > 10_000


def test_the_table_of_flexion_says_how_close():
    flexion = np.random.default_rng(0).uniform(0.1, 0.9, (2, 50, 5))
    answered = np.clip(flexion + 0.1, 0.0, 0.99)
    table = flexion_table({"held-out discrete": score_flexion(np.log(answered / (1 - answered)), flexion)})
    assert "| held-out discrete | 0." in table and "| 0.100 |" in table
