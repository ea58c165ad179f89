"""One ONNX decoder for many participants at once: one call of the model answers all of them, each from a state of its own."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from myoloop.decoder.runtime import OnnxDecoder
from myoloop.errors import MyoloopError

_log = logging.getLogger(__name__)
_RANGE_SLACK = 1e-4  # rounding of a float32 sigmoid, as for one participant


class BatchDecoder:
    """The same model beside itself, B times; what it answers one participant depends on nobody else.

        decoder = BatchDecoder("models/decoder_tcn/decoder.onnx", participants=16)
        for used, predictions, good in decoder.push(chunks):       # chunks (16, samples, channels), microvolts
            ...                                                    # predictions (16, 5), good (16,)

    What is refused of one participant - EMG that is not finite, an answer that is no five probabilities - is refused as in
    `OnnxDecoder`, and of that participant alone.

    Raises:
      MyoloopError: the file is not a decoder.
    """

    def __init__(self, path: str | Path, participants: int, threads: int = 1) -> None:
        self._one = OnnxDecoder(path, threads)  # checks the file and tries it
        self.info = self._one.info
        self.participants = participants
        self.refused_inputs = np.zeros(participants, int)
        self.refused_outputs = np.zeros(participants, int)
        self._whole = self._one.takes_batches
        self.reset()

    @property
    def name(self) -> str:
        """What reports call the decoder."""
        return self.info.name

    @property
    def version(self) -> str:
        """The maker's version of the model, or the contract's when it has none."""
        return self._one.version

    def reset(self) -> None:
        """Forget all EMG seen so far. The counters stay."""
        self._buffer = np.zeros((self.participants, 0, self.info.channels), np.float32)
        self._silent = self._one.silence()
        self._state = {name: np.repeat(value, self.participants, axis=0) for name, value in self._silent.items()}

    def push(self, chunks: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Take everybody's next samples; returns the predictions that became due.

        Args:
          chunks: (B, samples, channels) microvolts, in order and without gaps.

        Returns:
          (used, predictions, good) per call of the model: `used` counts samples of these chunks up to and including the newest
          that was used; predictions float32 (B, 5), meaningless where `good` (B,) is False: refused.
        """
        chunks = np.asarray(chunks, np.float32)
        if chunks.ndim != 3 or chunks.shape[::2] != (self.participants, self.info.channels):
            raise MyoloopError(
                f"decoder '{self.name}' reads chunks of shape ({self.participants}, samples, {self.info.channels}); found "
                f"{chunks.shape}."
            )
        older = self._buffer.shape[1]
        self._buffer = np.concatenate([self._buffer, chunks], axis=1)
        due, start = [], 0
        while self._buffer.shape[1] - start >= self.info.window:
            end = start + self.info.window
            due.append((end - older, *self._call(self._buffer[:, start:end])))
            start += self.info.hop
        self._buffer = self._buffer[:, start:].copy()
        return due

    def _call(self, emg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions (B, 5) and whether they may be used (B,)."""
        heard = np.isfinite(emg).all(axis=(1, 2))
        prediction, states = self._run(np.where(heard[:, None, None], emg, np.float32(0.0)))
        sound = np.isfinite(prediction).all(axis=1)
        sound &= ((prediction >= -_RANGE_SLACK) & (prediction <= 1.0 + _RANGE_SLACK)).all(axis=1)
        for value in states.values():
            sound &= np.isfinite(value.reshape(self.participants, -1)).all(axis=1)
        for name, value in states.items():
            self._keep(name, value, heard, sound)
        self._count("EMG that is not finite", self.refused_inputs, ~heard)
        self._count("an answer that is no five probabilities", self.refused_outputs, heard & ~sound)
        return np.clip(prediction, 0.0, 1.0), heard & sound

    def _run(self, emg: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        if self._whole:
            return self._one.call(emg, self._state)
        each = [
            self._one.call(emg[n : n + 1], {name: value[n : n + 1] for name, value in self._state.items()})
            for n in range(self.participants)
        ]
        states = {name: np.concatenate([state[name] for _, state in each]) for name in self._state}
        return np.concatenate([prediction for prediction, _ in each]), states

    def _keep(self, name: str, value: np.ndarray, heard: np.ndarray, sound: np.ndarray) -> None:
        """The next state: the old one where the EMG was refused, silence where the answer was."""
        if not (heard & sound).all():
            value = np.array(value)
            value[heard & ~sound] = self._silent[name]
            value[~heard] = self._state[name][~heard]
        self._state[name] = value

    def _count(self, what: str, counter: np.ndarray, refused: np.ndarray) -> None:
        if not refused.any():
            return
        new = np.flatnonzero(refused & (counter == 0))
        if len(new):
            _log.warning(
                "decoder '%s': %s refused of participant %s. Further ones are counted, not said.",
                self.name, what, ", ".join(map(str, new)),
            )  # fmt: skip
        counter += refused
