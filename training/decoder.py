"""Phase 1.5: record a virtual participant, train a decoder on its EMG, export it to ONNX and describe it; docs/decoders.md.

    python training/decoder.py --out models/decoder_tcn
    python training/decoder.py --out runs/gru --kind gru
    python training/decoder.py --out runs/flexion --target flexion
    python training/decoder.py --out runs/multiuser --dataset data/people

The last line of standard output is one JSON object with the figures on held-out references.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from myoloop import checkpoint
from myoloop.decoder import networks
from myoloop.decoder.contract import TARGETS
from myoloop.decoder.export import TRIAL_S, export_decoder
from myoloop.decoder.weights import load_decoder, save_decoder
from myoloop.emg.armband import armband
from myoloop.errors import MyoloopError, unknown_name
from myoloop.learn.dataset import FromDisk
from myoloop.learn.decoder_card import flexion_table, model_card, plot_curves, score_table
from myoloop.learn.decoder_sets import RecordingConfig, Sets, check_fits, from_dataset, recorded, seconds_of
from myoloop.learn.metrics import score, score_flexion
from myoloop.learn.supervised import Trained, TrainingConfig, run_offline, train

MODEL_VERSION = "1"


@dataclass(frozen=True)
class DecoderRun:
    """Record or read, train, export. Everything follows from the seeds."""

    out: Path
    """Folder for decoder.onnx, decoder.safetensors, README.md, curves.png and metrics.json."""
    kind: str = "tcn"
    """tcn (temporal convolutions), gru (recurrent) or lda (log-variance and linear discriminants)."""
    target: str = "flexed"
    """What it answers: flexed (probability that a finger is flexed) or flexion (how far, 0 to 1; tcn and gru)."""
    dataset: Path | None = None
    """Folder of a dataset (training/dataset.py, or myoloop export dataset) to learn from and to be tested on, instead of
    recording one person."""
    hidden: int = 64
    """Width of the layers over frames (tcn and gru)."""
    recording: Annotated[RecordingConfig, tyro.conf.arg(name="")] = field(default_factory=RecordingConfig)
    """Whom to record, without a dataset; its armband counts in both cases."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How the decoder is trained."""


def main(run: DecoderRun) -> dict:
    """Do it; returns what goes to metrics.json."""
    started = time.perf_counter()
    console = Console(stderr=True)
    if run.target not in TARGETS:
        raise unknown_name("target", run.target, TARGETS, "training/decoder.py")
    band = armband(run.recording.armband)
    sizes = {} if run.kind == "lda" else {"hidden": run.hidden}
    network = networks.make_config(run.kind, channels=band.channels, rate_hz=band.rate_hz, **sizes)
    data = gather(run, console)
    if not data.tests:
        raise MyoloopError("a decoder is described by tests: record at least one (--test).")
    if isinstance(data.training, FromDisk):
        check_fits(network, data.training.dataset)
    gathered = time.perf_counter()
    trained = fit(run, network, data, console)
    odds = {name: run_offline(network, trained.params, each.emg) for name, each in data.tests.items()}
    of_target = score if run.target == "flexed" else score_flexion
    scores: dict[str, Any] = {name: of_target(odds[name], data.tests[name].labels) for name in odds}  # type: ignore[operator]
    name = f"{run.kind} {run.recording.armband} {data.who}"
    parity = export_decoder(
        run.out / "decoder.onnx", network, trained.params, band.channel_labels, name, MODEL_VERSION, run.target
    )
    save_decoder(run.out / "decoder.safetensors", network, trained.params, band.channel_labels, name, run.target)
    first = next(iter(odds))
    values = 1.0 / (1.0 + np.exp(-odds[first][0, :1000]))
    plot_curves(
        run.out / "curves.png",
        trained.history,
        values,
        data.tests[first].labels[0, :1000],
        network.frame_ms,
        run.target,
    )
    judged = scores[first]._asdict()
    names = (
        ("accuracy", "accuracy_per_finger") if run.target == "flexed" else ("r2", "rmse", "accuracy", "r2_per_finger")
    )
    metrics = {
        **{key: judged[key] for key in names},
        "scores": {key: value._asdict() for key, value in scores.items()},
        "parameters": networks.count_parameters(trained.params),
        "looks_back_s": network.looks_back_s,
        "onnx_parity": parity,
        "temperature": trained.temperature,
        "gathering_s": round(gathered - started, 1),
        "training_s": round(time.perf_counter() - gathered, 1),
        "config": json.loads(json.dumps(asdict(run), default=str)),
    }
    if run.target == "flexed":
        metrics["calibration_error_before"] = {
            key: score(trained.temperature * odds[key], data.tests[key].labels).calibration_error for key in odds
        }
    describe(run, network, trained, data, scores, metrics)
    return metrics


def gather(run: DecoderRun, console: Console) -> Sets:
    """The recordings: made now, or a dataset's."""
    if run.dataset is not None:
        return from_dataset(run.dataset, run.target)
    total = seconds_of(run.recording)
    with progress_bar(console) as bar:
        task = bar.add_task(f"recording {total / 60:.0f} participant-minutes", total=total, note="")
        return recorded(run.recording, run.target, lambda name, done: bar.update(task, advance=done, note=name))


def fit(run: DecoderRun, network: networks.Config, data: Sets, console: Console) -> Trained:
    """Train with a progress bar."""
    with progress_bar(console) as bar:
        task = bar.add_task("training", total=run.training.updates, note="compiling")

        def show(update, loss, progress):  # type: ignore[no-untyped-def]
            found = f", validation {100 * progress.validation_accuracy:.1f} %" if progress else ""
            bar.update(task, completed=update, note=f"loss {loss:.3f}{found}")

        return train(network, run.training, data.training, data.validation, show, run.target)


def describe(
    run: DecoderRun, network: networks.Config, trained: Trained, data: Sets, scores: dict[str, Any], metrics: dict
) -> None:
    """Write metrics.json and the model card."""
    given = run.training.augmentation
    turned = f", turned by {given.turn_sd:g} channels" if given.turn_sd else ""
    facts = data.facts | {
        "labels": "1 where the reference asks a finger to be flexed at the time of the newest sample"
        if run.target == "flexed"
        else "the flexion that the reference asks for at the time of the newest sample, 0 to 1",
        "augmentation": f"gain (log-normal, {given.gain_sd:g}; of each channel {given.channel_gain_sd:g}), noise up to "
        f"{given.noise_uv:g} uV, one channel lost in {100 * given.lost_channel:.0f} % of the crops{turned}",
        "decoder": f"{run.kind}, {metrics['parameters']} parameters, called every {network.samples_per_call} samples "
        f"({network.frame_ms:g} ms), looks {network.looks_back_s:.2f} s back",
        "calibration": f"log-odds divided by {trained.temperature:.2f}, chosen on the validation recordings",
        "ONNX against JAX": f"largest difference {metrics['onnx_parity']:.1e} over a {TRIAL_S:g} s stream in random chunks",
    }
    settings = " ".join(f"--{key} {value}" for key, value in changed(run).items())
    command = f"python training/decoder.py --out {run.out} {settings}".strip()
    made_by = load_decoder(run.out / "decoder.safetensors").made_by
    table = (
        score_table(scores, metrics["calibration_error_before"]) if run.target == "flexed" else flexion_table(scores)
    )
    card = model_card(run.kind, run.target, run.recording.armband, data.who, command, facts, table, made_by)
    checkpoint.write_atomically(run.out / "README.md", card.encode())
    checkpoint.write_atomically(run.out / "metrics.json", (json.dumps(metrics, indent=1) + "\n").encode())


def changed(run: DecoderRun) -> dict[str, object]:
    """Command-line arguments that differ from the defaults."""

    def flat(given: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in given.items():
            below = prefix if key == "recording" else f"{prefix}{key}."
            found |= flat(value, below) if isinstance(value, dict) else {prefix + key: value}
        return found

    default = flat(asdict(DecoderRun(run.out)))
    return {key.replace("_", "-"): value for key, value in flat(asdict(run)).items() if value != default[key]}


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
