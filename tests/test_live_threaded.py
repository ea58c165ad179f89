"""Live parts start, stop and start again."""

import threading

from myoloop.live.threaded import Threaded


def test_a_part_runs_until_it_is_stopped_and_can_be_started_again() -> None:
    begun = threading.Semaphore(0)

    class Part(Threaded):
        def __init__(self) -> None:
            super().__init__(one=self._run, two=self._run)

        def _run(self) -> None:
            begun.release()
            self._stop.wait(60)

    part = Part()
    assert not part.running
    part.stop()  # nothing to stop
    for _ in range(2):
        part.start()
        part.start()  # it runs already: no more threads
        assert begun.acquire(timeout=60) and begun.acquire(timeout=60)
        assert part.running
        part.stop()
        assert not part.running
    assert not begun.acquire(blocking=False)
