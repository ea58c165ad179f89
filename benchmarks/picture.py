"""The picture of the README: frames of the hand, its EMG and what was decoded, from the folder of a real run.

    MUJOCO_GL=egl python benchmarks/picture.py runs/latest --out docs/closed_loop.png

Drawing the hand off-screen needs Debian's libegl1 and libgl1-mesa-dri.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import mujoco
import numpy as np
import tyro
from matplotlib.figure import Figure

from myoloop.body.model import load_hand
from myoloop.body.names import FINGERS
from myoloop.pages import GOOD, INK, MUTED
from myoloop.streams.rowlog import read_rows

PALM = (-0.197, -0.51, 1.494)
"""Where the palm is, metres: it hardly moves."""


@dataclass(frozen=True)
class Config:
    """Which run, and where to."""

    run: Annotated[Path, tyro.conf.Positional]
    """run folder"""
    out: Path = Path("docs/closed_loop.png")
    """PNG to write"""
    seconds: float = 8.0
    """length of the stretch that is shown, the end of the run"""
    frames: int = 7
    """pictures of the hand"""


def hands(rows: np.ndarray, size: int = 420) -> list[np.ndarray]:
    """The hand at each row, fingertips green where the decoder says flexed: (size, size, 3) images."""
    hand = load_hand(visual=True)
    model, data = hand.model, mujoco.MjData(hand.model)
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    model.vis.headlight.ambient[:] = 0.45
    model.vis.headlight.diffuse[:] = 0.6
    camera = mujoco.MjvCamera()
    camera.lookat[:] = PALM
    camera.distance, camera.azimuth, camera.elevation = 0.36, 195.0, -25.0  # in front of the palm, a little above
    images = []
    with mujoco.Renderer(model, size, size) as renderer:
        for row in rows:
            data.qpos[:] = np.radians(row["joints_deg"])
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera=camera)
            for site, said in zip(hand.fingertip_sites, row["prediction"], strict=True):
                add_ball(
                    renderer.scene, data.site_xpos[site], (0.1, 0.8, 0.45, 1) if said > 0.5 else (0.75, 0.79, 0.84, 1)
                )
            image = renderer.render()
            image = np.where(image.sum(axis=2, keepdims=True) < 3, 255, image).astype(np.uint8)
            images.append(np.rot90(image, -1)[60:-20, 30:-30])  # fingers up
    return images


def add_ball(scene: Any, position: np.ndarray, rgba: tuple[float, ...]) -> None:
    """One more sphere in the scene, 1 cm."""
    mujoco.mjv_initGeom(
        scene.geoms[scene.ngeom], mujoco.mjtGeom.mjGEOM_SPHERE, np.full(3, 0.0075), position, np.eye(3).ravel(),
        np.asarray(rgba, np.float32),
    )  # fmt: skip
    scene.ngeom += 1


def draw(config: Config) -> Figure:
    rows = read_rows(config.run / "steps")
    with np.load(config.run / "emg_stretch.npz") as saved:
        emg, stamps = saved["emg_uv"], saved["time"]
    report = json.loads((config.run / "report.json").read_text())
    end = min(rows["time"][-1], stamps[-1])
    begin = end - config.seconds
    rows, keep = rows[(rows["time"] > begin) & (rows["time"] <= end)], (stamps > begin) & (stamps <= end)
    emg, stamps = emg[keep][:, ::2], stamps[keep]
    figure = Figure(figsize=(11, 7.4), layout="constrained")
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[1.8, 2.4, 1.9])
    chosen = np.linspace(0, len(rows) - 1, config.frames + 2).round().astype(int)[1:-1]
    for axis, image, row in zip(top.subplots(1, config.frames), hands(rows[chosen]), rows[chosen], strict=True):
        axis.imshow(image)
        axis.set_title(f"{row['time'] - begin:.1f} s", fontsize=8)
        axis.axis("off")
    axis = middle.subplots()
    emg = emg / (5 * emg.std(axis=0))
    step = 1.0
    for channel in range(emg.shape[1]):
        axis.plot(stamps - begin, np.clip(emg[:, channel], -step, step) - channel * step, color=INK, lw=0.25)
    axis.set(yticks=[-c * step for c in range(emg.shape[1])], yticklabels=[str(2 * c + 1) for c in range(emg.shape[1])])
    axis.set(ylabel="EMG channel", xlim=(0, config.seconds), xticks=[], ylim=(-(emg.shape[1] - 0.4) * step, step * 0.7))
    axis.set_title("every second channel, each to its own scale", loc="right", fontsize=8)
    axes = bottom.subplots(len(FINGERS), 1, sharex=True)
    for i, (axis, finger) in enumerate(zip(axes, FINGERS, strict=True)):
        axis.fill_between(rows["time"] - begin, 0, rows["target"][:, i], step="mid", color=MUTED, lw=0)
        axis.plot(rows["time"] - begin, rows["prediction"][:, i], color=GOOD, lw=1.2)
        axis.set(ylim=(-0.08, 1.08), yticks=[], xlim=(0, config.seconds))
        axis.set_ylabel(finger, rotation=0, ha="right", va="center")
    axes[-1].set_xlabel("time (s)")
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    accuracy, latency = report["task"]["accuracy"], report["loop"]["feedback_latency_ms"]["median"]
    figure.suptitle(
        f"A live run: the hand, its EMG, and each finger asked to flex (grey) and decoded as flexed (green): "
        f"{100 * accuracy:.0f} % right, feedback after {latency:.0f} ms",
        fontsize=10,
    )
    return figure


def main(config: Config) -> None:
    draw(config).savefig(config.out, dpi=110)
    print(json.dumps({"picture": str(config.out)}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
