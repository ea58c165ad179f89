"""A headless Chromium, asked over its DevTools protocol."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

FLAGS = ["--headless", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


class Browser:
    """Shows one page until closed."""

    def __init__(self, url: str, folder: Path, size: str = "1400,900"):
        command = [
            "chromium",
            *FLAGS,
            "--remote-debugging-port=0",
            f"--user-data-dir={folder}",
            f"--window-size={size}",
        ]
        self._process = subprocess.Popen([*command, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        told, until = folder / "DevToolsActivePort", time.monotonic() + 60
        while not (told.is_file() and told.read_text().count("\n")):
            assert time.monotonic() < until and self._process.poll() is None
            time.sleep(0.1)
        with urllib.request.urlopen(f"http://127.0.0.1:{told.read_text().split()[0]}/json", timeout=60) as answer:
            page = next(p for p in json.load(answer) if p["type"] == "page")
        self._connection = connect(page["webSocketDebuggerUrl"], max_size=None, open_timeout=60)
        self._socket = self._connection.__enter__()
        self._number = 0

    def evaluate(self, expression: str) -> Any:
        """The JSON-able value of a JavaScript expression; None while another page is being loaded."""
        self._number += 1
        parameters = {"expression": expression, "returnByValue": True}
        self._socket.send(json.dumps({"id": self._number, "method": "Runtime.evaluate", "params": parameters}))
        while (answer := json.loads(self._socket.recv(timeout=60))).get("id") != self._number:
            pass
        return None if "error" in answer else answer["result"]["result"].get("value")

    def wait(self, expression: str, seconds: float = 60.0) -> None:
        """Until the expression is true."""
        until = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < until, f"never true: {expression}"
            time.sleep(0.2)

    def click(self, label: str) -> None:
        """A button, by its text."""
        found = f"[...document.querySelectorAll('button')].find(b => b.textContent.trim() === {json.dumps(label)})"
        self.wait(f"!!{found}")
        self.evaluate(f"{found}.click()")

    def close(self) -> None:
        self._connection.__exit__(None, None, None)
        self._process.terminate()
        self._process.wait(60)
