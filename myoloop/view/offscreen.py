"""Whether this machine can draw without a screen; said before MuJoCo, which chooses how to draw when it is imported, is."""

from __future__ import annotations

import os

from myoloop.errors import MyoloopError


def prepare() -> None:
    """Chooses EGL unless `MUJOCO_GL` says otherwise, and tries it.

    Raises:
      MyoloopError: nothing can be drawn here.
    """
    how = os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import mujoco

        context = mujoco.GLContext(16, 16)
        context.make_current()
        context.free()
    except Exception as error:  # missing libraries and drivers come as all kinds of errors
        raise MyoloopError(
            f"films and pictures cannot be drawn here with MUJOCO_GL={how} ({type(error).__name__}: {error}). Without a "
            "screen, Debian's libegl1 and libgl1-mesa-dri are needed: apt-get install libegl1 libgl1-mesa-dri."
        ) from error
