"""Commands from outside, carried out on a live participant; what each means: streams/commands.py."""

from __future__ import annotations

from collections.abc import Callable

from myoloop.emg.placement import Moves
from myoloop.errors import MyoloopError
from myoloop.live.requests import Requests
from myoloop.sections import LinkSettings
from myoloop.streams.commands import (
    Command,
    Condition,
    Delay,
    Pause,
    Push,
    Reset,
    Resume,
    Rotate,
    SwitchDecoder,
    Target,
)  # fmt: skip

MOST_DEG = Moves().turn_deg
"""How far a band that may move can be turned, degrees."""


class Commanded:
    """Turns commands into requests, which the loop carries out between two steps."""

    def __init__(self, requests: Requests, set_link: Callable[[LinkSettings], None]):
        self._requests, self._set_link = requests, set_link

    def obey(self, command: Command) -> None:
        """Passes one command on.

        Raises:
          MyoloopError: it cannot be done, e.g. an unknown finger, or an armband that stays.
        """
        requests = self._requests
        match command:
            case Pause():
                requests.paused = True
            case Resume():
                requests.paused = False
            case Reset(seed=seed):
                requests.reset(seed)
            case Target(values=values, duration_s=seconds):
                requests.set_target(values, seconds)
            case Push(finger=finger, force_n=force, duration_s=seconds):
                requests.perturb(finger, force, seconds)
            case Condition(name=name, strength=strength):
                requests.set_condition(name, strength)
            case Rotate(degrees=degrees):
                if not 0 <= degrees <= MOST_DEG:
                    raise MyoloopError(f"rotation is {degrees:g} degrees: expected 0 to {MOST_DEG:g}.")
                requests.set_condition("rotation", degrees / MOST_DEG)
            case Delay():
                self._set_link(LinkSettings(**command.model_dump(exclude={"command"})))
            case SwitchDecoder(name=name):
                requests.switch_decoder(name)
