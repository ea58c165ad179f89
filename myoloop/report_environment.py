"""Where a session ran: machine, versions, seed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from myoloop import __version__
from myoloop.machine import processor

PACKAGES = ("mujoco", "myo-sim", "jax", "numpy", "pylsl", "onnxruntime", "ros-rclpy")
"""Those whose versions a report tells."""


def environment(config: dict[str, Any]) -> dict[str, Any]:
    """The section of report.json; `config`: the resolved experiment."""
    versions = {"myoloop": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "engine": config["participant"]["engine"],
        "device": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "ros": config["ros"],
        "versions": versions,
        "seed": config["seed"],
    }
