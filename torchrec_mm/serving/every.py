"""Something done again and again beside the requests."""

import threading
from collections.abc import Callable


class Every:
    """A thread that calls ``action`` every ``seconds``; in a ``with`` block, that waits for it."""

    def __init__(self, action: Callable[[], object], seconds: float, name: str) -> None:
        self._action, self._seconds = action, seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> "Every":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._seconds):
            self._action()
