"""What goes wrong inside a part of a session: Python imports this first where benchmarks/fault_bench.py puts it on the path.

MYOLOOP_FAULT is `part:fault`, e.g. `participant:nan`; only the process of that part is touched.
"""

import os
import sys

PART, _, FAULT = os.environ.get("MYOLOOP_FAULT", "").partition(":")
COMMAND = " ".join(sys.orig_argv)
AFTER_S, FOR_S = 4.0, 5.0


def _mine() -> bool:
    if PART == "learner":
        return "myoloop.live.learner" in COMMAND
    return bool(PART) and f"-m myoloop {PART} " in COMMAND


def _between():  # type: ignore[no-untyped-def]
    """Says whether it is time: from AFTER_S after the first call on, for FOR_S."""
    import time

    begun = None

    def now() -> bool:
        nonlocal begun
        begun = begun or time.monotonic()
        return AFTER_S <= time.monotonic() - begun < AFTER_S + FOR_S

    return now


def _participant() -> None:
    import numpy as np

    from myoloop.streams import outlets

    time_to = _between()
    if FAULT == "nan":  # broken sensors: NaN in the EMG
        emg = outlets.ParticipantOutlets.emg

        def broken(self, chunk, newest):  # type: ignore[no-untyped-def]
            emg(self, np.full_like(chunk, np.nan) if time_to() else chunk, newest)

        outlets.ParticipantOutlets.emg = broken
    if FAULT == "outlet":  # the EMG outlet goes away and comes back under its name
        push, kept = outlets.ParticipantOutlets._push, {}
        make = outlets.make_outlet

        def remember(participant, stream, *args, **kwargs):  # type: ignore[no-untyped-def]
            kept[stream] = (participant, stream, args, kwargs)
            return make(participant, stream, *args, **kwargs)

        def gone(self, stream, samples, time):  # type: ignore[no-untyped-def]
            if stream == "emg":
                away = time_to()
                if away and "emg" in self._open:
                    del self._open["emg"]
                if not away and "emg" not in self._open:
                    participant, name, args, kwargs = kept["emg"]
                    self._open["emg"] = make(participant, name, *args, **kwargs)
                if away:
                    return
            push(self, stream, samples, time)

        outlets.make_outlet = remember
        outlets.ParticipantOutlets._push = gone


def _decoder() -> None:
    import numpy as np

    from myoloop.decoder import runtime

    time_to = _between()
    call = runtime.OnnxDecoder._call
    if FAULT == "slow":  # a model ten times slower than the chunks come
        import time

        def slow(self, emg):  # type: ignore[no-untyped-def]
            time.sleep(0.2)
            return call(self, emg)

        runtime.OnnxDecoder._call = slow
    if FAULT == "nan":  # a model that answers NaN for a while
        run = runtime._fault

        def bad(prediction, states):  # type: ignore[no-untyped-def]
            if time_to():
                prediction[:] = np.nan
            return run(prediction, states)

        runtime._fault = bad


def _learner() -> None:
    import numpy as np

    from myoloop.live import channel

    pack = channel.pack_policy

    def spoiled(params, about):  # type: ignore[no-untyped-def]
        if not params:
            return pack(params, about)
        from jax import tree

        if FAULT == "nan":
            params = tree.map(lambda x: np.full_like(x, np.nan), params)
        if FAULT == "shape":
            params = tree.map(lambda x: np.concatenate([x, x], axis=-1), params)
        return pack(params, about)

    channel.pack_policy = spoiled


if _mine():
    {"participant": _participant, "decoder": _decoder, "learner": _learner}[PART]()
