"""What is asked of a running participant: from any thread, carried out between two control steps."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from myoloop.assets import NONE, OWN, shipped_decoders
from myoloop.body.engine import MAX_PUSH_N
from myoloop.body.names import FINGERS
from myoloop.errors import MyoloopError, unknown_name
from myoloop.live.board import SUPERVISED
from myoloop.live.tally import bits
from myoloop.participant import Participants
from myoloop.sections import ChangeSettings


class Requests:
    """Resets, targets, pushes and conditions; also those that the experiment plans (`changes`)."""

    def __init__(
        self,
        people: Participants,
        now: Callable[[], float],
        event: Callable[[str], None],
        planned: Sequence[ChangeSettings],
        seed: int,
    ):
        """
        Args:
          people: the participant.
          now: the session's time, s.
          event: publishes what was done.
          planned: changes of the experiment, in the order of time.
          seed: of a reset without one.
        """
        self._people, self._now, self._event, self._seed = people, now, event, seed
        self._commands: deque[Callable[[], None]] = deque()
        self._planned = deque(planned)
        self._target_until = self._push_until = 0.0
        self._reset = False
        self.paused = False
        """whether no step is to be made"""
        self.decoder_wanted: tuple[int, str] | None = None
        """how many switches of the decoder were asked for, and to which the last; its supervisor does it"""

    def later(self, do: Callable[[], None]) -> None:
        """Has something done between two steps, in the loop's thread."""
        self._commands.append(do)

    def switch_decoder(self, name: str) -> None:
        """Asks the session for another decoder: one that ships, `own` (the experiment's) or `none`.

        Raises:
          MyoloopError: there is none of that name, or no session that runs the decoder.
        """
        known = (OWN, NONE, *shipped_decoders())
        if name not in known:
            raise unknown_name("decoder", name, known)
        if not os.environ.get(SUPERVISED):
            raise MyoloopError("the decoder cannot be switched: it is not run by `myoloop run`.")

        def do() -> None:
            self._event(f"decoder switch {name}")
            self.decoder_wanted = (self.decoder_wanted[0] if self.decoder_wanted else 0) + 1, name

        self.later(do)

    def moved(self, seconds: float) -> None:
        """The time line was moved: what has been begun ends that much later."""
        self._target_until += seconds if self._target_until else 0.0
        self._push_until += seconds if self._push_until else 0.0

    def reset(self, seed: int | None = None) -> None:
        """Body at rest, reference and EMG from their start; the session's clock and counts go on."""
        seed = self._seed if seed is None else int(seed)
        if seed < 0:
            raise MyoloopError(f"seed is {seed}: expected 0 or more.")

        def do() -> None:
            self._people.reset([seed] * self._people.participants)
            self._reset = True
            self._target_until = 0.0
            self._event(f"reset {seed}")

        self._commands.append(do)

    def set_target(self, values: Any, duration_s: float) -> None:
        """Asks for these labels, (5,) of 0 or 1, instead of the reference's, for a while."""
        target = np.asarray(values, np.float32)
        if target.shape != (len(FINGERS),) or not np.all((target >= 0) & (target <= 1)):
            raise MyoloopError(f"target is {target.tolist()}: expected 5 values in 0..1, thumb to little.")
        seconds = _duration(duration_s)

        def do() -> None:
            self._people.set_target(target)
            self._target_until = self._now() + seconds
            self._event("target set " + bits(target))

        self._commands.append(do)

    def perturb(self, finger: str, force_n: Any, duration_s: float) -> None:
        """Pushes a fingertip with a force (3,) newtons, in the world's axes, for a while."""
        if finger not in FINGERS:
            raise unknown_name("finger", finger, FINGERS)
        force = np.asarray(force_n, float)
        if force.shape != (3,) or not np.all(np.isfinite(force)) or np.abs(force).max() > MAX_PUSH_N:
            raise MyoloopError(f"force is {force.tolist()}: expected 3 values within +-{MAX_PUSH_N:g} N.")
        seconds = _duration(duration_s)

        def do() -> None:
            forces = np.zeros((len(FINGERS), 3))
            forces[FINGERS.index(finger)] = force
            self._people.engine.push(forces)
            self._push_until = self._now() + seconds
            self._event(f"perturbation {finger} " + " ".join(f"{f:g}" for f in force))

        self._commands.append(do)

    def set_condition(self, name: str, strength: float) -> None:
        """Sets a circumstance of the recording, see `Participants.set_condition`; strength in 0..1."""
        self._people.set_condition(name, strength)
        self._commands.append(lambda: self._event(f"condition {name} {strength:g}"))

    def obey(self, now: float, elapsed_s: float) -> bool:
        """Carries out what is due and ends what is over; the loop calls it before each step.

        Args:
          now: the session's time, s.
          elapsed_s: participant time since the session's start.

        Returns:
          Whether the participant begins anew: what came before has nothing to do with it.
        """
        while self._commands:
            self._commands.popleft()()
        while self._planned and elapsed_s >= self._planned[0].at_s:
            change = self._planned.popleft()
            self._people.set_condition(change.condition, change.strength)
            self._event(f"condition {change.condition} {change.strength:g}")
        if self._push_until and now >= self._push_until:
            self._people.engine.push(np.zeros((len(FINGERS), 3)))
            self._push_until = 0.0
        if self._target_until and now >= self._target_until:
            self._people.follow_reference()
            self._target_until = 0.0
        reset, self._reset = self._reset, False
        return reset


def _duration(value: float) -> float:
    if not 0 < value <= 3600:
        raise MyoloopError(f"duration is {value:g} s: expected more than 0 and at most 3600.")
    return float(value)
