"""The experiment file: one description of what runs together, read by `myoloop run` and by launch files alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from myoloop.assets import POLICY, find_file
from myoloop.body import PHYSICS_DT
from myoloop.devices.settings import DevicesSettings, check_devices
from myoloop.emg.armband import armband_from
from myoloop.emg.condition_names import PERSON, check_conditions
from myoloop.emg.conductor import conductor_from
from myoloop.emg.config import config_from
from myoloop.errors import MyoloopError, unknown_name
from myoloop.policy import BASELINE
from myoloop.population_settings import Company, PopulationSettings, check_population
from myoloop.sections import (
    ChangeSettings,
    ClockSettings,
    DecoderSettings,
    LinkSettings,
    ParticipantSettings,
    RecordSettings,
    ViewSettings,
)
from myoloop.settings import Settings


class Experiment(Settings):
    """Everything one session needs."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = Field("session", description="part of the run folder")
    duration_s: float = Field(60.0, gt=0, le=86400, description="length of the session, seconds")
    seed: int = Field(0, ge=0, description="seed of motor unit discharges and noise")
    clock: ClockSettings = Field(
        default_factory=lambda: ClockSettings(),  # type: ignore[call-arg]
        description="who sets the pace: `realtime`, `lockstep`, `free`, or the keys below",
    )
    ros: bool = Field(True, description="run the processes as ROS 2 nodes")
    participant: ParticipantSettings = Field(default_factory=lambda: ParticipantSettings())  # type: ignore[call-arg]
    population: PopulationSettings | None = Field(
        None, description="many participants instead of one, see docs/population.md; none: one"
    )
    decoder: DecoderSettings | None = Field(None, description="the decoder in the loop; none: open loop")
    link: LinkSettings | None = Field(
        None,
        description="delay, jitter, loss and copies injected into the feedback; none: predictions are used as they arrive",
    )
    changes: list[ChangeSettings] = Field(
        default_factory=list, description="what happens during the session, in the order of time"
    )
    devices: DevicesSettings = Field(default_factory=lambda: DevicesSettings())  # type: ignore[call-arg]
    record: RecordSettings = Field(
        default_factory=lambda: RecordSettings(),  # type: ignore[call-arg]
        description="what is kept: `true`, `false`, or the keys below",
    )
    view: ViewSettings = Field(
        default_factory=lambda: ViewSettings(),  # type: ignore[call-arg]
        description="the page in the browser",
    )

    @field_validator("record", mode="before")
    @classmethod
    def _short_record(cls, value: Any) -> Any:
        return {"xdf": value} if isinstance(value, bool) else value

    @field_validator("clock", mode="before")
    @classmethod
    def _short_clock(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _topics_need_ros(self) -> Experiment:
        if self.record.mcap and not self.ros:
            raise ValueError("record.mcap records ROS topics, and ros is false: leave one out")
        return self

    @model_validator(mode="after")
    def _lockstep_needs_a_decoder(self) -> Experiment:
        if self.clock.kind == "lockstep" and self.decoder is None:
            raise ValueError("clock is 'lockstep', and there is no decoder to wait for: give one, or use clock 'free'")
        return self


def load_experiment(path: str | Path, overrides: dict[str, Any] | None = None) -> Experiment:
    """Reads and checks an experiment file.

    Args:
      path: YAML file; relative names are looked for in the working folder, then among the shipped experiments.
      overrides: dotted keys to values that replace the file's, e.g. {"duration_s": 5, "participant.id": "p2"}.

    Returns:
      The experiment; `decoder.model` and `participant.reference.path` are absolute.

    Raises:
      MyoloopError: the file is missing, is not YAML, or holds an unknown key or a value out of range.
    """
    file = find_file(path, kind="experiment file")
    raw = _read(path, file)
    for key, value in (overrides or {}).items():
        _set_dotted(raw, key, value)
    experiment = _validate(raw, str(path))
    me = experiment.participant
    if me.policy != BASELINE:
        policy = find_file(me.policy, beside=file.parent, kind="participant.policy")
        experiment = experiment.model_copy(update={"participant": me.model_copy(update={"policy": str(policy)})})
    adapt = experiment.participant.adapt
    if adapt is not None and adapt.habit is not None:
        habit = find_file(adapt.habit, beside=file.parent, kind="participant.adapt.habit")
        me = experiment.participant.model_copy(update={"adapt": adapt.model_copy(update={"habit": str(habit)})})
        experiment = experiment.model_copy(update={"participant": me})
    reference = experiment.participant.reference
    if reference.path is not None:
        motion = find_file(reference.path, beside=file.parent, kind="participant.reference.path")
        reference = reference.model_copy(update={"path": str(motion)})
        me = experiment.participant.model_copy(update={"reference": reference})
        experiment = experiment.model_copy(update={"participant": me})
    decoder = experiment.decoder
    if decoder is not None and decoder.kind == "onnx":
        if not decoder.model:
            raise MyoloopError(f"{path}: decoder.kind is 'onnx' but decoder.model is missing: name the ONNX file.")
        model = find_file(decoder.model, beside=file.parent, kind="decoder.model")
        experiment = experiment.model_copy(update={"decoder": decoder.model_copy(update={"model": str(model)})})
    return experiment


def load_saved(path: Path) -> Experiment:
    """What `save_experiment` wrote; the files that it names may be gone.

    Raises:
      MyoloopError: the file is missing, is not YAML, or holds an unknown key or a value out of range.
    """
    return _validate(_read(path, find_file(path.absolute(), kind="saved experiment")), str(path))


def checked(raw: dict[str, Any], where: str) -> Experiment:
    """An experiment that a program made instead of a file; `where` stands before what is wrong with it.

    Raises:
      MyoloopError: an unknown key, or a value out of range.
    """
    return _validate(raw, where)


def save_experiment(experiment: Experiment, path: Path) -> None:
    """Writes the resolved experiment, every default spelled out, as YAML."""
    path.write_text(yaml.safe_dump(experiment.model_dump(), sort_keys=False), encoding="utf-8")


SHORT_FORMS = {"record": "xdf", "clock": "kind"}
"""Sections that a file may give as one value, and which of their keys that is."""


def _read(path: str | Path, file: Path) -> dict[str, Any]:
    """The keys of a YAML file, which messages call `path`."""
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # PyYAML: a date of month 99, brackets without end
        raise MyoloopError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        found = "nothing" if raw is None else type(raw).__name__
        raise MyoloopError(f"{path}: expected a mapping with keys like 'participant' and 'decoder', found {found}.")
    return raw


def _set_dotted(raw: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        below = raw.get(section)
        if below is None:
            below = raw[section] = {}
        if key == f"{section}.{last}" and section in SHORT_FORMS and isinstance(below, bool | str):
            below = raw[section] = {SHORT_FORMS[section]: below}
        if not isinstance(below, dict):
            raise MyoloopError(f"'{section}' is {below!r}: expected a mapping with keys like '{last}'.")
        raw = below
    raw[last] = value


def _validate(raw: dict[str, Any], where: str) -> Experiment:
    try:
        experiment = Experiment.model_validate(raw)
    except ValidationError as error:
        raise _explain(error, where) from error
    me = experiment.participant
    band = armband_from(me.armband, f"{where}: participant.armband")
    check_devices(experiment.devices, band, where)
    config_from(me.anatomy, f"{where}: participant.anatomy")
    conductor_from(me.conductor, f"{where}: participant.conductor")
    movable = me.movable_band or me.posture
    check_conditions(me.conditions, band.channel_labels, movable, f"{where}: participant.conditions")
    check_changes(experiment, band.channel_labels, movable, f"{where}: changes")
    check_adaptation(experiment, f"{where}: participant.adapt")
    if experiment.population is not None:
        kind = experiment.decoder.kind if experiment.decoder else None
        company = Company(
            me.id, band.channel_labels, movable, kind, me.adapt is not None, experiment.devices.any,
            experiment.record.xdf or experiment.record.mcap, experiment.view.on,
        )  # fmt: skip
        check_population(experiment.population, company, where)
    fitting = [hz for hz in range(10, 201) if _fits(hz, band.rate_hz)]
    if not _fits(me.control_hz, band.rate_hz):
        raise MyoloopError(
            f"{where}: participant.control_hz is {me.control_hz:g}: a control step must hold whole samples of "
            f"'{band.name}' ({band.rate_hz:g} Hz) and whole physics steps ({1e3 * PHYSICS_DT:g} ms). These would do: "
            f"{', '.join(map(str, fitting)) or 'none'}."
        )
    return experiment


def check_changes(experiment: Experiment, labels: Sequence[str], movable: bool, where: str) -> None:
    """Refuses, by MyoloopError, a change that cannot happen: its condition, its strength, its time."""
    before = 0.0
    for number, change in enumerate(experiment.changes):
        here = f"{where}[{number}]"
        if change.condition in PERSON:
            raise MyoloopError(
                f"{here}: {change.condition} belongs to the person and cannot change during a run: give it as "
                "participant.conditions."
            )
        check_conditions({change.condition: change.strength}, labels, movable, here)
        if change.at_s < before:
            raise MyoloopError(
                f"{here}: at_s is {change.at_s:g}, after one at {before:g}: give changes in the order of time."
            )
        if change.at_s >= experiment.duration_s:
            raise MyoloopError(
                f"{here}: at_s is {change.at_s:g}, and the session lasts {experiment.duration_s:g} s: change one of them."
            )
        before = change.at_s


def check_adaptation(experiment: Experiment, where: str) -> None:
    """Refuses, by MyoloopError, a participant that is to learn and cannot."""
    me = experiment.participant
    if me.adapt is None:
        return
    if experiment.decoder is None:
        raise MyoloopError(f"{where}: there is no decoder to learn to use: give a decoder section, or leave adapt out.")
    if not me.feedback:
        raise MyoloopError(
            f"{where}: participant.feedback is false: who learns must perceive the answers. Leave one out."
        )
    if me.policy == BASELINE:
        raise MyoloopError(
            f"{where}: participant.policy is '{BASELINE}', a controller without learning: name a policy's file, e.g. {POLICY}."
        )


def _fits(control_hz: float, rate_hz: float) -> bool:
    """Whether a control step holds whole EMG samples and whole physics steps."""
    counts = rate_hz / control_hz, 1.0 / (control_hz * PHYSICS_DT)
    return all(count >= 1 and abs(count - round(count)) < 1e-9 for count in counts)


def _explain(error: ValidationError, where: str) -> MyoloopError:
    """The first problem of a validation, in words: where, what was found, what is allowed."""
    errors = error.errors()  # an unknown key explains why another is missing
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    loc = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        return unknown_name("key", loc[-1], _keys(loc[:-1]), f"{where}: {'.'.join(loc)}")
    if first["type"] == "literal_error":
        allowed = first.get("ctx", {}).get("expected", "")
        known = re.findall(r"'([^']*)'", allowed)
        return unknown_name(loc[-1], first["input"], known, f"{where}: {'.'.join(loc)}")
    found, said = first["input"], first["msg"].removeprefix("Value error, ")
    if not loc:  # of keys that do not go together, which it names
        return MyoloopError(f"{where}: {said}.")
    shown = repr(found) if len(repr(found)) < 80 else type(found).__name__
    return MyoloopError(f"{where}: {'.'.join(loc)} is {shown}: {said}.")


def _keys(loc: list[str]) -> list[str]:
    """The keys allowed in the section at `loc`."""
    model: type[BaseModel] = Experiment
    for part in loc:
        if part.isdigit():  # a place in a list, whose sections are all of one kind
            continue
        annotation = model.model_fields[part].annotation
        for candidate in (annotation, *get_args(annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return list(model.model_fields)
