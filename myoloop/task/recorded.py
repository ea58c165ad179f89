"""A reference from a file of joint angles: the motion of a person, a data glove, or another simulation.

It plays like the templates of task/reference.py, for any number of participants, and takes hold and release. What the
file does not hold stays neutral: wrist and forearm at 0, fingers extended.

    ref = make_reference(RecordedConfig("my_motion.csv"), participants=4)
    wanted = joint_angles(ref, t)  # (4, 23) rad

A finger's flexion is the place of its joints on the way from EXTENDED to FLEXED (task/reference.py), and its label is 1
above one half.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike
from scipy.interpolate import PchipInterpolator
from scipy.signal import butter, sosfiltfilt

from myoloop.body.model import load_hand
from myoloop.body.names import FINGERS, JOINTS
from myoloop.errors import MyoloopError, unknown_name
from myoloop.task.motion_file import CLIP_DEG, RecordedMotion, load_motion
from myoloop.task.reference import (
    EXTENDED,
    FINGER_OF_JOINT,
    FLEXED,
    ReferenceConfig,
    per_participant,
    posture,
    step,
)

GRID_HZ = 100.0  # Hz: cubic interpolation between frames 10 ms apart is exact to 1e-3 deg for what passes the filter
AT_END = ("loop", "hold")
RETURN_S = 0.4 / np.pi * 2  # s for each rad of the way back to the start: as fast as 90 deg in a template's 0.4 s
SAME = np.deg2rad(1.0)  # rad: an end that is this near to the beginning is a cycle already


@dataclass(frozen=True)
class RecordedConfig:
    """Which file, and how to play it."""

    path: str
    """CSV or NPZ file of joint angles, see task/motion_file.py."""
    at_end: str = "loop"
    """"loop": go smoothly back to the first posture and begin again. "hold": stay in the last posture."""
    seed: int = 0
    """Seed of the places at which participants begin. The first begins at the file's beginning, the others anywhere in it;
    with at_end "hold" all begin at its beginning."""
    clip_deg: float = CLIP_DEG
    """Angles up to this far beyond a joint's range are clipped to it, degrees; more is refused."""
    lowpass_hz: float = 15.0
    """Cut-off of the zero-phase low-pass filter, Hz. Above voluntary movement (the fastest taps are at 6-7 Hz) and
    physiological tremor (8-12 Hz); below what a control step of 20 ms can follow (25 Hz)."""

    def make(self, participants: int) -> RecordedReference:
        """See task.reference.make_reference.

        Raises:
          MyoloopError: a file that `load_motion` refuses, or a setting out of range.
        """
        _check(self, participants)
        motion = load_motion(self.path, self.clip_deg)
        played = _played(motion, self.lowpass_hz, self.at_end == "loop")
        offset = np.zeros(participants)
        if self.at_end == "loop":
            places = [np.random.default_rng((self.seed, i)).uniform(0.0, played.length_s) for i in range(participants)]
            offset[1:] = places[1:]
        return RecordedReference(
            offset=jnp.asarray(offset, jnp.float32),
            since=jnp.full(participants, -1e6, jnp.float32),
            start=jnp.zeros((participants, len(JOINTS)), jnp.float32),
            held=jnp.full((participants, len(FINGERS)), jnp.nan, jnp.float32),
            played=played,
            transition_s=ReferenceConfig.transition_s,
        )


@dataclass(frozen=True, eq=False)
class Played:
    """A motion on an even grid. It is part of the formula, not of the state: participants share it, and it is a constant of
    compiled programs."""

    qpos: np.ndarray
    """(frames, 23) rad, float32."""
    qvel: np.ndarray
    """(frames, 23) rad/s, float32: slopes of the cubic pieces between frames."""
    loop: bool
    """After the last frame comes the first."""
    share: np.ndarray
    """(23, 5) what a joint's distance from EXTENDED, rad, counts in a finger's flexion."""
    notes: tuple[str, ...]
    """What a user should be told about it."""

    @property
    def length_s(self) -> float:
        """Seconds until it repeats or stands still."""
        return (len(self.qpos) if self.loop else len(self.qpos) - 1) / GRID_HZ


@struct.dataclass
class RecordedReference:
    """A recorded motion as B participants follow it: a `Playable`, see task/reference.py."""

    offset: jax.Array
    """(B,) time into the motion at t = 0, s."""
    since: jax.Array
    """(B,) time of the last call of hold or release, s."""
    start: jax.Array
    """(B, 23) joint angles at that time, rad."""
    held: jax.Array
    """(B, 5) flexion asked for instead of the recorded one; NaN where the recording is followed."""
    played: Played = struct.field(pytree_node=False)
    transition_s: float = struct.field(pytree_node=False)

    @property
    def length_s(self) -> float:
        """Seconds until it repeats or stands still."""
        return self.played.length_s

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told about it."""
        return self.played.notes

    def joint_angles(self, t: ArrayLike) -> jax.Array:
        """(B, 23) rad at t (scalar or (B,), s)."""
        t = per_participant(self, t)
        by_joint = jnp.concatenate([self.held, jnp.full_like(self.held[:, :1], jnp.nan)], axis=1)
        followed = jnp.isnan(by_joint)[:, np.array(FINGER_OF_JOINT)]
        goal = jnp.where(followed, _at(self.played, t + self.offset), posture(jnp.nan_to_num(self.held)))
        return self.start + step((t - self.since) / self.transition_s)[:, None] * (goal - self.start)

    def flexion(self, t: ArrayLike) -> jax.Array:
        """(B, 5) 0..1 at t."""
        return flexion_of(self.joint_angles(t), self.played.share)

    def labels(self, t: ArrayLike) -> jax.Array:
        """(B, 5) 1.0 where the recorded or held flexion is above one half; a transition between them does not count."""
        recorded = (_at(self.played, per_participant(self, t) + self.offset) - EXTENDED) @ self.played.share
        return (jnp.where(jnp.isnan(self.held), recorded, self.held) > 0.5).astype(jnp.float32)

    def redirected(self, t: ArrayLike, held: jax.Array, who: ArrayLike | None) -> RecordedReference:
        """See task.reference.hold and release."""
        chosen = jnp.ones_like(self.since, bool) if who is None else jnp.asarray(who, bool)
        return dataclasses.replace(
            self,
            since=jnp.where(chosen, per_participant(self, t), self.since),
            start=jnp.where(chosen[:, None], self.joint_angles(t), self.start),
            held=jnp.where(chosen[:, None], held, self.held),
        )


def _at(played: Played, time: jax.Array) -> jax.Array:
    """(B, 23) rad at times (B,) into the motion: cubic Hermite between the frames."""
    frames = len(played.qpos)
    if played.loop:
        place = jnp.mod(time, frames / GRID_HZ) * GRID_HZ
        first = jnp.minimum(place.astype(jnp.int32), frames - 1)
        second = jnp.mod(first + 1, frames)
    else:
        place = jnp.clip(time * GRID_HZ, 0.0, frames - 1.0)
        first = jnp.minimum(place.astype(jnp.int32), frames - 2)
        second = first + 1
    x = (place - first)[:, None]
    y0, y1 = jnp.asarray(played.qpos)[first], jnp.asarray(played.qpos)[second]
    d0, d1 = (jnp.asarray(played.qvel)[i] / GRID_HZ for i in (first, second))
    return y0 + x * (d0 + x * (3 * (y1 - y0) - 2 * d0 - d1 + x * (2 * (y0 - y1) + d0 + d1)))


def _played(motion: RecordedMotion, lowpass_hz: float, loop: bool) -> Played:
    """Resample, smooth, fill in the joints that the file lacks, and close the loop."""
    columns = [JOINTS.index(joint) for joint in motion.joints]
    low, high = load_hand().joint_range.T
    smooth = _smoothed(motion.time_s, motion.angles_deg, lowpass_hz)
    qpos = np.tile(EXTENDED.astype(float), (len(smooth), 1))
    qpos[:, columns] = np.deg2rad(smooth)
    if loop:
        qpos = np.concatenate([qpos, _way_back(qpos)])
    qpos = np.clip(qpos, low, high)
    if loop:
        qvel = (np.roll(qpos, -1, axis=0) - np.roll(qpos, 1, axis=0)) * GRID_HZ / 2
    else:
        qvel = np.gradient(qpos, 1 / GRID_HZ, axis=0)
        qvel[-1] = 0.0
    notes: tuple[str, ...] = ()
    if motion.clipped:
        notes = (
            f"{motion.name}: {motion.clipped} of {motion.angles_deg.size} angles lay beyond their joint's range, by up to "
            f"{motion.beyond_deg:.1f} deg, and were clipped.",
        )
    return Played(qpos.astype(np.float32), qvel.astype(np.float32), loop, finger_shares(columns), notes)


def _smoothed(time: np.ndarray, angles: np.ndarray, lowpass_hz: float) -> np.ndarray:
    """(frames, joints) at GRID_HZ: monotone cubic interpolation (Fritsch & Carlson 1980) onto a multiple of the grid that is
    no coarser than the file, a Butterworth filter there and back (4th order, no delay), every n-th frame."""
    every = max(1, int(np.ceil((len(time) - 1) / time[-1] / GRID_HZ - 1e-6)))
    fine_hz = GRID_HZ * every
    fine = np.arange(int(time[-1] * fine_hz + 1e-6) + 1) / fine_hz
    dense = PchipInterpolator(time, angles)(np.minimum(fine, time[-1]))
    edge = min(len(fine) - 1, round(3 * fine_hz / lowpass_hz))  # samples mirrored beyond both ends, against transients
    return sosfiltfilt(butter(2, lowpass_hz, fs=fine_hz, output="sos"), dense, axis=0, padlen=edge)[::every]


def _way_back(qpos: np.ndarray) -> np.ndarray:
    """(frames, 23) between the last and the first posture, with the velocities of both; none where they meet anyway."""
    change = qpos[0] - qpos[-1]
    if np.abs(change).max() < SAME:
        return qpos[:0]
    frames = int(np.ceil(max(0.2, RETURN_S * np.abs(change).max()) * GRID_HZ))
    x = np.arange(1, frames)[:, None] / frames
    d0, d1 = (qpos[-1] - qpos[-2]) * frames, (qpos[1] - qpos[0]) * frames
    return qpos[-1] + x * (d0 + x * (3 * change - 2 * d0 - d1 + x * (d0 + d1 - 2 * change)))


def flexion_of(qpos: ArrayLike, share: np.ndarray) -> jax.Array:
    """(..., 5) 0..1: how far the fingers are flexed at joint angles (..., 23), rad; share: see `finger_shares`."""
    return jnp.clip((qpos - EXTENDED) @ share, 0.0, 1.0)


def finger_shares(columns: list[int]) -> np.ndarray:
    """(23, 5) least-squares place on the line from EXTENDED to FLEXED, by the recorded joints of each finger (by all, where
    none is recorded: such a finger moves only when it is held)."""
    way = (FLEXED - EXTENDED).astype(float)
    shares = np.zeros((len(JOINTS), len(FINGERS)))
    for finger in range(len(FINGERS)):
        own = [j for j in range(len(JOINTS)) if FINGER_OF_JOINT[j] == finger and way[j]]
        used = [j for j in own if j in columns] or own
        shares[used, finger] = way[used] / (way[used] ** 2).sum()
    return shares.astype(np.float32)


def _check(config: RecordedConfig, participants: int) -> None:
    if config.at_end not in AT_END:
        raise unknown_name("at_end", config.at_end, AT_END)
    if participants < 1 or config.seed < 0:
        raise MyoloopError(f"participants {participants}, seed {config.seed}; expected at least 1 and at least 0.")
    if not 0.0 <= config.clip_deg <= 30.0:
        raise MyoloopError(f"clip_deg is {config.clip_deg}; expected 0 to 30 degrees.")
    if not 1.0 <= config.lowpass_hz <= 30.0:
        raise MyoloopError(f"lowpass_hz is {config.lowpass_hz}; expected 1 to 30 Hz.")
