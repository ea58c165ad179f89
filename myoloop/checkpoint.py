"""Checkpoints: any tree of arrays in one self-contained file that says what it is and notices damage.

The file is in the safetensors format: a JSON header and plain numbers, nothing that could run. The header also holds
the kind and format of the checkpoint, a configuration, who wrote it with which libraries, and a SHA-256 over all of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import serialization, traverse_util

import myoloop
from myoloop.errors import MyoloopError

FORMAT = 1
"""Version of this layout of the file."""

_MARK = "myoloop checkpoint"
_LIBRARIES = ("jax", "flax", "optax", "numpy", "mujoco")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds."""

    tree: Any
    """The arrays: nested dicts with string keys, or shaped like `like` when that was given to `load`."""
    kind: str
    """What they are, e.g. 'decoder_tcn'."""
    version: int
    """Version of the kind."""
    config: dict[str, Any]
    """How to rebuild what the arrays belong to; anything JSON can hold."""
    made_by: dict[str, str]
    """Versions of the libraries, and the git revision when there was one."""


def save(path: str | Path, tree: Any, *, kind: str, config: Mapping[str, Any] | None = None, version: int = 1) -> None:
    """Write a checkpoint, whole or not at all: a kill or a full disk leaves the file that was there before.

    Args:
      path: where to write; folders are made.
      tree: arrays and numbers in any pytree that flax can serialise: dicts, lists, named tuples, flax.struct classes,
        optax states, PRNG keys.
      kind: what it is; `load` asks for the same.
      config: JSON-able description needed to use the arrays.
      version: of the kind: raise it when old files can no longer be used.
    """
    path = Path(path)
    arrays, notes = _flatten(tree)
    header = {
        "mark": _MARK,
        "format": FORMAT,
        "kind": kind,
        "version": version,
        "config": dict(config or {}),
        "notes": notes,
        "made_by": _made_by(),
    }
    try:
        text = json.dumps(header, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MyoloopError(f"{path}: the checkpoint's config cannot be written as JSON: {error}.") from error
    sealed = json.dumps({"header": text, "sha256": _digest(arrays, text)})
    content = safetensors.numpy.save(arrays, {"checkpoint": sealed})
    write_atomically(path, content)


def load(path: str | Path, *, kind: str, version: int = 1, like: Any = None) -> Checkpoint:
    """Read a checkpoint.

    Args:
      path: the file.
      kind, version: what it must be.
      like: a tree of the same structure; the result then has its types (named tuples, optax states), and shapes and
        types of all arrays are checked against it.

    Raises:
      MyoloopError: not a checkpoint, damaged, truncated, or of another kind, version or structure.
    """
    path = Path(path)
    arrays, header = _read(path)
    if header["kind"] != kind:
        raise MyoloopError(
            f"{path}: this checkpoint holds a '{header['kind']}', expected a '{kind}'. Give the path of a '{kind}' "
            "checkpoint."
        )
    if header["version"] != version:
        raise MyoloopError(
            f"{path}: '{kind}' checkpoint of version {header['version']}, this myoloop reads version {version}. It "
            f"was made by myoloop {header['made_by'].get('myoloop', '?')}: use that, or train again."
        )
    state = _unflatten(arrays, header["notes"])
    tree = state if like is None else _shape_like(like, state, path)
    return Checkpoint(tree, kind, version, header["config"], header["made_by"])


def kind_of(path: str | Path) -> str:
    """What an undamaged checkpoint says that it holds; else a MyoloopError as from `load`."""
    return str(_read(Path(path))[1]["kind"])


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file beside the target, flush it to the disk, and rename it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise MyoloopError(
            f"{path}: cannot be written ({error.strerror}). Check the folder and the space on the disk; a file that "
            "was there before is unchanged."
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and header of an undamaged checkpoint file of this format."""
    if not path.is_file():
        raise MyoloopError(f"{path}: no such file. Give the path of a checkpoint (.safetensors).")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except OSError as error:
        raise MyoloopError(f"{path}: cannot be read ({error}).") from error
    except Exception as error:  # safetensors raises its own class, and TypeError for unknown types
        raise MyoloopError(
            f"{path}: not a checkpoint, or a truncated one ({path.stat().st_size} bytes): {error}. Copy it again, or "
            "train again."
        ) from error
    try:
        sealed = json.loads(about["checkpoint"])
        text, digest = sealed["header"], sealed["sha256"]
        header = json.loads(text)
        mark, format_version = header["mark"], header["format"]
    except (KeyError, TypeError, json.JSONDecodeError):
        mark = None
    if mark != _MARK:
        raise MyoloopError(f"{path}: a safetensors file, but not a myoloop checkpoint. Give a file that myoloop wrote.")
    if format_version != FORMAT:
        raise MyoloopError(
            f"{path}: checkpoint format {format_version}, this myoloop reads format {FORMAT}. Use the myoloop that "
            "made it."
        )
    if digest != _digest(arrays, text):
        raise MyoloopError(f"{path}: damaged: its checksum does not fit its content. Copy it again, or train again.")
    return arrays, header


def _flatten(tree: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A tree -> arrays by path, and notes on what an array alone cannot say: empty branches, None, PRNG keys."""
    state = serialization.to_state_dict(jax.tree.map(lambda leaf: leaf, tree))
    flat = traverse_util.flatten_dict(state if isinstance(state, dict) else {"": state}, keep_empty_nodes=True)
    arrays: dict[str, np.ndarray] = {}
    notes: dict[str, Any] = {"empty": [], "none": [], "keys": {}, "bare": not isinstance(state, dict)}
    for parts, leaf in flat.items():
        if any("/" in part for part in parts):
            raise MyoloopError(f"a checkpoint's names cannot contain '/'; found {parts}.")
        name = "/".join(parts)
        if leaf is traverse_util.empty_node:
            notes["empty"].append(name)
        elif leaf is None:
            notes["none"].append(name)
        elif isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            notes["keys"][name] = str(jax.random.key_impl(leaf))
            arrays[name] = np.array(jax.random.key_data(leaf), order="C")
        else:
            array = np.array(leaf, order="C")
            if array.dtype.kind not in "biufV" or array.dtype.names:
                found = f"{type(leaf).__name__} {array.dtype}"
                raise MyoloopError(f"a checkpoint holds arrays of numbers; '{name}' is {found}.")
            arrays[name] = array
    return arrays, notes


def _unflatten(arrays: Mapping[str, np.ndarray], notes: Mapping[str, Any]) -> Any:
    flat: dict[tuple[str, ...], Any] = {}
    for name, array in arrays.items():
        impl = notes["keys"].get(name)
        leaf = array if impl is None else jax.random.wrap_key_data(jnp.asarray(array), impl=impl)
        flat[tuple(name.split("/"))] = leaf
    for name in notes["none"]:
        flat[tuple(name.split("/"))] = None
    for name in notes["empty"]:
        flat[tuple(name.split("/"))] = traverse_util.empty_node
    state = traverse_util.unflatten_dict(flat)
    return state[""] if notes["bare"] else state


def _shape_like(like: Any, state: Any, path: Path) -> Any:
    """The state as the types of `like`, after checking that every array has the expected shape and type."""
    expected, found = _outline(like), _outline(state)
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if differing:
        first = differing[0]
        raise MyoloopError(
            f"{path}: does not fit what it is loaded into: '{first}' is {found.get(first, 'missing')}, expected "
            f"{expected.get(first, 'nothing')} ({len(differing)} differ). Load it with the configuration it was made "
            "with."
        )
    return serialization.from_state_dict(like, state)


def _outline(tree: Any) -> dict[str, str]:
    arrays, notes = _flatten(tree)
    outline = {name: f"{array.dtype} {array.shape}" for name, array in arrays.items()}
    return outline | {name: "empty" for name in notes["empty"]} | {name: "None" for name in notes["none"]}


def _digest(arrays: Mapping[str, np.ndarray], header: str) -> str:
    """SHA-256 over the header and every array's name, type, shape and bytes."""
    sha = hashlib.sha256(header.encode())
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(f"{name} {array.dtype.name} {array.shape}".encode())
        sha.update(np.array(array, order="C").tobytes())
    return sha.hexdigest()


def _made_by() -> dict[str, str]:
    """Versions worth knowing when a file must be made again."""
    made_by = {"myoloop": myoloop.__version__}
    for name in _LIBRARIES:
        try:
            made_by[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    revision = git_revision()
    return made_by | ({"git": revision} if revision else {})


def git_revision() -> str | None:
    """The commit of the source this runs from, '-dirty' after it when files changed; None outside a git checkout."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    command = ["git", "-C", str(here.parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None
