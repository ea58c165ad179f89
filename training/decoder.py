"""Phase 1.5: record a virtual participant, train a decoder on its EMG, export it to ONNX and describe it.

    python training/decoder.py --out models/decoder_tcn

The last line of standard output is one JSON object with the accuracy on held-out references.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from myoloop import checkpoint
from myoloop.assets import POLICY
from myoloop.decoder import tcn
from myoloop.decoder.export import export_decoder
from myoloop.decoder.weights import load_decoder, save_decoder
from myoloop.emg.armband import armband
from myoloop.errors import MyoloopError
from myoloop.learn.collect import Block, collect
from myoloop.learn.decoder_card import model_card, plot_curves
from myoloop.learn.metrics import Scores, score
from myoloop.learn.supervised import Recordings, Trained, TrainingConfig, run_offline, train
from myoloop.participant import ParticipantConfig
from myoloop.task.reference import held_out_seed

MODEL_VERSION = "1"


@dataclass(frozen=True)
class DecoderRun:
    """Record, train, export. Everything follows from the seeds."""

    out: Path
    """Folder for decoder.onnx, decoder.safetensors, README.md, curves.png and metrics.json."""
    armband: str = "semg_rd16"
    """Armband preset that the participant wears."""
    person: int = 0
    """Seed of the participant's anatomy: the decoder is made for this one."""
    policy: str = POLICY
    """Who drives the muscles while recording: a policy's file, or "baseline"."""
    discrete: int = 28
    """Recordings with discrete references to train on."""
    continuous: int = 12
    """Recordings with continuous references to train on."""
    validation: int = 6
    """Recordings with discrete references that choose the best state."""
    test: int = 12
    """Recordings per kind of held-out references."""
    seconds: float = 60.0
    """Length of each recording, s."""
    reference_seed: int = 1000
    """Seed of the first reference; training uses this and the next, validation the one after."""
    hidden: int = 64
    """Width of the network's convolutions over frames."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How the network is trained."""


def main(run: DecoderRun) -> dict:
    """Do it; returns what goes to metrics.json."""
    started = time.perf_counter()
    console = Console(stderr=True)
    band = armband(run.armband)
    network = tcn.TcnConfig(channels=band.channels, rate_hz=band.rate_hz, hidden=run.hidden)
    data = record(run, console)
    recorded = time.perf_counter()
    trained = fit(run, network, data, console)
    tests = {
        "held-out discrete": data["test discrete"],
        "held-out continuous": data["test continuous"],
    }
    odds = {name: run_offline(network, trained.params, r.emg) for name, r in tests.items()}
    scores = {name: score(odds[name], tests[name].labels) for name in tests}
    name = f"tcn {run.armband} person {run.person}"
    parity = export_decoder(run.out / "decoder.onnx", network, trained.params, band.channel_labels, name, MODEL_VERSION)
    save_decoder(run.out / "decoder.safetensors", network, trained.params, band.channel_labels, name)
    probability = 1.0 / (1.0 + np.exp(-odds["held-out discrete"][0, :1000]))
    labels = tests["held-out discrete"].labels[0, :1000]
    plot_curves(run.out / "curves.png", trained.history, probability, labels, network.frame_ms)
    metrics = {
        "accuracy": scores["held-out discrete"].accuracy,
        "accuracy_per_finger": list(scores["held-out discrete"].accuracy_per_finger),
        "scores": {key: value._asdict() for key, value in {"validation": trained.validation, **scores}.items()},
        "parameters": tcn.count_parameters(trained.params),
        "receptive_field_s": network.receptive_field_s,
        "onnx_parity": parity,
        "temperature": trained.temperature,
        "recording_s": round(recorded - started, 1),
        "training_s": round(time.perf_counter() - recorded, 1),
        "config": json.loads(json.dumps(asdict(run), default=str)),
    }
    describe(run, network, trained, scores, metrics)
    return metrics


def record(run: DecoderRun, console: Console) -> dict[str, Recordings]:
    """The recordings of all sets; those to test on have held-out references."""
    seed, seconds = run.reference_seed, run.seconds
    sets = {
        "training": (
            Block("discrete", seed, run.discrete, seconds),
            Block("continuous", seed + 1, run.continuous, seconds),
        ),
        "validation": (Block("discrete", seed + 2, run.validation, seconds),),
        "test discrete": (Block("discrete", held_out_seed(100), run.test, seconds),),
        "test continuous": (Block("continuous", held_out_seed(101), run.test, seconds),),
    }
    config = ParticipantConfig(armband=armband(run.armband), person=run.person, policy=run.policy)
    total = sum(block.recordings * block.seconds for blocks in sets.values() for block in blocks)
    data = {}
    with progress_bar(console) as bar:
        task = bar.add_task(f"recording {total / 60:.0f} participant-minutes", total=total, note="")
        for name, blocks in sets.items():
            bar.update(task, note=name)
            split = "held_out" if name.startswith("test") else "training"
            used = tuple(block for block in blocks if block.recordings)
            data[name] = collect(config, used, split, lambda seconds: bar.advance(task, seconds))
    return data


def fit(run: DecoderRun, network: tcn.TcnConfig, data: dict[str, Recordings], console: Console) -> Trained:
    """Train with a progress bar."""
    with progress_bar(console) as bar:
        task = bar.add_task("training", total=run.training.updates, note="compiling")

        def show(update, loss, progress):  # type: ignore[no-untyped-def]
            found = f", validation {100 * progress.validation_accuracy:.1f} %" if progress else ""
            bar.update(task, completed=update, note=f"loss {loss:.3f}{found}")

        return train(network, run.training, data["training"], data["validation"], show)


def describe(
    run: DecoderRun, network: tcn.TcnConfig, trained: Trained, scores: dict[str, Scores], metrics: dict
) -> None:
    """Write metrics.json and the model card."""
    minutes = (run.discrete + run.continuous) * run.seconds / 60
    facts = {
        "participant": f"person {run.person} with `{run.armband}`, {network.channels} channels at {network.rate_hz:g} "
        "Hz",
        "driven by": run.policy,
        "training": f"{minutes:.0f} participant-minutes: {run.discrete} recordings of discrete references (seed "
        f"{run.reference_seed}), {run.continuous} of continuous ones (seed {run.reference_seed + 1}), {run.seconds:g} "
        "s each",
        "validation": f"{run.validation} recordings of discrete references (seed {run.reference_seed + 2})",
        "test": f"{run.test} recordings each of held-out discrete and continuous references (seeds "
        f"{held_out_seed(100)}, {held_out_seed(101)})",
        "labels": "1 where the reference asks a finger to be flexed at the time of the newest sample",
        "augmentation": f"gain (log-normal, {run.training.gain_sd:g}), noise up to {run.training.noise_uv:g} uV, one "
        f"channel lost in {100 * run.training.lost_channel:.0f} % of the crops",
        "network": f"{metrics['parameters']} parameters, called every {network.samples_per_call} samples "
        f"({network.frame_ms:g} ms), looks {network.receptive_field_s:.2f} s back",
        "calibration": f"log-odds divided by {trained.temperature:.2f}, chosen on the validation recordings",
        "ONNX against JAX": f"largest difference {metrics['onnx_parity']:.1e} over a 4 s stream",
    }
    settings = " ".join(f"--{key} {value}" for key, value in changed(run).items())
    command = f"python training/decoder.py --out {run.out} {settings}".strip()
    made_by = load_decoder(run.out / "decoder.safetensors").made_by
    title = f"Decoder: TCN for `{run.armband}`, person {run.person}"
    card = model_card(title, command, facts, scores, run.armband, made_by)
    checkpoint.write_atomically(run.out / "README.md", card.encode())
    checkpoint.write_atomically(run.out / "metrics.json", (json.dumps(metrics, indent=1) + "\n").encode())


def changed(run: DecoderRun) -> dict[str, object]:
    """Command-line arguments that differ from the defaults."""
    default, now = asdict(DecoderRun(run.out)), asdict(run)
    top = {k: v for k, v in now.items() if k != "training" and v != default[k]}
    nested = {f"training.{k}": v for k, v in now["training"].items() if v != default["training"][k]}
    return {key.replace("_", "-"): value for key, value in (top | nested).items()}


def progress_bar(console: Console) -> Progress:
    """A bar with a note and the time left, on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    return Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console)


if __name__ == "__main__":
    try:
        result = main(tyro.cli(DecoderRun, description=__doc__))
    except MyoloopError as error:
        sys.exit(f"training/decoder.py: {error}")
    except KeyboardInterrupt:
        sys.exit("training/decoder.py: stopped; nothing was written.")
    print(json.dumps(result))
