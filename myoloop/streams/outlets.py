"""The participant's LSL streams and their metadata."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import pylsl

from myoloop import __version__
from myoloop.body.names import FINGERS, JOINTS, MUSCLES
from myoloop.errors import MyoloopError

STREAM_TYPES = {
    "emg": "EMG",
    "target": "Target",
    "kinematics": "MoCap",
    "reference": "Reference",
    "excitation": "Excitation",
    "feedback": "Feedback",
    "spikes": "MotorUnits",
    "events": "Markers",
    "prediction": "Control",
    "command": "Command",
}
"""LSL stream type of each of a participant's streams, by the suffix of its name."""
PARTICIPANT_STREAMS = tuple(stream for stream in STREAM_TYPES if stream not in ("prediction", "command"))
"""Those that the participant itself sends."""
FEEDBACK_LABELS = (*FINGERS, "age_s", "latency_ms")
"""Channels of the stream `feedback`: the answer as a control step perceives it, how old it is (from the newest EMG sample
behind it; NaN before the first), and the same in ms in the step that first uses it (else NaN)."""
FLUSH_S = 0.3
"""s that listeners are given before a stream closes: liblsl sends in threads of its own, and drops what they have not sent (one
chunk was lost so on a busy machine)."""


def stream_name(participant: str, stream: str) -> str:
    """`<id>_<stream>`, e.g. "myo_emg"."""
    assert stream in STREAM_TYPES
    return f"{participant}_{stream}"


def make_outlet(
    participant: str,
    stream: str,
    labels: Sequence[str],
    unit: str,
    rate_hz: float,
    channel_format: int = pylsl.cf_float32,
    about: dict[str, Any] | None = None,
    channel_type: str = "",
    stable_id: bool = True,
) -> pylsl.StreamOutlet:
    """Opens one outlet with full metadata.

    Args:
      participant: its id.
      stream: one of `STREAM_TYPES`.
      labels: one name a channel.
      unit: of every channel, e.g. "microvolts".
      rate_hz: nominal rate; 0 for irregular streams.
      channel_format: a `pylsl.cf_*` constant.
      about: more facts for the description; nested dictionaries become child elements.
      channel_type: type of every channel; default: the stream's type.
      stable_id: the same source_id at every start; else one of its own, for streams that several may send.

    Raises:
      MyoloopError: liblsl could not open it, which happens when the port range is used up.
    """
    kind = STREAM_TYPES[stream]
    name = stream_name(participant, stream)
    source = f"myoloop_{name}" if stable_id else f"myoloop_{name}_{uuid.uuid4().hex}"
    info = pylsl.StreamInfo(name, kind, len(labels), rate_hz, channel_format, source)
    info.set_channel_labels(list(labels))
    info.set_channel_units(unit)
    info.set_channel_types(channel_type or kind)
    facts = {"manufacturer": "myoloop", "version": __version__, "participant": participant, **(about or {})}
    _append(info.desc(), facts)
    try:
        return pylsl.StreamOutlet(info)
    except RuntimeError as error:
        raise MyoloopError(
            f"LSL could not open the stream '{name}': {error} Its port range may be used up by other programs: "
            "close some, or widen [ports] PortRange in lsl_api.cfg."
        ) from error


def _append(element: Any, facts: dict[str, Any]) -> None:
    for key, value in facts.items():
        if isinstance(value, dict):
            _append(element.append_child(key), value)
        else:
            element.append_child_value(key, str(value))


def refuse_taken_id(participant: str, wait_s: float = 1.0) -> None:
    """Raises MyoloopError if a participant of this id is already on the network."""
    name = stream_name(participant, "emg")
    found = pylsl.resolve_byprop("name", name, minimum=1, timeout=wait_s)
    if found:
        raise MyoloopError(
            f"a stream named '{name}' is already on the network (host {found[0].hostname()}, source "
            f"{found[0].source_id()}). Two participants cannot share an id: stop the other one, or give this one "
            "another participant.id."
        )


def refuse_unfound(infos: Sequence[pylsl.StreamInfo], wait_s: float = 10.0) -> None:
    """Raises MyoloopError if streams of this process cannot be found: liblsl says nothing when its ports are used up.

    Beyond its port range it takes any port, where nobody looks.
    """
    wanted = {info.name() for info in infos}
    query = " or ".join(f"uid='{info.uid()}'" for info in infos)
    found = {info.name() for info in pylsl.resolve_bypred(f"({query})", minimum=len(wanted), timeout=wait_s)}
    if missing := sorted(wanted - found):
        raise MyoloopError(
            f"{len(missing)} of {len(wanted)} streams cannot be found on this machine ({', '.join(missing)}): LSL's port range "
            "may be used up by other programs: close some, or widen [ports] PortRange in lsl_api.cfg."
        )


class ParticipantOutlets:
    """All streams of one participant; every push carries the time of the control step that it belongs to."""

    def __init__(
        self,
        participant: str,
        emg_labels: Sequence[str],
        emg_rate_hz: float,
        control_hz: float,
        emg_about: dict[str, Any] | None = None,
        participant_about: dict[str, Any] | None = None,
        spikes_about: dict[str, Any] | None = None,
        events_about: dict[str, Any] | None = None,
    ):
        def outlet(stream: str, labels: Sequence[str], unit: str, rate: float, **more: Any) -> pylsl.StreamOutlet:
            about = {**(participant_about or {}), **more.pop("about", {})}
            return make_outlet(participant, stream, labels, unit, rate, about=about, **more)

        self.sent = dict.fromkeys(PARTICIPANT_STREAMS, 0)
        """samples pushed so far, by stream"""
        self._open: dict[str, pylsl.StreamOutlet] = {}
        self._open["emg"] = outlet("emg", emg_labels, "microvolts", emg_rate_hz, about={"acquisition": emg_about or {}})
        self._open["target"] = outlet("target", FINGERS, "1 = flexed, 0 = extended", control_hz)
        self._open["kinematics"] = outlet("kinematics", JOINTS, "degrees", control_hz, channel_type="Angle")
        self._open["reference"] = outlet("reference", JOINTS, "degrees", control_hz, channel_type="Angle")
        self._open["excitation"] = outlet("excitation", MUSCLES, "normalized", control_hz)
        self._open["feedback"] = outlet("feedback", FEEDBACK_LABELS, "probability of flexed, s, ms", control_hz)
        self._open["spikes"] = outlet(
            "spikes", ("muscle", "unit"), "index", 0.0, channel_format=pylsl.cf_int32, about=spikes_about or {}
        )
        self._open["events"] = outlet(
            "events", ("event",), "text", 0.0, channel_format=pylsl.cf_string, about=events_about or {}
        )

    def refuse_unfound(self) -> None:
        """Raises MyoloopError if others cannot find the streams, see `refuse_unfound`."""
        refuse_unfound([outlet.get_info() for outlet in self._open.values()])

    @property
    def emg_samples(self) -> int:
        """EMG samples pushed so far."""
        return self.sent["emg"]

    def close(self) -> None:
        """Takes the streams off the network, after what was pushed last has been sent; nothing may be pushed afterwards."""
        if any(outlet.have_consumers() for outlet in self._open.values()):
            time.sleep(FLUSH_S)
        self._open.clear()  # liblsl closes an outlet when its last handle goes

    def emg(self, chunk: np.ndarray, newest: float) -> None:
        """Pushes a chunk, (samples, channels) microvolts; `newest`: the time of its last sample."""
        self._push("emg", chunk, newest)

    def state(
        self, time: float, target: np.ndarray, joints_deg: np.ndarray, wanted_deg: np.ndarray, excitation: np.ndarray
    ) -> None:
        """Pushes one control step's target (5,), joint angles (23,) done and asked for, degrees, and excitations (39,)."""
        self._push("target", np.asarray(target, np.float32)[None], time)
        self._push("kinematics", np.asarray(joints_deg, np.float32)[None], time)
        self._push("reference", np.asarray(wanted_deg, np.float32)[None], time)
        self._push("excitation", np.asarray(excitation, np.float32)[None], time)

    def feedback(self, time: float, values: np.ndarray, age_s: float, latency_ms: float) -> None:
        """Pushes what one control step perceives of the decoder: see `live.feedback.Feedback`, whose NaN go out as NaN."""
        self._push("feedback", np.array([[*values, age_s, latency_ms]], np.float32), time)

    def spikes(self, muscle_and_unit: np.ndarray, times: np.ndarray) -> None:
        """Pushes discharges: (n, 2) indices and (n,) times in ascending order."""
        if len(times):
            self._push("spikes", np.asarray(muscle_and_unit, np.int32), times.tolist())

    def event(self, text: str, time: float = 0.0) -> None:
        """Pushes one marker; time 0: now."""
        self._open["events"].push_sample([text], time)
        self.sent["events"] += 1

    def _push(self, stream: str, samples: np.ndarray, time: float | list[float]) -> None:
        self._open[stream].push_chunk(samples, time)
        self.sent[stream] += len(samples)
