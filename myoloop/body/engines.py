"""Engines by name, and a look at the memory before it is filled."""

from __future__ import annotations

import jax
import psutil

from myoloop.body.engine import Engine
from myoloop.body.model import Hand, load_hand
from myoloop.body.mujoco_engine import MujocoEngine
from myoloop.errors import MyoloopError, unknown_name

ENGINES = ("mujoco", "mjx", "warp")

BYTES_EACH = {"mujoco": 400_000, "mjx": 600_000, "warp": 400_000}
"""Memory of one participant while it is stepped: resident memory on a CPU (0.31 MB with 256, 0.49 and 0.27 MB with 64),
rounded up. The policy's and the learner's own is not in it."""
SHARE = 0.9  # of the memory that is free


def make_engine(
    name: str, hand: Hand | None = None, participants: int = 1, control_dt: float = 0.02, threads: int = 0
) -> Engine:
    """The engine `name` ("mujoco", "mjx" or "warp") for `participants`; `threads` concerns `mujoco` only.

    Raises:
      MyoloopError: unknown name, an engine that is not installed, more participants than memory, or a control_dt that
        the hand's physics step does not divide.
    """
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES)
    hand = hand or load_hand()
    check_memory(name, participants)
    if name == "mujoco":
        return MujocoEngine(hand, participants, control_dt, threads)
    from myoloop.body.mjx_engine import MjxEngine

    return MjxEngine(hand, participants, control_dt, impl="jax" if name == "mjx" else "warp")


def check_memory(name: str, participants: int, available: int | None = None) -> None:
    """Refuse more participants than the memory holds.

    Args:
      name: the engine.
      participants: how many.
      available: bytes; default: what is free now, of the host for `mujoco`, else of JAX's first device.

    Raises:
      MyoloopError: they need more.
    """
    if available is None:
        available = psutil.virtual_memory().available if name == "mujoco" else _device_memory()
    most = int(SHARE * available / BYTES_EACH[name])
    if participants > most:
        raise MyoloopError(
            f"{participants} participants on engine '{name}' need about "
            f"{participants * BYTES_EACH[name] / 1e9:.1f} GB; {available / 1e9:.1f} GB are free: "
            f"choose at most {most}."
        )


def _device_memory() -> int:
    """Bytes free on JAX's first device; of the host where the device shares it."""
    figures = jax.devices()[0].memory_stats()
    if not figures or "bytes_limit" not in figures:
        return psutil.virtual_memory().available
    return int(figures["bytes_limit"] - figures.get("bytes_in_use", 0))
