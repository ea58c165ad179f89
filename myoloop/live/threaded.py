"""What all live parts have in common: they work in threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Threaded:
    """Start, stop and start again. The work looks at `_stop` and ends soon after it is set."""

    def __init__(self, **works: Callable[[], None]):
        """Args: what runs, each in a thread of that name."""
        self._works = works
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begins, or goes on; nothing happens where it runs already."""
        if self.running:
            return
        self._stop.clear()
        self._threads = [threading.Thread(target=work, name=name, daemon=True) for name, work in self._works.items()]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends after what is being done just now."""
        self._stop.set()
        self.join(5.0)

    def join(self, timeout_s: float | None = None) -> None:
        """Waits until the work is over by itself."""
        for thread in self._threads:
            thread.join(timeout_s)

    @property
    def running(self) -> bool:
        """Whether any of the threads does."""
        return any(thread.is_alive() for thread in self._threads)
