"""Sections of an experiment file: which amplifiers are emulated, and what comes back over UDP."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from myoloop.body.names import FINGERS
from myoloop.emg.armband import Armband
from myoloop.errors import MyoloopError
from myoloop.settings import Settings

Port = Annotated[int, Field(ge=0, le=65535)]
LOOPBACK = "127.0.0.1"


class TrignoSettings(Settings):
    """A Delsys Trigno base station, as its control utility serves it."""

    host: str = Field(LOOPBACK, description="address to listen on; anything but loopback opens it to the network")
    command_port: Port = Field(50040, description="TCP port of commands and replies; 0: any free one")
    emg_port: Port = Field(50043, description="TCP port of EMG")
    aux_port: Port = Field(50044, description="TCP port of other sensors: accepted, silent")
    buffer_s: float = Field(
        5.0, gt=0, le=60, description="seconds kept for a client that does not read; then whole samples are dropped"
    )


class MuoviSettings(Settings):
    """An OT Bioelettronica Muovi probe: it dials in to the host program."""

    host: str = Field(LOOPBACK, description="address of the program that waits for the probe")
    port: Port = Field(54321, description="TCP port on which that program listens")
    buffer_s: float = Field(
        5.0, gt=0, le=60, description="seconds kept for a host that does not read; then whole packets are dropped"
    )


class DevicesSettings(Settings):
    """Amplifiers to emulate; each is fed by the participant's electrodes."""

    trigno: TrignoSettings | None = Field(None, description="emulate a Delsys Trigno base station: `{}` for defaults")
    muovi: MuoviSettings | None = Field(None, description="emulate an OT Bioelettronica Muovi probe")

    @property
    def any(self) -> bool:
        """Whether there is anything to emulate."""
        return self.trigno is not None or self.muovi is not None


class UdpSettings(Settings):
    """Predictions that come as UDP datagrams, as LibEMG sends them."""

    host: str = Field(LOOPBACK, description="address to listen on; anything but loopback opens it to the network")
    port: Port = Field(12346, description="UDP port")
    gestures: dict[str, tuple[float, ...]] = Field(
        default_factory=dict,
        description="the decoder's classes in its order (class 0 first): name and 5 finger labels, thumb to little, 1 = flexed",
    )
    regression_range: tuple[float, float] = Field(
        (-1.0, 1.0), description="regression of five values: what stands for extended and for flexed"
    )

    @field_validator("gestures")
    @classmethod
    def _five_labels_each(cls, value: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        for name, labels in value.items():
            if len(labels) != len(FINGERS) or not all(0.0 <= label <= 1.0 for label in labels):
                raise ValueError(
                    f"gesture '{name}' has labels {list(labels)}: give 5 in 0..1, thumb to little, 1 = flexed"
                )
        if len(value) == 1:
            raise ValueError("one gesture is no choice: name all classes of the decoder, in its order")
        return value

    @model_validator(mode="after")
    def _range_is_one(self) -> UdpSettings:
        if self.regression_range[0] == self.regression_range[1]:
            raise ValueError("regression_range needs two different numbers")
        return self


def check_devices(devices: DevicesSettings, band: Armband, where: str) -> None:
    """Raises MyoloopError if a device cannot carry what the armband gives."""
    limits = {"trigno": (16, "trigno16"), "muovi": (32, "muovi32")}
    for name, (channels, preset) in limits.items():
        if getattr(devices, name) is None:
            continue
        if band.rate_hz != 2000.0 or band.channels > channels:
            raise MyoloopError(
                f"{where}: devices.{name} sends up to {channels} channels at 2000 Hz, but armband '{band.name}' has "
                f"{band.channels} at {band.rate_hz:g} Hz. Use participant.armband: {preset}."
            )
