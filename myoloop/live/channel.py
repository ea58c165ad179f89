"""What a participant and its learner say to each other, as bytes: arrays by name, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors.numpy import load, save

from myoloop.learn.heard import Answers, Steps

END = b"end"
"""The participant's last word: the session is over."""


def pack_greeting(about: Mapping[str, Any]) -> bytes:
    """The first message: who is to learn, and how."""
    return json.dumps(about).encode()


def unpack_greeting(message: bytes) -> dict[str, Any]:
    """The same as it was packed."""
    return json.loads(message)  # type: ignore[no-any-return]


def pack_experience(steps: Sequence[tuple[Any, ...]], answers: Sequence[tuple[float, np.ndarray]]) -> bytes:
    """Rows of `Steps` and of `Answers`; at least one step."""
    columns = dict(zip(Steps._fields, (np.stack(column) for column in zip(*steps, strict=True)), strict=True))
    times = np.array([time for time, _ in answers], np.float64)
    values = np.array([value for _, value in answers], np.float32).reshape(len(answers), 5)
    return save({**columns, "answer_time": times, "answer": values})


def unpack_experience(message: bytes) -> tuple[Steps, Answers]:
    """The same as arrays."""
    found = load(message)
    return Steps(*[found[name] for name in Steps._fields]), Answers(found["answer_time"], found["answer"])


def pack_policy(params: Any, about: Mapping[str, float]) -> bytes:
    """Parameters of a policy's network, and numbers by name."""
    flat = traverse_util.flatten_dict(params, sep="/")
    numbers = {f"about/{name}": np.float64(value).reshape(1) for name, value in about.items()}
    return save({f"params/{name}": np.ascontiguousarray(x) for name, x in flat.items()} | numbers)


def unpack_policy(message: bytes) -> tuple[Any, dict[str, float]]:
    """The same, the parameters as NumPy arrays."""
    found = load(message)
    params = {name.removeprefix("params/"): x for name, x in found.items() if name.startswith("params/")}
    about = {name.removeprefix("about/"): float(x[0]) for name, x in found.items() if name.startswith("about/")}
    return traverse_util.unflatten_dict(params, sep="/"), about
