"""What a decoder's filters hear on average of muscles that work at given excitations.

Discharges at rate r of a unit whose filtered MUAP is w make a signal of mean power r * sum of w^2 (Campbell 1909; independent
discharges), and units add. So the power behind every filter of the decoder's front-end is a sum over muscles of a function
of that muscle's excitation alone, which is tabulated here. What it leaves out: discharges of a unit are more regular than
chance, muscles' units share some drive, and the chance of a single frame.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from myoloop.body.names import FOREARM_MUSCLES
from myoloop.decoder import networks, tcn
from myoloop.emg.filters import band_pass
from myoloop.emg.motor_units import DRIVE_HOLD
from myoloop.emg.params import EmgParams
from myoloop.emg.rate_laws import EXCITATION_ONE, TICKS, clock_speeds
from myoloop.emg.synthesis import init_emg, synthesise
from myoloop.errors import MyoloopError

LEVELS = 65
"""Excitations of the table: squares of evenly spaced numbers, so dense where units are recruited."""
REST_S = 4.0
"""s of EMG at rest from which the power of noise is measured."""


class ExpectedPower(NamedTuple):
    """The table."""

    muscles: Array
    """(26, LEVELS, features) microvolts^2."""
    rest: Array
    """(features,) microvolts^2 of a silent arm."""


def tabulate(emg: EmgParams, network: tcn.TcnConfig, params: Any) -> ExpectedPower:
    """The table of one person, armband and decoder.

    Raises:
      MyoloopError: different people side by side, or a decoder for another armband.
    """
    band = emg.band
    if emg.stacked:
        raise MyoloopError("expected power is tabulated for one person at a time; found several side by side.")
    if (network.channels, network.rate_hz) != (band.channels, band.rate_hz):
        raise MyoloopError(
            f"the decoder reads {network.channels} channels at {network.rate_hz:g} Hz; armband '{band.name}' gives "
            f"{band.channels} at {band.rate_hz:g} Hz."
        )
    length = emg.shapes.shape[1] - DRIVE_HOLD + 1
    shapes = np.asarray(emg.shapes)[: emg.rank, :length].astype(np.float64)
    heard = _filtered(shapes, emg, np.asarray(params["temporal"], np.float64))  # (filters, R, n)
    gram = np.einsum("krt,kst->krs", heard, heard) / band.decimation
    mixtures = np.asarray(params["spatial"], np.float64)
    of_units = np.asarray(emg.coefficients, np.float64).reshape(emg.units, band.channels, emg.rank)
    mixed = np.einsum("ucr,cs->usr", of_units, mixtures)
    energy = np.einsum("usr,krq,usq->usk", mixed, gram, mixed, optimize=True).reshape(emg.units, -1)
    muscle = np.asarray(emg.muscle)
    place = (np.arange(len(FOREARM_MUSCLES))[:, None] == muscle).astype(np.float32)
    excitation = np.linspace(0.0, 1.0, LEVELS) ** 2
    steps = np.round(excitation * EXCITATION_ONE).astype(np.int32)
    everywhere = jnp.asarray(np.repeat(steps[:, None], len(FOREARM_MUSCLES), axis=1))
    rate = band.internal_rate_hz
    ticks = np.asarray(clock_speeds(emg.config.law, rate, emg.pool, everywhere, jnp.asarray(place)).ticks, np.float64)
    hz = ticks / TICKS * rate  # (LEVELS, U)
    table = np.stack([hz[:, muscle == m] @ energy[muscle == m] for m in range(len(FOREARM_MUSCLES))]) / band.rate_hz
    return ExpectedPower(jnp.asarray(table, jnp.float32), _at_rest(emg, network, params))


def tcn_only(network: networks.Config) -> tcn.TcnConfig:
    """The network, where it is one whose filters are known here.

    Raises:
      MyoloopError: a decoder of another kind.
    """
    if isinstance(network, tcn.TcnConfig):
        return network
    raise MyoloopError(
        f"expected power goes through the filters of a TCN; the decoder is of kind '{networks.kind_of(network)}': use learner "
        "internal_model or ppo, or a TCN."
    )


def power(table: ExpectedPower, excitation: Array) -> Array:
    """Excitations (..., 39 or 26) -> powers (..., features), microvolts^2; differentiable."""
    drive = excitation[..., : len(FOREARM_MUSCLES)]
    at = jnp.sqrt(jnp.clip(drive, 1e-8, 1.0)) * (LEVELS - 1)
    low = jnp.clip(jnp.floor(at).astype(jnp.int32), 0, LEVELS - 2)
    part = (at - low)[..., None]
    muscle = jnp.arange(len(FOREARM_MUSCLES))
    each = (1.0 - part) * table.muscles[muscle, low] + part * table.muscles[muscle, low + 1]
    return table.rest + jnp.sum(each, axis=-2)


def _filtered(shapes: np.ndarray, emg: EmgParams, bank: np.ndarray) -> np.ndarray:
    """Shapes (R, L) at the internal rate as the decoder's temporal filters (taps, filters) hear them: (filters, R, n)."""
    band = emg.band
    length = shapes.shape[1] + round(0.1 * band.internal_rate_hz)  # the amplifier rings on
    response = band_pass(band, length)
    padded = np.pad(shapes, ((0, 0), (0, length - shapes.shape[1] + response.states)))
    amplified = (padded @ response.matrix.astype(np.float64))[:, :length]
    taps = np.zeros(((bank.shape[0] - 1) * band.decimation + 1, bank.shape[1]))
    taps[:: band.decimation] = bank
    return np.stack([[np.convolve(row, taps[::-1, k]) for row in amplified] for k in range(bank.shape[1])])


def _at_rest(emg: EmgParams, network: tcn.TcnConfig, params: Any) -> Array:
    frames = round(1e3 * REST_S / network.frame_ms)
    silent = jnp.zeros((1, len(FOREARM_MUSCLES)))
    out, _ = synthesise(emg, init_emg(emg, 0), silent, frames * network.samples_per_call)
    seen = tcn.frame_power(network, params, out.chunk)
    return jnp.mean(seen[0, frames // 8 :], axis=0)
