"""The sections of an experiment file: keys, ranges and what they mean. experiment.py puts them together."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from myoloop.assets import POLICY
from myoloop.devices.settings import UdpSettings
from myoloop.settings import Settings


class ReferenceSettings(Settings):
    """The motion asked for."""

    kind: Literal["discrete", "continuous", "file", "prompts"] = Field(
        "discrete",
        description="discrete: the fingers switch between extended and flexed; continuous: sinusoids; file: recorded "
        "joint angles; prompts: named gestures, as a calibration asks for them",
    )
    seed: int = Field(
        1_000_001, ge=0, description="which reference; seeds from 1000000 on are held out: never trained on"
    )
    path: str | None = Field(
        None, description="kind file: CSV or NPZ of joint angles, relative to the experiment file or the installation"
    )
    at_end: Literal["loop", "hold"] = Field(
        "loop", description="kind file: go back to the first posture and begin again, or stay in the last one"
    )
    clip_deg: float = Field(
        5.0,
        ge=0,
        le=30,
        description="kind file: how far beyond a joint's range an angle is clipped, not refused, degrees",
    )

    gestures: dict[str, tuple[float, ...]] = Field(
        default_factory=dict,
        description="kind prompts: name and 5 finger labels of each gesture, thumb to little; the first is the rest",
    )
    repetitions: int = Field(5, ge=1, le=1000, description="kind prompts: blocks of all gestures until it begins again")
    hold_s: float = Field(3.0, ge=0.8, le=60, description="kind prompts: seconds that a gesture is held")
    rest_s: float = Field(2.0, ge=0, le=60, description="kind prompts: seconds of rest before each gesture")

    @model_validator(mode="after")
    def _prompts_and_gestures_go_together(self) -> ReferenceSettings:
        if (self.kind == "prompts") != bool(self.gestures):
            raise ValueError("kind 'prompts' needs gestures, and gestures need kind 'prompts'")
        return self

    @model_validator(mode="after")
    def _file_and_path_go_together(self) -> ReferenceSettings:
        if (self.kind == "file") != (self.path is not None):
            raise ValueError("kind 'file' needs a path, and a path needs kind 'file'")
        return self


class AdaptSettings(Settings):
    """The participant goes on learning to use the decoder while the session runs; `adapt: online` takes every default."""

    learner: Literal["internal_model"] = Field(
        "internal_model",
        description="who improves the policy: through a model of the decoder's answers, learned from them alone",
    )
    exploration: float = Field(
        0.3, ge=0, le=1, description="standard deviation of what is added to the policy's actions"
    )
    learning_rate: float = Field(1.5e-4, gt=0, le=0.01, description="of Adam, for the policy")
    habit: str | None = Field(
        None,
        description="whose movement is kept: file of the policy that this one began with, relative to the experiment file or "
        "the installation; none: the movement of the session's start",
    )
    effort: float = Field(6.0, ge=0, description="cost of the mean squared excitation, nats of cross-entropy a finger")
    movement: float = Field(100.0, ge=0, description="cost of joint torques that differ from the habit's")
    balanced: bool = Field(
        False,
        description="whether every gesture counts the same, however often it is asked for, as in balanced accuracy",
    )
    remembered_s: float = Field(2400.0, ge=10, le=7200, description="how much of the session is remembered, seconds")
    ahead_s: float = Field(
        5.0,
        ge=4,
        description="on simulated time, how far the session may run ahead of what the learner has thought about, seconds; in "
        "real time nothing waits for it",
    )
    save_every_s: float = Field(30.0, gt=0, description="how often the policy is saved into the run folder, seconds")


class ParticipantSettings(Settings):
    """One virtual user: who it is, what it wears, what it is asked to do."""

    id: str = Field("myo", description="prefix of its LSL streams and its ROS namespace")
    engine: Literal["mujoco", "mjx", "warp"] = Field("mujoco", description="who integrates the physics")
    policy: str = Field(
        POLICY,
        description="who drives the muscles: a policy's file, relative to the experiment file or the installation, or "
        "`baseline`, a controller without learning",
    )
    person: int = Field(0, ge=0, description="seed of the anatomy: motor units, fibres")
    armband: str | dict[str, Any] = Field(
        "semg_rd16", description="EMG device: a preset, a preset with changes, or your own (see emg/armband.py)"
    )
    sample: bool = Field(
        False, description="draw size, fat, units, velocities and donning of the person by `person`, too"
    )
    anatomy: dict[str, Any] = Field(
        default_factory=dict, description="physiology: fields of EmgConfig (emg/config.py), e.g. `{velocity_mean: 3.8}`"
    )
    conductor: str | dict[str, Any] = Field(
        default_factory=dict, description="tissues: `cylinder`, `half_space`, or fields of Conductor (emg/conductor.py)"
    )
    feedback: bool = Field(
        True, description="whether it perceives the decoder's answers; without, the EMG does not change what it does"
    )
    adapt: AdaptSettings | None = Field(
        None, description="`online`, or the keys below: it goes on learning while the session runs; none: it does not"
    )
    exploration: float = Field(
        0.0,
        ge=0,
        le=1,
        description="standard deviation of random changes to the policy's actions, to hear what else a decoder says; who "
        "learns has its own",
    )
    conditions: dict[str, float] = Field(
        default_factory=dict, description="what the participant has from the start: strengths 0..1 by name"
    )
    movable_band: bool = Field(
        False, description="whether `rotation` and `displacement` may move the armband during a run"
    )
    posture: bool = Field(False, description="whether the posture shifts and stretches muscles under the electrodes")
    force: Literal["direct", "twitch"] = Field(
        "direct",
        description="twitch: forearm muscles pull as their motor units discharge; direct: as they are excited",
    )
    reference: ReferenceSettings = Field(default_factory=lambda: ReferenceSettings())  # type: ignore[call-arg]
    control_hz: float = Field(50.0, ge=10, le=200, description="control steps per second")
    wait_for_decoder_s: float = Field(10.0, ge=0, le=600, description="how long to wait for a decoder before starting")
    stale_after_s: float = Field(0.2, gt=0, le=10, description="age at which a held prediction counts as stale")

    @field_validator("adapt", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value != "online":
                raise ValueError("expected `online` or a mapping with keys like 'learner'")
            return {}
        return value

    @field_validator("id")
    @classmethod
    def _id_is_a_ros_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", value):
            raise ValueError("use letters, digits and _, beginning with a letter (it becomes a ROS namespace)")
        return value


class DecoderSettings(Settings):
    """The decoder that myoloop starts; leave the section out to bring your own."""

    name: str = Field("decoder", description="its name in logs and reports")
    kind: Literal["onnx", "external", "udp"] = Field(
        "onnx",
        description="onnx: myoloop runs the model; external: your own software answers over LSL; udp: it answers over UDP, as "
        "LibEMG does",
    )
    model: str | None = Field(None, description="ONNX file, relative to the experiment file or the installation")
    udp: UdpSettings | None = Field(None, description="kind udp: where predictions come in and what they mean")
    command: tuple[str, ...] = Field(
        (), description="kinds external and udp: your software's command line, word by word, if myoloop is to start it"
    )

    @model_validator(mode="after")
    def _kind_and_sections_go_together(self) -> DecoderSettings:
        if self.kind == "udp" and self.udp is None:
            object.__setattr__(self, "udp", UdpSettings())  # type: ignore[call-arg]
        if self.kind != "udp" and self.udp is not None:
            raise ValueError("a decoder has a section 'udp' only if its kind is 'udp'")
        if self.kind == "onnx" and self.command:
            raise ValueError("a decoder of kind 'onnx' is run by myoloop: 'command' is for kinds external and udp")
        return self


class ClockSettings(Settings):
    """Who sets the pace; `clock: lockstep` takes every default."""

    kind: Literal["realtime", "lockstep", "free"] = Field(
        "realtime",
        description="realtime: the wall clock; lockstep: each step waits for the answer to the one before, on simulated time; "
        "free: simulated time that waits for nobody",
    )
    timeout_s: float = Field(
        1.0, gt=0, le=600, description="lockstep: how long a step waits for the answer, seconds of wall clock"
    )
    behind_s: float = Field(
        0.0,
        ge=0,
        le=10,
        description="lockstep: how far the newest answer may be behind the EMG, seconds: 0.06 for a decoder that "
        "answers every 50 ms",
    )
    unanswered: float = Field(
        1.0, gt=0, le=1000, description="lockstep: speed while nobody answers, as in a calibration, times real time"
    )


class RecordSettings(Settings):
    """What of a session is kept; `record: false` keeps no streams."""

    xdf: bool = Field(
        True, description="every LSL stream of the session into session.xdf, where labrecorder is installed"
    )
    mcap: bool = Field(
        False, description="the nodes' ROS topics into session.mcap, by a recorder that is a node itself"
    )


class LinkSettings(Settings):
    """What is injected between a prediction's arrival and the control step that uses it (live/link.py)."""

    delay_ms: float = Field(0.0, ge=0, le=1000, description="how much later every prediction may be used, ms")
    jitter_ms: float = Field(
        0.0, ge=0, le=1000, description="what is added to it, drawn evenly from 0 to this for each prediction, ms"
    )
    drop: float = Field(0.0, ge=0, le=1, description="probability that a prediction never gets through")
    duplicate: float = Field(0.0, ge=0, le=1, description="probability that a prediction comes twice")


class ViewSettings(Settings):
    """The page that shows the session in a browser."""

    on: bool = Field(False, description="whether `myoloop run` serves it; `--view` does, too")
    host: str = Field(
        "127.0.0.1", description="address to serve at; anything but this one lets others watch and control"
    )
    port: int = Field(
        8080, ge=0, le=65535, description="port to serve at; the next free one is taken if it is not free"
    )


class ChangeSettings(Settings):
    """Something that happens during the session."""

    at_s: float = Field(ge=0, description="when, seconds from the session's start")
    condition: str = Field(description="what changes: a condition that may come and go during a run, by name")
    strength: float = Field(description="0 (healthy) to 1, from then on")
