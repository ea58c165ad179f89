"""What happens when something fails: every sensible cell of faults x parts, run for real, and what was seen.

    python benchmarks/fault_matrix.py --out docs/results/fault_matrix.json --page docs/reliability.md

Each cell is a session of its own (`myoloop run`, plain processes, recorded), with LSL to itself; what is expected is
written in fault_cells.py and fault_data.py, before it is run. `--only kill SIGSTOP` or `--part learner` runs some of
them and keeps what the file says of the others. Clean ends (SIGINT, SIGTERM, kill of any process, in any state) are
cells, too: see fault_ends.py. Disk full needs the right to mount a tmpfs, a wall clock that jumps a C compiler. Run
it on a quiet machine: overruns are judged. The last line of the output is one JSON object.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fault_data  # noqa: F401  registers its cells
import fault_ends
import fault_view  # noqa: F401
import tyro
from fault_bench import Check, Stuck
from fault_cells import CASES, FAULTS, PARTS, SENSELESS, Case
from rich.console import Console
from rich.progress import track
from rich.table import Table

from myoloop.machine import processor

BEGIN, END = "<!-- fault matrix: benchmarks/fault_matrix.py -->", "<!-- end of fault matrix -->"


@dataclass(frozen=True)
class Config:
    """What to run."""

    only: tuple[str, ...] = ()
    """faults, by any part of their names; default: all"""
    part: tuple[str, ...] = ()
    """parts; default: all"""
    missing: bool = False
    """only cells that have not passed yet, by the file of the result"""
    at_once: int = 2
    """sessions side by side"""
    out: Path | None = None
    """JSON file of the result; cells that are not run keep what it says"""
    page: Path | None = None
    """document that gets the table, between its markers"""
    keep: Path | None = None
    """folder for the run folders, which are else thrown away"""


Cell = dict[str, Any]
"""fault, part, expected, seen, passed (None: not run, `seen` says why)."""


def run_case(case: Case, folder: Path) -> list[Cell]:
    """One session, and its cells."""
    begun = time.monotonic()
    try:
        seen = case.run(folder)
    except Stuck as error:
        seen = {part: [Check(False, str(error))] for part in case.expected}
    except Exception as error:  # a cell that cannot be looked at has failed, and the others go on
        seen = {part: [Check(False, f"{type(error).__name__}: {error}")] for part in case.expected}
    took = round(time.monotonic() - begun, 1)
    return [
        {
            "fault": case.fault,
            "part": part,
            "expected": case.expected[part],
            **judged(seen.get(part, [])),
            "took_s": took,
        }
        for part in case.expected
    ]


def judged(checks: list[Check]) -> dict[str, Any]:
    """What was seen, in words, and whether all of it is as expected; what failed comes first."""
    bad, good = [c.seen for c in checks if not c.ok], [c.seen for c in checks if c.ok and c.seen]
    words = [f"FAILED: {', '.join(word or 'a check' for word in bad)}"] if bad else []
    return {"seen": "; ".join([*words, ", ".join(dict.fromkeys(good))]).strip("; "), "passed": bool(checks) and not bad}


def blanks() -> list[Cell]:
    """The cells that are not run: those without sense, and those of parts that are not there."""
    cells = [
        {"fault": fault, "part": part, "expected": "", "seen": f"no sense: {why}", "passed": None}
        for (fault, part), why in SENSELESS.items()
    ]
    known = {(case.fault, part) for case in CASES for part in case.expected} | set(SENSELESS)
    return cells + [
        {"fault": fault, "part": part, "expected": "", "seen": "not run", "passed": None}
        for fault in FAULTS
        for part in PARTS
        if (fault, part) not in known
    ]


def ordered(cells: list[Cell]) -> list[Cell]:
    """By fault and part; ends of a session after the faults."""
    names, parts = [*FAULTS, *fault_ends.NAMES], [*PARTS, *fault_ends.STATES]
    return sorted(cells, key=lambda c: (names.index(c["fault"]), parts.index(c["part"])))


def merged(old: list[Cell], new: list[Cell]) -> list[Cell]:
    """The new cells, and the old ones that were not run again and still exist."""
    fresh = {(c["fault"], c["part"]): c for c in new}
    kept = {(c["fault"], c["part"]): c for c in old}
    every = [(case.fault, part) for case in [*CASES, *fault_ends.CASES] for part in case.expected]
    cells = [fresh.get(key) or kept.get(key) for key in every]
    return ordered([*(c for c in cells if c), *blanks()])


def as_markdown(result: dict[str, Any]) -> str:
    """The tables of the document."""
    cells = result["cells"]
    ran = [c for c in cells if c["passed"] is not None]
    lines = [
        f"{sum(c['passed'] for c in ran)} of {len(ran)} cells as expected, measured {result['date']} on {result['device']}, "
        f"{result['cores']} cores, {result['at_once']} sessions side by side, load average {result['load_average'][0]:g}.",
        "",
        "| fault | part | expected | seen | |",
        "|---|---|---|---|---|",
    ]
    faults = [c for c in cells if c["part"] in PARTS]
    for c in faults:
        if c["passed"] is not None:
            lines.append(
                f"| {c['fault']} | {c['part']} | {c['expected']} | {c['seen']} | {'yes' if c['passed'] else '**no**'} |"
            )
    ends = [c for c in cells if c["part"] in fault_ends.STATES]
    if ends:
        lines += [
            "",
            "How a session ends, by what is done to it and when:",
            "",
            "| done | while | seen | |",
            "|---|---|---|---|",
        ]
        lines += [f"| {c['fault']} | {c['part']} | {c['seen']} | {'yes' if c['passed'] else '**no**'} |" for c in ends]
    silent = [c for c in faults if c["passed"] is None]
    lines += ["", "Not run:", ""]
    lines += [f"- {c['fault']}, {c['part']}: {c['seen']}" for c in silent]
    return "\n".join(lines)


def write_page(page: Path, text: str) -> None:
    """Puts the tables between the document's markers."""
    old = page.read_text(encoding="utf-8")
    before, rest = old.split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def written(config: Config, cells: list[Cell]) -> dict[str, Any]:
    """The result as it is now, in its files."""
    result = {
        "cells": cells, "date": time.strftime("%Y-%m-%d"), "device": processor(), "cores": os.cpu_count(),
        "system": platform.platform(), "at_once": config.at_once, "load_average": [round(x, 1) for x in os.getloadavg()],
    }  # fmt: skip
    if config.out:
        config.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if config.page:
        write_page(config.page, as_markdown(result))
    return result


def main(config: Config) -> None:
    """Runs, shows, writes."""
    CASES.sort(key=lambda case: FAULTS.index(case.fault))
    wanted = [
        case
        for case in [*CASES, *fault_ends.CASES]
        if (not config.only or any(name.lower() in case.fault.lower() for name in config.only))
        and (not config.part or set(config.part) & set(case.expected))
    ]
    cells: list[Cell] = []
    console = Console(stderr=True)
    old = json.loads(config.out.read_text(encoding="utf-8"))["cells"] if config.out and config.out.exists() else []
    if config.missing:
        passed = {(cell["fault"], cell["part"]) for cell in old if cell["passed"]}
        wanted = [case for case in wanted if not {(case.fault, part) for part in case.expected} <= passed]
    result = written(config, merged(old, cells))
    with tempfile.TemporaryDirectory(prefix="myoloop-faults-") as scratch, ThreadPoolExecutor(config.at_once) as pool:
        base = config.keep or Path(scratch)
        jobs = [pool.submit(run_case, case, (base / f"{number:02d}").resolve()) for number, case in enumerate(wanted)]
        for job in track(as_completed(jobs), "cells", len(jobs), console=console):
            for cell in job.result():
                cells.append(cell)
                passed = "pass" if cell["passed"] else "FAIL"
                console.print(f"{passed} {cell['fault']} x {cell['part']}: {cell['seen']}", soft_wrap=True)
            result = written(config, merged(old, cells))  # after every cell: it takes long, and may be ended
    table = Table("fault", *PARTS, title="pass, FAIL, - (no sense or not run)")
    found = {(c["fault"], c["part"]): c["passed"] for c in result["cells"]}
    for fault in FAULTS:
        table.add_row(fault, *({True: "pass", False: "FAIL"}.get(found.get((fault, part)), "-") for part in PARTS))  # type: ignore[arg-type]
    console.print(table)
    print(
        json.dumps(
            {"cells": len(result["cells"]), "failed": [f"{c['fault']} x {c['part']}" for c in cells if not c["passed"]]}
        )
    )
    sys.exit(any(not c["passed"] for c in cells))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
