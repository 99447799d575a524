"""The score of a run: the metric that says which epoch is the best, and that epoch."""

from activelr_service.config import ResolvedJob
from activelr_service.config.task import metrics_of_task
from activelr_service.runs.record import Record, best_epoch


def best_record(history: list[Record], job: ResolvedJob) -> tuple[str, Record | None]:
    """The name of the metric, such as ``val/accuracy``, and the record of the best epoch; None as long as there is none."""
    metrics = metrics_of_task(job.task, job.metric)
    if not history:
        return metrics.val_score, None
    epoch = best_epoch(history, metrics.score, metrics.higher_is_better)
    return metrics.val_score, next(record for record in history if record.epoch == epoch)
