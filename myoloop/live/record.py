"""What a participant's control steps leave behind: a row of the step log each, and a record for those who watch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from myoloop.body.names import JOINTS, MUSCLES

STEP_COLUMNS = [
    ("started", 1), ("policy_emg_ms", 1), ("push_ms", 1), ("body_ms", 1), ("step_ms", 1),
    ("target", 5), ("reference", 5), ("prediction", 5), ("prediction_age_s", 1), ("stale", 1),
    ("feedback_latency_ms", 1), ("answer_ms", 1), ("waited_ms", 1),
    ("joints_deg", len(JOINTS)), ("wanted_deg", len(JOINTS)), ("excitation", len(MUSCLES)),
]  # fmt: skip
"""Columns of steps.rows, one row a control step. `started`: seconds after `time`, the step's deadline. `answer_ms`: in the step
that first uses a prediction, from sending the EMG behind it to its arrival, on the wall clock. `waited_ms`: how long, on the
wall clock, the step was kept waiting for the decoder, in lockstep."""


class StepRecord(NamedTuple):
    """One control step, for those who watch (ROS nodes, viewers)."""

    step: int
    lsl_time: float
    step_ms: float
    target: np.ndarray
    prediction: np.ndarray
    prediction_age_s: float
    stale: bool
    feedback_latency_ms: float
    reference: np.ndarray
    joints_deg: np.ndarray
    joint_velocity_deg: np.ndarray
    excitation: np.ndarray
    fingertips: np.ndarray
    effort: float
    accuracy: float
    chunk: np.ndarray
    first_sample: int
    participant: str
    """its id"""


class Info(NamedTuple):
    """What does not change during a session."""

    id: str
    channel_labels: tuple[str, ...]
    rate_hz: float
    joint_names: tuple[str, ...] = JOINTS
