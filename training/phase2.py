"""Phase 2: a participant learns to use a decoder that stays as it is.

    python training/phase2.py --run runs/phase2
    python training/phase2.py --run runs/phase2-ppo --learner ppo --environments 256 --unroll 16 --steps 10000000
    python training/phase2.py --run runs/phase2 --resume

Ctrl-C (or SIGTERM) stops it after the update at work and leaves a good checkpoint. The last line of standard output is one
JSON object with the speed and the last figures, while exploring. The run folder is as in phase 1.
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
from myoloop.learn.phase2 import Phase2Config


@dataclass(frozen=True)
class Phase2Run:
    """One run: where it lives, and what it is."""

    run: Path
    """Run folder; made when it is not there."""
    resume: bool = False
    """Go on from the run folder's checkpoint, with its settings; only --steps may be given with it."""
    save_every_s: float = 60.0
    """s between checkpoints."""
    config: Annotated[Phase2Config, tyro.conf.arg(name="")] = field(default_factory=Phase2Config)


if __name__ == "__main__":
    try:
        run = tyro.cli(Phase2Run, description=__doc__)
        print(json.dumps(carry_out(run.config, run.run, run.resume, run.save_every_s, "phase 2")))
    except MyoloopError as error:
        sys.exit(f"training/phase2.py: {error}")
    except KeyboardInterrupt:
        sys.exit("training/phase2.py: stopped at once; the last checkpoint is good.")
