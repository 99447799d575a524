"""How many steps fit into a budget of time: learned from how long the steps and the ends of epochs have taken.

Arithmetic on numbers that the caller measured, so that ranks that are given the same numbers come to the same steps.
"""

SETTLED = 4  # the first steps of an attempt are slower: kernels are chosen, code is compiled, loaders start
MEMORY = 0.25  # of the steps so far is what the throughput is the mean of, roughly
EVALUATION = 1 / 3  # of a step's time for a batch that is only evaluated, until it was measured
CHECKS = 50  # of the throughput in a run, once it is known


class Throughput:
    """Seconds of a step and of an epoch's end (evaluation, checkpoint, report), None until they are known."""

    def __init__(self, steps_per_epoch: int, eval_batches: float, seconds_per_step: float | None = None) -> None:
        """``eval_batches``: batches of the held-out rows of one rank, in units of a step's. ``seconds_per_step``: from an
        earlier attempt."""
        self.steps_per_epoch = steps_per_epoch
        self.eval_batches = eval_batches
        self.seconds_per_step = seconds_per_step
        self.end_seconds: float | None = None
        self.steps = 0

    def add_steps(self, steps: int, seconds: float) -> None:
        """So many more steps took so long. They weigh as their share of the last quarter of all: a slow start is forgotten,
        and a change of throughput is learned."""
        self.steps += steps
        if self.steps >= SETTLED and steps > 0:
            found = max(seconds, 1e-6) / steps
            known = found if self.seconds_per_step is None else self.seconds_per_step
            self.seconds_per_step = known + (found - known) * min(1.0, steps / (MEMORY * self.steps))

    def add_end(self, seconds: float) -> None:
        """The end of an epoch took so long."""
        self.end_seconds = seconds

    def steps_within(self, seconds: float, left_in_epoch: int) -> int | None:
        """How many steps fit into ``seconds``, with the ends of their epochs, of which the last may be cut short; None as
        long as there is nothing to tell it from. An epoch that would be shorter than its own end is not begun."""
        if self.seconds_per_step is None:
            return None if seconds > 0 else 0
        step, end = self.seconds_per_step, self.end_seconds
        end = EVALUATION * self.eval_batches * step if end is None else end
        spare = seconds - left_in_epoch * step - end
        if spare < 0:
            return max(0, int((seconds - end) / step))
        whole, spare = divmod(spare, self.steps_per_epoch * step + end)
        rest = spare - end if spare > 2 * end else 0.0
        return left_in_epoch + int(whole) * self.steps_per_epoch + int(rest / step)

    def next_check(self, done: int, total: int) -> int:
        """The step after which the throughput is measured next: at first often, then :data:`CHECKS` times a run, and
        towards its end often again."""
        if self.steps < SETTLED:
            return done + 1
        return done + max(1, min(self.steps, total // CHECKS, (total - done) // 2))
