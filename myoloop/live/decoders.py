"""The decoder of a population whose streams are published: one model, for each participant a thread with a state of its own."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from myoloop.experiment import Experiment
from myoloop.live.board import Board, make_run_dir
from myoloop.live.decoder import LiveDecoder


class LiveDecoders:
    """As many `LiveDecoder` as there are published participants, in one process; each fails for itself."""

    def __init__(self, experiment: Experiment, run_dir: str | Path | None = None):
        """
        Args:
          experiment: with a section `population` and a decoder of kind onnx.
          run_dir: where the status goes; None: nowhere.

        Raises:
          MyoloopError: there is no such decoder, or the model breaks the contract.
        """
        assert experiment.population is not None
        folder = make_run_dir(run_dir) if run_dir else None
        self._decoders: dict[str, LiveDecoder] = {}
        for name in experiment.population.published(experiment.participant.id):
            me = experiment.participant.model_copy(update={"id": name})
            self._decoders[name] = LiveDecoder(
                experiment.model_copy(update={"participant": me}), folder, write_status=False
            )
        self._board = Board(folder, "decoder", self.status)
        self._board.start()

    def start(self) -> None:
        """All begin, or go on."""
        for decoder in self._decoders.values():
            decoder.start()

    def stop(self) -> None:
        """All end after what they are doing just now."""
        for decoder in self._decoders.values():
            decoder.stop()

    def close(self) -> None:
        """Stops and gives everything back."""
        closing = [threading.Thread(target=decoder.close) for decoder in self._decoders.values()]
        for thread in closing:  # side by side: each waits for the recording to end
            thread.start()
        for thread in closing:
            thread.join()
        self._board.close()

    @property
    def running(self) -> bool:
        """Whether any of them does."""
        return any(decoder.running for decoder in self._decoders.values())

    @property
    def error(self) -> BaseException | None:
        """Why the last of them stopped; None while one still works."""
        if self.running:
            return None
        return next((decoder.error for decoder in self._decoders.values() if decoder.error), None)

    def status(self) -> dict[str, Any]:
        """Counts of all together, times of the slowest; `each` by id. JSON-able."""
        each = {name: decoder.status() for name, decoder in self._decoders.items()}
        first = next(iter(each.values()))
        failed = [f"{name}: {status['message']}" for name, status in each.items() if status["level"] == "error"]
        waiting = [name for name, status in each.items() if not status["source"]]
        level, message = "ok", f"decoding {len(each) - len(waiting)} participants"
        if failed or waiting:
            level, message = ("error", "; ".join(failed)) if failed else ("warn", "no EMG of " + ", ".join(waiting))
        counts = ("samples_received", "samples_lost", "predictions", "refused_inputs", "refused_outputs")
        times = {
            name: max((status[name] for status in each.values() if status[name] is not None), default=None)
            for name in ("compute_ms", "compute_ms_p99")
        }
        return {
            **{name: first[name] for name in ("name", "model", "model_version", "kind")},
            "level": level,
            "message": message,
            "source": next((status["source"] for status in each.values() if status["source"]), ""),
            **{name: int(np.sum([status[name] for status in each.values()])) for name in counts},
            **times,
            "each": each,
        }
