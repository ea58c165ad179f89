"""LibEMG, as it comes from PyPI, as a participant's decoder: reads a Delsys Trigno, learns from prompts, answers by UDP.

Only the prompts, which LibEMG's own window shows to people, are taken from the participant's stream of events: all else would
run as it is with a person who wears a real Trigno. Recordings are kept in LibEMG's folder layout,
C_<class>_R_<repetition>.csv, in volts.

    myoloop run experiments/libemg.yaml                      # starts it
    python examples/libemg/drive.py --help                   # with the Python of its own environment
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")  # LibEMG loads its windows; here is no screen

import numpy as np
import pylsl
from libemg.data_handler import OfflineDataHandler, OnlineDataHandler, RegexFilter
from libemg.emg_predictor import EMGClassifier, OnlineEMGClassifier
from libemg.feature_extractor import FeatureExtractor
from libemg.streamers import delsys_streamer

RATE_HZ = 2000
SKIP_S = 0.8  # after a prompt: reading it and moving there
CUT_S = 0.1  # before the next one
SILENT_S = 5.0  # without samples: the amplifier is gone
KEPT = 1000  # samples in LibEMG's shared memory: it copies all of them for every sample that comes
FEATURES = ["MAV", "ZC", "SSC", "WL"]  # Hudgins' time-domain set


def main() -> None:
    """Connects, collects, trains, answers until it is told to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participant", default="myo", help="id of the participant, for its prompts")
    parser.add_argument(
        "--gestures", default="rest,fist,point,pinch,thumb_up", help="classes in order; the first is the rest"
    )
    parser.add_argument("--repetitions", type=int, default=3, help="recordings of each gesture")
    parser.add_argument("--model", default="LDA", help="a classifier of LibEMG")
    parser.add_argument("--window", type=int, default=400, help="samples of a window")
    parser.add_argument("--increment", type=int, default=100, help="samples between windows")
    parser.add_argument("--output", default="probabilities", choices=["probabilities", "predictions"])
    parser.add_argument("--port", type=int, default=12346, help="UDP port that predictions go to")
    parser.add_argument("--folder", default="runs/libemg_calibration", help="where recordings go")
    parser.add_argument("--reuse", action="store_true", help="train on what is in the folder; collect nothing")
    args = parser.parse_args()
    names = args.gestures.split(",")
    folder = Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    wait_for_port(50040)
    streamer, shared = delsys_streamer(
        shared_memory_items=[["emg", (KEPT, 16), np.double], ["emg_count", (1, 1), np.int32]],
        delsys_ip="127.0.0.1",
        channel_list=list(range(16)),
    )
    handler = OnlineDataHandler(shared)
    try:
        if not args.reuse:
            collect(handler, args.participant, names, args.repetitions, folder)
        classifier = train(folder, names, args)
        online = OnlineEMGClassifier(
            classifier, args.window, args.increment, handler, FEATURES, port=args.port, output_format=args.output
        )
        online.run(block=False)
        print("answering", flush=True)
        watch(handler)
    except KeyboardInterrupt:
        pass
    finally:
        streamer.terminate()
        streamer.join(3)
        handler.smm.cleanup()


def wait_for_port(port: int) -> None:
    """Until the base station is there."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)


def collect(handler: OnlineDataHandler, participant: str, names: list[str], repetitions: int, folder: Path) -> None:
    """Records each gesture as often as wanted, when it is prompted; other prompts are let pass."""
    for old in folder.glob("C_*_R_*.csv"):
        old.unlink()
    events = pylsl.StreamInlet(pylsl.resolve_byprop("name", f"{participant}_events", timeout=60)[0])
    events.open_stream(timeout=10)
    done = dict.fromkeys(names, 0)
    asked, samples, seen = "", [], count(handler)
    while min(done.values()) < repetitions:
        text, _ = events.pull_sample(timeout=0.05)
        fresh, seen = new_samples(handler, seen)
        samples.append(fresh)
        if not text or not text[0].startswith("prompt "):
            continue
        recording = np.concatenate(samples)[round(SKIP_S * RATE_HZ) : -round(CUT_S * RATE_HZ)]
        wanted = asked in done and done[asked] < min(repetitions, min(done.values()) + 1)  # evenly over the session
        if wanted and len(recording) > 0.5 * RATE_HZ:
            np.savetxt(folder / f"C_{names.index(asked)}_R_{done[asked]}.csv", recording, delimiter=",", fmt="%.9g")
            done[asked] += 1
            print(f"recorded {asked} {done[asked]}/{repetitions}: {len(recording) / RATE_HZ:.1f} s", flush=True)
        asked, samples = text[0].removeprefix("prompt "), []


def count(handler: OnlineDataHandler) -> int:
    """Samples that have come so far."""
    return int(handler.get_data(N=1)[1]["emg"][0, 0])


def new_samples(handler: OnlineDataHandler, seen: int) -> tuple[np.ndarray, int]:
    """(n, 16) volts, oldest first, that came since `seen`, and the new count."""
    values, counts = handler.get_data()
    now = int(counts["emg"][0, 0])
    if now - seen > KEPT:
        print(f"{now - seen - KEPT} samples came too fast to be recorded", file=sys.stderr, flush=True)
    return values["emg"][: min(now - seen, KEPT)][::-1], now


def watch(handler: OnlineDataHandler) -> None:
    """Until samples stop coming: LibEMG's reader does not connect again, so a new start is better."""
    seen, since = count(handler), time.monotonic()
    while time.monotonic() - since < SILENT_S:
        time.sleep(0.5)
        if (now := count(handler)) != seen:
            seen, since = now, time.monotonic()
    sys.exit(f"no EMG for {SILENT_S:g} s")


def train(folder: Path, names: list[str], args: argparse.Namespace) -> EMGClassifier:
    """Fits on everything; says how well a fit on all but the last repetition does on that."""
    data = OfflineDataHandler()
    numbers = [str(i) for i in range(100)]
    data.get_data(
        str(folder),
        [
            RegexFilter("C_", "_R_", numbers[: len(names)], "classes"),
            RegexFilter("_R_", ".csv", numbers, "reps"),
        ],
        delimiter=",",
    )
    last = max(int(rep.flat[0]) for rep in data.reps)
    train_set, test_set = data.isolate_data("reps", list(range(last))), data.isolate_data("reps", [last])
    kept_out = evaluate(fit(train_set, args), test_set, args, len(names))
    classifier = fit(data, args)
    summary = {
        "gestures": names,
        "model": args.model,
        "recordings": len(data.data),
        "balanced_accuracy_last_repetition": kept_out,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2))
    print(f"trained {args.model}; last repetition, kept out: balanced accuracy {100 * kept_out:.1f} %", flush=True)
    return classifier


def features(data: OfflineDataHandler, args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """(windows, features) and the class of each window."""
    windows, metadata = data.parse_windows(args.window, args.increment)
    return FeatureExtractor().extract_features(FEATURES, windows, array=True), np.asarray(metadata["classes"]).astype(
        int
    )


def fit(data: OfflineDataHandler, args: argparse.Namespace) -> EMGClassifier:
    """A trained classifier."""
    inputs, labels = features(data, args)
    classifier = EMGClassifier(args.model)
    classifier.fit({"training_features": inputs, "training_labels": labels})
    return classifier


def evaluate(classifier: EMGClassifier, data: OfflineDataHandler, args: argparse.Namespace, classes: int) -> float:
    """Mean over the classes of the share of windows that were right."""
    inputs, labels = features(data, args)
    said, _ = classifier.run(inputs)
    return float(np.mean([np.mean(said[labels == c] == c) for c in range(classes)]))


if __name__ == "__main__":
    main()
