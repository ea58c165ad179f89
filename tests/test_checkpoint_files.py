"""Checkpoints: exact, self-contained, and refused by name when they are not what they should be."""

from __future__ import annotations

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from myoloop import checkpoint
from myoloop.errors import MyoloopError


class Pair(NamedTuple):
    left: jax.Array
    right: list


@flax.struct.dataclass
class State:
    params: dict
    optimiser: optax.OptState
    pair: Pair
    step: int
    key: jax.Array


def make_state() -> State:
    params = {"dense": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.full(3, 1e-30)}, "empty": {}}
    pair = Pair(jnp.array(True), [np.int64(3), np.float64(1 / 3), None, np.arange(6).reshape(2, 3).T])
    key = jax.random.key(5)
    return State(params, optax.adamw(1e-3).init(params), pair, 12, key)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, make_state(), kind="toy", config={"width": 3, "names": ["a", "b"]})
    return path


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        if jnp.issubdtype(jnp.asarray(a).dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


def test_a_train_state_comes_back_exactly_with_its_types(path):
    loaded = checkpoint.load(path, kind="toy", like=make_state())
    assert isinstance(loaded.tree, State)
    assert isinstance(loaded.tree.pair, Pair)
    assert_same(loaded.tree, make_state())
    assert loaded.config == {"width": 3, "names": ["a", "b"]}


def test_without_a_template_nested_dicts_come_back(path):
    tree = checkpoint.load(path, kind="toy").tree
    np.testing.assert_array_equal(tree["params"]["dense"]["kernel"], np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(tree["pair"]["right"]["3"], np.arange(6).reshape(2, 3).T)
    assert tree["params"]["empty"] == {}
    assert tree["pair"]["right"]["2"] is None


def test_who_made_it_is_written_and_no_local_path(path):
    made_by = checkpoint.load(path, kind="toy").made_by
    assert {"myoloop", "jax", "flax", "numpy"} <= made_by.keys()
    assert str(path.parent).encode() not in path.read_bytes()


def test_the_same_content_gives_the_same_file(path, tmp_path):
    again = tmp_path / "again.safetensors"
    checkpoint.save(again, make_state(), kind="toy", config={"names": ["a", "b"], "width": 3})
    assert again.read_bytes() == path.read_bytes()


def test_a_checkpoint_of_another_kind_or_version_is_refused(path):
    with pytest.raises(MyoloopError, match=r"holds a 'toy', expected a 'policy'"):
        checkpoint.load(path, kind="policy")
    with pytest.raises(MyoloopError, match=r"of version 1, this myoloop reads version 2"):
        checkpoint.load(path, kind="toy", version=2)


def test_a_checkpoint_of_another_format_is_refused(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    with pytest.raises(MyoloopError, match=r"format 1, this myoloop reads format 99"):
        checkpoint.load(path, kind="toy")


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_name(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MyoloopError, match="truncated") as raised:
        checkpoint.load(path, kind="toy")
    assert str(path) in str(raised.value)


def test_any_flipped_byte_is_noticed(path):
    content = path.read_bytes()
    for at in np.linspace(8, len(content) - 1, 40).astype(int):
        damaged = bytearray(content)
        damaged[at] ^= 0x08
        path.write_bytes(bytes(damaged))
        with pytest.raises(MyoloopError, match=str(path)):
            checkpoint.load(path, kind="toy")


def test_somebody_elses_file_is_refused(tmp_path):
    other = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(3)}, other)
    with pytest.raises(MyoloopError, match="not a myoloop checkpoint"):
        checkpoint.load(other, kind="toy")
    other.write_text("hello " * 100)
    with pytest.raises(MyoloopError, match="not a checkpoint"):
        checkpoint.load(other, kind="toy")
    with pytest.raises(MyoloopError, match="no such file"):
        checkpoint.load(tmp_path / "none", kind="toy")


def test_a_template_of_another_shape_is_refused_naming_the_array(path):
    like = make_state()
    like.params["dense"]["kernel"] = jnp.zeros((2, 4))
    with pytest.raises(MyoloopError, match=r"'params/dense/kernel' is float32 \(2, 3\), expected float32 \(2, 4\)"):
        checkpoint.load(path, kind="toy", like=like)


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(path, monkeypatch):
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(MyoloopError, match="No space left on device"):
        checkpoint.save(path, {"a": np.zeros(3)}, kind="toy")
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_is_not_numbers_is_refused(tmp_path):
    with pytest.raises(MyoloopError, match="'name' is str"):
        checkpoint.save(tmp_path / "x", {"name": "me"}, kind="toy")
    with pytest.raises(MyoloopError, match="cannot be written as JSON"):
        checkpoint.save(tmp_path / "x", {}, kind="toy", config={"f": print})
