"""Reference motion: what the fingers are asked to do, as pure functions of time.

After Hodossy & Farina 2026 (arXiv 2603.07364): five normalised templates, sinusoids of 0.1 to 0.5 Hz over 10 s
("continuous") or their low-pass filtered square versions ("discrete"), assigned to the fingers differently for every
participant. Here the assignment changes with every cycle of 10 s as well, so that no single cycle can be learned by
heart; the whole repeats after `cycles` of them.

    ref = make_reference(ReferenceConfig(kind="discrete", seed=3), participants=4)
    wanted = joint_angles(ref, t)  # (4, 23) rad; t in seconds, one for all or one each

The functions below take any `Playable`: templates, or a motion from a file (task/recorded.py).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from myoloop.body.names import FINGERS, JOINTS
from myoloop.body.reach import PART_OF_JOINT
from myoloop.errors import MyoloopError, unknown_name

FREQUENCIES = (0.1, 0.2, 0.3, 0.4, 0.5)  # Hz: Hodossy & Farina 2026
CYCLE_S = 10.0  # s: Hodossy & Farina 2026; a whole number of periods of every template
HELD_OUT_FROM = 1_000_000
"""Seeds from here on are for testing only; nothing that learns may see a reference of theirs."""

KINDS = ("continuous", "discrete")
ASSIGNMENTS = ("permuted", "projected")
SPLITS = ("training", "held_out", "any")

# Joint angles in degrees at flexion 0 and 1: a straight hand and a fist, both just inside the model's joint limits.
# The ends are where a finger can be held firmly. Nothing is touched in the model, so a half-closed finger would have to
# be balanced in the air, and its three joints share muscles that cannot balance them one by one (measured: held there,
# the best possible activations left the last joint 20-30 deg off). MyoHand's thumb flexes to negative angles.
# A finger's last joint goes with the middle one, 2 deg for every 3 (Rijpkema & Girard 1991).
_EXTENDED_DEG = {
    "cmc_flexion": 32.0, "cmc_abduction": 0.0, "mp_flexion": 32.0, "ip_flexion": 18.0,
    **{f"{joint}{finger}_flexion": 3.0 for joint in ("mcp", "pm") for finger in (2, 3, 4, 5)},
    **{f"md{finger}_flexion": 2.0 for finger in (2, 3, 4, 5)},
}  # fmt: skip
_FLEXED_DEG = {
    "cmc_flexion": -38.0, "cmc_abduction": 10.0, "mp_flexion": -38.0, "ip_flexion": -68.0,
    **{f"mcp{finger}_flexion": 85.0 for finger in (2, 3, 4, 5)},
    **{f"pm{finger}_flexion": 87.0 for finger in (2, 3, 4, 5)},
    **{f"md{finger}_flexion": 58.0 for finger in (2, 3, 4, 5)},
}  # fmt: skip
FINGER_OF_JOINT = tuple(part - 1 for part in PART_OF_JOINT)
"""Finger (0..4) that each joint belongs to; -1 for the wrist."""


def _table(degrees: dict[str, float]) -> np.ndarray:
    return np.deg2rad([degrees.get(joint, 0.0) for joint in JOINTS]).astype(np.float32)


EXTENDED = _table(_EXTENDED_DEG)
"""(23,) rad: all fingers extended, wrist and forearm neutral (thumb up)."""
FLEXED = _table(_FLEXED_DEG)
"""(23,) rad: all fingers flexed, wrist and forearm neutral."""


@dataclass(frozen=True)
class ReferenceConfig:
    """Which motion is asked for."""

    kind: str = "discrete"
    """"continuous": sinusoids. "discrete": fingers held flexed or extended with quick changes between."""
    assignment: str = "permuted"
    """"permuted": every finger gets a template of its own. "projected": a random mixture of all five, which also asks
    for half-flexed fingers."""
    seed: int = 0
    """Seed of assignments and phases; participants of one reference differ."""
    split: str = "any"
    """"training" or "held_out" refuses seeds of the other kind (see HELD_OUT_FROM); "any" takes all."""
    transition_s: float = 0.4
    """Seconds that a change between extended and flexed takes: a raised cosine, centred on the change. 0.3 s asked the
    model's extensors for their maximum on every change; 0.4 s does so seldom."""
    cycles: int = 30
    """Cycles of 10 s until the reference repeats."""

    def make(self, participants: int) -> Reference:
        """See make_reference."""
        return _templates(self, participants)


class Playable(Protocol):
    """A motion of B participants: a pytree whose leaves' first axis is B; times t are scalar or (B,), s."""

    @property
    def since(self) -> jax.Array:
        """(B,) time of the last call of hold or release, s."""

    @property
    def length_s(self) -> float:
        """Seconds until it repeats, or stands still for ever."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told about it."""

    def flexion(self, t: ArrayLike) -> jax.Array: ...
    def labels(self, t: ArrayLike) -> jax.Array: ...
    def joint_angles(self, t: ArrayLike) -> jax.Array: ...
    def redirected(self: P, t: ArrayLike, held: jax.Array, who: ArrayLike | None) -> P:
        """`held` (B, 5) asked for from t on, NaN: the motion itself; `who` (B,) bool, default all."""


P = TypeVar("P", bound=Playable)
Made = TypeVar("Made", bound=Playable, covariant=True)


class PlayableConfig(Protocol[Made]):
    """Which motion: something that makes a Playable."""

    def make(self, participants: int) -> Made: ...


@struct.dataclass
class Reference:
    """The motion of B participants by templates. Arrays only, but for the settings that decide the formula."""

    frequency: jax.Array
    """(B, cycles, 5) frequency of each of five waves in every cycle, Hz: the templates in changing order."""
    phase: jax.Array
    """(B, 5) phase of each wave at the start of a cycle, in periods."""
    weight: jax.Array
    """(B, 5, 5) share of each wave (last axis) in each finger's motion; rows sum to 1."""
    offset: jax.Array
    """(B,) time into the first cycle at t = 0, s."""
    since: jax.Array
    """(B,) time of the last call of hold or release, s."""
    start: jax.Array
    """(B, 5) flexion at that time."""
    held: jax.Array
    """(B, 5) flexion asked for instead of the templates; NaN where the templates are followed."""
    transition_s: float = struct.field(pytree_node=False)
    discrete: bool = struct.field(pytree_node=False)

    @property
    def length_s(self) -> float:
        """Seconds until it repeats."""
        return self.frequency.shape[-2] * CYCLE_S

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing to tell."""
        return ()

    def flexion(self, t: ArrayLike) -> jax.Array:
        """See the function of this name."""
        t = per_participant(self, t)
        goal = jnp.where(
            jnp.isnan(self.held), _moving(self, t, self.discrete, self.transition_s), jnp.nan_to_num(self.held)
        )
        return self.start + step((t - self.since) / self.transition_s)[:, None] * (goal - self.start)

    def labels(self, t: ArrayLike) -> jax.Array:
        """Flexed when the flexion asked for BEFORE the low-pass filter is above one half: so the label of a discrete
        reference changes at once, in the middle of the transition that a finger is given time for.
        """
        sharp = _moving(self, per_participant(self, t), self.discrete, 0.0)
        return (jnp.where(jnp.isnan(self.held), sharp, jnp.nan_to_num(self.held)) > 0.5).astype(jnp.float32)

    def joint_angles(self, t: ArrayLike) -> jax.Array:
        """See the function of this name."""
        return posture(self.flexion(t))

    def redirected(self, t: ArrayLike, held: jax.Array, who: ArrayLike | None) -> Reference:
        """See hold and release."""
        chosen = jnp.ones_like(self.since, bool) if who is None else jnp.asarray(who, bool)
        return dataclasses.replace(
            self,
            since=jnp.where(chosen, per_participant(self, t), self.since),
            start=jnp.where(chosen[:, None], self.flexion(t), self.start),
            held=jnp.where(chosen[:, None], held, self.held),
        )


class Motion(NamedTuple):
    """Everything about the reference at one time."""

    flexion: jax.Array
    """(B, 5) 0..1."""
    labels: jax.Array
    """(B, 5) 0 or 1."""
    qpos: jax.Array
    """(B, 23) rad."""
    qvel: jax.Array
    """(B, 23) rad/s."""


def split_of(seed: int) -> str:
    """ "training" or "held_out": which of the two a seed belongs to."""
    return "training" if seed < HELD_OUT_FROM else "held_out"


def held_out_seed(number: int) -> int:
    """The number-th seed (from 0) that is never trained on."""
    return HELD_OUT_FROM + number


def make_reference(config: PlayableConfig[Made], participants: int = 1) -> Made:
    """The motion that a config describes: a `Reference` for a ReferenceConfig.

    Raises:
      MyoloopError: unknown kind, assignment or split, a seed of the wrong split, or a time that is not positive; or a
        file that cannot be followed.
    """
    return config.make(participants)


def flexion(ref: Playable, t: ArrayLike) -> jax.Array:
    """(B, 5) flexion asked for at time t (scalar or (B,), s): 0 extended, 1 flexed."""
    return ref.flexion(t)


def labels(ref: Playable, t: ArrayLike) -> jax.Array:
    """(B, 5) target at time t: 1.0 where a finger is asked to be flexed, by more than half."""
    return ref.labels(t)


def joint_angles(ref: Playable, t: ArrayLike) -> jax.Array:
    """(B, 23) joint angles asked for at time t, rad."""
    return ref.joint_angles(t)


def motion(ref: Playable, t: ArrayLike) -> Motion:
    """Flexion, labels, joint angles and their exact time derivative at time t."""
    t = per_participant(ref, t)
    qpos, qvel = jax.jvp(ref.joint_angles, (t,), (jnp.ones_like(t),))
    return Motion(ref.flexion(t), ref.labels(t), qpos, qvel)


def posture(bend: ArrayLike) -> jax.Array:
    """Joint angles (..., 23), rad, of finger flexions (..., 5), 0..1; wrist and forearm stay neutral."""
    bend = jnp.asarray(bend, jnp.float32)
    wrist = jnp.zeros_like(bend[..., :1])
    per_joint = jnp.concatenate([bend, wrist], axis=-1)[..., np.array(FINGER_OF_JOINT)]
    return EXTENDED + per_joint * (FLEXED - EXTENDED)


def step(x: jax.Array) -> jax.Array:
    """Raised cosine from 0 at x <= 0 to 1 at x >= 1."""
    return 0.5 - 0.5 * jnp.cos(jnp.pi * jnp.clip(x, 0.0, 1.0))


def per_participant(ref: Playable, t: ArrayLike) -> jax.Array:
    """(B,) times of a scalar or of (B,)."""
    return jnp.broadcast_to(jnp.asarray(t, jnp.float32), ref.since.shape)


def hold(ref: P, t: ArrayLike, target: ArrayLike, who: ArrayLike | None = None) -> P:
    """Ask for fixed flexions from time t on, instead of the motion.

    Args:
      ref: the reference.
      t: now, s; scalar or (B,). The change takes one transition from here.
      target: (5,) or (B, 5) flexions 0..1, thumb to little (the five labels will do).
      who: (B,) bool, participants concerned; default all.

    Raises:
      MyoloopError: target has another shape or leaves 0..1.
    """
    participants = ref.since.shape[0]
    asked = np.asarray(target, np.float32)
    if asked.shape not in ((5,), (participants, 5)) or not ((asked >= 0) & (asked <= 1)).all():
        raise MyoloopError(
            f"target {asked.tolist()}; expected 5 flexions between 0 (extended) and 1 (flexed), "
            f"{', '.join(FINGERS)}, once or for each of {participants} participants."
        )
    return _redirected(ref, t, np.broadcast_to(asked, (participants, 5)), who)


def release(ref: P, t: ArrayLike, who: ArrayLike | None = None) -> P:
    """Return to the motion from time t on (s); `who` (B,) bool, default all."""
    return _redirected(ref, t, np.full((*ref.since.shape, len(FINGERS)), np.nan, np.float32), who)


@jax.jit
def _redirected(ref: P, t: ArrayLike, held: jax.Array, who: ArrayLike | None) -> P:
    """In one piece: operation by operation each of them would be compiled."""
    return ref.redirected(t, held, who)


def _templates(config: ReferenceConfig, participants: int) -> Reference:
    """Draw assignments and phases."""
    _check(config, participants)
    discrete, projected = config.kind == "discrete", config.assignment == "projected"
    drawn = [_draw(config.seed, i, config.cycles, discrete, projected) for i in range(participants)]
    frequency, phase, weight, offset = (jnp.asarray(np.stack(part), jnp.float32) for part in zip(*drawn, strict=True))
    return Reference(
        frequency=frequency,
        phase=phase,
        weight=weight,
        offset=offset,
        since=jnp.full(participants, -1e6, jnp.float32),
        start=jnp.zeros((participants, 5), jnp.float32),
        held=jnp.full((participants, 5), jnp.nan, jnp.float32),
        transition_s=config.transition_s,
        discrete=discrete,
    )


def _draw(seed: int, participant: int, cycles: int, discrete: bool, projected: bool) -> tuple[np.ndarray, ...]:
    """Hz (cycles, 5), phases (5,) in periods, weights (5, 5) and offset () in s of one participant.

    Every template has whole periods in a cycle, so a phase that stays the same joins any two cycles without a jump.
    Sinusoids join at their turning points, where their speeds agree, too; square waves at least 0.2 s from an edge.
    """
    rng = np.random.default_rng((seed, participant))
    frequency = np.array(FREQUENCIES)[rng.permuted(np.tile(np.arange(5), (cycles, 1)), axis=1)]
    phase = rng.choice([0.25, 0.75], 5)
    offset = np.array(rng.uniform(0.0, CYCLE_S))
    if discrete:
        phase = phase + rng.uniform(-0.15, 0.15, 5)
    weight = np.eye(5)
    if projected:
        # 0.3: most weight falls on one or two templates, so that a mixture still moves through most of the range
        weight = 0.5 * weight + 0.5 * rng.dirichlet(np.full(5, 0.3), 5)
    return frequency, phase, weight, offset


def _moving(ref: Reference, t: jax.Array, discrete: bool, transition_s: float) -> jax.Array:
    """(B, 5) flexion by the templates at t (B,)."""
    clock = t + ref.offset
    number = jnp.mod(jnp.floor(clock / CYCLE_S).astype(jnp.int32), ref.frequency.shape[1])
    frequency = ref.frequency[jnp.arange(t.shape[0]), number]
    turns = frequency * jnp.mod(clock, CYCLE_S)[:, None] + ref.phase
    wave = _square(turns, frequency, transition_s) if discrete else 0.5 + 0.5 * jnp.sin(2 * jnp.pi * turns)
    return jnp.einsum("bft,bt->bf", ref.weight, wave)


def _square(turns: jax.Array, frequency: jax.Array, transition_s: float) -> jax.Array:
    """A square wave, 1 in the first half of each turn, whose edges are raised cosines of the given duration."""
    place = jnp.mod(turns, 1.0)
    if transition_s == 0.0:
        return (place < 0.5).astype(jnp.float32)
    # seconds from the nearest rise (at 0 or 1) and the nearest fall (at one half), positive inside the first half
    inside = (0.25 - jnp.abs(jnp.mod(place + 0.25, 1.0) - 0.5)) / frequency
    return step(inside / transition_s + 0.5)


def _check(config: ReferenceConfig, participants: int) -> None:
    for what, name, known in (
        ("reference kind", config.kind, KINDS),
        ("reference assignment", config.assignment, ASSIGNMENTS),
        ("reference split", config.split, SPLITS),
    ):
        if name not in known:
            raise unknown_name(what, name, known)
    if config.split not in ("any", split_of(config.seed)):
        raise MyoloopError(
            f"reference seed {config.seed} is {split_of(config.seed)}, but split is '{config.split}': "
            f"training seeds are below {HELD_OUT_FROM}, held-out seeds from there on."
        )
    if participants < 1 or config.cycles < 1 or config.seed < 0:
        raise MyoloopError(
            f"participants {participants}, cycles {config.cycles}, seed {config.seed}; "
            "expected participants and cycles of at least 1 and a seed of at least 0."
        )
    if not 0.0 < config.transition_s <= 1.0:
        raise MyoloopError(f"transition_s is {config.transition_s} s; expected more than 0 and at most 1 s.")
