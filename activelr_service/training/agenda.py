"""After which steps of an epoch something is due, the same on every rank.

Intervals of steps are known to every rank. Times are read from the clock of rank 0, which tells the others. That is a
collective, and so it happens at few steps, which all ranks know before: about a dozen in each interval, however long it is.
"""

import time
from collections.abc import Callable

import torch

from activelr_service.config.duration import IntervalConfig
from activelr_service.training import distributed

FARTHEST_LOOK = 10**6  # steps


class Agenda:
    """Says which of the named ``intervals`` are due; None is never due. Every rank calls every method at the same steps.

    ``read_clock``: seconds from any fixed moment on.
    """

    def __init__(
        self,
        intervals: dict[str, IntervalConfig | None],
        device: torch.device,
        read_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        given = {name: interval for name, interval in intervals.items() if interval is not None}
        self.steps = {name: interval.steps for name, interval in given.items() if interval.steps is not None}
        self.seconds = {name: interval.seconds for name, interval in given.items() if interval.seconds is not None}
        self.device = device
        self.read_clock = read_clock
        self.done_at = dict.fromkeys(given, read_clock())
        self.next_look = 0
        self.looked = (0, read_clock())  # the step and the time of the last look, or of what was done after it

    def due(self, step: int) -> set[str]:
        """What is due after ``step`` steps of the run."""
        names = {name for name, steps in self.steps.items() if step % steps == 0}
        if self.seconds and step >= self.next_look:
            names |= self._look(step)
        return names

    def mark(self, step: int, names: set[str]) -> None:
        """Call it when ``names`` have been done, after ``step`` steps. Their time begins anew."""
        now = self.read_clock()
        self.done_at |= dict.fromkeys(names, now)
        self.looked = (step, now)

    def mark_all(self, step: int) -> None:
        """Call it at the start of an epoch: at the end of the one before, all was done."""
        self.mark(step, set(self.done_at))

    def _look(self, step: int) -> set[str]:
        """Compare the times with the clock of rank 0, and agree on the next step to do so."""
        order = sorted(self.seconds)
        now = self.read_clock()
        looked_step, looked_at = self.looked
        seconds_per_step = max((now - looked_at) / max(1, step - looked_step), 1e-9)
        left = {name: self.done_at[name] + self.seconds[name] - now for name in order}
        is_due = [left[name] <= seconds_per_step / 2 for name in order]
        rest = [self.seconds[name] if due else left[name] for name, due in zip(order, is_due, strict=True)]
        ahead = max(
            1, min(FARTHEST_LOOK, int(min(rest) / seconds_per_step / 2))
        )  # half the way: the steps may get slower
        bits = sum(due << index for index, due in enumerate(is_due))
        found = distributed.broadcast_int(ahead << len(order) | bits, self.device)
        self.next_look = step + (found >> len(order))
        self.looked = (step, now)
        return {name for index, name in enumerate(order) if found >> index & 1}
