"""A strip of frames, and a film, of a participant that follows a reference: what it does, and what it is asked to do.

    MUJOCO_GL=egl python benchmarks/filmstrip.py --out docs/filmstrip.png --film docs/filmstrip.gif

The reference is a held-out one unless --reference-seed or --motion say otherwise. Drawing off-screen needs Debian's libegl1
and libgl1-mesa-dri.
"""

from __future__ import annotations

import os

os.environ.setdefault("MUJOCO_GL", "egl")

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure
from PIL import Image

from myoloop.body.model import Hand, load_hand
from myoloop.body.mujoco_engine import MujocoEngine
from myoloop.body.names import FINGERS, FLEXION_JOINTS, WRIST_JOINTS
from myoloop.errors import MyoloopError
from myoloop.policy.baseline import BaselineConfig, baseline_excitation, make_baseline
from myoloop.policy.learned import LearnedPolicy, excitation, load_policy
from myoloop.task.kinematics import build_kinematics, fingertips
from myoloop.task.recorded import RecordedConfig
from myoloop.task.reference import (
    EXTENDED,
    FLEXED,
    PlayableConfig,
    ReferenceConfig,
    held_out_seed,
    joint_angles,
    make_reference,
    motion,
    split_of,
)
from myoloop.view.camera import Camera
from myoloop.view.colours import ASKED, INK

FLEXION = [list(joints) for joints in FLEXION_JOINTS]


@dataclass(frozen=True)
class Config:
    """Who follows what, and where the pictures go."""

    policy: Path | None = None
    """a trained policy; none: the baseline controller"""
    reference: str = "discrete"
    """kind of the templates: discrete or continuous"""
    reference_seed: int = held_out_seed(7)
    """seed of the reference; from 1000000 on they are held out"""
    motion: Path | None = None
    """a file of joint angles instead of templates"""
    begin: float = 2.0
    """seconds from rest to the first frame"""
    seconds: float = 4.0
    """length of the strip"""
    frames: int = 8
    """pictures in the strip"""
    out: Path = Path("docs/filmstrip.png")
    """PNG to write"""
    film: Path | None = None
    """GIF to write, in real time"""
    film_hz: float = 16.667
    """pictures a second in the film; GIFs count in hundredths of a second"""


class Follow(NamedTuple):
    """What was asked and done, one row a control step."""

    time: np.ndarray
    """(steps,) s."""
    qpos: np.ndarray
    """(steps, 23) rad: the posture after each step."""
    wanted: np.ndarray
    """(steps, 23) rad: the posture asked for at that time."""
    excitation: np.ndarray
    """(steps, 39) 0..1."""
    who: str
    """Who drives the muscles."""


def follow(config: Config) -> Follow:
    """Let one participant follow the reference from rest, and keep the stretch asked for."""
    hand = load_hand()
    if config.policy is None:
        drive, who, control_hz = baseline_drive(hand), "baseline controller", 50.0
    else:
        policy = load_policy(config.policy).policy
        drive, who, control_hz = learned_drive(policy), f"policy {policy.name}", policy.control_hz
    asked: PlayableConfig = ReferenceConfig(kind=config.reference, seed=config.reference_seed)
    reference = make_reference(RecordedConfig(str(config.motion)) if config.motion else asked)
    engine = MujocoEngine(hand, participants=1, control_dt=1.0 / control_hz, threads=1)
    body = engine.reset()
    rows = []
    for step in range(round((config.begin + config.seconds) * control_hz) + 1):
        t = np.float32(step / control_hz)
        driven, wanted = (np.asarray(x) for x in drive(reference, body, t))
        rows.append((t, body.qpos[0], wanted[0], driven[0]))  # all of one instant
        body = engine.step(driven)
    time, qpos, wanted, driven = (np.stack(column) for column in zip(*rows, strict=True))
    keep = time >= config.begin - 1e-4
    return Follow(time[keep] - time[keep][0], qpos[keep], wanted[keep], driven[keep], who)


Drive = Callable[[Any, Any, Any], tuple[Any, Any]]
"""(reference, body, time) -> excitation (1, 39), and the posture asked for at that time (1, 23)."""


def baseline_drive(hand: Hand) -> Drive:
    controller = make_baseline(hand, BaselineConfig())

    @jax.jit
    def drive(reference, body, t):  # type: ignore[no-untyped-def]
        coming = motion(reference, t + 0.02)
        return baseline_excitation(controller, body, coming.qpos, coming.qvel), joint_angles(reference, t)

    return drive


def learned_drive(policy: LearnedPolicy) -> Drive:
    carry = policy.start(1)

    @jax.jit
    def decide(reference, body, t, carry):  # type: ignore[no-untyped-def]
        ahead = jnp.stack([joint_angles(reference, t + look) for look in policy.look_ahead_s])
        return excitation(policy, body, ahead, carry), joint_angles(reference, t)

    def drive(reference, body, t):  # type: ignore[no-untyped-def]
        nonlocal carry
        (chosen, carry), wanted = decide(reference, body, t, carry)
        return chosen, wanted

    return drive


def bend(qpos: np.ndarray) -> np.ndarray:
    """(steps, 5) how far each finger is on its way from extended (0) to flexed (1), by its three flexion joints."""
    way = FLEXED - EXTENDED
    fingers = [((qpos - EXTENDED) * way)[:, joints].sum(axis=1) / (way[joints] ** 2).sum() for joints in FLEXION]
    return np.stack(fingers, axis=1)


def errors(done: Follow) -> tuple[float, float]:
    """Mean errors of the finger joints, degrees, and of the fingertips in the frame of the carpus, mm."""
    fingers = np.delete(np.arange(done.qpos.shape[1]), WRIST_JOINTS)
    joints = np.degrees(np.abs(done.qpos - done.wanted)[:, fingers].mean())
    kin = build_kinematics(load_hand())
    tips = np.linalg.norm(fingertips(kin, done.qpos) - fingertips(kin, done.wanted), axis=-1)
    return float(joints), float(1e3 * tips.mean())


def draw(config: Config, done: Follow, camera: Camera) -> Figure:
    """Frames above, flexion of every finger below."""
    chosen = np.linspace(0, len(done.time) - 1, config.frames).round().astype(int)
    figure = Figure(figsize=(12, 6.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.75, 1])
    cells = top.subplots(2, config.frames, squeeze=False)
    for (above, below), k in zip(cells.T, chosen, strict=True):
        above.imshow(camera(done.qpos[k], done.wanted[k]))
        below.imshow(camera(done.wanted[k]))
        above.set_title(f"{done.time[k]:.1f} s", fontsize=9)
    for cell in cells.ravel():
        cell.set(xticks=[], yticks=[])
        cell.spines[:].set_visible(False)
    cells[0, 0].set_ylabel("done\n(shadow: asked for)", fontsize=9)
    cells[1, 0].set_ylabel("asked for", fontsize=9)
    axes = bottom.subplots(len(FINGERS), 1, sharex=True)
    asked, did = bend(done.wanted), bend(done.qpos)
    for i, (axis, finger) in enumerate(zip(axes, FINGERS, strict=True)):
        axis.fill_between(done.time, 0, asked[:, i], color=ASKED, lw=0)
        axis.plot(done.time, did[:, i], color=INK, lw=1.2)
        axis.vlines(done.time[chosen], 0, 1, color="grey", lw=0.5, ls=":")
        axis.set(ylim=(-0.2, 1.25), yticks=[0, 1], xlim=(0, done.time[-1]))
        axis.tick_params(labelsize=7)
        axis.set_ylabel(finger, rotation=0, ha="right", va="center", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_title("flexion (0 extended, 1 flexed): asked for (green), done (line)", loc="left", fontsize=9)
    axes[-1].set_xlabel("time (s)", fontsize=9)
    joints, tips = errors(done)
    held_out = "held-out " if split_of(config.reference_seed) == "held_out" else ""
    what = config.motion.name if config.motion else f"{held_out}{config.reference} reference {config.reference_seed}"
    figure.suptitle(
        f"The {done.who} follows {what}: finger joints {joints:.1f} deg, fingertips {tips:.1f} mm off on average, "
        f"mean squared excitation {np.mean(done.excitation**2):.3f}",
        fontsize=10,
    )
    return figure


def film(config: Config, done: Follow, path: Path) -> None:
    """A GIF of the whole stretch, over and over, in real time."""
    camera = Camera(load_hand(visual=True), 300)
    hundredths = max(2, round(100 / config.film_hz))
    times = np.arange(0, done.time[-1], hundredths / 100)
    rows = np.searchsorted(done.time, times - 1e-6)
    pictures = [Image.fromarray(camera(done.qpos[k], done.wanted[k])) for k in rows]
    palette = pictures[0].quantize(64, dither=Image.Dither.NONE)
    first, *rest = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    first.save(path, save_all=True, append_images=rest, duration=10 * hundredths, loop=0, optimize=True)


def main(config: Config) -> None:
    if config.frames < 2 or config.seconds <= 0 or config.begin < 0:
        raise SystemExit("expected at least 2 frames, seconds above 0, and begin of at least 0")
    try:
        done = follow(config)
    except MyoloopError as error:
        raise SystemExit(str(error)) from error
    draw(config, done, Camera(load_hand(visual=True), 400)).savefig(config.out, dpi=110)
    if config.film:
        film(config, done, config.film)
    joints, tips = errors(done)
    result = {"picture": str(config.out), "film": str(config.film) if config.film else None}
    print(json.dumps(result | {"joint_error_deg": round(joints, 2), "keypoint_error_mm": round(tips, 2)}))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
