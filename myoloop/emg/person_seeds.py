"""Which people a population is of: seeds, without the arithmetic of their anatomy. Loads no JAX."""

from __future__ import annotations

import numpy as np

from myoloop.errors import MyoloopError


def person_seeds(seed: int, count: int) -> list[int]:
    """Seeds of `count` people, the same for the same seed; more of them begin with the same ones.

    Raises:
      MyoloopError: nobody, or a negative seed.
    """
    if count < 1 or seed < 0:
        raise MyoloopError(f"{count} people of seed {seed} asked; expected 1 or more, and a seed of 0 or more.")
    return np.random.default_rng([seed, 9002]).integers(0, 2**31, count).tolist()
