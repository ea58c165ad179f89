"""Excitations heard again: the same drive with other discharges and other noise, or drive that nobody would have thought of.

The body has no part in it: what is asked is only what the decoder answers to an EMG that these excitations make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from myoloop.decoder import networks, tcn
from myoloop.decoder.weights import DecoderWeights
from myoloop.emg.params import EmgParams
from myoloop.emg.synthesis import init_emg, synthesise
from myoloop.learn.expected_power import ExpectedPower, power, tabulate, tcn_only

STRETCH = 50
"""Control steps in one compiled scan."""
QUIET = 0.02
"""Root of the least excitation that is tried, 0.0004: no unit is recruited below 0.01 (emg/motor_units.py)."""


def replay(
    emg: EmgParams,
    decoder: DecoderWeights,
    excitation: np.ndarray,
    seeds: Sequence[int],
    control_hz: float = 50.0,
    on_repeat: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """What the decoder answers.

    Args:
      emg: of one person.
      decoder: for its armband.
      excitation: (steps, B, 39), the first at rest's end: decoder and units start silent, so the first 0.5 s should not count.
      seeds: one for each repeat; discharges and noise differ between repeats and participants.
      control_hz: control steps a second.
      on_repeat: called after each.

    Returns:
      (repeats, steps, B, 5) log-odds.
    """
    samples = round(emg.band.rate_hz / control_hz)
    drive, repeats = jnp.asarray(excitation, jnp.float32), []
    for seed in seeds:
        people = np.arange(drive.shape[1]) + 1_000_003 * (seed + 1)
        state = (init_emg(emg, people % 2**31), networks.init_state(decoder.config, drive.shape[1]))
        odds = []
        for first in range(0, len(drive), STRETCH):
            state, answered = _heard(
                emg, decoder.config, decoder.params, state, drive[first : first + STRETCH], samples
            )
            odds.append(np.asarray(answered))
        repeats.append(np.concatenate(odds))
        on_repeat()
    return np.stack(repeats)


@partial(jax.jit, static_argnames=("network", "samples"))
def _heard(
    emg: EmgParams, network: networks.Config, params: Any, state: Any, drive: Array, samples: int
) -> tuple[Any, Array]:
    """The next steps (T, B, 39) -> state, (T, B, 5) log-odds."""

    def step(state: Any, excitation: Array) -> tuple[Any, Array]:
        body, mind = state
        out, body = synthesise(emg, body, excitation, samples)
        odds, mind = networks.logits(network, params, mind, out.chunk)
        return (body, mind), odds[:, -1]

    return jax.lax.scan(step, state, drive)


@dataclass(frozen=True)
class Wanted:
    """What free excitations are chosen for; costs as in learn.through_forward.ObjectiveConfig."""

    effort: float = 0.0
    """Cost of the mean squared excitation."""
    smoothness: float = 0.0
    """Cost of the mean squared change from step to step."""
    movement: float = 0.0
    """Cost of the mean squared change of the joints' torques from the habit's."""
    without: tuple[int, ...] = ()
    """Muscles that stay silent."""


class Free(NamedTuple):
    """Excitations that nobody had to learn."""

    excitation: np.ndarray
    """(steps, B, 39)"""
    loss: float
    """Cross-entropy expected of them, nats a finger."""
    strayed: float
    """Mean squared change of torque from the habit's, in units of what a joint's muscles can do."""


def best_drive(
    emg: EmgParams,
    decoder: DecoderWeights,
    labels: np.ndarray,
    habit: np.ndarray,
    turning: Array,
    wanted: Wanted,
    iterations: int = 100,
    on_part: Callable[[float], None] = lambda part: None,
) -> Free:
    """Excitations for the asked labels, each step's own, found by descent through the expected power and the decoder
    (learn/expected_power.py): no policy, no feedback, and the whole future known. Local descent: others may be better still.

    Args:
      labels: (steps, B, 5) asked for at the steps' ends.
      habit: (steps, B, 39) what is begun with, and whose torques count as the movement.
      turning: (P, 23, 39) from learn.through_forward.unit_leverage.
      on_part: called with the part of the work that was done.

    Raises:
      MyoloopError: a decoder that is no TCN.
    """
    network = tcn_only(decoder.config)
    table = tabulate(emg, network, decoder.params)
    asked, usual = (jnp.asarray(np.swapaxes(x, 0, 1), jnp.float32) for x in (labels, habit))
    mask = np.ones(habit.shape[-1], np.float32)
    mask[list(wanted.without)] = 0.0
    root = jnp.clip(jnp.sqrt(usual), 0.1, 1.0)  # 0.1: excitation 0.01, where the first units are and the slope is not 0
    costs = (jnp.float32(wanted.movement), jnp.float32(wanted.effort), jnp.float32(wanted.smoothness))
    now, part = (root, _descent(iterations).init(root)), min(20, iterations)
    told = (jnp.float32(0), jnp.float32(0))
    for _ in range(0, iterations, part):
        now, told = _descended(
            network, iterations, part, table, decoder.params, asked, usual, turning, mask, costs, now
        )
        on_part(part / iterations)
    drive = jnp.where(now[0] <= QUIET, 0.0, now[0] ** 2) * mask
    return Free(np.swapaxes(np.asarray(drive), 0, 1), float(told[0]), float(told[1]))


def _descent(iterations: int) -> optax.GradientTransformation:
    """Adam, whose steps do not depend on the gradient's scale: so the mean over many steps and people does no harm."""
    return optax.adam(optax.cosine_decay_schedule(0.03, iterations))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _descended(
    network: tcn.TcnConfig,
    iterations: int,
    count: int,
    table: ExpectedPower,
    params: Any,
    asked: Array,
    usual: Array,
    turning: Array,
    mask: Array,
    costs: tuple[Array, Array, Array],
    now: Any,
) -> Any:
    """`count` of the iterations, on roots of excitations (B, T, 39); costs of movement, effort and smoothness."""
    movement, effort, smoothness = costs

    def loss(root: Array) -> tuple[Array, tuple[Array, Array]]:
        drive = root**2 * mask
        odds = tcn.logits_of_power(network, params, power(table, drive))
        miss = jnp.mean(optax.sigmoid_binary_cross_entropy(odds, asked))
        strayed = jnp.mean(jnp.einsum("pjm,btm->pbtj", turning, drive - usual) ** 2)
        total = miss + movement * strayed + effort * jnp.mean(drive**2)
        return total + smoothness * jnp.mean(jnp.diff(drive, axis=1) ** 2), (miss, strayed)

    def step(now: Any, _: None) -> tuple[Any, tuple[Array, Array]]:
        root, state = now
        gradient, told = jax.grad(loss, has_aux=True)(root)
        change, state = _descent(iterations).update(gradient, state)
        return (jnp.clip(root + change, QUIET, 1.0), state), told

    now, told = jax.lax.scan(step, now, None, length=count)
    return now, jax.tree.map(lambda x: x[-1], told)
