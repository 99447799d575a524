"""Handing on what a running training writes to its files: epochs to the log and to MLflow, notes to the log.

The file is the queue: it is on disk, it costs the training one line an epoch, and it outlives every process. A reader
that cannot deliver waits and tries again; the training knows nothing of it.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

POLL_S = 0.3
LONGEST_PAUSE_S = 30.0

Item = TypeVar("Item")


class Follower(threading.Thread, Generic[Item]):
    """Calls ``deliver`` with every item that ``read`` numbers above ``last``, in order. An exception means later."""

    def __init__(
        self, read: Callable[[], list[tuple[int, Item]]], deliver: Callable[[Item], None], last: int = 0
    ) -> None:
        super().__init__(daemon=True)
        self.read = read
        self.deliver = deliver
        self.last = last
        self._finish = threading.Event()

    def run(self) -> None:
        pause = POLL_S
        while not self._finish.wait(pause):
            pause = POLL_S if self.catch_up() else min(2 * pause, LONGEST_PAUSE_S)

    def catch_up(self) -> bool:
        """Deliver what is there; False if something could not be delivered, which is then still to come."""
        try:
            for number, item in self.read():
                if number > self.last:
                    self.deliver(item)
                    self.last = number
        except Exception:
            return False
        return True

    def finish(self) -> bool:
        """Stop following and deliver the rest; False if something is left."""
        self._finish.set()
        self.join()
        return self.catch_up()
