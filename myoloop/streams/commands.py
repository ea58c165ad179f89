"""Commands over LSL: a JSON object a sample of the stream `<id>_command`, checked strictly, never blocking the loop.

    {"command": "push", "finger": "index", "force_n": [0, 0, 2], "duration_s": 0.3}

Every command and its fields: docs/viewer.md. What is not exactly one of them is refused, counted, and said once a kind.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import pylsl
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from myoloop.errors import MyoloopError
from myoloop.streams.follower import StreamFollower
from myoloop.streams.outlets import make_outlet, stream_name

LONGEST = 1000
"""Bytes of a command; the longest that makes sense has about 150."""
LISTENED_S = 3.0
"""How long a sender waits for somebody who listens."""

Duration = Annotated[float, Field(gt=0, le=3600)]
Label = Annotated[float, Field(ge=0, le=1)]


class _Command(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Pause(_Command):
    """Hold everything: no control steps, no EMG."""

    command: Literal["pause"] = "pause"


class Resume(_Command):
    """Go on after a pause."""

    command: Literal["resume"] = "resume"


class Reset(_Command):
    """Body at rest, reference and EMG from their start."""

    command: Literal["reset"] = "reset"
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """of the EMG; none: the experiment's"""


class Target(_Command):
    """Ask for these labels instead of the reference's."""

    command: Literal["target"] = "target"
    values: tuple[Label, Label, Label, Label, Label] = Field(strict=False)
    """1 = flexed, 0 = extended, thumb to little"""
    duration_s: Duration = 5.0


class Push(_Command):
    """Push a fingertip."""

    command: Literal["push"] = "push"
    finger: str
    force_n: tuple[float, float, float] = Field(strict=False)
    """newtons, in the world's axes"""
    duration_s: Duration = 0.3


class Condition(_Command):
    """Set a condition that may come and go during a run."""

    command: Literal["condition"] = "condition"
    name: str
    strength: float
    """0 (healthy) to 1"""


class Rotate(_Command):
    """Turn the armband; it must be one that may move (participant.movable_band)."""

    command: Literal["rotate"] = "rotate"
    degrees: float
    """from where it was put on, towards volar"""


class Delay(_Command):
    """Change what is injected into the feedback; fields as in the experiment's section `link`."""

    command: Literal["delay"] = "delay"
    delay_ms: Annotated[float, Field(ge=0, le=1000)]
    jitter_ms: Annotated[float, Field(ge=0, le=1000)] = 0.0
    drop: Annotated[float, Field(ge=0, le=1)] = 0.0
    duplicate: Annotated[float, Field(ge=0, le=1)] = 0.0


class SwitchDecoder(_Command):
    """Put another decoder into the loop: by the session that runs it."""

    command: Literal["decoder"] = "decoder"
    name: str
    """a model that ships (a folder's name in models/), `own` (the experiment's) or `none`"""


Command = Pause | Resume | Reset | Target | Push | Condition | Rotate | Delay | SwitchDecoder
_ANY: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="command")])


class Refusal(NamedTuple):
    """Why a command is not carried out."""

    kind: str
    """length, json, command, value, impossible: each is said once"""
    text: str


def parse_command(text: str | bytes) -> Command | Refusal:
    """The command that a sample holds, or why it holds none. Whatever the text is, nothing is raised."""
    if len(text) > LONGEST:
        return Refusal("length", f"its length is {len(text)}, expected at most {LONGEST}")
    try:
        return _ANY.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
    except UnicodeError:  # a lone surrogate cannot be encoded
        return Refusal("json", "it is no valid text")
    if first["type"] == "json_invalid":
        return Refusal("json", "it is not JSON")
    if first["type"].startswith("union_tag") or not first["loc"]:
        return Refusal("command", "expected a JSON object whose 'command' is one of " + ", ".join(COMMANDS))
    where = ".".join(str(part) for part in first["loc"][1:])
    return Refusal("value", f"{first['loc'][0]}: {where or 'it'}: {first['msg'][:200]}")


COMMANDS = ("pause", "resume", "reset", "target", "push", "condition", "rotate", "delay", "decoder")
"""Values of the field `command`."""


class CommandInbox:
    """Receives one participant's commands in a thread of its own and passes the good ones on.

    Listens to the newest stream `<id>_command`; a sender that comes back or comes later is found within about a second.
    """

    def __init__(self, participant: str, obey: Callable[[Command], None], say: Callable[[str], None]):
        """
        Args:
          participant: its id.
          obey: called from the thread with each good command; a MyoloopError of its means that it cannot be done now.
          say: called from the thread, once for each kind of problem.
        """
        self._name = stream_name(participant, "command")
        self._obey, self._say = obey, say
        self._stop = threading.Event()
        self._said: Counter[str] = Counter()
        self.accepted = 0
        self.refused = 0
        self._thread = threading.Thread(target=self._run, name="commands", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=3.0)

    def take(self, text: str | bytes) -> None:
        """Carries out one command, or refuses it."""
        command = parse_command(text)
        if not isinstance(command, Refusal):
            try:
                self._obey(command)
                self.accepted += 1
                return
            except MyoloopError as error:
                command = Refusal(f"impossible {command.command}", str(error))
        self.refused += 1
        self._said[command.kind] += 1
        if self._said[command.kind] == 1:
            self._say(f"command from '{self._name}' refused: {command.text}")

    def _run(self) -> None:
        follower = StreamFollower(f"name='{self._name}'", buffer_s=1.0)
        try:
            while not self._stop.is_set():
                block = follower.read(timeout=0.2)
                for sample in block.samples if block is not None else ():
                    if len(sample) == 1 and isinstance(sample[0], str | bytes):
                        self.take(sample[0])
                    else:
                        self.take("")  # numbers, or several channels
        except Exception as error:  # who no longer obeys must say so
            self._say(f"commands are no longer received: {type(error).__name__}: {error}")
        finally:
            follower.close()


class CommandSender:
    """Sends commands to a participant, also to one that comes or comes back later."""

    def __init__(self, participant: str):
        self._participant = participant
        self._lock = threading.Lock()
        self._outlet: pylsl.StreamOutlet | None = self._open()
        self.sent = 0

    def send(self, command: Command) -> bool:
        """Sends it; False if nobody listens within `LISTENED_S`.

        Participants listen to the newest sender. Who is not listened to becomes the newest.
        """
        with self._lock:
            if self._outlet is None or not self._outlet.have_consumers():
                self._outlet = None  # liblsl closes an outlet when its last handle goes
                self._outlet = self._open()
                if not self._outlet.wait_for_consumers(LISTENED_S):
                    return False
            self._outlet.push_sample([command.model_dump_json()])
            self.sent += 1
            return True

    def close(self) -> None:
        with self._lock:
            self._outlet = None

    def _open(self) -> pylsl.StreamOutlet:
        return make_outlet(
            self._participant, "command", ("command",), "JSON", 0.0, channel_format=pylsl.cf_string, stable_id=False
        )
