"""Training curves as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from myoloop.checkpoint import write_atomically

PANELS = (
    ("accuracy", "right answers of the decoder"),
    ("joint_error_deg", "finger joints' error (deg)"),
    ("tip_error_mm", "fingertips' error (mm)"),
    ("effort", "effort: mean squared excitation"),
    ("reward", "reward a step"),
    ("model_loss", "internal model's error (nats)"),
    ("deviation", "standard deviation of actions"),
    ("explained", "returns' variance explained"),
)
MOST = 6


def plot_curves(path: Path, rows: Sequence[Any]) -> None:
    """Up to six panels, of what the run has, against millions of steps; thin: every update, thick: running mean of 25. Rows as
    learn.trainer.Row."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    if not rows:
        return
    steps = np.array([row.steps for row in rows]) / 1e6
    columns = {name: np.array([getattr(row, name) for row in rows]) for name, _ in PANELS}
    panels = [(name, label) for name, label in PANELS if np.isfinite(columns[name]).all()][:MOST]
    figure, axes = plt.subplots(2, 3, figsize=(11, 5.6), sharex=True, layout="constrained")
    for axis, (name, label) in zip(axes.ravel(), panels, strict=False):
        values = columns[name]
        axis.plot(steps, values, color="#9ab8d6", linewidth=0.6)
        width = min(25, len(values))
        smooth = np.convolve(values, np.ones(width) / width, "valid")
        axis.plot(steps[width - 1 :], smooth, color="#1f4e79", linewidth=1.6)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        low, high = np.percentile(values, [1, 99])
        axis.set_ylim(low - 0.1 * (high - low) - 1e-6, high + 0.1 * (high - low) + 1e-6)
    for axis in axes[1]:
        axis.set_xlabel("control steps (millions)")
    figure.suptitle("While exploring, with pushes and loads: mean over all participants of an update", fontsize=10)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    plt.close(figure)
    write_atomically(path, image.getvalue())
