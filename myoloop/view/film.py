"""A film of a session, drawn off-screen: the hand with the posture asked for behind it, EMG and answers below, in step."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from myoloop.body.model import load_hand
from myoloop.body.names import FINGERS
from myoloop.errors import MyoloopError
from myoloop.view.camera import Camera
from myoloop.view.colours import ASKED, EXTENDED, FLEXED, GHOST, INK, SAID
from myoloop.view.session_data import SessionData

WINDOW_S = 6.0
"""What the strips show, up to now."""
LONGEST_S = 3600.0
FORMATS = (".mp4", ".gif")
GIF_HZ, MP4_HZ = 100 / 6, 25.0
"""Pictures a second; GIFs count in hundredths of a second."""
GREY, LIGHT = "#6b7480", "#e4e8ee"
EMG_INK = ("#2f5d8c", "#3b8276")
RIGHT_AT = 0.5


class Layout:
    """Draws one picture of the film."""

    def __init__(self, data: SessionData, width: int, height: int):
        """
        Args:
          data: the session.
          width, height: of the picture, pixels.
        """
        self._data, self._size = data, (width, height)
        self._title, self._small = ImageFont.load_default(height / 38), ImageFont.load_default(height / 52)
        self._camera = Camera(load_hand(visual=True), round(0.56 * height / 0.79) // 2 * 2, tendons=True)
        self._right = np.cumsum((data.prediction > RIGHT_AT) == (data.target > RIGHT_AT), axis=0).mean(axis=1)
        spread = (
            np.percentile(np.abs(data.emg_uv[:: max(1, len(data.emg_uv) // 20000)]), 99.5) if data.emg_uv.size else 1
        )
        self._gap_uv = float(np.ceil(1.3 * spread / 10) * 10)

    def picture(self, time: float) -> Image.Image:
        """The session at a time, s from its first step."""
        data, (width, height) = self._data, self._size
        k = int(np.searchsorted(data.time, time, side="right").clip(1) - 1)
        page = Image.new("RGB", self._size, "white")
        draw = ImageDraw.Draw(page)
        wanted = None if data.wanted_deg is None else np.radians(data.wanted_deg[k])
        hand = self._camera(np.radians(data.joints_deg[k]), wanted, data.prediction[k], data.excitation[k])
        top, foot, margin = round(0.01 * height), round(0.6 * height), round(0.02 * width)
        page.paste(Image.fromarray(hand), ((width - hand.shape[1]) // 2, round(0.03 * height)))
        draw.text((margin, top), f"{data.name}", INK, self._title)
        draw.text((margin, top + height // 24), f"{time:.1f} s", INK, self._title)
        said = f"right so far {self._right[k] / (k + 1):.0%}"
        draw.text((width - margin, top), said, INK, self._title, anchor="ra")
        self._legend(draw, width - margin, top + height // 16)
        split = round(0.53 * width)
        self._emg(draw, (margin, foot, split - margin, height), time)
        self._fingers(draw, (split, foot, width - margin, height), time)
        return page

    def _legend(self, draw: ImageDraw.ImageDraw, right: int, top: int) -> None:
        line = self._size[1] // 34
        shown = (("decoder says flexed", FLEXED), ("decoder says extended", EXTENDED), ("posture asked for", GHOST))
        for k, (text, colour) in enumerate(shown[: 2 + (self._data.wanted_deg is not None)]):
            y = top + k * line
            draw.rectangle((right - line * 0.7, y, right, y + line * 0.7), fill=colour)
            draw.text((right - line, y + line * 0.35), text, GREY, self._small, anchor="rm")

    def _plot(self, draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], title: str) -> tuple[int, int, int, int]:
        """Title, frame and time axis; the frame's left, top, right, bottom."""
        left, top, right, bottom = box
        line = self._size[1] // 30
        inner = left + round(0.055 * self._size[0]), top + line, right, bottom - round(1.5 * line)
        draw.text((inner[0], top), title, INK, self._small)
        draw.rectangle(inner, outline=LIGHT)
        for second in range(int(WINDOW_S) + 1):
            x = inner[2] - second / WINDOW_S * (inner[2] - inner[0])
            draw.line((x, inner[3], x, inner[3] + 4), fill=GREY)
            if second % 2 == 0:
                draw.text((x, inner[3] + 5), f"-{second} s" if second else "now", GREY, self._small, anchor="ma")
        return inner

    def _emg(self, draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], time: float) -> None:
        data = self._data
        channels = data.emg_uv.shape[1]
        title = f"EMG, {channels} channels, {self._gap_uv:g} uV apart" if channels else "EMG was not kept"
        left, top, right, bottom = self._plot(draw, box, title)
        first, last = np.searchsorted(data.emg_time, (time - WINDOW_S, time))
        if last - first < 2:
            return
        x = (right + (data.emg_time[first:last] - time) / WINDOW_S * (right - left)).astype(int)
        starts = np.flatnonzero(np.diff(x, prepend=x[0] - 1))
        columns = x[starts]
        gap = (bottom - top) / (channels + 0.5)
        for c in range(channels):
            middle, uv = top + gap * (c + 0.75), data.emg_uv[first:last, c]
            low, high = np.minimum.reduceat(uv, starts), np.maximum.reduceat(uv, starts)
            reach = 1.5 * gap  # strong bursts may overlap, not cross the whole strip
            upper = middle - (high / self._gap_uv * gap).clip(-reach, reach)
            lower = middle - (low / self._gap_uv * gap).clip(-reach, reach)
            line = np.stack([columns, upper, columns, lower], axis=1).reshape(-1, 2)
            draw.line([tuple(point) for point in line.tolist()], fill=EMG_INK[c % 2])
            if c in (0, channels - 1) or c % 4 == 3:
                draw.text((left - 4, middle), str(c + 1), GREY, self._small, anchor="rm")

    def _fingers(self, draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], time: float) -> None:
        data = self._data
        left, top, right, bottom = self._plot(draw, box, "flexed? asked for (area), decoded (line)")
        first, last = np.searchsorted(data.time, (time - WINDOW_S, time + 1e-6))
        x = right + (data.time[first:last] - time) / WINDOW_S * (right - left)
        lane = (bottom - top) / len(FINGERS)
        for f, name in enumerate(FINGERS):
            floor, reach = top + lane * (f + 0.92), 0.8 * lane
            draw.text((left - 4, floor - reach / 2), name, GREY, self._small, anchor="rm")
            if last - first < 2:
                continue
            asked = floor - data.target[first:last, f] * reach
            draw.polygon([(x[0], floor), *zip(x, asked, strict=True), (x[-1], floor)], fill=ASKED)
            said = floor - data.prediction[first:last, f].clip(0, 1) * reach
            draw.line(list(zip(x, said, strict=True)), fill=SAID, width=2)
            draw.line((left, floor, right, floor), fill=LIGHT)


def check_out(out: Path) -> None:
    """Refuses, by MyoloopError, a file that could not be written: of another kind, or without the library for it."""
    if out.suffix.lower() not in FORMATS:
        raise MyoloopError(f"--out {out}: expected a name that ends in {' or '.join(FORMATS)}.")
    if out.suffix.lower() == ".mp4" and importlib.util.find_spec("av") is None:
        raise MyoloopError(f"--out {out}: MP4 needs PyAV: pip install 'myoloop[view]'; GIF goes without.")
    if not out.absolute().parent.is_dir():
        raise MyoloopError(f"--out {out}: there is no folder '{out.parent}'.")


def film(
    data: SessionData,
    out: Path,
    start: float = 0.0,
    duration: float | None = None,
    size: tuple[int, int] = (960, 720),
    track: Callable[[list[float]], Iterable[float]] = iter,
) -> int:
    """Draws and writes a film in real time.

    Args:
      data: see `read_session`.
      out: .mp4 or .gif.
      start: s from the session's first step.
      duration: s; None: to its end.
      size: width and height, pixels.
      track: shows how far it is, as rich.progress.track does.

    Returns:
      How many pictures it has.

    Raises:
      MyoloopError: an unknown kind of file, a stretch outside of the session, or an odd size.
    """
    check_out(out)
    end = float(data.time[-1])
    until = end if duration is None else min(end, start + duration)
    if not 0 <= start < until or until - start > LONGEST_S:
        raise MyoloopError(
            f"the session has {end:.1f} s: expected a start within it and at most {LONGEST_S:g} s of film, found start "
            f"{start:g} s, duration {'to the end' if duration is None else f'{duration:g} s'}."
        )
    if min(size) < 240 or max(size) > 4096 or any(pixels % 2 for pixels in size):
        raise MyoloopError(f"size is {size[0]} x {size[1]}: expected even numbers of 240 to 4096 pixels.")
    gif = out.suffix.lower() == ".gif"
    hz = GIF_HZ if gif else MP4_HZ
    times = (start + np.arange(max(1, round((until - start) * hz))) / hz).tolist()
    layout = Layout(data, *size)
    pictures = (layout.picture(time) for time in track(times))
    (_write_gif if gif else _write_mp4)(out, pictures, hz)
    return len(times)


def _write_gif(out: Path, pictures: Iterator[Image.Image], hz: float) -> None:
    first = next(pictures)
    palette = first.quantize(128, dither=Image.Dither.NONE)
    rest = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    hundredths = round(100 / hz)
    palette.save(out, save_all=True, append_images=rest, duration=10 * hundredths, loop=0, optimize=False)


def _write_mp4(out: Path, pictures: Iterator[Image.Image], hz: float) -> None:
    import av

    with av.open(str(out), "w", options={"movflags": "faststart"}) as container:
        stream: Any = None
        for picture in pictures:
            if stream is None:
                stream = container.add_stream(
                    "libx264", rate=Fraction(hz).limit_denominator(100), options={"crf": "20"}
                )
                stream.width, stream.height = picture.size
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
