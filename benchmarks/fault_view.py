"""The viewer's cells of benchmarks/fault_matrix.py: sessions with `view.on`, whose page has to answer."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from fault_bench import Check, Trial, in_background, judged_if_quiet, small_disk, wall_clock
from fault_cells import Seen, case, trial, whole

VIEW: dict[str, Any] = {"view.on": True, "view.port": 0}


def answers(t: Trial, url: str = "") -> Check:
    """Whether the page can be loaded."""
    url = url or t.status("viewer").get("url", "")
    try:
        with urllib.request.urlopen(url, timeout=5.0) as page:
            return Check(page.status == 200 and len(page.read()) > 100, "page answers")
    except (OSError, ValueError, urllib.error.URLError) as error:
        return Check(False, f"the page does not answer: {error}")


def until_shown(t: Trial) -> int:
    """Until the session runs and the page is there; the viewer's process id."""
    t.until_running(2.0)
    t.until(lambda: t.status("viewer").get("url"), what="a page")
    return t.pid("viewer")


def same(t: Trial, pid: int) -> Check:
    """Whether the viewer is the one that it was."""
    return Check(bool(pid) and t.pid("viewer") == pid, "the same viewer")


@case("kill -9", viewer="started again, the page answers within 15 s; nothing else notices")
def _(folder: Path) -> Seen:
    with trial(folder, VIEW, 120) as t:
        old = until_shown(t)
        t.signal("viewer", signal.SIGKILL)
        took = t.until(lambda: t.pid("viewer") not in (0, old) and answers(t).ok, 90, "the page again")
        t.finish()
        says = t.says("the viewer ended with code -9; starting it again")
        return {
            "viewer": [
                *whole(t),
                judged_if_quiet(Check(took < 15, f"page again after {took:.1f} s")),
                says,
                t.lost(),
                t.steady(),
            ]
        }


@case("SIGSTOP 5 s", viewer="the page answers again; nothing else notices")
def _(folder: Path) -> Seen:
    with trial(folder, VIEW, 16) as t:
        pid = until_shown(t)
        t.stop_for("viewer", 5.0)
        time.sleep(1.0)
        seen = [answers(t), same(t, pid)]
        t.end()
        return {"viewer": [*whole(t), *seen, t.lost(), t.steady()]}


@case("slow x10", viewer="a tenth of the CPU for 6 s: nothing else notices")
def _(folder: Path) -> Seen:
    with trial(folder, VIEW, 16) as t:
        pid = until_shown(t)
        t.throttle("viewer", 6.0)
        seen = [answers(t), same(t, pid)]
        t.end()
        return {"viewer": [*whole(t), *seen, t.lost(), t.steady()]}


def spoiled(folder: Path, fault: str) -> Seen:
    """A decoder that does something wrong for 5 s; the page goes on."""
    with trial(folder, VIEW, 18, decoder=[fault]) as t:
        pid = until_shown(t)
        t.until(lambda: t.status("participant")["time_s"] > 12, 60, "the fault's end")
        seen = [answers(t), same(t, pid)]
        t.end()
        return {"viewer": [t.code(), t.reports(), *seen, t.lost(), t.clean(), t.quiet()]}


@case("wrong shape", viewer="answers of four channels for 5 s: the page goes on")
def _(folder: Path) -> Seen:
    return spoiled(folder, "shape")


@case("flood", viewer="10,000 answers a second for 5 s: the page goes on")
def _(folder: Path) -> Seen:
    return spoiled(folder, "flood")


@case("NaN", viewer="5 s of NaN in the EMG that it draws: the page goes on")
def _(folder: Path) -> Seen:
    with trial(folder, VIEW, 16, hook="participant:nan") as t:
        pid = until_shown(t)
        t.until(lambda: t.status("participant")["time_s"] > 12, 60, "the fault's end")
        seen = [answers(t), same(t, pid)]
        t.end()
        return {"viewer": [t.code(), t.reports(), *seen, t.lost(), t.clean(), t.quiet()]}


@case("outlet gone 5 s", viewer="the EMG's outlet goes and comes back: the page goes on")
def _(folder: Path) -> Seen:
    with trial(folder, VIEW, 18, hook="participant:outlet") as t:
        pid = until_shown(t)
        t.until(lambda: "decoder back" in t.events, 60, "decoder back")
        seen = [answers(t), same(t, pid)]
        t.end()
        return {"viewer": [t.code(), t.reports(), *seen, t.clean(), t.quiet()]}


@case("clock jump", viewer="the wall clock jumps by an hour, both ways: the page goes on")
def _(folder: Path) -> Seen:
    env, jump = wall_clock(folder)
    with trial(folder, {**VIEW, "record": False}, 18, env=env) as t:
        pid = until_shown(t)
        for seconds in (3600, -3600, 0):
            jump(seconds)
            time.sleep(3.0)
        seen = [answers(t), same(t, pid)]
        t.end()
        return {"viewer": [t.code(), t.reports(), *seen, t.lost(), t.clean(), t.quiet()]}


@case("duplicate id", viewer="a second one (`myoloop view`) serves at another port; both pages answer")
def _(folder: Path) -> Seen:
    with trial(folder, VIEW, 25) as t:
        pid = until_shown(t)
        first = t.status("viewer")["url"]
        port = free_port()
        second = in_background(lambda: t.beside("view", str(t.run_dir), "--port", str(port)))
        url = f"http://127.0.0.1:{port}"
        took = t.until(lambda: answers(t, url).ok, 40, "the second page")
        seen = [answers(t, first), same(t, pid), Check(True, f"second page after {took:.0f} s")]
        for process in t.left():
            with contextlib.suppress(Exception):
                if "view" in process.cmdline():
                    os.kill(process.pid, signal.SIGTERM)
        second.join(15)
        t.end()
        return {"viewer": [*whole(t), *seen, t.lost()]}


def free_port() -> int:
    """One that nobody has just now."""
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@case("port taken", viewer="the next free port is taken, and said")
def _(folder: Path) -> Seen:
    with contextlib.closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with trial(folder, {"view.on": True, "view.port": port}, 12) as t:
            until_shown(t)
            url = t.status("viewer")["url"]
            seen = [
                answers(t),
                Check(not url.endswith(f":{port}"), f"at another port ({int(url.rpartition(':')[2]) - port:+d})"),
            ]
            t.end()
            return {"viewer": [*whole(t), *seen, t.says("watch it in a browser")]}


@case("disk full", viewer="the page goes on")
def _(folder: Path) -> Seen:
    with small_disk(folder / "disk", 3.0) as disk, trial(folder, VIEW, 25, runs=disk) as t:
        pid = until_shown(t)
        url = t.status("viewer")["url"]
        t.until(lambda: os.statvfs(disk).f_bavail == 0, 60, "a full disk")
        time.sleep(3.0)
        seen = [answers(t, url), same(t, pid)]
        t.end()
        return {"viewer": [t.code(2), *seen, t.clean(), t.quiet()]}


@case(
    "corrupt YAML",
    viewer="the run folder's copy is damaged, then the viewer is killed: said, not started again; the session goes on",
)
def _(folder: Path) -> Seen:
    with trial(folder, VIEW, 18) as t:
        until_shown(t)
        (t.run_dir / "config.yaml").write_text("name: [broken\n")
        t.signal("viewer", signal.SIGKILL)
        t.end()
        return {"viewer": [*whole(t), t.says("the viewer cannot run, and will not be started again"), t.lost()]}
