"""Reads a session's LSL streams from XDF: the file that a session wrote, or one that LabRecorder recorded meanwhile."""

from __future__ import annotations

import io
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyxdf

from myoloop.body.names import FINGERS
from myoloop.errors import MyoloopError
from myoloop.streams.outlets import STREAM_TYPES

SESSION_FILE = "session.xdf"
"""The recording in a run folder; what LabRecorder could not add to it lies in session-2.xdf and so on."""
MAGIC = b"XDF:"
WIDEST = 4096
"""Channels that a stream may have; more are damage."""


class XdfStream(NamedTuple):
    """What one outlet sent."""

    name: str
    kind: str
    """LSL stream type, e.g. EMG"""
    rate_hz: float
    """0: irregular"""
    labels: tuple[str, ...]
    """one a channel"""
    unit: str
    """of the first channel"""
    samples: np.ndarray
    """(n, channels), in the stream's own type; text: dtype object"""
    stamps: np.ndarray
    """(n,) seconds on the clock of the machine that sent"""
    info: Mapping[str, Any]
    """the stream's own description, as pyxdf has it: a dict of lists"""

    def about(self, *path: str) -> str | None:
        """One entry of the description, e.g. about("desc", "version")."""
        here: Any = self.info
        for key in path:
            here = here.get(key) if isinstance(here, Mapping) else None
            here = here[0] if isinstance(here, list) and here else None
        return here if isinstance(here, str) else None


class XdfSession(NamedTuple):
    """One participant's streams."""

    participant: str
    streams: dict[str, XdfStream]
    """by the suffix of their names, see STREAM_TYPES; absent ones were not recorded"""
    notes: tuple[str, ...]
    """what was wrong with the file"""

    def need(self, stream: str) -> XdfStream:
        """A stream with samples.

        Raises:
          MyoloopError: there is none.
        """
        found = self.streams.get(stream)
        if found is None or not len(found.stamps):
            raise MyoloopError(
                f"the recording holds no samples of '{self.participant}_{stream}', which is needed; it holds "
                f"{', '.join(sorted(self.streams)) or 'nothing'}."
            )
        return found

    @property
    def events(self) -> list[tuple[float, str]]:
        """(time, text) of every event."""
        found = self.streams.get("events")
        return (
            [] if found is None else [(float(t), str(s[0])) for t, s in zip(found.stamps, found.samples, strict=True)]
        )

    @property
    def gestures(self) -> dict[str, tuple[float, ...]]:
        """The prompted gestures and their labels; empty without prompts."""
        found = self.streams.get("events")
        try:
            told = json.loads((found.about("desc", "gestures") if found else None) or "{}")
            return {str(name): tuple(float(x) for x in labels) for name, labels in told.items()}
        except (ValueError, TypeError, AttributeError):
            return {}


def recording_files(path: Path) -> list[Path]:
    """The file and those that go on with it (`session-2.xdf`), for a file or a run folder.

    Raises:
      MyoloopError: there is none.
    """
    first = path / SESSION_FILE if path.is_dir() else path
    if not first.is_file():
        what = "the session was not recorded (record: true does it)" if path.is_dir() else "no such file"
        raise MyoloopError(f"{first}: {what}.")
    more = {}
    for other in first.parent.glob(f"{first.stem}-*{first.suffix}"):
        if number := re.fullmatch(re.escape(first.stem) + r"-(\d+)", other.stem):
            more[int(number[1])] = other
    return [first, *(more[number] for number in sorted(more))]


def count_samples(path: Path) -> dict[str, int]:
    """How many samples of each stream the recording holds, by the whole name: `myo_emg`.

    Args:
      path: a file or a run folder.

    Raises:
      MyoloopError: there is none, or it is no XDF.
    """
    counts: Counter[str] = Counter()
    loaded, _ = _load_all(recording_files(path), counts)
    counts.update({_name(stream): 0 for stream in loaded})
    return dict(counts)


def read_xdf(path: Path, participant: str | None = None) -> XdfSession:
    """Reads one participant's streams, of all files of its recording.

    Stamps are those of the senders, without pyxdf's smoothing, as long as all streams are of one machine; else they are put
    on the recorder's clock. A file that ends in the middle is read as far as it goes, and `notes` says so.

    Args:
      path: a file or a run folder.
      participant: its id; None: the only one there is.

    Raises:
      MyoloopError: there is no such file, it is no XDF, or it holds no participant or several.
    """
    found, notes = _load_all(recording_files(path))
    ids = sorted({_name(s).removesuffix("_emg") for s in found if _name(s).endswith("_emg")})
    if participant is None:
        if len(ids) != 1:
            raise MyoloopError(
                f"{path} holds the EMG of {len(ids)} participants ({', '.join(ids) or 'streams: ' + _names(found)}): expected "
                "one stream named <id>_emg; say which participant."
            )
        participant = ids[0]
    return _session(path, found, notes, participant)


def read_participants(path: Path, participants: Sequence[str]) -> list[XdfSession]:
    """`read_xdf` of several participants of one recording, which is read once.

    Raises:
      MyoloopError: there is no such file, it is no XDF, or one of them is not in it.
    """
    found, notes = _load_all(recording_files(path))
    return [_session(path, found, notes, participant) for participant in participants]


def _session(path: Path, found: list[dict[str, Any]], said: Sequence[str], participant: str) -> XdfSession:
    """One participant's streams among those of a recording; raises MyoloopError if there is no EMG."""
    notes = list(said)
    streams = {}
    for suffix in STREAM_TYPES:
        parts = [s for s in found if _name(s) == f"{participant}_{suffix}"]
        if suffix == "prediction" and not parts:  # a decoder's stream by another name, as the participant takes it
            parts = [s for s in found if _kind(s) == STREAM_TYPES[suffix] and not _name(s).endswith("_prediction")]
        if parts:
            streams[suffix] = _join(parts, suffix, notes)
    if "emg" not in streams:
        raise MyoloopError(f"{path} holds no stream '{participant}_emg'; it holds {_names(found)}.")
    return XdfSession(participant, streams, tuple(notes))


def _load_all(files: list[Path], count_only: Counter[str] | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """The streams of all files and what is wrong with each; raises MyoloopError if none can be read."""
    found: list[dict[str, Any]] = []
    notes: list[str] = []
    errors: list[MyoloopError] = []
    for file in files:
        try:
            loaded, said = _load(file, count_only)
        except MyoloopError as error:
            errors.append(error)
            notes.append(str(error))
            continue
        found += loaded
        notes += [f"{file.name}: {note}" for note in said]
    if len(errors) == len(files):
        raise errors[0]
    return found, notes


def _load(file: Path, count_only: Counter[str] | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """pyxdf's streams and what it complained about."""
    complaints = _Complaints()
    pyxdf_log = logging.getLogger("pyxdf")
    propagate, pyxdf_log.propagate = pyxdf_log.propagate, False
    pyxdf_log.addHandler(complaints)

    def count(values: Any, stamps: Any, info: Any, _: int) -> tuple[Any, Any, Any]:
        assert count_only is not None
        count_only[_name(info)] += len(stamps)
        return values[:0], stamps[:0], info

    def load(synchronize: bool) -> list[dict[str, Any]]:
        keep = None if count_only is None else count
        source = io.BytesIO(file.read_bytes()[:sound]) if sound < size else str(file)
        return pyxdf.load_xdf(source, on_chunk=keep, synchronize_clocks=synchronize, dejitter_timestamps=False)[0]

    try:
        size, sound = file.stat().st_size, _sound_bytes(file)
        loaded = load(False)
        if count_only is None and len({s["info"].get("hostname", [""])[0] for s in loaded}) > 1:
            loaded = load(True)
        for stream in loaded:
            _check(stream)
    except MemoryError as error:
        raise MyoloopError(f"{file} is damaged: it claims more samples than there is memory.") from error
    except Exception as error:  # whatever pyxdf meets in a damaged file
        raise MyoloopError(
            f"{file} is not a readable XDF file: {type(error).__name__}: {' '.join(str(error).split())[:200]}. Was it recorded "
            "to the end?"
        ) from error
    finally:
        pyxdf_log.removeHandler(complaints)
        pyxdf_log.propagate = propagate
    if sound < size:
        return loaded, [f"it ends in the middle or is damaged at byte {sound} of {size}: what lies before it is read"]
    if complaints.said:
        return loaded, [f"damaged, read as far as possible ({complaints.said[0]})"]
    if loaded and not any("footer" in stream for stream in loaded):
        return loaded, ["it has no end: the recorder was stopped before it could close it; what it holds is read"]
    return loaded, []


def _sound_bytes(file: Path) -> int:
    """How far the file's chunks are what they say: pyxdf believes a damaged chunk that claims billions of samples.

    A chunk is a number (1, 4 or 8), its length in that many bytes, a tag in two, and the rest; one with samples (tag 3) begins
    with four bytes of identity and their number, written alike; each sample takes at least two bytes.
    """
    size = file.stat().st_size
    with file.open("rb") as raw:
        place = len(MAGIC) if raw.read(len(MAGIC)) == MAGIC else size
        while place < size:
            raw.seek(place)
            length, head = _number(raw)
            if length is None or length < 2 or place + head + length > size:
                return place
            if raw.read(2) == b"\x03\x00":
                raw.seek(4, io.SEEK_CUR)
                samples, width = _number(raw)
                if samples is None or 2 * samples > length - 6 - width:
                    return place
            place += head + length
    return size


def _number(raw: io.BufferedReader) -> tuple[int | None, int]:
    """A number written as its width and itself, and the bytes that it takes; None where there is none."""
    width = raw.read(1)
    if width not in (b"\x01", b"\x04", b"\x08"):
        return None, 1
    value = raw.read(width[0])
    return (int.from_bytes(value, "little"), 1 + width[0]) if len(value) == width[0] else (None, 1)


class _Complaints(logging.Handler):
    """What pyxdf says of damage: it does not raise it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(" ".join(record.getMessage().split())[:120])


def _check(stream: dict[str, Any]) -> None:
    """Raises ValueError for a stream that cannot be what it says."""
    channels = int(stream["info"]["channel_count"][0])
    if not 0 < channels <= WIDEST:
        raise ValueError(f"'{_name(stream)}' has {channels} channels")
    if not np.all(np.isfinite(stream["time_stamps"])):
        raise ValueError(f"'{_name(stream)}' has time stamps that are no numbers")
    if not 0 <= float(stream["info"]["nominal_srate"][0]) < 1e7:
        raise ValueError(f"'{_name(stream)}' has a rate of {stream['info']['nominal_srate'][0]} Hz")


def _name(stream: dict[str, Any]) -> str:
    return str((stream["info"].get("name") or [""])[0])


def _kind(stream: dict[str, Any]) -> str:
    return str((stream["info"].get("type") or [""])[0])


def _names(streams: list[dict[str, Any]]) -> str:
    return ", ".join(sorted({_name(s) for s in streams})) or "nothing"


def _join(parts: list[dict[str, Any]], suffix: str, notes: list[str]) -> XdfStream:
    """The lives of one stream, one after another; those of another form than the usable or longest are left out, and said."""
    forms: Counter[tuple[int, bool]] = Counter()
    for part in parts:
        forms[_form(part)] += len(part["time_stamps"])
    chosen = (
        (len(FINGERS), False)
        if suffix == "prediction" and (len(FINGERS), False) in forms
        else forms.most_common(1)[0][0]
    )
    for part in parts:
        if _form(part) != chosen:
            notes.append(
                f"{len(part['time_stamps'])} samples of '{_name(part)}' with {_form(part)[0]} channels are left out: "
                f"the others have {chosen[0]}"
            )
    parts = [part for part in parts if _form(part) == chosen]
    channels, text = chosen
    lives = [
        np.array(part["time_series"], dtype=object if text else None).reshape(-1, channels)
        for part in sorted(parts, key=lambda p: p["time_stamps"][0] if len(p["time_stamps"]) else np.inf)
    ]
    stamps = [np.asarray(part["time_stamps"], float) for part in parts]
    stamps.sort(key=lambda s: s[0] if len(s) else np.inf)
    info = parts[0]["info"]
    described = _channels(info)
    labels = [_text(c, "label") or f"ch{k}" for k, c in enumerate(described)]
    labels = labels if len(labels) == channels else [f"ch{k}" for k in range(channels)]
    return XdfStream(
        name=_name(parts[0]),
        kind=_kind(parts[0]),
        rate_hz=float(info["nominal_srate"][0]),
        labels=tuple(labels),
        unit=(_text(described[0], "unit") if described else "") or "",
        samples=np.concatenate(lives),
        stamps=np.concatenate(stamps),
        info=info,
    )


def _form(part: dict[str, Any]) -> tuple[int, bool]:
    """Number of channels, and whether they hold text."""
    return int(part["info"]["channel_count"][0]), part["info"]["channel_format"][0] == "string"


def _channels(info: Mapping[str, Any]) -> list[Any]:
    """The <channel> elements of a description."""
    here: Any = info
    for key in ("desc", "channels"):
        here = (here.get(key) or [None])[0] if isinstance(here, Mapping) else None
    found = here.get("channel") if isinstance(here, Mapping) else None
    return found if isinstance(found, list) else []


def _text(element: Any, key: str) -> str | None:
    value = element.get(key) if isinstance(element, Mapping) else None
    return value[0] if isinstance(value, list) and value and isinstance(value[0], str) else None
