"""The `myoloop` command."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import yaml
from tyro.extras import SubcommandApp

from myoloop.errors import MyoloopError
from myoloop.machine import keep_compiled

app = SubcommandApp()
datasets = SubcommandApp()
exports = SubcommandApp()

ABOUT = """A virtual participant for EMG interfaces: a simulated hand whose surface EMG goes out over Lab Streaming Layer, and a
decoder whose predictions come back. `myoloop run` does it all; `myoloop COMMAND --help` explains one command."""

File = Annotated[Path, tyro.conf.Positional]


def _overrides(
    duration: float | None,
    seed: int | None,
    ros: bool | None,
    decoder: bool,
    assigned: tuple[str, ...] = (),
    view: bool = False,
) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for assignment in assigned:
        key, equals, value = assignment.partition("=")
        if not key or not equals:
            raise MyoloopError(f"--set {assignment}: expected KEY=VALUE, e.g. --set participant.policy=baseline.")
        try:
            changes[key.strip()] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise MyoloopError(f"--set {assignment}: the value is not readable as YAML.") from error
    if duration is not None:
        changes["duration_s"] = duration
    if seed is not None:
        changes["seed"] = seed
    if ros is not None:
        changes["ros"] = ros
    if not decoder:
        changes["decoder"] = None
    if view:
        changes["view.on"] = True
    return changes


@app.command
def run(
    experiment: File = Path("experiments/closed_loop.yaml"),
    /,
    duration: float | None = None,
    seed: int | None = None,
    ros: bool | None = None,
    decoder: Annotated[bool, tyro.conf.FlagCreatePairsOff] = True,
    assigned: Annotated[
        tuple[str, ...], tyro.conf.arg(name="set", metavar="KEY=VALUE"), tyro.conf.UseAppendAction
    ] = (),
    view: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    runs: Path = Path("runs"),
) -> None:
    """Run an experiment: start its processes, watch them, write a run folder with a report.

    Example: myoloop run experiments/closed_loop.yaml --duration 20. The report is runs/latest/report.html.

    Args:
      experiment: YAML file; relative names are also looked for among the shipped ones.
      duration: seconds, instead of the file's.
      seed: of motor unit discharges and noise, instead of the file's.
      ros: run ROS 2 nodes, or plain processes, whatever the file says.
      decoder: leave the decoder out: bring your own, or watch the open loop.
      assigned: any key of the experiment file, by its dotted name, instead of the file's; may be given several times.
      view: serve a page that shows the session in a browser, with controls; see docs/viewer.md.
      runs: folder for run folders.
    """
    from myoloop.machine import give_back_memory

    give_back_memory()

    from myoloop.experiment import load_experiment
    from myoloop.session import Session
    from myoloop.turns import Turns

    loaded = load_experiment(experiment, _overrides(duration, seed, ros, decoder, assigned, view))
    in_turn = loaded.population is not None and loaded.population.how == "in_turn"
    _finish(Turns(loaded, runs) if in_turn else Session(loaded, runs))


@app.command
def attend(experiment: File, /, run_dir: Path) -> None:
    """Watch a session that a launch file started, and write its report at the end.

    Args:
      experiment: the file that the launch file runs.
      run_dir: the run folder given to its participant.
    """
    from myoloop.experiment import load_experiment
    from myoloop.session import Session

    _finish(Session(load_experiment(experiment), run_dir=run_dir, spawn=False))


@app.command
def participant(experiment: File, /, run_dir: Path | None = None) -> None:
    """Run only the participant, without ROS: LSL streams out, predictions in.

    Args:
      experiment: YAML file.
      run_dir: folder for its step log and status.
    """
    from myoloop.experiment import load_experiment

    loaded = load_experiment(experiment)
    if loaded.population is not None:
        from myoloop.live.population import LivePopulation

        _live(LivePopulation(loaded, run_dir))
        return
    from myoloop.live.participant import LiveParticipant

    _live(LiveParticipant(loaded, run_dir))


@app.command
def decoder(experiment: File, /, run_dir: Path | None = None) -> None:
    """Run only the experiment's decoder, without ROS: an ONNX model, or the adapter for software that answers over UDP.

    Args:
      experiment: YAML file.
      run_dir: folder for its status.
    """
    from myoloop.experiment import load_experiment

    loaded = load_experiment(experiment)
    if loaded.decoder is not None and loaded.decoder.kind == "udp":
        from myoloop.live.udp_decoder import LiveUdpDecoder

        _live(LiveUdpDecoder(loaded, run_dir))
        return
    if loaded.population is not None:
        from myoloop.live.decoders import LiveDecoders

        _live(LiveDecoders(loaded, run_dir))
        return
    from myoloop.live.decoder import LiveDecoder

    _live(LiveDecoder(loaded, run_dir))


@app.command
def device(experiment: File, /, run_dir: Path | None = None) -> None:
    """Run only the experiment's emulated amplifiers: the participant's EMG from LSL to TCP.

    Args:
      experiment: YAML file with a section `devices`.
      run_dir: folder for their status.
    """
    from myoloop.experiment import load_experiment
    from myoloop.live.device import LiveDevices

    _live(LiveDevices(load_experiment(experiment), run_dir))


@app.command
def recorder(experiment: File, /, run_dir: Path) -> None:
    """Run only the recording of a session: all its LSL streams into session.xdf. `myoloop run` starts it by itself.

    Args:
      experiment: YAML file.
      run_dir: folder for the file and its status: the participant's.
    """
    from myoloop.machine import give_back_memory

    give_back_memory()

    from myoloop.experiment import load_experiment
    from myoloop.live.recorder import LiveRecorder

    _live(LiveRecorder(load_experiment(experiment), run_dir))


@app.command
def viewer(experiment: File, /, run_dir: Path | None = None) -> None:
    """Run only the page that shows a participant, without ROS. `myoloop run --view` starts it by itself.

    Args:
      experiment: YAML file; its section `view` says where the page is served.
      run_dir: the session's run folder.
    """
    from myoloop.experiment import load_experiment
    from myoloop.live.viewer import LiveViewer
    from myoloop.machine import stand_back

    stand_back()
    _live(LiveViewer(load_experiment(experiment), run_dir))


@app.command
def view(session: File, /, host: str | None = None, port: int | None = None, participant: str | None = None) -> None:
    """Show a session that runs already in a browser, also one on another machine of this network.

    Example: myoloop view runs/latest

    Args:
      session: its run folder, or its experiment file.
      host: address to serve at, instead of the file's (127.0.0.1).
      port: instead of the file's (8080).
      participant: id, instead of the file's.
    """
    from myoloop.experiment import load_experiment
    from myoloop.live.viewer import LiveViewer
    from myoloop.machine import stand_back

    given = {"view.host": host, "view.port": port, "participant.id": participant}
    changes = {key: value for key, value in given.items() if value is not None}
    folder = session if session.is_dir() else None
    loaded = load_experiment(folder / "config.yaml" if folder else session, changes)
    stand_back()
    _live(LiveViewer(loaded, folder, write_status=False))


@app.command
def report(run_dir: File, /) -> None:
    """Write the report of a run folder again, or say what an XDF recording alone tells of its session.

    Example: myoloop report runs/latest/session.xdf. Its figures go into session.report.json beside it.

    Args:
      run_dir: e.g. runs/latest, or an .xdf file.
    """
    from myoloop.report import rewrite_recording, rewrite_report

    (rewrite_recording if run_dir.suffix == ".xdf" else rewrite_report)(run_dir)


@app.command
def render(
    session: File,
    /,
    out: Path | None = None,
    start: float = 0.0,
    duration: float | None = None,
    size: tuple[int, int] = (960, 720),
) -> None:
    """Make a film of a session: the hand with the posture asked for behind it, EMG and answers below. Needs no screen.

    Example: myoloop render runs/latest --out session.gif --start 10 --duration 8

    Args:
      session: a run folder, or an .xdf file.
      out: .mp4 or .gif; default: film.mp4 in the run folder, or beside the .xdf file.
      start: seconds from the session's first step.
      duration: seconds; default: to its end.
      size: width and height in pixels.
    """
    from myoloop.view.offscreen import prepare

    prepare()  # before MuJoCo is imported
    from rich.progress import track

    from myoloop.view.film import check_out, film
    from myoloop.view.session_data import read_session

    target = out or (session if session.is_dir() else session.parent) / "film.mp4"
    check_out(target)
    count = film(
        read_session(session), target, start, duration, size, lambda times: track(times, "drawing", transient=True)
    )
    print(f"{target}: {count} pictures, {1e-6 * target.stat().st_size:.1f} MB")


@app.command
def replay(
    recording: File,
    /,
    speed: float = 1.0,
    participant: str | None = None,
    answers: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    wait: float = 60.0,
) -> None:
    """Send a recording again over LSL, in its own timing, with new time stamps: run a decoder on it.

    Example: myoloop replay runs/latest/session.xdf

    Args:
      recording: an .xdf file or a run folder.
      speed: times real time.
      participant: id of the streams, instead of the recorded one.
      answers: send the recorded predictions too, and what the participant perceived of them.
      wait: seconds to wait for somebody who listens to the EMG.
    """
    from myoloop.live.replay import LiveReplay, replay_with_bar

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    replay_with_bar(LiveReplay(recording, speed, participant, answers, wait), stop.is_set)


app.command(exports, name="export", help="A recording for other uses: `myoloop export dataset`, `libemg`.")


@exports.command
def libemg(
    recording: File,
    /,
    out: Path,
    gestures: tuple[str, ...] = (),
    unit: Literal["volts", "microvolts"] = "volts",
    skip: float = 0.8,
    cut: float = 0.1,
) -> None:
    """Write a recording's prompted gestures as LibEMG's folder layout: C_<class>_R_<repetition>.csv.

    Example: myoloop export libemg runs/latest --out calibration

    Args:
      recording: an .xdf file or a run folder, of a session with prompts (experiments/calibration.yaml).
      out: folder for the files.
      gestures: names in the order of their class numbers; default: as in the experiment.
      unit: of the values.
      skip: seconds left out after each prompt.
      cut: seconds left out before the next one.
    """
    from myoloop.streams.prompted import CutRules, write_libemg_folder
    from myoloop.streams.xdf import read_xdf

    count = write_libemg_folder(read_xdf(recording), out, gestures or None, CutRules(skip, cut), unit)
    print(f"{out}: {count} repetitions of each gesture, in {unit}; classes.json names the classes")


@exports.command
def dataset(
    recordings: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    out: Path,
    splits: tuple[str, ...] = (),
    seconds: float = 10.0,
    participants: tuple[str, ...] = (),
) -> None:
    """Write recorded sessions as a dataset (docs/datasets.md): HDF5 that training/decoder.py --dataset learns from.

    Example: myoloop export dataset runs/a runs/b runs/c --out data/mine --splits training validation test_same_people

    Args:
      recordings: run folders, or .xdf files with the config.yaml of their session beside them.
      out: folder of the dataset; new or empty.
      splits: what each recording is for: training, validation, test_same_people or test; default: training.
      seconds: length of the stretches that sessions are cut into.
      participants: whom to export of a population, by id; default: all of them.
    """
    from myoloop.export_dataset import export_dataset

    for line in export_dataset(recordings, out, splits, seconds, participants):
        print(line)


@app.command
def certify(out: Path | None = None, quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False) -> None:
    """Measure this machine's timing - clock, LSL, ROS 2, decoder, whole sessions - and say what it can carry.

    Example: myoloop certify --quick. Ten minutes without --quick; end other programs before.

    Args:
      out: folder for certify.json and certify.html; default: runs/certify-<time>.
      quick: a minute: a few seconds a link, one session.
    """
    from myoloop.certify.procedure import certify as measured

    result = measured(out or Path("runs") / f"certify-{time.strftime('%Y%m%d-%H%M%S')}", quick)
    if not any(cell["carried"] for cell in result["grid"]):
        sys.exit(1)


app.command(datasets, name="dataset", help="Look into a recorded dataset: `myoloop dataset info`.")


@datasets.command
def info(path: File, /) -> None:
    """Say what a dataset holds: recordings, people, references, conditions, shards that are missing; of a shard, also arrays.

    Example: myoloop dataset info data/forearms.

    Args:
      path: a dataset's folder, or one of its shards.
    """
    from myoloop.learn.dataset_info import describe

    print(describe(path))


def _finish(session: Any) -> None:
    """Runs a session; one that ended early is an error, with its report written all the same."""
    session.run()
    if session.failure:
        raise MyoloopError(session.failure)


def _live(live: Any) -> None:
    """Runs a live object until it ends by itself or a signal asks for it."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    live.start()
    while live.running and not stop.wait(0.1):
        pass
    live.close()
    if live.error is not None:
        raise MyoloopError(str(live.error))


def main() -> None:
    """Entry point: a MyoloopError becomes one line on stderr and exit code 2."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("myoloop").setLevel(logging.INFO)
    keep_compiled()
    try:
        app.cli(prog="myoloop", description=ABOUT)
    except KeyboardInterrupt:
        sys.exit(130)  # by convention: 128 + SIGINT
    except MyoloopError as error:
        print(f"myoloop: {error}", file=sys.stderr)
        sys.exit(2)
