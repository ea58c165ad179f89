"""Opens a recorded session with pyxdf alone, says how well the decoder did, and draws EMG, targets and answers.

    python examples/analyse_xdf.py runs/latest/session.xdf --begin 10 --seconds 15 --out session.png

A beginning for analyses of your own: nothing of myoloop is imported. Needs numpy, matplotlib and pyxdf.
"""

from __future__ import annotations

import argparse

import matplotlib
import numpy as np
import pyxdf

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FINGERS = ("thumb", "index", "middle", "ring", "little")
ASKED, SAID = "#c3d3e0", "#b3432b"


def load(path: str) -> dict[str, dict]:
    """The streams of the file's participant, by the last part of their names: emg, target, feedback, events and so on.

    Stamps are not smoothed: a chunk of EMG, the step that made it and the answer to it carry the same one.
    """
    found, _ = pyxdf.load_xdf(path, dejitter_timestamps=False)
    named = {stream["info"]["name"][0]: stream for stream in found}
    participant = next(name.removesuffix("_emg") for name in named if name.endswith("_emg"))
    return {n.removeprefix(f"{participant}_"): s for n, s in named.items() if n.startswith(f"{participant}_")}


def labels(stream: dict) -> list[str]:
    """Names of a stream's channels."""
    return [channel["label"][0] for channel in stream["info"]["desc"][0]["channels"][0]["channel"]]


def decoded_right(streams: dict[str, dict]) -> np.ndarray:
    """(5,) share of the control steps at which the finger's answer, as the participant had it, was what was asked for.

    `feedback` and `target` have a row for each control step; steps before the first answer do not count.
    """
    feedback, target = streams["feedback"], streams["target"]
    values, age_s = feedback["time_series"][:, :5], feedback["time_series"][:, 5]
    rows = np.interp(feedback["time_stamps"], target["time_stamps"], np.arange(len(target["time_stamps"])))
    asked = target["time_series"][np.round(rows).astype(int)]  # of the same step
    heard = np.isfinite(age_s)
    return np.mean((values[heard] > 0.5) == (asked[heard] > 0.5), axis=0)


def latencies_ms(streams: dict[str, dict]) -> np.ndarray:
    """From the newest EMG sample behind an answer to the control step that first used it."""
    latency = streams["feedback"]["time_series"][:, 6]
    return latency[np.isfinite(latency)]


def draw(streams: dict[str, dict], begin: float, seconds: float, out: str) -> None:
    """EMG of all channels above, what was asked of and answered about each finger below."""
    emg, target, feedback = streams["emg"], streams["target"], streams["feedback"]
    zero = emg["time_stamps"][0]

    def part(stream: dict) -> tuple[np.ndarray, np.ndarray]:
        time = stream["time_stamps"] - zero
        shown = (time >= begin) & (time <= begin + seconds)
        return time[shown], stream["time_series"][shown]

    fig, (above, below) = plt.subplots(2, 1, figsize=(11, 8), sharex=True, height_ratios=(3, 2), layout="constrained")
    time, volts = part(emg)
    step = 2 * np.ceil(np.percentile(np.abs(volts), 99.7) / 10) * 10  # uV from line to line
    names = labels(emg)
    for k, name in enumerate(names):
        above.plot(time, volts[:, k] / step - k, color="#1d2733", lw=0.3, label=name)
    above.set(ylabel=f"EMG ({step:g} µV from line to line)", ylim=(-len(names), 1))
    above.set_yticks([-k for k in range(len(names))], names, fontsize=8)
    for k, finger in enumerate(FINGERS):
        time, asked = part(target)
        below.fill_between(time, -k, -k + 0.8 * asked[:, k], step="post", color=ASKED, lw=0)
        time, said = part(feedback)
        below.plot(time, -k + 0.8 * said[:, k], color=SAID, lw=0.9, drawstyle="steps-post")
        below.text(1.005, -k + 0.4, finger, transform=below.get_yaxis_transform(), va="center", fontsize=9)
    below.set(
        xlabel="time (s)",
        ylim=(-len(FINGERS) + 0.9, 1),
        xlim=(begin, min(begin + seconds, emg["time_stamps"][-1] - zero)),
    )
    below.set_yticks([])
    below.set_ylabel("asked for (blue), answered (red), 0 to 1")
    right, late = decoded_right(streams), latencies_ms(streams)
    fig.suptitle(
        f"{100 * np.mean(right):.1f} % decoded right; answers used {np.median(late):.1f} ms after their EMG (median)",
        fontsize=11,
    )
    fig.savefig(out, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="session.xdf of a run folder")
    parser.add_argument(
        "--begin", type=float, default=0.0, help="what is drawn begins so many seconds after the first sample"
    )
    parser.add_argument("--seconds", type=float, default=15.0, help="and lasts so long")
    parser.add_argument("--out", default="session.png", help="picture")
    given = parser.parse_args()
    streams = load(given.file)
    for name, stream in streams.items():
        print(f"{name:<12} {len(stream['time_stamps']):>7} samples, {stream['info']['type'][0]}")
    right, late = decoded_right(streams), latencies_ms(streams)
    print(
        "decoded right: "
        + ", ".join(f"{finger} {100 * share:.1f} %" for finger, share in zip(FINGERS, right, strict=True))
    )
    print(
        f"mean {100 * np.mean(right):.2f} %; latency {np.median(late):.2f} ms, 99th percentile {np.percentile(late, 99):.2f} ms"
    )
    draw(streams, given.begin, given.seconds, given.out)
    print(f"picture: {given.out}")


if __name__ == "__main__":
    main()
