"""Early stopping: a run whose score has not improved for some epochs goes back to its best epoch, decays and ends.

The run is told that it ends. It goes on from the weights of its best epoch, and its progress goes to 1 over a short last
phase. So step sizes decay as at the end of any run, and the last epoch is a good one. From the weights of the last epoch it
would not be: on small data they have learned the noise by then. The decision depends on the records of epochs alone, which
all ranks share.
"""

import math

from activelr_service.config.task import metrics_of_task
from activelr_service.runs.record import Record, best_epoch
from activelr_service.training import distributed
from activelr_service.training.build import TrainContext
from activelr_service.training.checkpoint import CheckpointStore
from activelr_service.training.checkpoint_files import load_weights, verify

ENDING_SHARE = 0.1  # of the steps up to the best epoch: how long the decay is


def end_early(training: TrainContext, history: list[Record]) -> str | None:
    """Plan the decay if the patience of the job is used up after ``history``; returns the line that says so.

    Nothing happens where the run's own end is as near as that of the decay.
    """
    config, progress = training.job.early_stop, training.progress
    if config is None or progress.ending is not None:
        return None
    epoch, best = history[-1].epoch, best_record(training, history)
    if epoch - max(best.epoch, progress.patience_from) < config.patience:
        return None
    epochs = epochs_of_ending(best.global_step, training.steps_per_epoch)
    steps = epochs * training.steps_per_epoch
    if progress.step + steps >= progress.line.total_steps:
        return None
    progress.end_within(steps, best.metrics["optim/progress"])
    score = metrics_of_task(training.job.task, training.job.metric).val_score
    reason = f"{score} has not improved for {epoch - best.epoch} epochs"
    plan = f"the run goes back to epoch {best.epoch}, its best, decays, and ends with epoch {epoch + epochs}"
    return f"early stop: {reason}; {plan}, before {progress.duration}"


def go_back(training: TrainContext, checkpoints: CheckpointStore, history: list[Record]) -> None:
    """Load the weights and the optimizer of the best epoch, if the decay begins now. Every rank must call it.

    Where that checkpoint is damaged, the weights stay as they are, and a line says so.
    """
    progress = training.progress
    if progress.ending is None or progress.ending.step != progress.step:
        return
    folder = checkpoints.path(best_record(training, history).epoch)
    problem = verify(folder) if distributed.rank() == 0 else None
    if distributed.broadcast_int(problem is not None, training.device):
        if distributed.rank() == 0:
            checkpoints.log(f"early stop: checkpoint {folder} cannot be used: {problem}; it decays from the last epoch")
        return
    load_weights(folder, training)
    distributed.barrier()  # no rank may remove the checkpoint before all have read it


def best_record(training: TrainContext, history: list[Record]) -> Record:
    """The record of the best epoch."""
    metrics = metrics_of_task(training.job.task, training.job.metric)
    epoch = best_epoch(history, metrics.score, metrics.higher_is_better)
    return next(record for record in reversed(history) if record.epoch == epoch)  # it is often a late one


def epochs_of_ending(step: int, steps_per_epoch: int) -> int:
    """How many epochs the decay takes after a best epoch that ended at ``step``."""
    return max(1, math.ceil(ENDING_SHARE * step / steps_per_epoch))
