"""ezmsg, as it comes from PyPI, as a participant's decoder: learns from prompts, answers over LSL.

    EMG (LSLInletUnit) -> band-pass (ButterworthFilter) --> windows (Window) -----> Decoder -> predictions (LSLOutletUnit)
                                                        '-> epochs (Sampler) -------'
    events (LSLInletUnit) -> Prompts -> triggers -----------'

All but `Prompts` and `Decoder` are ezmsg's own units; the classifier is a linear discriminant from scikit-learn on the log RMS
of each channel. Nothing here knows myoloop: a person with an EMG amplifier on LSL and a program that sends the
prompts would do.

    myoloop run experiments/ezmsg.yaml                       # starts it
    python examples/ezmsg/decode.py --help                   # with the Python of its own environment
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import AsyncGenerator

import ezmsg.core as ez
import numpy as np
import pylsl
from ezmsg.lsl.units import LSLInfo, LSLInletSettings, LSLInletUnit, LSLOutletSettings, LSLOutletUnit
from ezmsg.sigproc.butterworthfilter import ButterworthFilter, ButterworthFilterSettings
from ezmsg.sigproc.sampler import Sampler, SamplerSettings
from ezmsg.sigproc.util.message import SampleTriggerMessage
from ezmsg.sigproc.window import Window, WindowSettings
from ezmsg.util.messages.axisarray import AxisArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score

FINGERS = ["thumb", "index", "middle", "ring", "little"]
GESTURES = ["rest=00000", "fist=11111", "point=10111", "pinch=11000", "thumb_up=01111"]
HOP_S = 0.05  # between the windows that an epoch is cut into


class Prompts(ez.Unit):
    """Turns the markers `prompt <gesture>` into triggers for the Sampler."""

    INPUT_EVENT = ez.InputStream(AxisArray)
    OUTPUT_TRIGGER = ez.OutputStream(SampleTriggerMessage)

    @ez.subscriber(INPUT_EVENT)
    @ez.publisher(OUTPUT_TRIGGER)
    async def on_event(self, message: AxisArray) -> AsyncGenerator:
        for text, stamp in zip(message.data[:, 0], message.axes["time"].data, strict=True):
            if str(text).startswith("prompt "):
                name = str(text).removeprefix("prompt ")
                yield self.OUTPUT_TRIGGER, SampleTriggerMessage(timestamp=float(stamp), value=name)


class DecoderSettings(ez.Settings):
    gestures: dict[str, list[float]]
    """Name of each prompt, and its labels, thumb to little, 1 = flexed."""
    repetitions: int
    """Epochs of each to learn from."""
    window_s: float
    """Seconds of EMG behind each answer."""


class DecoderState(ez.State):
    epochs: dict[str, list[np.ndarray]]
    """(samples, channels) each, by gesture"""
    classifier: LinearDiscriminantAnalysis | None = None


class Decoder(ez.Unit):
    """Collects epochs, fits, then answers every window."""

    SETTINGS = DecoderSettings
    STATE = DecoderState
    INPUT_EPOCH = ez.InputStream(AxisArray)
    INPUT_WINDOW = ez.InputStream(AxisArray)
    OUTPUT_PREDICTION = ez.OutputStream(AxisArray)

    async def initialize(self) -> None:
        self.STATE.epochs = {name: [] for name in self.SETTINGS.gestures}

    @ez.subscriber(INPUT_EPOCH)
    async def on_epoch(self, message: AxisArray) -> None:
        name, wanted = message.attrs["trigger"].value, self.SETTINGS.repetitions
        done = self.STATE.epochs.get(name)
        if self.STATE.classifier is not None or done is None or len(done) >= wanted:
            return
        done.append(message.data.copy())
        print(f"{name} {len(done)}/{wanted}", flush=True)
        if all(len(found) == wanted for found in self.STATE.epochs.values()):
            samples = round(self.SETTINGS.window_s / message.axes["time"].gain)
            self.STATE.classifier = fit(self.STATE.epochs, samples, round(HOP_S / message.axes["time"].gain))
            print("answering", flush=True)

    @ez.subscriber(INPUT_WINDOW)
    @ez.publisher(OUTPUT_PREDICTION)
    async def on_window(self, message: AxisArray) -> AsyncGenerator:
        if self.STATE.classifier is None:
            return
        probabilities = self.STATE.classifier.predict_proba(features(message.data)[None])
        values = np.clip(probabilities @ np.array(list(self.SETTINGS.gestures.values())), 0.0, 1.0)
        # An explicit stamp for the one row: with a LinearAxis the outlet stamps it one hop late, value(1) instead of value(0).
        newest = message.axes["time"].value(len(message.data) - 1)
        axes = {
            "time": AxisArray.CoordinateAxis(data=np.array([newest]), dims=["time"], unit="s"),
            "ch": AxisArray.CoordinateAxis(data=np.array(FINGERS), dims=["ch"]),
        }
        yield (
            self.OUTPUT_PREDICTION,
            AxisArray(values.astype(np.float32), dims=["time", "ch"], axes=axes, key="prediction"),
        )


def fit(epochs: dict[str, list[np.ndarray]], window: int, hop: int) -> LinearDiscriminantAnalysis:
    """Fits on everything; says how well a fit on all but the last repetition does on that."""
    rows = [
        (features(part), number, k)
        for number, found in enumerate(epochs.values())
        for k, epoch in enumerate(found)
        for part in np.lib.stride_tricks.sliding_window_view(epoch, window, axis=0)[::hop].swapaxes(1, 2)
    ]
    x, y, repetition = np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
    out = repetition == repetition.max()
    if not out.all():
        right = balanced_accuracy_score(y[out], new_classifier().fit(x[~out], y[~out]).predict(x[out]))
        print(f"last repetition, kept out: balanced accuracy {100 * right:.1f} %", flush=True)
    return new_classifier().fit(x, y)


def new_classifier() -> LinearDiscriminantAnalysis:
    """Covariance shrunk as Ledoit and Wolf do: a few seconds of each gesture have to do."""
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")


def features(emg: np.ndarray) -> np.ndarray:
    """(samples, channels) microvolts -> (channels,) log RMS."""
    return np.log(np.sqrt(np.mean(np.square(emg, dtype=float), axis=0)) + 1e-3)


def main() -> None:
    """Builds the graph and runs it until told to end."""
    args = arguments()

    # LSL's clock all the way, and stamps as the samples bring them: dejittering is for amplifiers that stamp at random.
    def inlet(stream: str) -> LSLInletUnit:
        return LSLInletUnit(
            LSLInletSettings(
                info=LSLInfo(name=f"{args.participant}_{stream}"),
                use_lsl_clock=True,
                processing_flags=pylsl.proc_clocksync,
            )
        )

    units = {
        "EMG": inlet("emg"),
        "EVENTS": inlet("events"),
        "BAND": ButterworthFilter(ButterworthFilterSettings(order=4, cuton=20.0, cutoff=450.0, coef_type="sos")),
        "PROMPTS": Prompts(),
        "EPOCHS": Sampler(SamplerSettings(buffer_dur=args.until + 2.0, period=(args.skip, args.until))),
        "WINDOWS": Window(WindowSettings(window_dur=args.window, window_shift=args.shift, zero_pad_until="none")),
        "DECODER": Decoder(DecoderSettings(dict(args.gestures), args.repetitions, args.window)),
        "PREDICTIONS": LSLOutletUnit(
            LSLOutletSettings(
                stream_name=f"{args.participant}_prediction", stream_type="Control", assume_lsl_clock=True
            )
        ),
    }
    connections = (
        (units["EMG"].OUTPUT_SIGNAL, units["BAND"].INPUT_SIGNAL),
        (units["BAND"].OUTPUT_SIGNAL, units["EPOCHS"].INPUT_SIGNAL),
        (units["BAND"].OUTPUT_SIGNAL, units["WINDOWS"].INPUT_SIGNAL),
        (units["EVENTS"].OUTPUT_SIGNAL, units["PROMPTS"].INPUT_EVENT),
        (units["PROMPTS"].OUTPUT_TRIGGER, units["EPOCHS"].INPUT_TRIGGER),
        (units["EPOCHS"].OUTPUT_SIGNAL, units["DECODER"].INPUT_EPOCH),
        (units["WINDOWS"].OUTPUT_SIGNAL, units["DECODER"].INPUT_WINDOW),
        (units["DECODER"].OUTPUT_PREDICTION, units["PREDICTIONS"].INPUT_SIGNAL),
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ez.run(units, connections=connections)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participant", default="myo", help="id: the prefix of the participant's streams")
    parser.add_argument(
        "--gestures", nargs="+", type=gesture, default=[gesture(text) for text in GESTURES], metavar="NAME=BITS",
        help="prompts to learn, each with its fingers, thumb to little, 1 = flexed",
    )  # fmt: skip
    parser.add_argument("--repetitions", type=int, default=3, help="epochs of each gesture to learn from")
    parser.add_argument(
        "--skip", type=float, default=0.8, help="s after a prompt that are not used: the hand still moves"
    )
    parser.add_argument("--until", type=float, default=1.9, help="s after a prompt at which its epoch ends")
    parser.add_argument("--window", type=float, default=0.2, help="s of EMG behind each answer")
    parser.add_argument("--shift", type=float, default=0.02, help="s between answers")
    return parser.parse_args()


def gesture(text: str) -> tuple[str, list[float]]:
    """`fist=11111` -> its name and five labels."""
    name, _, bits = text.partition("=")
    if not name or len(bits) != len(FINGERS) or not set(bits) <= {"0", "1"}:
        raise argparse.ArgumentTypeError(f"'{text}': expected a name, = and five of 0 or 1, such as fist=11111")
    return name, [float(bit) for bit in bits]


if __name__ == "__main__":
    main()
