"""Phase 1: train a policy to follow references, from nothing.

    python training/phase1.py --run runs/phase1
    python training/phase1.py --run runs/phase1 --resume            # go on where it stopped
    python training/phase1.py --run runs/phase1 --resume --steps 40000000

Ctrl-C (or SIGTERM) stops it after the update at work and leaves a good checkpoint. The last line of standard output is one
JSON object with the speed and the last figures. The run folder: `policy.safetensors` (what experiments name),
`state.safetensors` (to resume), `curves.csv`, `curves.png`, `config.json`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from myoloop.errors import MyoloopError
from myoloop.learn.carry_out import carry_out
from myoloop.learn.phase1 import Phase1Config


@dataclass(frozen=True)
class Phase1Run:
    """One run: where it lives, and what it is."""

    run: Path
    """Run folder; made when it is not there."""
    resume: bool = False
    """Go on from the run folder's checkpoint, with its settings; only --steps may be given with it."""
    save_every_s: float = 60.0
    """s between checkpoints."""
    config: Annotated[Phase1Config, tyro.conf.arg(name="")] = field(default_factory=Phase1Config)


if __name__ == "__main__":
    try:
        run = tyro.cli(Phase1Run, description=__doc__)
        print(json.dumps(carry_out(run.config, run.run, run.resume, run.save_every_s, "phase 1")))
    except MyoloopError as error:
        sys.exit(f"training/phase1.py: {error}")
    except KeyboardInterrupt:
        sys.exit("training/phase1.py: stopped at once; the last checkpoint is good.")
