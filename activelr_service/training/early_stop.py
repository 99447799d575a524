"""Early stopping: a run whose score has not improved for some epochs decays and ends.

The run is told that it ends. Its progress goes to 1 over a last phase, so that step sizes decay as at the end of any run,
and the last epoch is a good one. The decision depends on the records of epochs alone, which all ranks share.
"""

import math

from activelr_service.config.task import metrics_of_task
from activelr_service.runs.record import Record, best_epoch
from activelr_service.training.build import TrainContext

ENDING_SHARE = 0.1  # of the steps so far: how long the decay is


def end_early(training: TrainContext, history: list[Record]) -> str | None:
    """Begin the decay if the patience of the job is used up after ``history``; returns the line that says so.

    Nothing happens where the run's own end is as near as that of the decay.
    """
    config, progress = training.job.early_stop, training.progress
    if config is None or progress.ending is not None:
        return None
    metrics = metrics_of_task(training.job.task)
    epoch = history[-1].epoch
    best = best_epoch(history, metrics.score, metrics.higher_is_better)
    if epoch - max(best, progress.patience_from) < config.patience:
        return None
    epochs = epochs_of_ending(progress.step, training.steps_per_epoch)
    steps = epochs * training.steps_per_epoch
    if progress.step + steps >= progress.line.total_steps:
        return None
    progress.end_within(steps)
    reason = f"{metrics.val_score} has not improved for {epoch - best} epochs, since epoch {best}"
    return f"early stop: {reason}; the run decays and ends with epoch {epoch + epochs}, not after {progress.duration}"


def epochs_of_ending(step: int, steps_per_epoch: int) -> int:
    """How many epochs the decay of a run takes that has done so many steps."""
    return max(1, math.ceil(ENDING_SHARE * step / steps_per_epoch))
