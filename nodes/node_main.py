"""How a node executable runs: signals, the library's messages, its exit status."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import rclpy
from live_node import LiveNode, explained
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from myoloop.errors import MyoloopError
from myoloop.machine import keep_compiled, leave

RAISE_AGAIN_S = 0.05
"""s after which an interrupt that Python dropped comes again."""


class Stop:
    """SIGINT and SIGTERM, however often they come: a flag, and an end to a long configure."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.interruptible: Callable[[], bool] = lambda: False
        """while this says true a signal raises KeyboardInterrupt in the main thread"""
        self.interrupted = False
        """whether one did"""
        self._swallowed = False
        sys.unraisablehook = self._on_unraisable
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        again = self.asked.is_set()
        self.asked.set()
        if self.interruptible() and (self._swallowed or not again):
            self.interrupted, self._swallowed = True, False
            raise KeyboardInterrupt

    def _on_unraisable(self, what: Any) -> None:
        """Python drops what is raised in its own callbacks, as in JAX's after a garbage collection: it is raised once more."""
        if what.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(what)
            return
        self._swallowed = True
        threading.Timer(RAISE_AGAIN_S, signal.raise_signal, [signal.SIGINT]).start()


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
        node = made = make()
        executor.add_node(node)
        logging.getLogger("myoloop").addHandler(ToRos(node))
        logging.getLogger("myoloop").propagate = False
        stop.interruptible = lambda: made.building
        if node.value("autostart"):
            if node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                node.trigger_activate()
            failure = node.failure
        while failure is None and not stop.asked.is_set() and not node.ended.is_set() and node.state != "finalized":
            executor.spin_once(timeout_sec=0.2)
        if node.ended.is_set():
            failure = node.failure
        while failure is None and node.state == "active" and not node.settled:
            executor.spin_once(timeout_sec=0.05)
        if node.state == "finalized":  # let the answer to whoever asked for it get out
            executor.spin_once(timeout_sec=0.5)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (InvalidParameterValueException, InvalidParameterTypeException) as error:
        failure = MyoloopError(explained(error))
    finally:
        if node is not None:
            if node.state in ("unconfigured", "inactive", "active"):
                node.trigger_shutdown()
            else:  # interrupted within a transition
                node.abandon()
            node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()
    status = 0
    if failure is not None:
        print(f"{Path(sys.argv[0]).name}: {failure}", file=sys.stderr)
        status = 2 if isinstance(failure, MyoloopError) else 1
    if stop.interrupted:
        leave(status)
    return status
