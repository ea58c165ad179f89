"""What goes beside a trained decoder: the learning curve as a figure and the model card."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from myoloop.body.names import FINGERS
from myoloop.learn.metrics import FlexionScores, Scores
from myoloop.learn.supervised import Progress


def plot_curves(
    path: str | Path,
    history: tuple[Progress, ...],
    values: np.ndarray,
    labels: np.ndarray,
    frame_ms: float,
    target: str = "flexed",
) -> None:
    """Save the learning curve, and below it what the decoder says to a held-out recording.

    Args:
      path: PNG to write.
      history: the learning curve.
      values, labels: (frames, 5) answered and asked for in a stretch of one held-out recording.
      frame_ms: time from frame to frame.
      target: of decoder.contract.TARGETS: what the values are.
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
        axis.plot(seconds, values[:, finger], color="tab:blue", lw=1, label="decoder")
        axis.axhline(0.5, color="black", lw=0.5, ls=":")
        axis.set(ylim=(-0.05, 1.05), xlim=(seconds[0], seconds[-1]), ylabel=name, yticks=(0, 1))
        if finger == 0:
            axis.legend(fontsize=8, ncols=2, loc="upper right")
        if finger < len(FINGERS) - 1:
            axis.set_xticklabels([])
    axis.set_xlabel("time, s")
    what = "probability of\nflexed" if target == "flexed" else "flexion"
    figure.suptitle("Training of the decoder", fontsize=11)
    figure.supxlabel(
        f"Top: loss and accuracy during training; the state with the least validation loss was kept. Below: {what} "
        "(blue)\nfor one held-out recording against what was asked for (orange); it should cross the dotted line soon "
        "after each\nchange and stay on its side.",
        fontsize=8,
    )
    figure.savefig(path, dpi=110)


def score_table(scores: dict[str, Scores], before: dict[str, float]) -> str:
    """Markdown: how right and how well calibrated the answers are, by set of recordings.

    Args:
      scores: by set; the first is the one the decoder is judged by.
      before: expected calibration error of each set before calibration.
    """
    rows = [
        f"| {name} | {100 * s.accuracy:.1f} % | "
        + " | ".join(f"{100 * a:.1f} %" for a in s.accuracy_per_finger)
        + f" | {100 * s.settled_accuracy:.1f} % | {s.delay_ms:.0f} ms | {s.brier:.3f} | {s.calibration_error:.3f} | "
        f"{before[name]:.3f} |"
        for name, s in scores.items()
    ]
    head = f"| | mean | {' | '.join(FINGERS)} | settled | delay | Brier | calibration error | before calibration |"
    return "\n".join([_ACCURACY, head, "|---|" + "---|" * (len(FINGERS) + 6), *rows, _READING])


def flexion_table(scores: dict[str, FlexionScores]) -> str:
    """Markdown: how close the answered flexion is to the one asked for, by set of recordings."""
    rows = []
    for name, s in scores.items():
        fingers = zip(s.r2_per_finger, s.rmse_per_finger, strict=True)
        each = " | ".join(f"{r2:.2f}, {rmse:.2f}" for r2, rmse in fingers)
        rows.append(f"| {name} | {s.r2:.3f} | {s.rmse:.3f} | {each} | {100 * s.accuracy:.1f} % |")
    head = f"| | R2 | RMSE | {' | '.join(f'{finger}: R2, RMSE' for finger in FINGERS)} | right side of one half |"
    return "\n".join([_CLOSENESS, head, "|---|" + "---|" * (len(FINGERS) + 3), *rows])


def model_card(
    kind: str,
    target: str,
    armband: str,
    who: str,
    command: str,
    facts: dict[str, str],
    table: str,
    made_by: dict[str, str],
) -> str:
    """The model card as Markdown.

    Args:
      kind: of decoder.networks.KINDS.
      target: of decoder.contract.TARGETS.
      armband: preset it reads.
      who: whose EMG it learned from: "person 0" or "40 people".
      command: that makes it again.
      facts: rows of the table on data and decoder.
      table: its figures, by `score_table` or `flexion_table`.
      made_by: versions.
    """
    one = who.startswith("person")
    known = _ONE if one else _MANY
    return _CARD.format(
        title=f"Decoder: {_TITLES[kind]} for `{armband}`, {who}" + (", flexion" if target == "flexion" else ""),
        what=_WHAT[kind],
        says=_SAYS[target],
        people="one virtual participant" if one else f"{who}, drawn from the population",
        table=table,
        facts="\n".join(f"| {key} | {value} |" for key, value in facts.items()),
        command=command,
        made_by=", ".join(f"{name} {version}" for name, version in made_by.items()),
        known=known.format(armband=armband),
    )


_TITLES = {"tcn": "TCN", "gru": "GRU", "lda": "linear discriminants"}
_WHAT = {
    "tcn": "A causal temporal convolutional network",
    "gru": "A recurrent network (gated recurrent units)",
    "lda": "The log-variance of each channel over a sliding window and a linear discriminant for each finger:\na decoder",
}
_SAYS = {
    "flexed": "says for each finger how probable it is that\nit is asked to be flexed",
    "flexion": "says for each finger how far it is asked to be\nflexed, from 0 (extended) to 1 (flexed)",
}
_ACCURACY = """\
Fraction of 20 ms frames answered right, transitions included, on references, discharges and noise that were never
trained on. Chance is 50 %.
"""
_READING = """
Settled: frames at least 0.4 s after a change. Delay: median time from a change of what is asked to the first right
answer; 0 is possible because the muscles are called up before the label changes, half-way through the movement.
Calibration error: expected calibration error over ten bins."""
_CLOSENESS = """\
Flexion answered against flexion asked for in every 20 ms frame, on references, discharges and noise that were never trained on.
R2: fraction of the variance explained (0: no better than the mean). RMSE: in units of the whole way from extended to flexed.
"""
_ONE = """\
- It knows one participant wearing one `{armband}` in one place. Another person, a rotated or moved band or another
  device needs a decoder of its own."""
_MANY = """\
- It knows people drawn from this project's population, each wearing `{armband}` as the population puts it on. A person who is
  unlike them, or another device, needs a decoder of its own; the figures of new people above are what to expect at best."""

_CARD = """\
# {title}

{what} that reads raw surface EMG and {says}. Trained on synthetic EMG of {people}, driven as the table below says;
no recording of a person is in it. `decoder.onnx` follows the contract in myoloop/decoder/contract.py;
`decoder.safetensors` holds the same weights for JAX. How to train one of your own: docs/decoders.md.

## How good

{table}

`curves.png` shows the training and one held-out recording.

## Data and decoder

| | |
|---|---|
{facts}

## Make it again

    {command}

Made with {made_by}.
The same command gives the same weights on the same machine and versions.

## Limits

{known}
- It learned from one driver, which follows references of the fingers with the wrist at rest. Wrist
  movement, gripping objects and co-contraction on purpose are new to it.
- The muscles inside the hand, which help to move the thumb, make no EMG at the forearm: the thumb is judged by its
  forearm muscles alone.
- It is made for simulation. It is not a medical device.
"""
