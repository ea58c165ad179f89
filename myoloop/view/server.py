"""The web server of the page: viser's, kept to this machine."""

from __future__ import annotations

import contextlib
import io

import viser


def open_server(host: str, port: int) -> viser.ViserServer:
    """Serves at `host`, at `port` or, if that is taken, at the next free one."""
    with contextlib.redirect_stdout(io.StringIO()):  # its banner; the viewer says the address in its own words
        server = viser.ViserServer(host=host, port=port, verbose=False)
    # viser offers every browser to publish the page through a relay on the internet; not this one
    server.request_share_url = lambda verbose=True: None  # type: ignore[method-assign]
    return server


def url_of(server: viser.ViserServer) -> str:
    """Where a browser finds it on this machine."""
    host = server.get_host()
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{server.get_port()}"
