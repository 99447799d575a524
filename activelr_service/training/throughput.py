"""How many steps fit into a time: learned from how long the steps and the ends of epochs have taken.

This is arithmetic on numbers that the caller measured. Ranks that are given the same numbers come to the same steps.
"""

UNSETTLED_STEPS = 4  # the first steps are slow and not counted: kernels are chosen, code is compiled, loaders start
MEMORY = 0.25  # the mean goes over about this share of the steps so far: older ones are forgotten
EVALUATION_COST = 1 / 3  # of a training step: the time of a batch that is only evaluated, until it was measured
MEASUREMENTS = 50  # in a run, once the throughput is known


class Throughput:
    """Seconds of a step, and of the end of an epoch (evaluation, checkpoint, report). They are None until they are known."""

    def __init__(self, steps_per_epoch: int, eval_batches: float, seconds_per_step: float | None = None) -> None:
        """``eval_batches``: batches of the validation samples of one rank, in units of an optimizer step's samples.
        ``seconds_per_step``: as an earlier attempt measured it."""
        self.steps_per_epoch = steps_per_epoch
        self.eval_batches = eval_batches
        self.seconds_per_step = seconds_per_step
        self.end_seconds: float | None = None
        self.steps = 0

    def add_steps(self, steps: int, seconds: float) -> None:
        """Learn that ``steps`` more steps took ``seconds``.

        They weigh as much as their share of the last quarter of all steps. So a slow start is forgotten, and a change of
        throughput is learned.
        """
        self.steps += steps
        if self.steps >= UNSETTLED_STEPS and steps > 0:
            found = max(seconds, 1e-6) / steps
            known = found if self.seconds_per_step is None else self.seconds_per_step
            self.seconds_per_step = known + (found - known) * min(1.0, steps / (MEMORY * self.steps))

    def add_end(self, seconds: float) -> None:
        """Learn that the end of an epoch took ``seconds``."""
        self.end_seconds = seconds

    def steps_within(self, seconds: float, left_in_epoch: int) -> int | None:
        """How many steps fit into ``seconds``, together with the ends of their epochs.

        ``left_in_epoch``: steps that the current epoch still has. The last epoch may be cut short, but none is begun that
        would be shorter than its own end. None as long as no step was timed.
        """
        if self.seconds_per_step is None:
            return None if seconds > 0 else 0
        step, end = self.seconds_per_step, self.end_seconds
        end = EVALUATION_COST * self.eval_batches * step if end is None else end
        spare = seconds - left_in_epoch * step - end
        if spare < 0:
            return max(0, int((seconds - end) / step))
        whole, spare = divmod(spare, self.steps_per_epoch * step + end)
        rest = spare - end if spare > 2 * end else 0.0
        return left_in_epoch + int(whole) * self.steps_per_epoch + int(rest / step)

    def next_measurement(self, step: int, total_steps: int) -> int:
        """The step after which the throughput is measured again: often at first and towards the end of the run, and
        :data:`MEASUREMENTS` times in between."""
        if self.steps < UNSETTLED_STEPS:
            return step + 1
        return step + max(1, min(self.steps, total_steps // MEASUREMENTS, (total_steps - step) // 2))
