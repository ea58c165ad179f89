"""The house rules of docs/architecture.md, checked in the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent
LIBRARY = REPO / "myoloop"

FLOORS = [
    {"errors", "assets", "checkpoint", "machine", "settings", "vitals", "pages", "__init__"},
    {"body"},
    {"emg", "decoder", "policy", "task"},
    {"participant", "participant_config"},
    {"learn", "streams", "devices", "view"},
    {"sections", "population_settings"},
    {"experiment"},
    {"live"},
    {"export_dataset"},
    {"report_course", "report_environment", "report_pace", "report_population", "report_recording"},
    {"processes", "liveline", "report_page"},
    {"decoder_switch", "report_population_page", "report_turns"},
    {"report"},
    {"session", "capacity"},
    {"turns", "certify"},
    {"cli"},
    {"__main__"},
]
"""Parts of the library, ground floor first. A part may import from its own floor and from those below."""


def imports(file: Path) -> set[str]:
    """Names of all modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(file: Path) -> str:
    relative = file.relative_to(LIBRARY)
    return relative.parts[0].removesuffix(".py")


def floor(name: str) -> int:
    for height, parts in enumerate(FLOORS):
        if name in parts:
            return height
    pytest.fail(f"myoloop/{name} has no floor in this test: say where it belongs")


def test_imports_go_down_only() -> None:
    for file in LIBRARY.rglob("*.py"):
        for module in imports(file):
            if module.startswith("myoloop."):
                below = module.split(".")[1]
                if below == "__version__":
                    continue
                assert floor(below) <= floor(part(file)), f"{file} imports {module}, which lies above it"


def test_body_and_emg_know_nothing_of_tasks() -> None:
    for folder in ("body", "emg"):
        for file in (LIBRARY / folder).rglob("*.py"):
            assert not any(m.startswith(("myoloop.task", "myoloop.policy")) for m in imports(file)), file


def test_only_nodes_import_ros() -> None:
    for file in LIBRARY.rglob("*.py"):
        assert not any(m.split(".")[0] in ("rclpy", "myoloop_msgs", "launch_ros") for m in imports(file)), file


def test_only_streams_and_live_talk_lsl_and_only_devices_open_sockets() -> None:
    for file in LIBRARY.rglob("*.py"):
        used = {m.split(".")[0] for m in imports(file)}
        assert not used & {"socket", "asyncio"} or part(file) == "devices", file
        if "pylsl" in used:
            assert part(file) in ("streams", "live"), file


@pytest.mark.parametrize(
    "module",
    ["myoloop.live.decoder", "myoloop.live.device", "myoloop.live.udp_decoder", "myoloop.session", "myoloop.cli"],
)
def test_light_processes_do_not_load_heavy_libraries(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('jax', 'mujoco', 'matplotlib', 'rclpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_no_file_is_too_long_to_hold_one_idea() -> None:
    for file in LIBRARY.rglob("*.py"):
        assert len(file.read_text().splitlines()) <= 450, file
