"""Handing on the epochs of a running training, while it writes them to its journal.

The journal is the queue: it is on disk, it costs the training one line an epoch, and it outlives every process. A reader
that cannot deliver waits and tries again; the training knows nothing of it.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from activelr_service.record import Record, read_journal

POLL_S = 0.3
LONGEST_PAUSE_S = 30.0


class Follower(threading.Thread):
    """Calls ``deliver`` with every record of the journal after ``last_epoch``, in order. An exception means later."""

    def __init__(self, journal: Path, deliver: Callable[[Record], None], last_epoch: int = 0) -> None:
        super().__init__(daemon=True, name=f"follow {journal}")
        self.journal = journal
        self.deliver = deliver
        self.last_epoch = last_epoch
        self.problem: Exception | None = None
        self._finish = threading.Event()

    def run(self) -> None:
        pause = POLL_S
        while not self._finish.wait(pause):
            pause = POLL_S if self.catch_up() else min(2 * pause, LONGEST_PAUSE_S)

    def catch_up(self) -> bool:
        """Deliver what is there; False, with the reason in ``problem``, if something could not be delivered."""
        try:
            for record in read_journal(self.journal):
                if record.epoch > self.last_epoch:
                    self.deliver(record)
                    self.last_epoch = record.epoch
        except Exception as error:
            self.problem = error
            return False
        self.problem = None
        return True

    def finish(self) -> bool:
        """Stop following and deliver the rest; False if something is left, which stays in the journal."""
        self._finish.set()
        self.join()
        return self.catch_up()
