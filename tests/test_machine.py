"""What is kept on the machine between runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from myoloop.machine import keep_compiled


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.setenv(name, "")  # so that it is restored, whatever is set below
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_what_is_compiled_is_kept_in_the_users_cache_a_folder_for_each_processor(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_compiled()
    first = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert first.is_dir() and first.parent == bare / "myoloop"
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setattr(Path, "read_text", lambda self, **_: "model name : another\nflags : avx\n\n")
    keep_compiled()
    assert Path(os.environ["JAX_COMPILATION_CACHE_DIR"]) != first


def test_the_users_own_choice_wins_and_an_unwritable_home_is_no_error(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bare / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(bare / "file"))
    keep_compiled()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/mine")
    keep_compiled()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/mine"
