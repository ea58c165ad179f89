"""report.html: one self-contained page with the moving hand, what was asked and decoded, and how fast."""

from __future__ import annotations

import base64
from typing import Any

import mujoco
import numpy as np
from matplotlib.figure import Figure

from myoloop.body.model import load_hand
from myoloop.body.names import FINGERS
from myoloop.pages import ASKED, BAD, GOOD, INK, MUTED, as_png, render
from myoloop.report_course import picture

SHOWN_S = 60.0
"""Longest stretch of a session that is drawn over time and animated: its end."""
FRAMES_HZ = 25.0


def page(
    report: dict[str, Any],
    rows: np.ndarray,
    events: list[tuple[float, str]],
    stretch: tuple[np.ndarray, np.ndarray],
    config: str,
) -> str:
    """The HTML text.

    Args:
      report: content of report.json.
      rows: the step log.
      events: (time, text).
      stretch: (n, channels) microvolts and (n,) stamps.
      config: the resolved experiment, YAML text.
    """
    control_hz = report["loop"]["control_hz"]
    shown = rows[-round(SHOWN_S * control_hz) :]
    begin = float(rows["time"][0])
    figures = {
        "timeline": as_png(_timeline(shown, begin)),
        "emg": as_png(_emg(*stretch, begin)) if len(stretch[0]) else None,
        "fingers": as_png(_fingers(report)) if report["task"]["accuracy"] is not None else None,
        "latency": as_png(_latency(rows)),
        "course": as_png(picture(report)) if report["course"] else None,
    }
    told = [(t - begin, text) for t, text in events if not text.startswith("target ")]
    return render(
        "report.html",
        report=report,
        figures=figures,
        config=config,
        events=told[:200],
        animation=_animation(shown, control_hz, begin),
        fingers=FINGERS,
    )


def _animation(rows: np.ndarray, control_hz: float, begin: float) -> dict[str, Any]:
    """The skeleton of the hand and of the motion asked for, projected, frame by frame."""
    every = max(1, round(control_hz / FRAMES_HZ))
    kept = rows[::every]
    done, ghost = (_skeleton(np.radians(kept[name])) for name in ("joints_deg", "wanted_deg"))
    both = np.stack([done, ghost], axis=1)  # (frames, 2, fingers, points, 2)
    low, high = both.min(axis=(0, 1, 2, 3)), both.max(axis=(0, 1, 2, 3))
    scaled = np.round((both - low) / (high - low).max() * 10000).astype("<i2")
    return {
        "points": base64.b64encode(scaled.tobytes()).decode(),
        "frames": len(kept),
        "shape": list(scaled.shape[2:4]),
        "size": ((high - low) / (high - low).max()).tolist(),
        "hz": control_hz / every,
        "begin": round(float(rows["time"][0]) - begin, 2),
        "target": kept["target"].astype(int).tolist(),
        "prediction": kept["prediction"].round(2).tolist(),
        "decoded": bool(np.isfinite(rows["prediction_age_s"]).any()),
    }


def _skeleton(qpos: np.ndarray) -> np.ndarray:
    """(frames, 23) rad -> (frames, 5, 5, 2): wrist, three joints and tip of each finger, seen from the thumb's side."""
    hand = load_hand()
    model, data = hand.model, mujoco.MjData(hand.model)
    joint = {name: i for i, name in enumerate(hand.joints)}
    chains = [[joint["cmc_flexion"], joint["mp_flexion"], joint["ip_flexion"]]]
    chains += [[joint[f"mcp{i}_flexion"], joint[f"pm{i}_flexion"], joint[f"md{i}_flexion"]] for i in (2, 3, 4, 5)]
    points = np.zeros((len(qpos), len(FINGERS), 5, 3))
    for frame, q in enumerate(qpos):
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        points[frame, :, 0] = data.xanchor[joint["flexion"]]
        for finger, chain in enumerate(chains):
            points[frame, finger, 1:4] = data.xanchor[chain]
        points[frame, :, 4] = data.site_xpos[hand.fingertip_sites]
    return _project(points)


def _project(points: np.ndarray) -> np.ndarray:
    """World metres to the picture plane: fingers up, an oblique look at the palm so that flexion shows."""
    up = np.array([0.0, -1.0, 0.0])  # the forearm points along -y
    eye = np.array([0.80, -0.30, 0.45])  # towards the viewer: in front of the palm (+x), a little above the fingertips
    eye /= np.linalg.norm(eye)
    right = np.cross(up, eye)
    right /= np.linalg.norm(right)
    up = np.cross(eye, right)
    return np.stack([points @ right, -(points @ up)], axis=-1)


def _figure(width: float, height: float, rows: int = 1, **more: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, 1, **more)
    return figure, axes


def _timeline(rows: np.ndarray, begin: float) -> Figure:
    figure, axes = _figure(11, 5.2, len(FINGERS), sharex=True)
    time = rows["time"] - begin
    stale = rows["stale"] > 0
    for i, (axis, finger) in enumerate(zip(axes, FINGERS, strict=True)):
        axis.fill_between(time, 0, rows["target"][:, i], step="mid", color=MUTED, lw=0, label="asked: flexed")
        axis.plot(time, rows["reference"][:, i], color=ASKED, lw=1, ls=":", label="reference flexion")
        axis.plot(time, rows["prediction"][:, i], color=GOOD, lw=1.1, label="prediction")
        if stale.any():
            axis.fill_between(time, 0, 1, where=stale, color=BAD, alpha=0.15, lw=0, label="prediction stale")
        axis.axhline(0.5, color=INK, lw=0.4)
        axis.set(ylim=(-0.05, 1.05), yticks=[0, 1], yticklabels=["ext", "flex"])
        axis.set_ylabel(finger, rotation=0, ha="right", va="center")
        axis.margins(x=0)
    axes[-1].set_xlabel("session time (s)")
    axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, fontsize=8)
    return figure


def _emg(samples: np.ndarray, stamps: np.ndarray, begin: float, seconds: float = 4.0) -> Figure:
    keep = stamps > stamps[-1] - seconds
    samples, time = samples[keep], stamps[keep] - begin
    channels = samples.shape[1]
    figure, axis = _figure(11, 1.2 + 0.33 * channels)
    step = max(1.0, 6.0 * float(np.median(samples.std(axis=0))))
    for i in range(channels):
        axis.plot(time, samples[:, i] - i * step, color=INK, lw=0.35)
    axis.set(yticks=[-i * step for i in range(channels)], yticklabels=[f"{i + 1}" for i in range(channels)])
    axis.set(xlabel="session time (s)", ylabel="channel", ylim=(-(channels - 0.2) * step, 0.9 * step))
    axis.margins(x=0)
    axis.plot([time[0]] * 2, [-(channels - 1) * step, -(channels - 2) * step], color=BAD, lw=4)
    axis.set_title(f"red bar: {step:.0f} microvolts", loc="right", fontsize=8, color=BAD)
    return figure


def _fingers(report: dict[str, Any]) -> Figure:
    figure, axis = _figure(5.2, 2.8)
    accuracy = [100 * report["task"]["accuracy_per_finger"][f] for f in FINGERS]
    bars = axis.bar(FINGERS, accuracy, color=GOOD)
    axis.bar_label(bars, fmt="%.0f", padding=2)
    axis.axhline(50, color=BAD, lw=1, ls="--")
    axis.text(-1.0, 52, "chance", color=BAD, fontsize=8)
    axis.set(ylim=(0, 109), xlim=(-1.05, 4.6), ylabel="accuracy (% of control steps)")
    return figure


def _latency(rows: np.ndarray) -> Figure:
    figure, axes = _figure(5.2, 3.6, 2)
    latency = rows["feedback_latency_ms"][np.isfinite(rows["feedback_latency_ms"])]
    for axis, values, label in (
        (axes[0], latency, "feedback latency (ms)"),
        (axes[1], rows["step_ms"], "participant's step (ms)"),
    ):
        axis.set(xlabel=label, ylabel="steps")
        if not len(values):
            axis.text(0.5, 0.5, "no prediction came back", transform=axis.transAxes, ha="center")
            continue
        top = max(1.0, float(np.percentile(values, 99.5)) * 1.3)
        axis.hist(np.minimum(values, top), bins=60, range=(0, top), color=GOOD)
        axis.axvline(float(np.median(values)), color=INK, lw=1)
        axis.axvline(float(np.percentile(values, 99)), color=BAD, lw=1, ls="--")
        axis.set(yscale="log")
    axes[0].set_title("line: median, dashed: 99th percentile", loc="right", fontsize=8)
    return figure
