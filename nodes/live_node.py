"""What the node executables share: a managed node around one object of myoloop.live.

The object runs in a thread of its own and is not held up: its records pass through a bounded queue to a second thread,
which publishes them. The main thread answers services, walks the lifecycle and sends diagnostics.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import traceback
from abc import abstractmethod
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pylsl
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from std_msgs.msg import Header

from myoloop.errors import MyoloopError
from myoloop.machine import keep_compiled

QUEUE_LIMIT = 250
"""Records that may wait for the publisher thread (5 s of control steps); more are dropped and counted."""

LEVELS = {"ok": DiagnosticStatus.OK, "warn": DiagnosticStatus.WARN, "error": DiagnosticStatus.ERROR}


class Setting(NamedTuple):
    """A parameter: read when the node is configured."""

    name: str
    default: str | float | int | bool
    description: str
    low: float | None = None
    high: float | None = None

    def descriptor(self) -> ParameterDescriptor:
        about = ParameterDescriptor(description=self.description)
        if self.low is None or self.high is None:
            return about
        if isinstance(self.default, float):
            about.floating_point_range = [FloatingPointRange(from_value=self.low, to_value=self.high, step=0.0)]
        else:
            about.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)]
        return about


COMMON = (
    Setting("experiment", "experiments/closed_loop.yaml", "experiment file; also looked for among the shipped ones"),
    Setting("participant", "", "id of the participant; empty: the experiment's"),
    Setting("run_dir", "", "folder for status and logs of the run; empty: none"),
    Setting("autostart", False, "configure and activate without being asked; end if that fails"),
)


class LiveNode(LifecycleNode):
    """A managed node that owns one live object from configure to cleanup."""

    def __init__(self, name: str, settings: tuple[Setting, ...]):
        super().__init__(name)
        self.live: Any = None
        self.failure: BaseException | None = None
        """why the last transition or the loop failed"""
        self.ended = threading.Event()
        """set when the loop has ended by itself"""
        self._settings = settings
        for setting in settings:
            self.declare_parameter(setting.name, setting.default, setting.descriptor())
        self.add_on_set_parameters_callback(self._on_set)
        self._records: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._dropped = 0
        self._thread: threading.Thread | None = None
        self._offset_s = 0.0
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(1.0, self._each_second)
        self.create_timer(0.1, self._look_after)

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

    # --- lifecycle -------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self.live = self.build()
            self.live.subscribe(self._take)
            self.advertise()
        except MyoloopError as error:
            return self._refuse(error)
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
        self._halt()
        self._free()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._halt()
        self._free()
        return TransitionCallbackReturn.SUCCESS

    @property
    def state(self) -> str:
        """unconfigured, inactive, active or finalized."""
        return str(self._state_machine.current_state[1])

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
        if self.live is not None:
            self.live.close()
            self.withdraw()
            self.live = None

    # --- parameters ------------------------------------------------------------------------------------------------

    def value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        ours = [p.name for p in parameters if p.name in {s.name for s in self._settings}]
        if ours and self.state != "unconfigured":
            reason = f"'{ours[0]}' is read when the node is configured: clean up first (state now: {self.state})."
            return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    # --- from the loop to the topics -------------------------------------------------------------------------------

    def _take(self, record: Any) -> None:
        """Called from the loop's thread with each record."""
        if self._records.qsize() < QUEUE_LIMIT:
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
        """ROS time of an LSL time."""
        seconds, fraction = divmod(lsl_time + self._offset_s, 1.0)
        return Time(sec=int(seconds), nanosec=int(fraction * 1e9))

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
        status = {"level": "ok", "message": self.state}
        if self.failure is not None:
            status = {"level": "error", "message": str(self.failure)}
        elif self.live is not None:
            status = {**self.live.status(), "state": self.state, "ros_messages_dropped": self._dropped}
            status["ros_minus_lsl_time_s"] = round(self._offset_s, 6)
        about = DiagnosticStatus(
            level=LEVELS[status.pop("level")],
            name=self.get_fully_qualified_name(),
            message=str(status.pop("message")),
            hardware_id=str(self.value("participant") or self.get_namespace().strip("/")),
            values=[KeyValue(key=key, value=_shown(value)) for key, value in status.items()],
        )
        self._diagnostics.publish(DiagnosticArray(header=Header(stamp=self.get_clock().now().to_msg()), status=[about]))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return " ".join(_shown(v) for v in value)
    return "" if value is None else str(value)


class Stop:
    """SIGINT and SIGTERM, however often they come: a flag, and an end to a long configure."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.interruptible = False
        """while this is true the first signal raises KeyboardInterrupt in the main thread"""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        again = self.asked.is_set()
        self.asked.set()
        if self.interruptible and not again:
            raise KeyboardInterrupt


class ToRos(logging.Handler):
    """Passes the library's messages on to ROS."""

    def __init__(self, node: LifecycleNode):
        super().__init__()
        self._logger = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        say = self._logger.warning if record.levelno >= logging.WARNING else self._logger.info
        say(record.getMessage())


def main(make: type[LiveNode]) -> int:
    """Runs a node until it is told to stop or its loop ends.

    Returns:
      Exit status: 0 stopped or finished; 2 bad parameters, experiment or model (one line on stderr); 1 anything else.
    """
    stop = Stop()
    unknown = remove_ros_args(sys.argv)[1:]
    if unknown:
        print(f"unexpected argument '{unknown[0]}': parameters go as --ros-args -p NAME:=VALUE", file=sys.stderr)
        return 2
    if (Path(sys.prefix) / "share" / "ament_index").is_dir():  # ROS 2 from wheels: nobody sources a setup file
        os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    keep_compiled()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    node = None
    failure: BaseException | None = None
    try:
        node = make()
        executor.add_node(node)
        logging.getLogger("myoloop").addHandler(ToRos(node))
        logging.getLogger("myoloop").propagate = False
        stop.interruptible = True
        if node.value("autostart"):
            if node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                node.trigger_activate()
            failure = node.failure
        while failure is None and not stop.asked.is_set() and not node.ended.is_set() and node.state != "finalized":
            executor.spin_once(timeout_sec=0.2)
        if node.ended.is_set():
            failure = node.failure
        if node.state == "finalized":  # let the answer to whoever asked for it get out
            executor.spin_once(timeout_sec=0.5)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except InvalidParameterValueException as error:
        failure = MyoloopError(str(error))
    except InvalidParameterTypeException as error:
        failure = MyoloopError(f"{error}. Numbers: a DOUBLE is written with a point (20.0), an INTEGER without.")
    finally:
        stop.interruptible = False
        if node is not None:
            if node.state in ("unconfigured", "inactive", "active"):
                node.trigger_shutdown()
            node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()
    if failure is None:
        return 0
    print(f"{Path(sys.argv[0]).name}: {failure}", file=sys.stderr)
    return 2 if isinstance(failure, MyoloopError) else 1
