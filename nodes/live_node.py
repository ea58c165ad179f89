"""What the node executables share: a managed node around one object of myoloop.live.

The object runs in a thread of its own and is not held up: its records pass through a bounded queue to a second thread,
which publishes them. The main thread answers services, walks the lifecycle and sends diagnostics.
"""

from __future__ import annotations

import queue
import threading
import traceback
from abc import abstractmethod
from typing import Any

import pylsl
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from node_settings import AT_ANY_TIME, AT_START, Setting
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.lifecycle import LifecycleNode, LifecycleState, Publisher, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import Header

from myoloop.errors import MyoloopError

QUEUE_LIMIT = 250
"""Records of a source that may wait for the publisher thread (5 s of control steps); more are dropped and counted."""

DELIVERY_S = 1.0
"""How long a publisher that ends waits for its last messages to arrive."""

LEVELS = {"ok": DiagnosticStatus.OK, "warn": DiagnosticStatus.WARN, "error": DiagnosticStatus.ERROR}


class LiveNode(LifecycleNode):
    """A managed node that owns one live object from configure to cleanup."""

    def __init__(self, name: str, settings: tuple[Setting, ...]):
        super().__init__(name)
        self.live: Any = None
        self.failure: BaseException | None = None
        """why the last transition or the loop failed"""
        self.ended = threading.Event()
        """set when the loop has ended by itself"""
        self._advertised = False
        self.building = False
        """whether a live object is being made, which takes seconds and may be interrupted"""
        self.sources = 1
        """how many send a record each control step"""
        self.simulated = False
        """whether the session's time is simulated: then ROS time is the time of its streams"""
        self._fixed = {setting.name: setting for setting in settings}
        self._live_settings: dict[str, Setting] = {}
        self._following = False  # parameters are being brought to what the live object says
        for setting in settings:
            self.declare_parameter(setting.name, setting.default, setting.descriptor())
        self.add_on_set_parameters_callback(self._on_set)
        self.add_post_set_parameters_callback(self._after_set)
        self._records: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._dropped = 0
        self._thread: threading.Thread | None = None
        self._offset_s = 0.0
        self._newest: Time | None = None
        self._told_dropped = 0
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # also while a simulated time stands still
        self.create_timer(1.0, self._each_second, clock=steady)
        self.create_timer(0.1, self._look_after, clock=steady)

    # --- to be filled in -------------------------------------------------------------------------------------------

    @abstractmethod
    def build(self) -> Any:
        """Makes the live object from the parameters; MyoloopError says what is wrong with them."""

    @abstractmethod
    def advertise(self) -> None:
        """Makes the publishers and services."""

    @abstractmethod
    def withdraw(self) -> None:
        """Destroys them."""

    @abstractmethod
    def publish(self, record: Any) -> None:
        """Sends one record of the live object; called from the publisher thread."""

    def live_settings(self) -> tuple[Setting, ...]:
        """What of the configured live object is a parameter, with its values now."""
        return ()

    def apply(self, changed: dict[str, Any]) -> None:
        """Passes on live settings that were changed, name -> value; they are within their ranges."""

    def parts(self, status: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The live object's status as entries of /diagnostics, by the last part of their names; each with level and message."""
        return {"live": status}

    @property
    def settled(self) -> bool:
        """Whether nothing is to be waited for before the node ends."""
        return True

    # --- lifecycle -------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self.building = True
            try:
                self.live = self.build()
            finally:
                self.building = False
            self.simulated = self.live.experiment.clock.kind != "realtime"
            self.live.subscribe(self._take)
            self.advertise()
            self._advertised = True
            self._declare_live()
        except MyoloopError as error:
            return self._refuse(error)
        except (InvalidParameterValueException, InvalidParameterTypeException) as error:
            return self._refuse(MyoloopError(explained(error)))
        except Exception as error:
            traceback.print_exc()
            return self._refuse(error)
        self.failure = None
        self.ended.clear()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        done = super().on_activate(state)  # enables the publishers
        self._measure_offset()
        self._records = queue.SimpleQueue()  # nothing of an earlier activation
        self._thread = threading.Thread(target=self._publish_all, name="publisher", daemon=True)
        self._thread.start()
        self.live.start()
        return done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._halt()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._free()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.abandon()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.abandon()
        return TransitionCallbackReturn.SUCCESS

    def abandon(self) -> None:
        """Gives everything back from within a transition that was interrupted."""
        self._halt()
        self._free()

    @property
    def state(self) -> str:
        """unconfigured, inactive, active or finalized."""
        return str(self._state_machine.current_state[1])

    def destroy_delivered(self, publisher: Publisher) -> None:
        """Destroys a publisher when what it sent has arrived, or cannot be waited for any longer."""
        publisher.wait_for_all_acked(Duration(seconds=DELIVERY_S))
        self.destroy_lifecycle_publisher(publisher)

    def _refuse(self, error: Exception) -> TransitionCallbackReturn:
        self.failure = error
        self._free()
        if not self.value("autostart"):  # with autostart main says it, as its last word
            self.get_logger().error(str(error))
        return TransitionCallbackReturn.FAILURE

    def _halt(self) -> None:
        if self.live is not None:
            self.live.stop()
        if self._thread is not None:
            self._records.put(None)
            self._thread.join()
            self._thread = None

    def _free(self) -> None:
        if self._advertised:
            self._advertised = False
            self.withdraw()  # before the streams: the recorder of topics sees that nothing more will come
        if self.live is not None:
            self.live.close()
            self.live = None
        for name in self._live_settings:
            if self.has_parameter(name):
                self.undeclare_parameter(name)
        self._live_settings = {}
        self._newest = None

    # --- parameters ------------------------------------------------------------------------------------------------

    def value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        """Whether these may be set; nothing is changed yet."""
        for parameter in parameters:
            fixed, live = self._fixed.get(parameter.name), self._live_settings.get(parameter.name)
            reason = ""
            if fixed and (self.state != "unconfigured" or fixed.when == AT_START):
                reason = fixed.when
            elif live and not self._following and live.when != AT_ANY_TIME:
                reason = live.when
            if reason:
                return SetParametersResult(
                    successful=False, reason=f"'{parameter.name}': {reason} (state: {self.state})."
                )
        return SetParametersResult(successful=True)

    def _after_set(self, parameters: list[Parameter]) -> None:
        changed = {p.name: p.value for p in parameters if p.name in self._live_settings}
        if changed and not self._following:
            self.apply(changed)

    def _declare_live(self) -> None:
        """Makes parameters of what the live object lets be changed; what was given from outside replaces its values."""
        changed = {}
        for setting in self.live_settings():
            given = self.declare_parameter(setting.name, setting.default, setting.descriptor()).value
            self._live_settings[setting.name] = setting
            if given != setting.default:
                if setting.when != AT_ANY_TIME:
                    raise MyoloopError(f"parameter '{setting.name}': {setting.when}.")
                changed[setting.name] = given
        if changed:
            self.apply(changed)

    def follow(self) -> None:
        """Brings the parameters to what the live object says: services and the experiment's changes set the same things."""
        now = {s.name: s.default for s in self.live_settings() if s.name in self._live_settings}
        moved = [Parameter(name, value=value) for name, value in now.items() if self.value(name) != value]
        if moved:
            self._following = True
            try:
                self.set_parameters(moved)
            finally:
                self._following = False

    # --- from the loop to the topics -------------------------------------------------------------------------------

    def _take(self, record: Any) -> None:
        """Called from the loop's thread with each record."""
        if self._records.qsize() < QUEUE_LIMIT * self.sources:
            self._records.put(record)
        else:
            self._dropped += 1

    def _publish_all(self) -> None:
        try:
            while (record := self._records.get()) is not None:
                self.publish(record)
        except Exception as error:  # topics fall silent, the loop goes on: diagnostics must say so
            traceback.print_exc()
            self.failure = error

    def stamp(self, lsl_time: float) -> Time:
        """ROS time of an LSL time: with the offset between the clocks, or, of simulated time, as it is."""
        seconds, fraction = divmod(lsl_time + (0.0 if self.simulated else self._offset_s), 1.0)
        self._newest = Time(sec=int(seconds), nanosec=int(fraction * 1e9))
        return self._newest

    def _measure_offset(self) -> None:
        """ROS time minus LSL time, s: of five pairs of readings the one that lay closest together."""
        pairs = []
        for _ in range(5):
            before = pylsl.local_clock()
            ros = self.get_clock().now().nanoseconds * 1e-9
            after = pylsl.local_clock()
            pairs.append((after - before, ros - (before + after) / 2))
        self._offset_s = min(pairs)[1]

    # --- now and then ----------------------------------------------------------------------------------------------

    def _look_after(self) -> None:
        """Notices that the loop has ended."""
        if self.state == "active" and not self.live.running and not self.ended.is_set():
            self.failure = self.live.error
            self.ended.set()

    def _each_second(self) -> None:
        self._measure_offset()
        dropped, self._told_dropped = self._dropped - self._told_dropped, self._dropped
        node: dict[str, Any] = {"level": "ok", "message": self.state, "state": self.state}
        if self.failure is not None:
            node |= {"level": "error", "message": str(self.failure)}
        elif dropped:
            node |= {"level": "warn", "message": f"{dropped} messages could not be published in time"}
        node |= {"ros_messages_dropped": self._dropped, "ros_minus_lsl_time_s": round(self._offset_s, 6)}
        entries = {"managed node": node}
        if self.live is not None:
            self.follow()
            entries |= self.parts(self.live.status())
        stamp = self._newest if self.simulated and self._newest else self.get_clock().now().to_msg()
        statuses = [self._diagnosis(part, about) for part, about in entries.items()]
        self._diagnostics.publish(DiagnosticArray(header=Header(stamp=stamp), status=statuses))

    def _diagnosis(self, part: str, about: dict[str, Any]) -> DiagnosticStatus:
        """One entry of /diagnostics; `level` and `message` are taken out of `about`, the rest are its values."""
        values = [KeyValue(key=key, value=_shown(v)) for key, v in about.items() if key not in ("level", "message")]
        return DiagnosticStatus(
            level=LEVELS[about["level"]],
            name=f"{self.get_fully_qualified_name()}: {part}",
            message=str(about["message"]),
            hardware_id=str(self.value("participant") or self.get_namespace().strip("/")),
            values=values,
        )


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return " ".join(_shown(v) for v in value)
    if isinstance(value, dict):
        return " ".join(f"{key}={_shown(v)}" for key, v in value.items())
    return "" if value is None else str(value)


def explained(error: Exception) -> str:
    """What ROS says of a parameter that was given a wrong value or type, and what to do."""
    if isinstance(error, InvalidParameterTypeException):
        return f"{error}. Numbers: a DOUBLE is written with a point (20.0), an INTEGER without."
    return str(error)
