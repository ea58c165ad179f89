"""ROS 2 messages in an MCAP file, as rosbag2 and Foxglove read it: serialized as they were sent, with their definitions.

Knows ROS only as files: message definitions are looked up among what is installed, beside this Python or where
AMENT_PREFIX_PATH points.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from myoloop.errors import MyoloopError

BAG_FILE = "session.mcap"
CHUNK_BYTES = 512 * 1024
"""Messages are kept together and compressed in chunks of this size, or of what comes between two calls of `flush`."""

SIMPLE = {
    "bool", "byte", "char", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "string", "wstring",
}  # fmt: skip
"""Types of fields that need no definition."""


def why_no_bag() -> str | None:
    """Why ROS topics cannot be recorded here; None: they can."""
    if importlib.util.find_spec("mcap") is None:
        return "the package mcap is not installed: pip install 'myoloop[record]', or pip install mcap"
    return None


def refuse_without_mcap() -> None:
    if reason := why_no_bag():
        raise MyoloopError(f"record.mcap: {reason}.")


class BagFile:
    """An MCAP file that is being written; whole up to the last `flush` even if the process is killed."""

    def __init__(self, path: Path):
        """Begins the file.

        Raises:
          MyoloopError: mcap is not installed, or the file cannot be made.
        """
        refuse_without_mcap()
        from mcap.writer import Writer

        self.path = path
        try:
            self._file: BinaryIO = path.open("xb")
        except OSError as error:
            raise MyoloopError(f"{path} cannot be written: {error.strerror}.") from error
        self._writer = Writer(self._file, chunk_size=CHUNK_BYTES)
        self._writer.start(profile="ros2", library="myoloop")
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._sequence: dict[str, int] = {}

    def note(self, name: str, values: dict[str, str]) -> None:
        """A metadata record: what the recording is of."""
        self._writer.add_metadata(name, values)

    def add(self, topic: str, type_name: str) -> None:
        """Makes room for a topic.

        Args:
          topic: its full name.
          type_name: as in "std_msgs/msg/Header".

        Raises:
          MyoloopError: the type's definition is not installed.
        """
        if type_name not in self._schemas:
            text = definition(type_name).encode()
            self._schemas[type_name] = self._writer.register_schema(type_name, "ros2msg", text)
        about = {"topic_type_hash": type_hash(type_name)}
        self._channels[topic] = self._writer.register_channel(topic, "cdr", self._schemas[type_name], about)
        self._sequence[topic] = 0

    def write(self, topic: str, data: bytes, received_ns: int, sent_ns: int) -> None:
        """One message of a topic that was added, as serialized (CDR); times in ns since 1970."""
        self._sequence[topic] += 1
        self._writer.add_message(self._channels[topic], received_ns, data, sent_ns, self._sequence[topic])

    def flush(self) -> None:
        """What was written so far reaches the operating system, in a chunk that can be read by itself."""
        self._writer.flush()

    def close(self) -> None:
        """Index and summary, then the end of the file."""
        try:
            self._writer.finish()
        finally:
            self._file.close()


def messages(path: str | Path) -> Iterator[tuple[str, int, Any]]:
    """The messages of a recording, decoded, in the order of the file; ends quietly where a killed process left it.

    Yields:
      topic; when it was received, ns; the message, its fields as attributes.

    Raises:
      MyoloopError: mcap-ros2-support is not installed, or this is no MCAP file.
    """
    if importlib.util.find_spec("mcap_ros2") is None:
        raise MyoloopError("reading MCAP needs mcap-ros2-support: pip install 'myoloop[record]'.")
    from mcap.exceptions import InvalidMagic, McapError
    from mcap.records import Channel, Message, Schema
    from mcap.stream_reader import StreamReader
    from mcap_ros2.decoder import DecoderFactory

    factory = DecoderFactory()
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    with Path(path).open("rb") as file:
        records = iter(StreamReader(file).records)
        while True:
            try:
                record = next(records)
            except StopIteration:
                return
            except InvalidMagic as error:
                raise MyoloopError(f"{path} is no MCAP file.") from error
            except (McapError, EOFError, struct.error):  # the chunk that was being written
                return
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel):
                channels[record.id] = record
            elif isinstance(record, Message):
                channel = channels[record.channel_id]
                decode = factory.decoder_for(channel.message_encoding, schemas[channel.schema_id])
                assert decode is not None
                yield channel.topic, record.log_time, decode(record.data)


def definition(type_name: str) -> str:
    """The definition of a message and of all that it is made of, as one text in the format of MCAP's `ros2msg`.

    Raises:
      MyoloopError: a definition is not installed.
    """
    texts = {type_name: _installed(type_name, ".msg").read_text(encoding="utf-8")}
    to_read = [type_name]
    while to_read:
        name = to_read.pop(0)
        for part in _parts(texts[name], name.split("/")[0]):
            if part not in texts:
                texts[part] = _installed(part, ".msg").read_text(encoding="utf-8")
                to_read.append(part)
    first, *rest = texts.items()
    below = [f"{'=' * 80}\nMSG: {name.replace('/msg/', '/')}\n{text.rstrip()}\n" for name, text in rest]
    return "".join([first[1].rstrip() + "\n", *below])


def type_hash(type_name: str) -> str:
    """ROS 2's hash of a message's definition, "RIHS01_..." (REP 2016): who has another one has another message."""
    about = json.loads(_installed(type_name, ".json").read_text(encoding="utf-8"))
    return next(h["hash_string"] for h in about["type_hashes"] if h["type_name"] == type_name)


def _parts(text: str, package: str) -> Iterator[str]:
    """Types of a definition's fields that have definitions of their own."""
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if len(words) < 2 or "=" in words[1]:
            continue
        kind = re.split(r"[\[<]", words[0])[0]
        if kind not in SIMPLE:
            yield "/msg/".join(kind.split("/")) if "/" in kind else f"{package}/msg/{kind}"


def _installed(type_name: str, suffix: str) -> Path:
    prefixes = [*filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)), sys.prefix]
    for prefix in prefixes:
        file = Path(prefix) / "share" / f"{type_name}{suffix}"
        if file.is_file():
            return file
    raise MyoloopError(f"the definition of {type_name} is not installed: looked below share/ of {', '.join(prefixes)}.")
