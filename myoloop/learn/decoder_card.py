"""What goes beside a trained decoder: the learning curve as a figure and the model card."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from myoloop.body.names import FINGERS
from myoloop.learn.metrics import Scores
from myoloop.learn.supervised import Progress


def plot_curves(
    path: str | Path, history: tuple[Progress, ...], probability: np.ndarray, labels: np.ndarray, frame_ms: float
) -> None:
    """Save the learning curve, and below it what the decoder says to a held-out recording.

    Args:
      path: PNG to write.
      history: the learning curve.
      probability, labels: (frames, 5) of a stretch of one held-out recording.
      frame_ms: time from frame to frame.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 9), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(7, 2)
    updates = [point.update for point in history]
    curves = (
        ("cross-entropy, nats", [p.loss for p in history], [p.validation_loss for p in history]),
        ("accuracy, %", [100 * p.train_accuracy for p in history], [100 * p.validation_accuracy for p in history]),
    )
    for column, (label, training, validation) in enumerate(curves):
        axis = figure.add_subplot(grid[:2, column])
        axis.plot(updates, training, "o-", ms=3, color="tab:gray", label="training (augmented, with dropout)")
        axis.plot(updates, validation, "o-", ms=3, color="tab:blue", label="validation")
        axis.set(xlabel="updates", ylabel=label)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    seconds = np.arange(len(labels)) * frame_ms / 1000.0
    for finger, name in enumerate(FINGERS):
        axis = figure.add_subplot(grid[2 + finger, :])
        axis.fill_between(
            seconds, labels[:, finger], step="mid", color="tab:orange", alpha=0.3, lw=0, label="asked for"
        )
        axis.plot(seconds, probability[:, finger], color="tab:blue", lw=1, label="decoder")
        axis.axhline(0.5, color="black", lw=0.5, ls=":")
        axis.set(ylim=(-0.05, 1.05), xlim=(seconds[0], seconds[-1]), ylabel=name, yticks=(0, 1))
        if finger == 0:
            axis.legend(fontsize=8, ncols=2, loc="upper right")
        if finger < len(FINGERS) - 1:
            axis.set_xticklabels([])
    axis.set_xlabel("time, s")
    figure.suptitle("Training of the decoder", fontsize=11)
    figure.supxlabel(
        "Top: loss and accuracy during training; the state with the least validation loss was kept. Below: "
        "probability of\nflexed (blue) for one held-out recording against what was asked for (orange); it should "
        "cross the dotted line soon\nafter each change and stay on its side.",
        fontsize=8,
    )
    figure.savefig(path, dpi=110)


def model_card(
    title: str, command: str, facts: dict[str, str], scores: dict[str, Scores], armband: str, made_by: dict[str, str]
) -> str:
    """The model card as Markdown.

    Args:
      title: what the decoder is.
      command: that makes it again.
      facts: rows of the table on data and network.
      scores: by set of recordings, e.g. "held-out discrete"; the first is the one the decoder is judged by.
      armband: preset it reads.
      made_by: versions.
    """
    rows = [
        f"| {name} | {100 * s.accuracy:.1f} % | "
        + " | ".join(f"{100 * a:.1f} %" for a in s.accuracy_per_finger)
        + f" | {100 * s.settled_accuracy:.1f} % | {s.delay_ms:.0f} ms | {s.brier:.3f} | {s.calibration_error:.3f} |"
        for name, s in scores.items()
    ]
    return _CARD.format(
        title=title,
        fingers=" | ".join(FINGERS),
        ruler="---|" * (len(FINGERS) + 5),
        scores="\n".join(rows),
        facts="\n".join(f"| {key} | {value} |" for key, value in facts.items()),
        command=command,
        made_by=", ".join(f"{name} {version}" for name, version in made_by.items()),
        armband=armband,
    )


_CARD = """\
# {title}

A causal temporal convolutional network that reads raw surface EMG and says for each finger how probable it is that
it is asked to be flexed. Trained on synthetic EMG of one virtual participant, driven as the table below says;
no recording of a person is in it. `decoder.onnx` follows the contract in myoloop/decoder/contract.py;
`decoder.safetensors` holds the same weights for myoloop.checkpoint.

## Accuracy

Fraction of 20 ms frames answered right, transitions included, on references, discharges and noise that were never
trained on. Chance is 50 %.

| | mean | {fingers} | settled | delay | Brier | calibration error |
|---|{ruler}
{scores}

Settled: frames at least 0.4 s after a change. Delay: median time from a change of what is asked to the first right
answer; 0 is possible because the muscles are called up before the label changes, half-way through the movement.
Probabilities are calibrated on discrete references. `curves.png` shows the training and one held-out recording.

## Data and network

| | |
|---|---|
{facts}

## Make it again

    {command}

Made with {made_by}.
The same command gives the same weights on the same machine and versions.

## Limits

- It knows one participant wearing one `{armband}` in one place. Another person, a rotated or moved band or another
  device needs a decoder of its own.
- It learned from one driver, which follows references of the fingers with the wrist at rest. Wrist
  movement, gripping objects and co-contraction on purpose are new to it.
- The muscles inside the hand, which help to move the thumb, make no EMG at the forearm: the thumb is judged by its
  forearm muscles alone.
- It is made for simulation. It is not a medical device.
"""
