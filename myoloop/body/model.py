"""MyoHand for closed-loop use: the right forearm and hand of myo-sim, without what moves nothing.

myo-sim ships the hand on a passive torso in a gym room: 53 bodies, 1169 sites, 136 geoms. No joint and no tendon
depends on most of them, but every physics step places them all. `load_hand` keeps the arm below the elbow and the
humerus (five muscles start there), the sites and geoms that tendons touch, and the fingertips. Forearm and gravity
stay where they were. Lengths, moment arms and trajectories equal the full model's (tests/test_body_model.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from myoloop.body import PHYSICS_DT
from myoloop.body.names import JOINTS, MUSCLES
from myoloop.errors import MyoloopError, unknown_name

SUFFIX = "_r"  # myo-sim's mark of the right side
FINGERTIP_SITES = ("THtip_r", "IFtip_r", "MFtip_r", "RFtip_r", "LFtip_r")
ROOT_BODY = "humerus_r"  # the topmost body that a tendon of the hand is attached to
WRIST_BODY = "lunate_r"  # carries both wrist joints, so the fingers move relative to it and it moves with the wrist


INTEGRATORS = {
    "implicitfast": int(mujoco.mjtIntegrator.mjINT_IMPLICITFAST),  # treats muscles' force-velocity relation implicitly
    "Euler": int(mujoco.mjtIntegrator.mjINT_EULER),  # the model's own; inaccurate from 4 ms on
}


@dataclass(frozen=True)
class Hand:
    """A compiled hand and the indexes by which the rest of myoloop reads it."""

    model: mujoco.MjModel
    """The pruned model; treat it as read-only."""
    muscles: tuple[str, ...]
    """Actuator names in model order, without the side's suffix."""
    joints: tuple[str, ...]
    """Joint names in model order, without the side's suffix."""
    joint_range: np.ndarray
    """(joints, 2) lower and upper limit, rad."""
    fingertip_sites: np.ndarray
    """(5,) site ids, thumb to little."""
    fingertip_bodies: np.ndarray
    """(5,) body ids of the distal phalanges, thumb to little."""
    wrist_body: int
    """Body id of the carpus: the frame that fingertip positions are given in."""


def load_hand(
    physics_dt: float = PHYSICS_DT, visual: bool = False, cache: bool = True, integrator: str = "implicitfast"
) -> Hand:
    """Build the pruned hand, or read it from the cache in well under a tenth of a second.

    The hand has no contacts: in MyoHand as shipped no two parts of the hand collide (contype 1, conaffinity 0; only
    the floor and the torso answer), so taking the floor and the torso away leaves nothing to touch.

    Args:
      physics_dt: step of the physics in seconds. MyoHand as shipped has 0.002 with Euler.
      visual: keep bone meshes and a camera named `hand`, for drawing. The physics is the same.
      cache: keep the compiled model in $XDG_CACHE_HOME/myoloop (default ~/.cache/myoloop); composing it takes 2-3 s.
      integrator: "implicitfast" or "Euler" (MyoHand's own).

    Raises:
      MyoloopError: physics_dt is not within 0.0005..0.005 s, an unknown integrator, or myo-sim's hand is not the one
        this file knows.
    """
    if not 0.0005 <= physics_dt <= 0.005:
        raise MyoloopError(f"physics_dt is {physics_dt} s; expected 0.0005 to 0.005 s (0.005 is myoloop's own).")
    if integrator not in INTEGRATORS:
        raise unknown_name("integrator", integrator, tuple(INTEGRATORS))
    with _quiet():
        model = _cached_model(visual) if cache else _compose(visual)
    model.opt.timestep = physics_dt
    model.opt.integrator = INTEGRATORS[integrator]
    # the hand is one tree: looking for parts that could be solved apart takes 3 % of the time and finds none
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ISLAND)
    return _describe(model)


def full_model() -> mujoco.MjModel:
    """The unpruned MyoHand as myo-sim composes it: what the pruned one is checked against."""
    with _quiet():
        return _full_spec().compile()


def _full_spec() -> mujoco.MjSpec:
    from myo_sim.build.compose import build_spec

    return build_spec("myohand_r")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warning that joining models without a prefix hinders saving them as XML, which nobody does here.

    MuJoCo says it three times: as a Python warning, on stdout and in a file MUJOCO_LOG.TXT in the working directory.
    """
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        mujoco.set_mju_user_warning(before)


def _compose(visual: bool) -> mujoco.MjModel:
    """Move the arm from the humerus down into an empty world, at its old pose, and drop what tendons do not use."""
    full = _full_spec()
    compiled = full.compile()
    data = mujoco.MjData(compiled)
    mujoco.mj_kinematics(compiled, data)
    parent = data.body(compiled.body(ROOT_BODY).parentid[0])

    spec = mujoco.MjSpec()
    for field in ("timestep", "integrator", "solver", "iterations", "ls_iterations", "ls_tolerance", "gravity"):
        setattr(spec.option, field, getattr(full.option, field))
    spec.worldbody.add_frame(pos=parent.xpos, quat=parent.xquat).attach_body(full.body(ROOT_BODY), "", "")
    _freeze_inertia(spec, compiled)
    sites, wraps = _used_by_tendons(compiled)
    sites |= set(FINGERTIP_SITES)
    drawn = mujoco.mjtGeom.mjGEOM_MESH
    doomed = [s for s in spec.sites if s.name not in sites]
    doomed += [g for g in spec.geoms if g.name not in wraps and not (visual and g.type == drawn)]
    doomed += [*spec.excludes, *spec.pairs, *spec.cameras, *spec.lights]
    if not visual:
        doomed += [*spec.meshes, *spec.materials, *spec.textures]
    for element in doomed:
        spec.delete(element)
    for geom in spec.geoms:
        geom.contype = geom.conaffinity = 0
    if visual:
        _add_view(spec, data.body(WRIST_BODY).xpos)
    spec.memory = 1 << 20  # bytes of working memory of one participant: 23 kB are used; MuJoCo's guess is 15 MB
    spec.compiler.fusestatic = True  # carpal bones, metacarpals and the ulna become part of what they are fixed to
    return spec.compile()


def _freeze_inertia(spec: mujoco.MjSpec, compiled: mujoco.MjModel) -> None:
    """State the inertia of bodies that take it from their meshes, so that the meshes may go."""
    for body in spec.bodies:
        if body.name == "world" or body.explicitinertial:
            continue
        known = compiled.body(body.name)
        body.mass = float(known.mass[0])
        body.ipos, body.iquat, body.inertia = known.ipos, known.iquat, known.inertia
        body.explicitinertial = True


def _used_by_tendons(model: mujoco.MjModel) -> tuple[set[str], set[str]]:
    """Names of the sites (path points and side sites) and of the wrapping geoms of all tendons."""
    wrap = mujoco.mjtWrap
    sites, geoms = set(), set()
    for kind, target, side in zip(model.wrap_type, model.wrap_objid, model.wrap_prm, strict=True):
        if kind == wrap.mjWRAP_SITE.value:
            sites.add(model.site(int(target)).name)
        elif kind in (wrap.mjWRAP_SPHERE.value, wrap.mjWRAP_CYLINDER.value):
            geoms.add(model.geom(int(target)).name)
            if side >= 0:
                sites.add(model.site(int(side)).name)
    return sites, geoms


def _add_view(spec: mujoco.MjSpec, wrist: np.ndarray) -> None:
    """A camera named `hand` and a light that show the palm and the fingers."""
    centre = wrist + np.array([0.0, -0.09, 0.0])  # the forearm points along -y
    eye = centre + np.array([-0.42, -0.12, 0.12])
    back = (eye - centre) / np.linalg.norm(eye - centre)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.stack([right, np.cross(back, right), back], axis=1).ravel())
    spec.worldbody.add_camera(name="hand", pos=eye, quat=quat, fovy=28)
    spec.worldbody.add_light(pos=eye + np.array([0.0, 0.0, 0.5]), dir=-back)


def _cached_model(visual: bool) -> mujoco.MjModel:
    path = _cache_path(visual)
    if path.is_file():
        with contextlib.suppress(Exception):  # a damaged file is simply made again
            return mujoco.MjModel.from_binary_path(str(path))
    model = _compose(visual)
    with contextlib.suppress(OSError):  # no home, no space, read-only: go without a cache
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".mjb")
        os.close(handle)
        mujoco.mj_saveModel(model, name, None)
        os.replace(name, path)  # whole or not at all, whoever else is writing
    return model


def _cache_path(visual: bool) -> Path:
    """One file per MuJoCo, myo-sim and version of this file."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parts = (mujoco.__version__, importlib.metadata.version("myo-sim"), Path(__file__).read_text(), str(visual))
    return root / "myoloop" / f"hand-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}.mjb"


def _describe(model: mujoco.MjModel) -> Hand:
    muscles = tuple(model.actuator(i).name.removesuffix(SUFFIX) for i in range(model.nu))
    joints = tuple(model.joint(i).name.removesuffix(SUFFIX) for i in range(model.njnt))
    if muscles != MUSCLES or joints != JOINTS:
        odd = sorted(set(muscles) ^ set(MUSCLES) | set(joints) ^ set(JOINTS)) or ["their order"]
        raise MyoloopError(
            f"myo-sim's hand has other muscles or joints than body/names.py: {', '.join(odd)}. "
            "Install the myo-sim version that requirements.lock names."
        )
    tips = np.array([model.site(name).id for name in FINGERTIP_SITES])
    return Hand(
        model=model,
        muscles=muscles,
        joints=joints,
        joint_range=model.jnt_range.copy(),
        fingertip_sites=tips,
        fingertip_bodies=model.site_bodyid[tips].copy(),
        wrist_body=model.body(WRIST_BODY).id,
    )
