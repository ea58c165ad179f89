"""What the HTML pages share: how they are filled in, their colours, their pictures."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from matplotlib.figure import Figure

INK, GOOD, ASKED, MUTED, BAD = "#1d2733", "#1f9d6b", "#8d99ae", "#c9d1db", "#d1495b"
"""As in templates/base.html: text and lines; right; asked for; what stands back; wrong."""

_TEMPLATES = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True)


def render(template: str, **values: Any) -> str:
    """The HTML text of a file of templates/, one self-contained page."""
    return _TEMPLATES.get_template(template).render(values)


def as_png(figure: Figure) -> str:
    """The figure as a PNG in base64, for an image's source."""
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    out = io.BytesIO()
    with matplotlib.rc_context({"font.size": 9}):
        figure.savefig(out, format="png", dpi=150)
    return base64.b64encode(out.getvalue()).decode()
