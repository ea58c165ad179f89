"""What is kept on the machine between runs, and what is given back to it."""

from __future__ import annotations

import os
import subprocess
import sys
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


KEPT = """
import ctypes, sys
import psutil
from myoloop.machine import give_back_memory
if sys.argv[1] == "given back":
    give_back_memory()
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def block(size):
    address = libc.malloc(size)
    ctypes.memset(address, 1, size)
    return address
libc.free(block(20 << 20))
before = psutil.Process().memory_full_info().uss
large, small = block(10 << 20), [block(1 << 10) for _ in range(200)]
libc.free(large)
print(psutil.Process().memory_full_info().uss - before)
"""


def test_large_blocks_that_are_freed_leave_the_process() -> None:
    kept = {}
    for way in ("kept", "given back"):
        done = subprocess.run([sys.executable, "-c", KEPT, way], capture_output=True, text=True, check=True)
        kept[way] = int(done.stdout)
    assert kept["given back"] < 2e6 < 8e6 < kept["kept"], "glibc by itself keeps them under what came after"


@pytest.mark.parametrize("own", [True, False])
def test_only_a_session_of_its_own_stands_back_with_a_process(own: bool) -> None:
    group = Path("/proc/self/autogroup")
    if not group.is_file():
        pytest.skip("this kernel does not weigh sessions")
    before = group.read_text()
    code = "from myoloop.machine import stand_back; stand_back(7); print(open('/proc/self/autogroup').read())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, start_new_session=own
    )
    assert done.stdout.strip().endswith("nice 7") == own and group.read_text() == before
