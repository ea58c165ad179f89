"""What a session's run folder says about it: the numbers of report.json."""

from __future__ import annotations

import contextlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from myoloop.body.names import FINGERS
from myoloop.emg.armband import armband_from
from myoloop.errors import MyoloopError
from myoloop.experiment import Experiment
from myoloop.live.board import read_status
from myoloop.report_course import changes, course, learning
from myoloop.report_environment import environment
from myoloop.report_pace import pace
from myoloop.report_page import page
from myoloop.report_population import population_figures, read_crowd
from myoloop.report_population_page import population_page, print_population
from myoloop.report_recording import counted, emg_figures, steps_of
from myoloop.report_turns import read_turns
from myoloop.streams.rowlog import read_events, read_rows
from myoloop.streams.xdf import read_xdf
from myoloop.task.gestures import GestureScores, score_gestures
from myoloop.task.trials import gesture_trials, quantiles

STRETCH = "emg_stretch.npz"
"""File in the run folder with the last seconds of EMG as a client received them."""

NO_WITNESS: dict[str, Any] = {
    "samples_received": None, "missing": None, "rate_hz": None, "labels": [], "rms_uv": None, "median_frequency_hz": None,
}  # fmt: skip
"""What is known of a session whose witness could not write down what it saw."""


def write_report(
    run_dir: Path, witness: dict[str, Any], stretch: tuple[np.ndarray, np.ndarray], console: Console | None = None
) -> dict[str, Any]:
    """Writes report.json and report.html, and prints the main figures.

    Args:
      run_dir: the run folder, with what the processes left in it.
      witness: what an independent listener received, see `EmgWitness.summary`.
      stretch: (n, channels) microvolts and (n,) stamps of the EMG to draw.
      console: where to print.

    Returns:
      The content of report.json.

    Raises:
      MyoloopError: the disk is full or the folder is gone; the figures have been printed by then.
    """
    console = console or Console()
    if _config(run_dir).get("population"):
        return _write_population(run_dir, witness, console)
    report = measure(run_dir, witness)
    print_figures(report, console)
    text = json.dumps(report, indent=2, allow_nan=False)
    _write(run_dir / "report.json", text, report)
    rows = _rows(run_dir)
    if rows is None:
        console.print(f"no control step was made; logs are in {run_dir / 'logs'}")
        return report
    events = read_events(run_dir / "events.jsonl")
    config = (run_dir / "config.yaml").read_text(encoding="utf-8")
    _write(run_dir / "report.html", page(report, rows, events, stretch, config), report)
    console.print(f"report: {run_dir / 'report.html'}")
    return report


def _write_population(run_dir: Path, witness: dict[str, Any], console: Console) -> dict[str, Any]:
    """The same for many participants: the batch's times, and a section `population`."""
    config, participant = _config(run_dir), read_status(run_dir, "participant") or {}
    try:
        if config["population"]["how"] == "in_turn":
            crowd, rows, participant, witness = read_turns(run_dir, config)
        else:
            crowd, rows = read_crowd(run_dir)
    except MyoloopError as error:
        console.print(f"no report: {error}")
        return {"population": None, "failure": _failure(witness, participant)}
    failure = _failure(witness, participant)
    me, decoders = config["participant"], [s for s in [read_status(run_dir, "decoder")] if s]
    report: dict[str, Any] = {
        "name": config["name"],
        "duration_s": round(crowd.target.shape[1] / me["control_hz"], 3),
        "asked_duration_s": config["duration_s"],
        "failure": failure,
        "emg": {"armband": armband_from(me["armband"]).name, "channels": crowd.power.shape[2]}
        | {"samples_sent": participant.get("emg_samples_sent", 0), "samples_received": witness["samples_received"]},
        "loop": _loop(rows, participant, me["control_hz"]),
        "decoder": _decoder(config, participant, decoders, witness),
        "population": population_figures(crowd, config),
        "environment": environment(config),
        "messages": participant.get("messages", []) + [m for each in decoders for m in each.get("messages", [])],
    }
    print_population(report, console)
    _write(run_dir / "report.json", json.dumps(report, indent=2, allow_nan=False), report)
    text = (run_dir / "config.yaml").read_text(encoding="utf-8")
    _write(run_dir / "report.html", population_page(report, crowd, text), report)
    console.print(f"report: {run_dir / 'report.html'}")
    return report


def rewrite_report(run_dir: Path) -> None:
    """Makes the report of a run folder again from what is in it; what a full disk kept out is left out.

    Raises:
      MyoloopError: it is not a run folder.
    """
    if not (run_dir / "config.yaml").is_file():
        raise MyoloopError(
            f"{run_dir} is not a run folder: it holds no config.yaml. Name one of runs/, e.g. runs/latest."
        )
    witness = _json(run_dir / "witness.json") or NO_WITNESS
    stretch = np.zeros((0, 0), np.float32), np.zeros(0)
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(run_dir / STRETCH) as saved:
        stretch = saved["emg_uv"], saved["time"]
    write_report(run_dir, witness, stretch)


def rewrite_recording(path: Path) -> None:
    """Prints the figures of a recording and writes them as `<stem>.report.json` beside it.

    Raises:
      MyoloopError: it is no recording of a session, or the figures cannot be written.
    """
    report = report_of_recording(path)
    console = Console()
    print_recording(report, console)
    place = path.with_suffix(".report.json")
    try:
        place.write_text(json.dumps(report, indent=2, allow_nan=False), encoding="utf-8")
    except OSError as error:
        raise MyoloopError(f"{place} could not be written: {error.strerror}. The figures are above.") from error
    console.print(f"figures: {place}")


def measure(run_dir: Path, witness: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a session from its run folder; NaN never occurs, what is unknown is null."""
    config = _config(run_dir)
    participant = read_status(run_dir, "participant") or {}
    recorder = read_status(run_dir, "recorder")
    rows = _rows(run_dir)
    lives = [s for s in (_json(p) for p in sorted(run_dir.glob("decoder*.status.json"))) if s]
    served = [s for s in (_json(p) for p in sorted(run_dir.glob("device*.status.json"))) if s]
    sent = participant.get("emg_samples_sent", 0)
    received = witness["samples_received"]
    control_hz = config["participant"]["control_hz"]
    report: dict[str, Any] = {
        "name": config["name"],
        "duration_s": 0.0 if rows is None else round(len(rows) / control_hz, 3),
        "asked_duration_s": config["duration_s"],
        "failure": _failure(witness, participant),
        "participant": {
            "person": config["participant"]["person"],
            "sample": config["participant"]["sample"],
            "conditions": participant.get("conditions", config["participant"]["conditions"]),
        },
        "emg": {
            "armband": armband_from(config["participant"]["armband"]).name,
            "channels": len(witness["labels"]),
            "rate_hz": witness["rate_hz"],
            "samples_sent": sent,
            "samples_received": received,
            "samples_lost": None if received is None else max(0, sent - received),
            "samples_not_finite": witness.get("not_finite"),
            "rms_uv": witness["rms_uv"],
            "median_frequency_hz": witness["median_frequency_hz"],
        },
        "loop": _loop(rows, participant, control_hz),
        "decoder": _decoder(config, participant, lives, witness)
        | {"pace": pace(rows, control_hz, participant.get("clock", "realtime"), participant.get("timeouts", 0))},
        "devices": [life["devices"] | {"samples_lost": _lost([life], participant, witness)} for life in served],
        "task": _task(rows, control_hz, config["participant"]["reference"].get("gestures")),
        "course": course(rows, control_hz),
        "changes": [] if rows is None else changes(read_events(run_dir / "events.jsonl"), float(rows["time"][0])),
        "adaptation": learning(run_dir, config, participant),
        "effort": _effort(rows),
        "recording": counted(run_dir, participant, lives, recorder),
        "environment": environment(config),
        "messages": participant.get("messages", [])
        + [m for life in [*lives, *served, recorder or {}] for m in life.get("messages", [])],
    }
    return report


def _failure(witness: dict[str, Any], participant: dict[str, Any]) -> str | None:
    """Why the session, or what is known of it, is not whole; None if it is."""
    if witness.get("failure"):
        return str(witness["failure"])
    if participant.get("log_failed"):
        return str(participant["log_failed"])
    phase = participant.get("phase", "nothing")
    if phase not in ("finished", "stopped"):
        return f"the participant's last status is '{phase}': it was killed, or the disk was full"
    return None


def print_figures(report: dict[str, Any], console: Console) -> None:
    """The main figures as a small table."""
    table = Table(show_header=False, box=None, title=f"{report['name']}: {report['duration_s']:g} s")
    loop, task, emg = report["loop"], report["task"], report["emg"]
    latency, step = loop["feedback_latency_ms"], loop["step_ms"]
    if ill := report["participant"]["conditions"]:
        table.add_row("conditions", ", ".join(f"{name} {strength:g}" for name, strength in ill.items()))
    _task_figures(table, task)
    if learner := report["adaptation"]:
        lost = ", and was lost" if learner["lost"] else ""
        table.add_row("learner", f"{learner['stretches']} stretches, {learner['swaps']} policies taken over{lost}")
    table.add_row("feedback latency", f"median {latency['median']} ms, p99 {latency['p99']} ms" if latency else "-")
    if link := report["decoder"]["link"]:
        table.add_row(
            "injected",
            f"delay {link['delay_ms']:g} ms, jitter {link['jitter_ms']:g} ms; {link['dropped']} predictions dropped, "
            f"{link['duplicated']} came twice, {link['overtaken']} overtaken",
        )
    table.add_row("participant step", f"median {step['median']} ms, p99 {step['p99']} ms" if step else "-")
    if loop["clock"] != "realtime" and loop["factor"]:
        table.add_row("clock", f"{loop['clock']}: {loop['factor']:g} x real time, {loop['wall_s']:g} s in all")
    if pace := report["decoder"]["pace"]:
        table.add_row("decoder", f"{pace['verdict']}: {pace['why']}")
    table.add_row("overruns", f"{loop['overruns']} of {loop['steps']} steps")
    if kept := report["recording"]:
        table.add_row("recording", f"{kept['file']}: {kept['bytes'] / 1e6:.1f} MB, {kept['lost']} samples lost")
    broken = f", {emg['samples_not_finite']} not finite" if emg["samples_not_finite"] else ""
    table.add_row("EMG samples", f"{emg['samples_sent']} sent, {emg['samples_lost']} lost{broken}")
    for name in ("trigno", "muovi"):
        if lives := [life[name] for life in report["devices"] if name in life]:
            sent, dropped, clients = (
                sum(life[key] for life in lives) for key in ("frames_sent", "frames_dropped", "connections")
            )
            table.add_row(f"emulated {name}", f"{sent} frames sent, {dropped} dropped, {clients} connections")
    console.print(table)


def report_of_recording(path: Path) -> dict[str, Any]:
    """The task figures of a session from its recording alone; they agree with the session's own report.

    Args:
      path: an XDF file or a run folder.

    Raises:
      MyoloopError: no such file, or no recording of a participant.
    """
    session = read_xdf(path)
    emg = session.need("emg")
    rows = steps_of(session)
    events = session.events
    control_hz = session.streams["target"].rate_hz if "target" in session.streams else 0.0
    begin = float(rows["time"][0]) if rows is not None else float(emg.stamps[0])
    return {
        "participant": session.participant,
        "duration_s": round(len(rows) / control_hz, 3) if rows is not None and control_hz else None,
        "emg": emg_figures(emg),
        "loop": {
            "control_hz": control_hz or None,
            "steps": 0 if rows is None else len(rows),
            "feedback_latency_ms": None if rows is None else quantiles(rows["feedback_latency_ms"]),
        },
        "predictions": len(session.streams["prediction"].stamps) if "prediction" in session.streams else 0,
        "task": _task(rows, control_hz, session.gestures),
        "effort": _effort(rows),
        "changes": changes(events, begin),
        "streams": {stream.name: len(stream.stamps) for stream in session.streams.values()},
        "notes": list(session.notes),
    }


def print_recording(report: dict[str, Any], console: Console) -> None:
    """The figures of `report_of_recording` as a small table."""
    table = Table(show_header=False, box=None, title=f"{report['participant']}: {report['duration_s'] or 0:g} s")
    latency, emg = report["loop"]["feedback_latency_ms"], report["emg"]
    _task_figures(table, report["task"])
    table.add_row("feedback latency", f"median {latency['median']} ms, p99 {latency['p99']} ms" if latency else "-")
    table.add_row("EMG", f"{emg['channels']} channels, {emg['rate_hz']:g} Hz, {emg['samples']} samples")
    table.add_row("RMS", f"{np.median(emg['rms_uv']):.1f} µV (median of the channels)")
    table.add_row("median frequency", f"{np.median(emg['median_frequency_hz']):.0f} Hz (median of the channels)")
    table.add_row("samples", ", ".join(f"{name} {count}" for name, count in report["streams"].items()))
    for note in report["notes"]:
        table.add_row("note", note)
    console.print(table)


def _effort(rows: np.ndarray | None) -> float | None:
    return None if rows is None else round(float(np.mean(rows["excitation"] ** 2)), 5)


def _task_figures(table: Table, task: dict[str, Any]) -> None:
    """Rows on what the task came to."""
    accuracy = task["accuracy"]
    fingers = ", ".join(f"{k} {100 * v:.0f}" for k, v in (task["accuracy_per_finger"] or {}).items())
    table.add_row("accuracy", "open loop" if accuracy is None else f"{100 * accuracy:.1f} %  ({fingers})")
    if named := task["gestures"]:
        shares = ", ".join(f"{name} {100 * share:.0f}" for name, share in named["by_gesture"].items())
        table.add_row("prompted gestures", f"{100 * named['balanced_accuracy']:.1f} % balanced  ({shares})")
    if (trials := task["trials"]) and trials["count"]:
        after = trials["time_to_reach_s"]
        when = f", median {after['median']:.2f} s after the change" if after else ""
        table.add_row("gestures", f"{100 * trials['reached']:.0f} % of {trials['count']} reached{when}")


def _loop(rows: np.ndarray | None, participant: dict[str, Any], control_hz: float) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "control_hz": control_hz, "clock": participant.get("clock", "realtime"), "wall_s": participant.get("wall_s"),
        "factor": None, "steps": 0, "overruns": 0, "step_ms": None, "feedback_latency_ms": None,
    }  # fmt: skip
    if rows is None:
        return empty
    step_ms = quantiles(rows["step_ms"])
    stages = {name: quantiles(rows[name]) for name in ("policy_emg_ms", "push_ms", "body_ms")}
    return empty | {
        "factor": round(len(rows) / control_hz / empty["wall_s"], 2) if empty["wall_s"] else None,
        "steps": len(rows),
        "overruns": participant.get("overruns", 0),
        "step_ms": step_ms,
        "real_time_factor": round(1e3 / (control_hz * step_ms["median"]), 2) if step_ms and step_ms["median"] else None,
        "stage_ms": {name.removesuffix("_ms"): value for name, value in stages.items()},
        "start_lateness_ms": quantiles(1e3 * rows["started"]),
        "waited_ms": quantiles(rows["waited_ms"]) if "waited_ms" in (rows.dtype.names or ()) else None,
        "feedback_latency_ms": quantiles(rows["feedback_latency_ms"]),
    }


def _decoder(
    config: dict[str, Any], participant: dict[str, Any], lives: list[dict[str, Any]], witness: dict[str, Any]
) -> dict[str, Any]:
    settings = config["decoder"] or {}
    last = lives[-1] if lives else {}
    lives = [life for life in lives if "samples_received" in life]  # an adapter reads no EMG
    return {
        "kind": settings.get("kind", "none"),
        "name": settings.get("name"),
        "model": last.get("model"),
        "source": participant.get("prediction_source"),
        "predictions": participant.get("predictions", 0),
        "refused": participant.get("predictions_refused", 0),
        "restamped": participant.get("predictions_restamped", 0),
        "stale_steps": participant.get("stale_steps", 0),
        "link": participant.get("link"),
        "restarts": witness.get("decoder_restarts", 0),
        "samples_received": sum(life.get("samples_received", 0) for life in lives) if lives else None,
        "samples_lost": _lost(lives, participant, witness) if lives else None,
        "compute_ms": last.get("compute_ms"),
        "compute_ms_p99": last.get("compute_ms_p99"),
        "udp": last.get("udp"),
    }


def _lost(lives: list[dict[str, Any]], participant: dict[str, Any], witness: dict[str, Any]) -> int:
    """EMG samples that decoders or amplifiers missed while they listened; where the participant paused, there were none."""
    listeners = max((len(life.get("each", {})) for life in lives), default=0) or 1  # of a population one for each
    paused = listeners * participant.get("clock_moved_s", 0.0) * (witness["rate_hz"] or 0.0)
    return max(0, sum(life.get("samples_lost", 0) for life in lives) - round(paused))


def _task(rows: np.ndarray | None, control_hz: float, gestures: dict[str, Any] | None) -> dict[str, Any]:
    """Accuracy counts every control step from the first prediction on; `gestures` are the prompted ones, if there were."""
    seen = np.zeros(0, bool) if rows is None else np.cumsum(np.isfinite(rows["prediction_age_s"])) > 0
    if rows is None or not seen.any():
        return {"accuracy": None, "accuracy_per_finger": None, "trials": None, "gestures": None}
    judged = rows[seen]
    right = (judged["prediction"] > 0.5) == (judged["target"] > 0.5)
    per_finger = right.mean(axis=0)
    return {
        "accuracy": round(float(per_finger.mean()), 4),
        "accuracy_per_finger": {f: round(float(a), 4) for f, a in zip(FINGERS, per_finger, strict=True)},
        "trials": gesture_trials([(judged["target"], judged["prediction"])], 1 / control_hz),
        "gestures": _gestures(score_gestures(judged["target"], judged["prediction"], gestures, 1 / control_hz))
        if gestures
        else None,
    }


def _gestures(scores: GestureScores) -> dict[str, Any]:
    steady = scores.balanced_accuracy_steady
    return {
        "balanced_accuracy": round(scores.balanced_accuracy, 4),
        "balanced_accuracy_steady": None if steady is None else round(steady, 4),
        "by_gesture": {name: round(share, 4) for name, share in scores.by_gesture.items()},
    }


def _config(run_dir: Path) -> dict[str, Any]:
    """The experiment that ran, with every default.

    Raises:
      MyoloopError: it is not what a session wrote.
    """
    path = run_dir / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        Experiment.model_validate({key: value for key, value in config.items() if key in Experiment.model_fields})
        return config  # type: ignore[no-any-return]
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())[:200]
        raise MyoloopError(f"{path} is not the configuration that a session wrote: {why}. Put that back.") from error


def _rows(run_dir: Path) -> np.ndarray | None:
    try:
        rows = read_rows(run_dir / "steps")
    except MyoloopError:
        return None
    return rows if len(rows) else None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(path: Path, text: str, report: dict[str, Any]) -> None:
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        accuracy = (
            (report["population"]["accuracy"] or {}).get("median")
            if "population" in report
            else report["task"]["accuracy"]
        )
        raise MyoloopError(
            f"{path} could not be written: {error.strerror}. Free some space and run `myoloop report {path.parent}`; "
            f"the session's logs are kept. Accuracy was {'unknown' if accuracy is None else f'{accuracy:.4f}'}, "
            f"samples lost {report['emg'].get('samples_lost')}."
        ) from error
