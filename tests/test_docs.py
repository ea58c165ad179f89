"""What the documents promise, tried."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import yaml
from pydantic import BaseModel

from myoloop.experiment import Experiment

REPO = Path(__file__).parent.parent


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        below = [a for a in (field.annotation, *get_args(field.annotation)) if isinstance(a, type)]
        sections = [a for a in below if issubclass(a, BaseModel)]
        found += keys(sections[0], f"{prefix}{name}.") if sections else [prefix + name]
    return found


def test_every_experiment_key_is_documented() -> None:
    text = (REPO / "docs" / "experiments.md").read_text()
    for key in keys(Experiment):
        assert f"| `{key}` |" in text, key


def test_every_link_inside_the_documents_leads_somewhere() -> None:
    for page in [REPO / "README.md", *(REPO / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_decoder_of_the_documents_calibrates_and_drives_the_loop(tmp_path: Path) -> None:
    page = (REPO / "docs" / "connect-your-decoder.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.S)
    assert code is not None
    assert len([line for line in code[1].splitlines() if line.strip()]) <= 32, "the page promises about 30 lines"
    script = tmp_path / "my_decoder.py"
    script.write_text(code[1].replace("== 1000", "== 150").replace("myo_", "doctest_"))  # 3 s instead of 20
    experiment = yaml.safe_load((REPO / "experiments" / "own_decoder.yaml").read_text())
    experiment["participant"]["id"] = "doctest"
    experiment |= {"ros": False, "duration_s": 12}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(experiment))
    command = [sys.executable, "-u", str(script)]  # unbuffered: it is killed in the end
    decoder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        run = [sys.executable, "-m", "myoloop", "run", "own.yaml"]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    finally:
        decoder.kill()
        out, _ = decoder.communicate()
    assert done.returncode == 0, done.stdout + done.stderr + out
    report = json.loads((tmp_path / "runs" / "latest" / "report.json").read_text())
    assert "calibrated" in out
    assert report["decoder"]["predictions"] > 100 and report["decoder"]["refused"] == 0
    assert report["task"]["accuracy"] > 0.5
