#!/usr/bin/env python3
"""Makes .venv ready to run and test this checkout: called by make before everything else.

The stages - the environment, the pinned packages, the ROS 2 messages of msgs/, myoloop itself - are noted in
.venv/setup.json, each when it is whole: a stopped set-up goes on where it was, and a finished one costs nothing.

Runs on whatever python3 is there, to be able to say that it is the wrong one: standard library, no newer syntax.
"""

import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOG = VENV / "setup.log"
STATE = VENV / "setup.json"

PYTHONS = ((3, 11), (3, 12), (3, 13))
NEEDS_GB = 3.0
"""Space for the environment (1.7 GB) and what pip unpacks on the way."""
NEEDS_GPU_GB = 9.0
"""The same with NVIDIA's CUDA libraries."""

FOREIGN = (
    "PYTHONPATH", "PYTHONHOME", "AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH",
    "_ROS_WHEELS_BOOTSTRAP_COMPLETE", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV",
)  # fmt: skip
"""Variables by which another ROS or Python installation would leak into this one."""

LINKED = ("nodes", "launch", "experiments", "models")
"""Folders that setup.py installs as data files."""


class SetupError(Exception):
    """A problem to be told in one line."""


def main(arguments):
    """Runs the stages that are not done yet; returns the exit status."""
    with open(__file__) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another set-up of this checkout ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            prepare(gpu="--gpu" in arguments)
        except SetupError as error:
            print(f"myoloop set-up: {error}", file=sys.stderr)
            return 1
        except OSError as error:
            full = error.errno == errno.ENOSPC
            print(f"myoloop set-up: {'the disk is full' if full else error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nmyoloop set-up: stopped; the next call goes on from here.", file=sys.stderr)
            return 130
    return 0


def prepare(gpu):
    """Brings .venv up to date with the checkout."""
    wanted = fingerprints()
    done = read_state() if usable(VENV) else {}
    if done == wanted and not gpu:
        return
    fresh = not usable(VENV) or (not done and not runs(str(VENV / "bin" / "python"), "import pip"))
    packages = done.get("packages") != wanted["packages"]
    check_machine(fresh, packages, done.get("messages") != wanted["messages"], gpu)
    if packages:
        print("Setting up .venv: some minutes the first time, with 600 MB to download.", flush=True)
    if fresh:
        make_environment()
    stages = (("packages", install_packages), ("messages", build_messages), ("package", install_myoloop))
    for name, stage in stages:
        if done.get(name) != wanted[name]:
            forget(done, name)
            stage()
            done[name] = wanted[name]
            write_state(done)
    if gpu:
        install_gpu()


# --- what is there already -------------------------------------------------------------------------------------------


def fingerprints():
    """For each stage, a hash of everything that it depends on: if it differs from the one noted, the stage runs."""
    lock = [ROOT / "requirements.lock"]
    messages = sorted(path for path in (ROOT / "msgs").rglob("*") if path.is_file())
    package = [
        ROOT / name for name in ("setup.py", "setup.cfg", "pyproject.toml", "package.xml", "myoloop/__init__.py")
    ]
    linked = sorted(str(path.relative_to(ROOT)) for folder in LINKED for path in data_files(ROOT / folder))
    return {
        "packages": digest(lock),
        "messages": digest(lock + messages),
        "package": digest(lock + package, *linked),
    }


def digest(files, *words):
    total = hashlib.sha256()
    for path in files:
        total.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    for word in words:
        total.update(word.encode() + b"\0")
    return total.hexdigest()[:16]


def data_files(folder):
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def read_state():
    try:
        state = json.loads(STATE.read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(state):
    partial = STATE.with_suffix(".part")
    partial.write_text(json.dumps(state))
    partial.replace(STATE)


def forget(state, stage):
    """Notes that a stage is being changed, before it is."""
    if state.pop(stage, None):
        write_state(state)


def usable(venv):
    """Whether it is a whole environment of a Python that we can use, made for this very place."""
    pip = venv / "bin" / "pip"
    config = venv / "pyvenv.cfg"
    if not (pip.is_file() and config.is_file() and (venv / "bin" / "python").exists()):
        return False
    version = re.search(r"^version(?:_info)?\s*=\s*(\d+)\.(\d+)", config.read_text(), re.M)
    known = version is not None and (int(version.group(1)), int(version.group(2))) in PYTHONS
    return known and str(venv).encode() in pip.read_bytes()[:1000]


# --- checks: each ends in one line -----------------------------------------------------------------------------------


def check_machine(fresh, packages, messages, gpu):
    """Raises SetupError for the first thing that would make the stages to come fail."""
    check_platform(platform.system(), platform.machine())
    if fresh:
        check_python(sys.version_info[:3], sys.executable)
        check_venv_module()
    check_writable(ROOT)
    if messages:
        check_compiler()
        check_headers(sys.executable if fresh else str(VENV / "bin" / "python"))
    if packages or gpu:
        check_space(ROOT, NEEDS_GPU_GB if gpu else NEEDS_GB)
    if gpu and not shutil.which("nvidia-smi"):
        raise SetupError("no NVIDIA driver found (nvidia-smi is missing): `make run` works without a GPU.")


def check_platform(system, machine):
    if (system, machine) != ("Linux", "x86_64"):
        raise SetupError(
            f"this is {system} on {machine}: the ROS 2 wheels exist for Linux on x86_64 only. "
            "Use such a machine or a container."
        )


def check_python(version, executable):
    if tuple(version[:2]) in PYTHONS:
        return
    others = [name for name in ("python3.13", "python3.12", "python3.11") if runs(name)]
    hint = f"`make run PYTHON={others[0]}` would do." if others else "Install one of these."
    raise SetupError(
        "{} is Python {}: myoloop needs 3.11, 3.12 or 3.13. {}".format(executable, ".".join(map(str, version)), hint)
    )


def runs(python, code=""):
    """Whether this command is there and works (a pyenv shim may be there and not work)."""
    try:
        return subprocess.call([python, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def check_venv_module():
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        raise SetupError(
            f"{sys.executable} cannot make environments (no venv or ensurepip): on Debian or Ubuntu `apt install python3-venv`."
        )


def check_writable(folder):
    try:
        with tempfile.NamedTemporaryFile(dir=str(folder), prefix=".probe"):
            pass
    except OSError as error:
        raise SetupError(f"cannot write to {folder}: {error.strerror}. Work in a folder of your own.") from None


def check_compiler():
    for language, variable, names in (("C", "CC", "cc gcc clang"), ("C++", "CXX", "c++ g++ clang++")):
        asked = os.environ.get(variable)
        candidates = [asked.split()[0]] if asked and asked.strip() else names.split()
        if not any(shutil.which(name) for name in candidates):
            raise SetupError(
                "no {} compiler found (looked for {}): on Debian or Ubuntu `apt install build-essential`.".format(
                    language, ", ".join(candidates)
                )
            )


def check_headers(python):
    code = "import sysconfig; print(sysconfig.get_paths()['include'])"
    include = subprocess.check_output([python, "-c", code], env=clean_environment()).decode().strip()
    if not Path(include, "Python.h").is_file():
        raise SetupError(
            f"{python} has no C headers ({include}/Python.h is missing): on Debian or Ubuntu `apt install python3-dev`."
        )


def check_space(folder, needs_gb):
    free = shutil.disk_usage(str(folder)).free / 1e9
    if free < needs_gb:
        raise SetupError(f"{free:.1f} GB free on the disk of {folder}: {needs_gb:g} GB are needed.")


# --- stages ----------------------------------------------------------------------------------------------------------


def make_environment():
    if VENV.is_symlink() or VENV.is_file():
        raise SetupError(f"{VENV} is in the way: remove it.")
    if VENV.exists():
        shutil.rmtree(str(VENV))
    VENV.mkdir()
    run("environment", [sys.executable, "-m", "venv", str(VENV)])


def install_packages():
    remove_unfinished()
    total = sum(1 for line in (ROOT / "requirements.lock").read_text().splitlines() if re.match(r"\w", line))
    pip(f"packages ({total})", "--no-deps", "-r", "requirements.lock", count=total)


def install_gpu():
    """CUDA JAX and Warp, in versions that agree with the pinned packages."""
    flavour = os.environ.get("CUDA") or "cuda12"
    if flavour not in ("cuda12", "cuda13"):
        raise SetupError(f"CUDA is '{flavour}': expected cuda12 or cuda13, as in `make gpu CUDA=cuda13`.")
    pip("CUDA JAX and Warp", "--no-build-isolation", "-c", "requirements.lock", f"jax[{flavour}]", "-e", ".[warp]")


def build_messages():
    """Builds myoloop_msgs against the ROS 2 wheels and puts it beside them."""
    build = VENV / "build-msgs"
    shutil.rmtree(str(build), ignore_errors=True)
    for old in [*VENV.glob("lib/libmyoloop_msgs__*"), *VENV.glob("lib/python3*/site-packages/myoloop_msgs*")]:
        shutil.rmtree(str(old)) if old.is_dir() else old.unlink()
    for old in (VENV / "share" / "myoloop_msgs", VENV / "include" / "myoloop_msgs"):
        shutil.rmtree(str(old), ignore_errors=True)
    cmake = str(VENV / "bin" / "cmake")
    options = {
        "BUILD_TESTING": "OFF",
        "CMAKE_INSTALL_PREFIX": VENV,
        "CMAKE_MAKE_PROGRAM": VENV / "bin" / "ninja",
        "CMAKE_PREFIX_PATH": VENV,
        "Python3_EXECUTABLE": VENV / "bin" / "python",
    }
    defined = [f"-D{name}={value}" for name, value in options.items()]
    environment = dict(clean_environment(), AMENT_PREFIX_PATH=str(VENV))
    run(
        "ROS 2 messages",
        [cmake, "-S", str(ROOT / "msgs"), "-B", str(build), "-G", "Ninja", *defined],
        [cmake, "--build", str(build)],
        [cmake, "--install", str(build)],
        environment=environment,
    )
    shutil.rmtree(str(build), ignore_errors=True)


def install_myoloop():
    """An editable installation: the checkout is what runs."""
    pip("myoloop", "--no-deps", "--no-build-isolation", "-e", ".")
    link_data_files()


def remove_unfinished():
    """Forgets packages that an interrupted pip left half installed: pip would take them for whole.

    pip writes INSTALLER when all of a package's files are there.
    """
    for info in VENV.glob("lib/python3*/site-packages/*.dist-info"):
        if not (info / "INSTALLER").is_file():
            shutil.rmtree(str(info))


def link_data_files():
    """Links to the checkout where setup.py's data_files would put copies (an editable installation leaves them out).

    Links of files in real folders: nothing that tidies up the environment can delete the checkout through them.
    """
    share = VENV / "share" / "myoloop"
    for old in (VENV / "lib" / "myoloop", share):
        shutil.rmtree(str(old), ignore_errors=True)
    link(ROOT / "resource" / "myoloop", VENV / "share" / "ament_index" / "resource_index" / "packages" / "myoloop")
    link(ROOT / "package.xml", share / "package.xml")
    for folder in LINKED:
        for source in data_files(ROOT / folder):
            into = VENV / "lib" / "myoloop" if folder == "nodes" else share / folder
            link(source, into / source.relative_to(ROOT / folder))


def link(source, place):
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink() or place.exists():
        place.unlink()
    place.symlink_to(source)


# --- running things --------------------------------------------------------------------------------------------------


def pip(title, *arguments, count=0):
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--no-compile", "--no-input", "--progress-bar=off"]
    run(title, [*command, "--disable-pip-version-check", *arguments], count=count)


def clean_environment():
    """This process's environment without traces of other ROS or Python installations."""
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    if environment.pop("ROS_DISTRO", None):
        environment.pop("LD_LIBRARY_PATH", None)
    return environment


def run(title, *commands, environment=None, count=0):
    """Runs commands one after another into the log, with one line of progress on the screen.

    Args:
      title: what it is, for the screen and the error.
      count: how many packages pip will look at; 0: no share is shown.

    Raises:
      SetupError: a command failed; the message holds the line that says why.
    """
    shown = Progress(title)
    with LOG.open("ab") as log:
        for command in commands:
            log.write("\n$ {}\n".format(" ".join(command)).encode())
            tail, seen = [], 0
            with subprocess.Popen(
                command,
                cwd=str(ROOT),
                env=environment or clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            ) as process:
                for line in lines_or_ticks(process.stdout):
                    if line:
                        log.write(line)
                        text = line.decode(errors="replace").rstrip()
                        tail = [*tail[-30:], text]
                        seen += text.startswith(("Collecting ", "Requirement already "))
                    shown.show(f"{100.0 * seen / count:.0f} %" if count and seen < count else "")
            if process.returncode:
                shown.end("failed")
                raise SetupError(f"{title} failed: {reason(tail)} (all of it: {LOG.relative_to(ROOT)})")
    shown.end(f"{time.monotonic() - shown.begin:.0f} s")


def reason(tail):
    """The line of a command's last output that says what went wrong."""
    if any("No space left on device" in line for line in tail):
        return "the disk is full"
    errors = [line for line in tail if re.search(r"error", line, re.I)]
    words = [line for line in tail if line.strip()]
    return (errors or words or ["no output"])[-1].strip().rstrip(".")


def lines_or_ticks(pipe):
    """The lines of a pipe as they come, and b"" once a second in between."""
    rest = b""
    while True:
        ready, _, _ = select.select([pipe], [], [], 1.0)
        if not ready:
            yield b""
            continue
        data = os.read(pipe.fileno(), 65536)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest + b"\n"


class Progress:
    """One line that changes on a terminal; in a log, a line when it begins and one when it ends."""

    def __init__(self, title):
        self.title = title
        self.live = sys.stdout.isatty()
        self.begin = time.monotonic()
        self.noted = self.begin

    def show(self, share):
        now = time.monotonic()
        text = f"  {self.title:<22} {now - self.begin:>5.0f} s  {share:<6}"
        if self.live:
            print("\r" + text, end="", flush=True)
        elif now - self.noted > 30.0:
            self.noted = now
            print(text.rstrip(), flush=True)

    def end(self, word):
        print("{}  {:<22} {:>7}         ".format("\r" if self.live else "", self.title, word).rstrip(), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
