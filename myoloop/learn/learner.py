"""How a participant changes its policy: what every learner offers to the run that uses it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from jax import Array

from myoloop.learn.rollout import Experience


class Learner(Protocol):
    """Improves a policy from experience."""

    def start(self, key: Array) -> Any:
        """All that learning changes, before the first experience: a pytree that is a learn.rollout.Learned."""

    def improve(self, learned: Any, experience: Experience, key: Array) -> tuple[Any, NamedTuple]:
        """After one rollout: what is known now, and figures, () each, by the names of learn.trainer.Row."""
