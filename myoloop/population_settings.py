"""The section `population` of an experiment file: many participants at once, or one after another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from myoloop.emg.condition_names import check_conditions
from myoloop.errors import MyoloopError, unknown_name
from myoloop.settings import Settings

TURNS = "turns.json"
"""File in the run folder of `how: in_turn`: each participant's id, person and conditions, and why its session failed (null)."""
SAMPLED_FROM = 1_000_000
"""Default seed of the people: from here on nothing that ships was trained on them."""


class PersonSettings(Settings):
    """One of the people, if they are listed; a bare number is its `person`."""

    person: int = Field(ge=0, description="seed of the anatomy")
    conditions: dict[str, float] = Field(
        default_factory=dict, description="what this one has besides participant.conditions"
    )


class PopulationSettings(Settings):
    """Who they are and what of them can be seen; everything else is as `participant` says, the same for all."""

    participants: int | None = Field(
        None, ge=1, le=100_000, description="how many; none: as many as `persons` or `ids` lists"
    )
    seed: int = Field(
        SAMPLED_FROM, ge=0, description="which people are drawn from published ranges, where `persons` lists none"
    )
    persons: list[PersonSettings] = Field(
        default_factory=list,
        description="seeds of the people, drawn from the same ranges, or mappings with the keys below",
    )
    ids: list[str] = Field(
        default_factory=list, description="prefixes of their LSL streams; none: participant.id and a number from 0 on"
    )
    how: Literal["together", "in_turn"] = Field(
        "together",
        description="together: in one batch, in one process; in_turn: one after another under participant.id, a whole session "
        "each, for software that reads one participant",
    )
    publish: Literal["all", "none"] | int | list[str] = Field(
        "all",
        description="together: whose streams go out over LSL: `all`, `none`, how many (the first ones), or ids; the others' "
        "EMG goes to the ONNX model inside the process",
    )
    motion: Literal["same", "own"] = Field(
        "same", description="whether all are asked the same motion, so that only the person differs, or each its own"
    )

    @field_validator("persons", mode="before")
    @classmethod
    def _short_persons(cls, value: Any) -> Any:
        return (
            [{"person": each} if isinstance(each, int) else each for each in value]
            if isinstance(value, list)
            else value
        )

    @field_validator("ids")
    @classmethod
    def _ids_are_names(cls, value: list[str]) -> list[str]:
        for each in value:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", each):
                raise ValueError(f"'{each}': use letters, digits and _, beginning with a letter")
        if twice := sorted({each for each in value if value.count(each) > 1}):
            raise ValueError(f"'{twice[0]}' stands there twice: two participants cannot share an id")
        return value

    @model_validator(mode="after")
    def _counts_agree(self) -> PopulationSettings:
        named = {"participants": self.participants, "persons": len(self.persons), "ids": len(self.ids)}
        counts = {name: count for name, count in named.items() if count}
        if not counts:
            raise ValueError("say how many: `participants`, or a list of `persons` or `ids`")
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise ValueError(f"these do not agree: {told}")
        return self

    @property
    def count(self) -> int:
        """Number of participants."""
        return self.participants or len(self.persons) or len(self.ids)

    def names(self, prefix: str) -> list[str]:
        """Ids of all of them; `prefix` is participant.id."""
        return self.ids or [f"{prefix}{number}" for number in range(self.count)]

    def published(self, prefix: str) -> list[str]:
        """Ids of those whose streams go out over LSL."""
        names = self.names(prefix)
        if isinstance(self.publish, list):
            return [name for name in names if name in self.publish]
        return names if self.publish == "all" else names[: 0 if self.publish == "none" else self.publish]


class Company(NamedTuple):
    """What else the experiment says that many participants must go with."""

    prefix: str
    """participant.id"""
    labels: Sequence[str]
    """channels of the armband"""
    movable: bool
    decoder: str | None
    """kind of the decoder"""
    learns: bool
    """participant.adapt"""
    devices: bool
    records: bool
    shown: bool
    """whether a browser is to show it"""


def check_population(settings: PopulationSettings, company: Company, where: str) -> None:
    """Refuses, by MyoloopError, a population that does not go with the rest of the experiment."""
    here = f"{where}: population"
    for number, each in enumerate(settings.persons):
        check_conditions(each.conditions, company.labels, company.movable, f"{here}.persons[{number}].conditions")
    if settings.how == "in_turn":
        return
    names = settings.names(company.prefix)
    if isinstance(settings.publish, list):
        for name in settings.publish:
            if name not in names:
                raise unknown_name("id", name, names, f"{here}.publish")
    elif isinstance(settings.publish, int) and not 0 <= settings.publish <= settings.count:
        raise MyoloopError(f"{here}.publish is {settings.publish}: expected 0 to {settings.count}, the participants.")
    hidden = settings.count - len(settings.published(company.prefix))
    if hidden and company.decoder not in (None, "onnx"):
        raise MyoloopError(
            f"{here}.publish leaves {hidden} of {settings.count} participants to a decoder inside the process, and "
            f"decoder.kind is '{company.decoder}': give an ONNX model, or publish all of them."
        )
    for clash, key, cure in (
        (company.decoder == "udp", "decoder.kind 'udp'", "it has one port"),
        (company.learns, "participant.adapt", "one learner serves one participant"),
        (company.devices, "devices", "an amplifier is worn by one participant"),
        (company.records and hidden == settings.count, "record", "nothing is published; write `record: false`"),
        (company.shown, "view", "it shows one participant"),
    ):
        if clash:
            raise MyoloopError(
                f"{here}: {key} does not go with participants together ({cure}). With `how: in_turn` each has a session of "
                "its own."
            )
