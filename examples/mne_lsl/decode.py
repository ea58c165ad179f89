"""mne-lsl, as it comes from PyPI, as a participant's decoder: learns from prompts, answers over LSL.

StreamLSL receives and band-passes the EMG; epochs are cut out of its buffer by time stamp, because EpochsStream reads no
events that are text; a linear discriminant from scikit-learn works on the log RMS of each channel. Nothing here knows
myoloop: a person with an EMG amplifier on LSL and a program that sends the prompts would do.

    myoloop run experiments/mne_lsl.yaml                     # starts it
    python examples/mne_lsl/decode.py --help                 # with the Python of its own environment
"""

from __future__ import annotations

import argparse
import signal
import time

import numpy as np
from mne_lsl.lsl import StreamInfo, StreamInlet, StreamOutlet, resolve_streams
from mne_lsl.stream import StreamLSL
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score

FINGERS = ["thumb", "index", "middle", "ring", "little"]
GESTURES = ["rest=00000", "fist=11111", "point=10111", "pinch=11000", "thumb_up=01111"]
WAIT_S = 60.0  # for the participant's streams
HOP_S = 0.05  # between the windows that an epoch is cut into
POLL_S = 0.001  # between two looks at the buffer


def main() -> None:
    """Connects, calibrates, answers until it is told to end."""
    args = arguments()
    gestures = dict(args.gestures)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        emg = find(f"{args.participant}_emg")
        stream = StreamLSL(bufsize=args.until + 1.0, name=emg.name, stype="EMG", source_id=emg.source_id)
        stream.connect(acquisition_delay=args.acquisition_delay, timeout=10.0)
        stream.filter(20.0, 450.0, iir_params={"order": 4, "ftype": "butter", "output": "sos"})
        prompts = StreamInlet(find(f"{args.participant}_events"))  # the plain inlet: StreamLSL refuses text
        prompts.open_stream(timeout=10)
        outlet = predictions(args.participant)  # there before it answers: the participant waits for it
        classifier = calibrate(stream, prompts, list(gestures), args)
        answer(stream, outlet, classifier, np.array(list(gestures.values())), args.window)
    except KeyboardInterrupt:
        print("told to end", flush=True)


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
    parser.add_argument("--acquisition-delay", type=float, default=0.005, help="s between mne-lsl's looks at the inlet")
    return parser.parse_args()


def gesture(text: str) -> tuple[str, list[float]]:
    """`fist=11111` -> its name and five labels."""
    name, _, bits = text.partition("=")
    if not name or len(bits) != len(FINGERS) or not set(bits) <= {"0", "1"}:
        raise argparse.ArgumentTypeError(f"'{text}': expected a name, = and five of 0 or 1, such as fist=11111")
    return name, [float(bit) for bit in bits]


def find(name: str) -> StreamInfo:
    """The stream of this name. One second at a time: no signal is heard while liblsl looks around."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if found := resolve_streams(1.0, name=name):
            return found[0]
    raise SystemExit(f"no stream '{name}' within {WAIT_S:g} s")


def predictions(participant: str) -> StreamOutlet:
    """Five probabilities, thumb to little, whenever there is something to say."""
    info = StreamInfo(f"{participant}_prediction", "Control", len(FINGERS), 0.0, "float32", f"mne_lsl_{participant}")
    info.set_channel_names(FINGERS)
    return StreamOutlet(info)


def calibrate(stream: StreamLSL, prompts: StreamInlet, names: list[str], args: argparse.Namespace):
    """Collects so many epochs of each gesture, fits, and says how well epochs that were kept out are told apart."""
    epochs: dict[str, list[np.ndarray]] = {name: [] for name in names}
    begun: list[tuple[str, float]] = []  # prompts whose epochs are not over yet
    wanted = round((args.until - args.skip) * stream.info["sfreq"])
    while any(len(done) < args.repetitions for done in epochs.values()):
        text, stamp = prompts.pull_sample(timeout=0.05)
        name = text[0].removeprefix("prompt ") if text and text[0].startswith("prompt ") else None
        if name in epochs and len(epochs[name]) < args.repetitions:
            begun.append((name, stamp))
        data, stamps = stream.get_data()
        while begun and stamps[-1] >= begun[0][1] + args.until:
            name, start = begun.pop(0)
            inside = (stamps > start + args.skip) & (stamps <= start + args.until)
            if inside.sum() < wanted - 1:
                print(f"{name} left out: {inside.sum()} of {wanted} samples", flush=True)
                continue
            epochs[name].append(data[:, inside].T.copy())
            print(f"{name} {len(epochs[name])}/{args.repetitions}", flush=True)
    window = round(args.window * stream.info["sfreq"])
    hop = round(HOP_S * stream.info["sfreq"])
    rows = [
        (features(part), names.index(name), k)
        for name, found in epochs.items()
        for k, epoch in enumerate(found)
        for part in np.lib.stride_tricks.sliding_window_view(epoch, window, axis=0)[::hop].swapaxes(1, 2)
    ]
    x, y, repetition = np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
    if args.repetitions > 1:
        out = repetition == args.repetitions - 1
        right = balanced_accuracy_score(y[out], new_classifier().fit(x[~out], y[~out]).predict(x[out]))
        print(f"last repetition, kept out: balanced accuracy {100 * right:.1f} %", flush=True)
    return new_classifier().fit(x, y)


def new_classifier() -> LinearDiscriminantAnalysis:
    """Covariance shrunk as Ledoit and Wolf do: a few seconds of each gesture have to do."""
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")


def features(emg: np.ndarray) -> np.ndarray:
    """(samples, channels) microvolts -> (channels,) log RMS."""
    return np.log(np.sqrt(np.mean(np.square(emg, dtype=float), axis=0)) + 1e-3)


def answer(
    stream: StreamLSL, outlet: StreamOutlet, classifier: LinearDiscriminantAnalysis, labels: np.ndarray, window_s: float
) -> None:
    """One answer for all that came since the last, stamped with the newest sample that it used."""
    print("answering", flush=True)
    while True:
        if not stream.n_new_samples:
            time.sleep(POLL_S)
            continue
        data, stamps = stream.get_data(window_s)
        probabilities = classifier.predict_proba(features(data.T)[None])[0]
        outlet.push_sample(np.clip(probabilities @ labels, 0.0, 1.0).astype(np.float32), timestamp=stamps[-1])


if __name__ == "__main__":
    main()
