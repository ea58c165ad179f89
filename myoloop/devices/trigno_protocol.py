"""What a Delsys Trigno base station says: commands and replies as text, EMG as frames of floats. No sockets here.

Commands end with CR LF, a packet of commands with an empty line; every reply ends with an empty line. EMG: sixteen float32 a
sample, volts, sensors 1 to 16 in order, absent ones 0. With backwards compatibility and upsampling on, as here, the station
delivers 2000 Hz, 27 samples in every frame of 13.5 ms.

Read in clients of the station (pytrigno, BCI2000, LibEMG); replies that none of them checks are marked below.
"""

from __future__ import annotations

import re

import numpy as np

SENSORS = 16
RATE_HZ = 2000.0
FRAME_INTERVAL_S = 0.0135
SAMPLES_A_FRAME = 27  # 2000 Hz x 13.5 ms
EMG_ONLY = 40  # sensor mode without other channels (BCI2000's table)
BANNER = "Delsys Trigno System Digital Protocol Version 3.6.0 "
END = b"\r\n\r\n"
LONGEST_PACKET = 4096
"""Bytes without an empty line after which a client is not talking this protocol."""
INVALID = "INVALID COMMAND"
CANNOT = "CANNOT COMPLETE"


def reply(text: str) -> bytes:
    """A reply, or the greeting, as it goes out."""
    return text.encode("ascii") + END


class PacketReader:
    """Finds the commands in what arrives, however it is cut; holds at most LONGEST_PACKET bytes."""

    def __init__(self) -> None:
        self._held = b""
        self._skipping = False
        self.oversized = 0
        """packets thrown away because they did not end"""

    def feed(self, data: bytes) -> list[str]:
        """The commands completed by `data`; what was too long counts as one empty, hence invalid, command."""
        commands: list[str] = []
        self._held += data
        while (end := self._held.find(END)) >= 0:
            packet, self._held = self._held[:end], self._held[end + len(END) :]
            if self._skipping or len(packet) > LONGEST_PACKET:
                self.oversized += not self._skipping
                self._skipping = False
                commands.append("")
                continue
            commands += [line.decode("ascii", "replace") for line in packet.split(b"\r\n")]
        if len(self._held) > LONGEST_PACKET:
            self.oversized += not self._skipping
            self._skipping = True
            self._held = self._held[-(len(END) - 1) :]  # the end may be cut in two
        return commands


class TrignoState:
    """The station's settings, which all its clients share, and its answers."""

    def __init__(self, sensors: int):
        """
        Args:
          sensors: how many of the 16 are worn, from number 1 on.
        """
        self.sensors = sensors
        self.running = False
        self.big_endian = False
        self.backwards_compatible = True

    def answer(self, command: str) -> str:
        """The reply to one command; START and STOP change `running`."""
        fixed = {
            "FRAME INTERVAL?": f"{FRAME_INTERVAL_S:g}",
            "MAX SAMPLES EMG?": str(SAMPLES_A_FRAME),
            "MAX SAMPLES AUX?": "0",
            "ENDIANNESS?": "BIG" if self.big_endian else "LITTLE",
            "BACKWARDS COMPATIBILITY?": "YES" if self.backwards_compatible else "NO",
            "UPSAMPLING?": "UPSAMPLING ON",
            "BASE FIRMWARE?": "Firmware: 3.6.0",
            "BASE SERIAL?": "BID: myoloop",
            "QUIT": "BYE",  # from memory of Delsys' guide; the connection closes
        }
        if command in fixed:
            return fixed[command]
        if command == "START":
            self.running = True
            return "OK"
        if command == "STOP":
            self.running = False
            return "OK"
        if command in ("ENDIAN LITTLE", "ENDIAN BIG", "BACKWARDS COMPATIBILITY ON", "BACKWARDS COMPATIBILITY OFF"):
            return self._set(command)
        if command in ("UPSAMPLE ON", "UPSAMPLE OFF"):
            return "OK" if command.endswith("ON") else CANNOT  # what arrives is 2000 Hz: there is no other rate to give
        return self._of_sensor(command)

    def _set(self, command: str) -> str:
        if self.running:
            return CANNOT
        if command.startswith("ENDIAN"):
            self.big_endian = command.endswith("BIG")
        else:
            self.backwards_compatible = command.endswith("ON")
        return "OK"

    def _of_sensor(self, command: str) -> str:
        asked = re.fullmatch(r"SENSOR ([1-9]\d?) (.+)", command)
        if not asked or int(asked[1]) > SENSORS:
            return INVALID
        number, what = int(asked[1]), asked[2]
        worn = number <= self.sensors
        if what in ("PAIRED?", "ACTIVE?"):
            return "YES" if worn else "NO"
        known = {
            "TYPE?": "O",  # Trigno Avanti
            "MODE?": str(EMG_ONLY),
            "SERIAL?": f"SID: {number}",
            "FIRMWARE?": "3.6.0",
            "CHANNELCOUNT?": "1",
            "EMGCHANNELCOUNT?": "1",
            "AUXCHANNELCOUNT?": "0",
            "STARTINDEX?": str(number),
            "CHANNEL 1 RATE?": f"{RATE_HZ:g}",
            "CHANNEL 1 SAMPLES?": str(SAMPLES_A_FRAME),
            "CHANNEL 1 UNITS?": "V",
            "CHANNEL 1 GAIN?": "300",
            f"SETMODE {EMG_ONLY}": f"SENSOR {number} MODE {EMG_ONLY}",  # clients look for the word SENSOR only
        }
        if what in known:
            return known[what] if worn else INVALID
        return CANNOT if re.fullmatch(r"SETMODE \d{1,4}|PAIR", what) else INVALID

    def frames(self, chunk_uv: np.ndarray) -> bytes:
        """A chunk, (samples, sensors) microvolts, as the EMG port sends it: 64 bytes a sample."""
        volts = np.zeros((len(chunk_uv), SENSORS), ">f4" if self.big_endian else "<f4")
        volts[:, : chunk_uv.shape[1]] = 1e-6 * chunk_uv
        return volts.tobytes()


FRAME_BYTES = 4 * SENSORS
"""Bytes of a sample of all sensors: what the EMG port sends whole, or not at all."""
