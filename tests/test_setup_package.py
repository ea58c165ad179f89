"""What is installed agrees with what is declared: names, versions, dependencies, files."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import setuptools
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import myoloop

REPO = Path(__file__).parent.parent
MODULES = {
    "pyyaml": "yaml", "scikit-learn": "sklearn", "myo-sim": "myo_sim", "types-pyyaml": "", "mcap-ros2-support": "mcap_ros2",
}  # fmt: skip
"""Distributions whose module is not called like them."""


@pytest.fixture(scope="module")
def declared() -> dict:
    """The arguments that setup.py gives to setup()."""
    given: dict = {}
    original, setuptools.setup = setuptools.setup, lambda **arguments: given.update(arguments)
    before = Path.cwd()
    try:
        os.chdir(REPO)
        runpy.run_path("setup.py")
    finally:
        setuptools.setup = original
        os.chdir(before)
    return given


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """Of this Python: a few packages are not there for all."""
    lines = (line.split("#")[0].strip() for line in (REPO / "requirements.lock").read_text().splitlines())
    wanted = (Requirement(line) for line in lines if line)
    here = (pin for pin in wanted if pin.marker is None or pin.marker.evaluate())
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in here}


def requirements(declared: dict, *extras: str) -> list[Requirement]:
    texts = [*declared["install_requires"], *(t for extra in extras for t in declared["extras_require"][extra])]
    return [Requirement(text) for text in texts]


def test_every_pin_satisfies_the_range_in_setup_py(declared: dict, pins: dict[str, str]) -> None:
    for requirement in requirements(declared, "ros", "record", "view", "dev"):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_ranges_are_ranges(declared: dict) -> None:
    for requirement in requirements(declared, "ros", "record", "view", "warp", "dev"):
        operators = {specifier.operator for specifier in requirement.specifier}
        assert ">=" in operators and "<" in operators and "==" not in operators, requirement


def test_the_lock_holds_exact_versions_from_any_registry() -> None:
    for line in (REPO / "requirements.lock").read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.match(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+]+(; python_version < \"3\.13\")?(\s+# via .*)?$", line), (
                line
            )
            assert "://" not in line


def test_installed_versions_are_the_pinned_ones(pins: dict[str, str]) -> None:
    for name, version in pins.items():
        assert importlib.metadata.version(name) == version


def test_the_lock_is_closed_under_dependencies(pins: dict[str, str]) -> None:
    for name in pins:
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert canonicalize_name(needed.name) in pins, f"{name} needs {text}"


def test_everything_the_project_imports_is_declared(declared: dict) -> None:
    names = [canonicalize_name(r.name) for r in requirements(declared, "record", "view", "dev")]
    known = {MODULES.get(name, name.replace("-", "_")) for name in names} | {"myoloop"}
    # of a declared one's own making, or imported only where it is there
    known |= {"mujoco_warp", "warp", "pydantic_core", "jaxlib", "packaging", "PIL", "msgspec", "websockets"}
    for folder in ("myoloop", "training", "benchmarks"):
        for file in (REPO / folder).rglob("*.py"):
            if file.name.startswith("peer_"):  # runs in an environment of its own
                continue
            beside = {path.stem for path in file.parent.glob("*.py")} | {folder}
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    modules = [node.module]
                tops = {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names) - beside
                assert tops <= known, f"{file.relative_to(REPO)} imports {sorted(tops - known)}"


def test_setup_py_and_both_package_xml_agree(declared: dict) -> None:
    for file, name in (("package.xml", "myoloop"), ("msgs/package.xml", "myoloop_msgs")):
        package = ElementTree.parse(REPO / file).getroot()
        assert package.attrib["format"] == "3"
        assert package.findtext("name") == name
        assert package.findtext("version") == declared["version"] == myoloop.__version__
        assert package.findtext("license") == declared["license"] == "Apache-2.0"
        assert package.findtext("maintainer") == declared["maintainer"]
    assert declared["name"] == "myoloop"
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (declared["version"], declared["license"])
    assert "Apache License" in (REPO / "LICENSE").read_text()[:200]


def test_node_executables_lie_where_ros_looks_for_them_and_are_this_checkouts() -> None:
    folder = Path(sys.prefix) / "lib" / "myoloop"
    for name in ("virtual_participant", "onnx_decoder", "bag_recorder"):
        assert os.access(folder / name, os.X_OK)
        assert (folder / name).samefile(REPO / "nodes" / name)
    helper = folder / "live_node.py"
    assert helper.samefile(REPO / "nodes" / "live_node.py") and not os.access(helper, os.X_OK)
    share = Path(sys.prefix) / "share"
    assert (share / "myoloop" / "launch" / "closed_loop.launch.py").samefile(REPO / "launch" / "closed_loop.launch.py")
    assert (share / "ament_index" / "resource_index" / "packages" / "myoloop").is_file()


def test_a_built_package_holds_the_same_files_as_the_linked_one(tmp_path: Path) -> None:
    source = tmp_path / "source"  # building leaves folders behind, and old ones there would count
    shutil.copytree(REPO, source, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "runs", "install", "log"))
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, str(source)], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("myoloop-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        mode = archive.getinfo(next(n for n in names if n.endswith("lib/myoloop/virtual_participant"))).external_attr
    assert mode >> 16 & 0o111
    inside = {name.split(".data/data/")[1] for name in names if ".data/data/" in name}
    prefix = Path(sys.prefix)
    linked = {
        str(path.relative_to(prefix))
        for folder in (prefix / "lib" / "myoloop", prefix / "share" / "myoloop")
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside - {"share/ament_index/resource_index/packages/myoloop"} == linked
    shipped = {name for name in names if name.startswith("myoloop/")}
    here = {
        str(path.relative_to(REPO))
        for path in (REPO / "myoloop").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == here


def test_messages_are_installed_as_they_stand_in_the_checkout() -> None:
    pytest.importorskip("myoloop_msgs", reason="ROS 2 is not installed here")
    share = Path(sys.prefix) / "share" / "myoloop_msgs"
    for file in [*(REPO / "msgs").glob("msg/*.msg"), *(REPO / "msgs").glob("srv/*.srv")]:
        assert (share / file.relative_to(REPO / "msgs")).read_text() == file.read_text()


def test_the_set_up_command_prints_what_make_can_do() -> None:
    done = subprocess.run(["make", "help"], cwd=REPO, capture_output=True, text=True, check=True)
    for target in ("make run", "make test", "make gpu", "make clean"):
        assert target in done.stdout
