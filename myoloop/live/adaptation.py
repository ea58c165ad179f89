"""A participant that learns while its session runs: it tells a learner in another process what it did, and takes policies back.

Nothing here makes the control loop wait, but `let_think`, which is for simulated time. `tell` puts a row into a bounded
queue, `use` takes a policy that is ready as a whole; packing, sending, receiving and unpacking happen in threads, learning in
the other process. If that one dies, the participant goes on with the last policy it got, without exploration.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from myoloop.experiment import Experiment
from myoloop.live.channel import END, pack_experience, pack_greeting, unpack_policy
from myoloop.live.link import longest_s
from myoloop.participant import Act, Participants
from myoloop.policy.learned import load_policy
from myoloop.streams.predictions import Prediction

WAITING = 6000
"""Control steps that may wait until the learner is ready, two minutes of them; then the oldest are dropped and counted."""
SEND_EVERY_S = 0.25
"""How often what happened is sent."""
HANGS_S = 10.0
"""How long a session on simulated time waits for a learner before it goes on without."""
PATIENCE_S = (3.0, 1.0)
"""How long the learner has to end when the session does, and after SIGTERM, before it is killed."""


class Hears(Protocol):
    """Where answers come from: an inbox, or a link behind it."""

    @property
    def recent(self) -> deque[Prediction]:
        """The answers that nobody has taken out yet, the oldest first."""


class Adaptation:
    """The participant's side of learning online."""

    def __init__(
        self,
        experiment: Experiment,
        people: Participants,
        inbox: Hears,
        run_dir: Path | None,
        say: Callable[[str], None],
    ):
        """Starts the learner's process, which gets ready while the session waits for its decoder.

        Raises:
          MyoloopError: the habit is no policy, or a damaged one.
        """
        me = experiment.participant
        assert me.adapt is not None
        if me.adapt.habit:
            load_policy(me.adapt.habit)  # the learner would end of it, when the session runs
        self._people, self._inbox, self._say = people, inbox, say
        self._rows: deque[tuple[Any, ...]] = deque(maxlen=WAITING)
        self._ready: tuple[Any, dict[str, float]] | None = None
        self._about: dict[str, float] = {}
        self._phase = "starting"
        self._ending = threading.Event()
        self._ahead_s, self._period_s = me.adapt.ahead_s, 1.0 / me.control_hz
        self._steps, self._thought_s, self._thinks = 0, 0.0, True
        self._died = False
        self._told = False
        self.dropped = 0
        """steps that had to give way to newer ones before they were sent"""
        self.swaps = 0
        """policies taken over"""
        self.swap_ms = 0.0
        """the longest that taking one over took"""
        self.refused = 0
        """policies that could not be used"""
        assert people.policy is not None
        self._like = {name: x.shape for name, x in _leaves(people.policy.params)}
        ours, theirs = multiprocessing.Pipe()
        self._channel: Connection = ours  # type: ignore[assignment]
        env = os.environ | {"OMP_NUM_THREADS": "1", "NPROC": "1", "JAX_PLATFORMS": "cpu"}
        self._log = (run_dir / "logs" / "learner.log") if run_dir else None
        if self._log:
            self._log.parent.mkdir(exist_ok=True)
        out = self._log.open("ab") if self._log else None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "myoloop.live.learner", str(theirs.fileno())],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, pass_fds=[theirs.fileno()], start_new_session=True,
        )  # fmt: skip
        theirs.close()
        if out:
            out.close()
        greeting = {
            "policy": me.policy, "seed": experiment.seed, "adapt": me.adapt.model_dump(), "later_s": longest_s(experiment.link),
            "run_dir": str(run_dir.resolve()) if run_dir else None,
        }  # fmt: skip
        self._channel.send_bytes(pack_greeting(greeting))
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    # --- called from the control loop --------------------------------------------------------------------------------

    def tell(self, step: int, time: float, act: Act, fresh: bool) -> None:
        """What the coming step is; to be called before its EMG goes out, so that no answer is there before it."""
        assert act.thought is not None
        obs, command, labels = act.thought
        self.dropped += len(self._rows) == WAITING
        self._rows.append((step, time, obs[0], command[0], labels[0], fresh))
        self._steps += 1

    def let_think(self, stop: threading.Event) -> None:
        """Comes back when the learner is no more than `ahead_s` behind, or `stop` is set; one that hangs is waited for once."""
        until = time.monotonic() + HANGS_S
        while self._phase == "learning" and self._thinks and self._behind_s > self._ahead_s:
            if stop.wait(0.005):
                return
            self._thinks = time.monotonic() < until

    @property
    def _behind_s(self) -> float:
        """Participant time that the learner was told of, and has not thought about."""
        return (self._steps - self.dropped) * self._period_s - self._thought_s

    def use(self) -> str | None:
        """Takes over a policy that has come; returns an event to publish, if something happened that is said once."""
        ready = self._ready
        if ready is not None:
            begun = time.perf_counter()
            self._ready = None
            self._people.set_policy(ready[0])
            self._about = ready[1]
            self.swaps += 1
            self.swap_ms = max(self.swap_ms, 1e3 * (time.perf_counter() - begun))
            if self.swaps == 1:
                return "learner's first policy"
        if self._died and not self._told:
            self._told = True
            self._people.explore(0.0)
            return "learner lost"
        return None

    # --- the rest -----------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """JSON-able."""
        kept = ("stretches", "model_loss", "compute_s", "forgotten", "unheard")
        about = {name: self._about[name] for name in kept if name in self._about}
        own = {"phase": self._phase, "swaps": self.swaps, "dropped": self.dropped, "swap_ms": round(self.swap_ms, 3)}
        return own | about | {"refused": self.refused, "pid": self._process.pid}

    def close(self) -> None:
        """Ends the learner, which saves what it has learned."""
        self._ending.set()
        self._threads[0].join(timeout=PATIENCE_S[0])
        for patience, stronger in zip(PATIENCE_S, (self._process.terminate, self._process.kill), strict=True):
            try:
                self._process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                stronger()
        self._process.wait()
        self._threads[1].join(timeout=1.0)
        self._channel.close()
        if self._phase != "lost":
            self._phase = "ended"

    def _send(self) -> None:
        try:
            while not self._ending.wait(SEND_EVERY_S):
                if self._phase == "learning":  # before, nobody reads the pipe
                    self._forward()
            self._forward()
            self._channel.send_bytes(END)
        except OSError:
            self._lost()

    def _forward(self) -> None:
        answers = []  # before the steps: a step is in the queue before anybody can answer it
        while self._inbox.recent:
            answer = self._inbox.recent.popleft()
            answers.append((answer.emg_time, answer.values))
        steps = []
        while self._rows:
            steps.append(self._rows.popleft())
        if steps:
            self._channel.send_bytes(pack_experience(steps, answers))

    def _receive(self) -> None:
        try:
            while True:
                params, about = unpack_policy(self._channel.recv_bytes())
                self._phase, self._thinks = "learning", True
                self._thought_s = about.get("time_s", 0.0)
                if params and (why := unusable(params, self._like)):
                    self.refused += 1
                    if self.refused == 1:
                        self._say(
                            f"a learner's policy refused: {why}; the participant goes on with the last one it could use"
                        )
                elif params:
                    self._ready = jax.block_until_ready(jax.tree.map(jnp.asarray, params)), about
        except (EOFError, OSError):
            if not self._ending.is_set():
                self._lost()

    def _lost(self) -> None:
        if self._died or self._ending.is_set():
            return
        self._died = True
        self._phase = "lost"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        words = self._log.read_text(encoding="utf-8", errors="replace").split("\n") if self._log else []
        last = next((line for line in reversed(words) if line), "")
        self._say(
            f"the learner ended with code {self._process.returncode}: the participant goes on with the last policy it got, "
            f"without exploration. {last}".strip()
        )


def unusable(params: Any, like: dict[str, tuple[int, ...]]) -> str | None:
    """Why a policy's parameters cannot be taken over; None if they can. like: shapes of those in use, by name."""
    shapes = {name: np.shape(x) for name, x in _leaves(params)}
    if shapes != like:
        odd = sorted(name for name in {*shapes, *like} if shapes.get(name) != like.get(name))
        return f"'{odd[0]}' has shape {shapes.get(odd[0])}, expected {like.get(odd[0])}"
    bad = [name for name, x in _leaves(params) if not np.all(np.isfinite(x))]
    return f"'{bad[0]}' holds NaN or infinity" if bad else None


def _leaves(params: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), x) for path, x in jax.tree_util.tree_leaves_with_path(params)]
