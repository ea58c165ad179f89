"""The set-up script says in one line what is missing, and goes on where it was stopped."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent
SCRIPT = REPO / ".ci" / "setup_env.py"
COPIED = ("setup.py", "setup.cfg", "pyproject.toml", "package.xml", "requirements.lock", "Makefile", "resource", ".ci",
          "msgs", "nodes", "launch", "experiments")  # fmt: skip


@pytest.fixture
def script() -> Iterator[types.ModuleType]:
    """The script as a module of its own, so that a test may change its constants."""
    spec = importlib.util.spec_from_file_location("setup_env", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    yield module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A fresh clone without an environment."""
    fresh = tmp_path / "fresh clone"
    fresh.mkdir()
    for name in COPIED:
        source = REPO / name
        if source.is_dir():
            shutil.copytree(source, fresh / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, fresh / name)
    (fresh / "myoloop").mkdir()
    shutil.copy2(REPO / "myoloop" / "__init__.py", fresh / "myoloop")
    return fresh


def make(checkout: Path, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`make setup` with nothing but `path` to find programs in."""
    program = shutil.which("make")
    assert program
    return subprocess.run(
        [program, "setup", *arguments], cwd=checkout, env={"PATH": str(path), "HOME": str(checkout)}, text=True,
        capture_output=True, timeout=60,
    )  # fmt: skip


def programs(folder: Path, *names: str) -> Path:
    """A folder with links to some of this machine's programs."""
    folder.mkdir()
    for name in names:
        found = sys.executable if name == "python3" else shutil.which(name)
        assert found
        (folder / name).symlink_to(os.path.realpath(found))
    return folder


def only_line(stderr: str) -> str:
    """What make's recipe said: one line, besides make's own."""
    lines = [line for line in stderr.splitlines() if not line.startswith("make:")]
    assert len(lines) == 1, stderr
    return lines[0]


def test_no_compiler_is_said_in_one_line(checkout: Path, tmp_path: Path) -> None:
    done = make(checkout, programs(tmp_path / "bin", "python3", "sh"))
    assert done.returncode != 0
    assert "no C compiler found" in only_line(done.stderr) and "build-essential" in done.stderr
    assert not (checkout / ".venv").exists()


def test_no_cpp_compiler_is_said_too(checkout: Path, tmp_path: Path) -> None:
    path = programs(tmp_path / "bin", "python3", "sh")
    (path / "cc").symlink_to("/bin/true")
    done = make(checkout, path)
    assert done.returncode != 0 and "no C++ compiler found" in only_line(done.stderr)


def test_no_python_is_said_in_one_line(checkout: Path, tmp_path: Path) -> None:
    done = make(checkout, programs(tmp_path / "bin", "sh"))
    assert done.returncode != 0
    assert "'python3' not found" in only_line(done.stderr) and "3.11" in done.stderr


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 14, 0)])
def test_a_wrong_python_is_named_with_those_that_would_do(script: types.ModuleType, version: tuple) -> None:
    with pytest.raises(
        script.SetupError, match=r"/usr/bin/python3 is Python 3\.1\d.*needs 3\.11, 3\.12 or 3\.13"
    ) as told:
        script.check_python(version, "/usr/bin/python3")
    assert "\n" not in str(told.value)
    for good in script.PYTHONS:
        script.check_python((*good, 5), "/usr/bin/python3")


def test_a_full_disk_is_said_before_anything_is_installed(
    script: types.ModuleType, checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "ROOT", checkout)
    monkeypatch.setattr(script, "VENV", checkout / ".venv")
    monkeypatch.setattr(script, "STATE", checkout / ".venv" / "setup.json")
    monkeypatch.setattr(script.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1.2e9))
    assert script.main([]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "1.2 GB free" in told and "3 GB are needed" in told
    assert not (checkout / ".venv").exists()


def test_a_folder_that_cannot_be_written_is_said(script: types.ModuleType) -> None:
    with pytest.raises(script.SetupError, match=r"cannot write to /proc: .*folder of your own"):
        script.check_writable(Path("/proc"))


def test_a_python_without_venv_is_said(script: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(script.SetupError, match="python3-venv"):
        script.check_venv_module()


def test_missing_python_headers_are_said(script: types.ModuleType, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho /no/such/include\n")
    python.chmod(0o755)
    with pytest.raises(script.SetupError, match=r"/no/such/include/Python\.h is missing.*python3-dev"):
        script.check_headers(str(python))


def test_another_machine_is_said(script: types.ModuleType) -> None:
    with pytest.raises(script.SetupError, match="Linux on x86_64 only"):
        script.check_platform("Darwin", "arm64")


def test_a_failing_step_is_told_by_its_own_reason(
    script: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "LOG", tmp_path / "setup.log")
    with pytest.raises(script.SetupError, match=r"things failed: ERROR: no such package \(all of it: setup\.log\)"):
        script.run("things", ["sh", "-c", "echo some; echo ERROR: no such package; echo more; exit 3"])
    assert "more" in (tmp_path / "setup.log").read_text()
    with pytest.raises(script.SetupError, match="the disk is full"):
        script.run("things", ["sh", "-c", "echo 'OSError: [Errno 28] No space left on device'; exit 1"])


def test_a_stopped_set_up_goes_on_where_it_was(
    script: types.ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = checkout / ".venv" / "setup.json"
    state.parent.mkdir()
    for name, value in (("ROOT", checkout), ("VENV", state.parent), ("STATE", state)):
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(script, "usable", lambda venv: True)
    monkeypatch.setattr(script, "runs", lambda *_: True)
    monkeypatch.setattr(script, "check_machine", lambda *_: None)
    ran: list[str] = []
    monkeypatch.setattr(script, "install_packages", lambda: ran.append("packages"))
    monkeypatch.setattr(script, "install_myoloop", lambda: ran.append("package"))

    def stopped() -> None:
        ran.append("messages")
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "build_messages", stopped)
    assert script.main([]) == 130
    assert set(json.loads(state.read_text())) == {"packages"}
    monkeypatch.setattr(script, "build_messages", lambda: ran.append("messages"))
    assert script.main([]) == 0
    assert script.main([]) == 0  # nothing left to do
    assert ran == ["packages", "messages", "messages", "package"]
    (checkout / "msgs" / "msg" / "EmgChunk.msg").write_text("float32 x\n")
    assert script.main([]) == 0
    assert ran[4:] == ["messages"]


def test_packages_that_pip_left_half_installed_are_installed_again(
    script: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name, whole in (("whole-1.0", True), ("half-2.0", False)):
        info = packages / f"{name}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Name: x\n")
        if whole:
            (info / "INSTALLER").write_text("pip\n")
    monkeypatch.setattr(script, "VENV", tmp_path)
    script.remove_unfinished()
    assert [path.name for path in packages.iterdir()] == ["whole-1.0.dist-info"]


def test_another_ros_in_the_shell_does_not_leak_in(script: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "AMENT_PREFIX_PATH", "LD_LIBRARY_PATH", "CMAKE_PREFIX_PATH"):
        monkeypatch.setenv(name, "/opt/ros/other/lib")
    monkeypatch.setenv("ROS_DISTRO", "other")
    assert "/opt/ros/other/lib" not in script.clean_environment().values()
