"""What the nodes of one live participant and of a population share: topics for each participant, and services."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from live_node import LiveNode
from myoloop_msgs.msg import EmgChunk, ParticipantState
from myoloop_msgs.srv import Perturb, Reset, SetCondition, SetTarget
from node_settings import COMMON, Setting
from rclpy.lifecycle import Publisher
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from myoloop.errors import MyoloopError

SETTINGS = (
    *COMMON,
    Setting("duration", 0.0, "length of the session, seconds; 0: the experiment's", 0.0, 86400.0),
    Setting("seed", -1, "seed of everything random; -1: the experiment's", -1, 2**31 - 1),
)

DEPTH = 1000
"""Messages of a reliable topic kept for a listener that is behind: 20 s of control steps, or some seconds in lockstep."""


class ParticipantNode(LiveNode):
    """Runs a live loop; publishes what its participants do and passes requests on."""

    def __init__(self, name: str):
        super().__init__(name, SETTINGS)

    @abstractmethod
    def prefixes(self) -> dict[str, str]:
        """What stands before the names of each participant's topics, by its id."""

    def overrides(self) -> dict[str, Any]:
        """The experiment's keys that parameters replace."""
        changes: dict[str, Any] = {}
        if self.value("duration") > 0:
            changes["duration_s"] = self.value("duration")
        if self.value("seed") >= 0:
            changes["seed"] = self.value("seed")
        return changes

    def advertise(self) -> None:
        self._topics = {name: self._make_topics(prefix) for name, prefix in self.prefixes().items()}
        self.sources = max(1, len(self._topics))
        # reliable, as it is heard by both kinds of subscribers; only the newest time matters
        self._time = self.create_lifecycle_publisher(Clock, "/clock", QoSProfile(depth=1)) if self.simulated else None
        self._told = float("-inf")
        self._offered = [
            self.create_service(Reset, "reset", self._answer(self._reset)),
            self.create_service(SetTarget, "set_target", self._answer(self._set_target)),
            self.create_service(Perturb, "perturb", self._answer(self._perturb)),
            self.create_service(SetCondition, "set_condition", self._answer(self._set_condition)),
        ]

    def _make_topics(self, prefix: str) -> tuple[Publisher, Publisher, Publisher]:
        return (
            self.create_lifecycle_publisher(ParticipantState, f"{prefix}state", DEPTH),
            self.create_lifecycle_publisher(EmgChunk, f"{prefix}emg", qos_profile_sensor_data),
            self.create_lifecycle_publisher(JointState, f"{prefix}joint_states", DEPTH),
        )

    def withdraw(self) -> None:
        topics = [publisher for each in self._topics.values() for publisher in each]
        for publisher in (*topics, self._time):
            if publisher is not None:
                self.destroy_delivered(publisher)
        for service in self._offered:
            self.destroy_service(service)

    def publish(self, record: Any) -> None:
        stamp = self.stamp(record.lsl_time)
        if self._time is not None and record.lsl_time != self._told:
            self._told = record.lsl_time
            self._time.publish(Clock(clock=stamp))  # first: whoever gets what follows knows its time
        state, emg, joints = self._topics[record.participant]
        state.publish(
            ParticipantState(
                header=Header(stamp=stamp, frame_id="wrist"),
                lsl_time=record.lsl_time,
                step=record.step,
                target=_floats(record.target),
                flexion=_floats(record.reference),
                prediction=_floats(record.prediction),
                prediction_age=float(record.prediction_age_s),
                prediction_stale=bool(record.stale),
                feedback_latency_ms=float(record.feedback_latency_ms),
                excitation=_floats(record.excitation),
                effort=float(record.effort),
                fingertips=[Point(x=x, y=y, z=z) for x, y, z in np.asarray(record.fingertips, float).tolist()],
                accuracy=float(record.accuracy),
                step_ms=float(record.step_ms),
            )
        )
        samples, channels = record.chunk.shape
        data = array("f")
        data.frombytes(np.ascontiguousarray(record.chunk, np.float32).tobytes())
        emg.publish(
            EmgChunk(
                header=Header(stamp=stamp),
                lsl_time=record.lsl_time,
                rate_hz=self.live.info.rate_hz,
                first_sample=record.first_sample,
                samples=samples,
                channels=channels,
                data=data,
            )
        )
        joints.publish(
            JointState(
                header=Header(stamp=stamp),
                name=list(self.live.info.joint_names),
                position=array("d", np.radians(record.joints_deg)),
                velocity=array("d", np.radians(record.joint_velocity_deg)),
            )
        )

    # --- services --------------------------------------------------------------------------------------------------

    def _answer(self, act: Callable[[Any], None]) -> Callable[[Any, Any], Any]:
        """A service callback that carries out a request and says what was wrong if it cannot."""

        def answer(request: Any, response: Any) -> Any:
            try:
                if self.state != "active":
                    raise MyoloopError(f"the participant is {self.state}: activate the node first.")
                act(request)
                response.success = True
            except MyoloopError as error:
                response.success, response.message = False, str(error)
            return response

        return answer

    def _reset(self, request: Reset.Request) -> None:
        if request.seed < -1:
            raise MyoloopError(f"seed is {request.seed}: expected -1 (the experiment's) or 0 and more.")
        self.live.requests.reset(None if request.seed == -1 else request.seed)

    def _set_target(self, request: SetTarget.Request) -> None:
        self.live.requests.set_target(request.target, request.duration)

    def _perturb(self, request: Perturb.Request) -> None:
        self.live.requests.perturb(
            request.finger, (request.force.x, request.force.y, request.force.z), request.duration
        )

    def _set_condition(self, request: SetCondition.Request) -> None:
        self.live.requests.set_condition(request.name, request.strength)


def _floats(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)
