"""docs/emg-realism.md: rows are judged by their own bounds, and none lies outside without a tested reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "emg-realism.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and re.search(r"\| (yes|\*\*no\*\*) \|", line)
]


def test_the_table_covers_every_part_of_the_model() -> None:
    targets = " ".join(row[0] for row in ROWS)
    for part in (
        "discharge rate",
        "RMS at",
        "median frequency",
        "noise floor",
        "fatigued",
        "upper arm",
        "energy from",
        "als",
    ):
        assert part in targets, part
    assert len(ROWS) >= 30


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_rows_say_inside_when_their_value_is(row: list[str]) -> None:
    low, high = (float(end) for end in row[2].split(" to "))
    slack = 0.006 * max(abs(low), abs(high))  # three figures are printed
    assert (low - slack <= float(row[1]) <= high + slack) or row[3] == "**no**"
    assert not (low + slack < float(row[1]) < high - slack) or row[3] == "yes"


def test_every_row_outside_has_a_reason_with_its_number() -> None:
    for target, *_, inside, _ in ROWS:
        if inside == "**no**":
            reason = re.search(rf"^- {re.escape(target)}: (.+)$", PAGE, re.M)
            assert reason and re.search(r"\d", reason[1]), f"{target}: no tested reason"
