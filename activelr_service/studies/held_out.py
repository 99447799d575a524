"""The test samples of a trial. Validation samples choose its best epoch; nothing is chosen by the test samples."""

from typing import Any

from activelr_service.config.task import metrics_of_task
from activelr_service.data import build_test
from activelr_service.data.info import DataInfo
from activelr_service.runs.record import finite_metrics
from activelr_service.training.build import TrainContext
from activelr_service.training.evaluate import evaluate


class HeldOut:
    """Measures the test samples of a training: of the untrained model, of each epoch that is the best so far by the
    validation score, and of the last epoch. Does nothing where the data have no test samples."""

    def __init__(self, training: TrainContext, info: DataInfo) -> None:
        self.training = training
        self.metrics = metrics_of_task(training.job.task, training.job.metric)
        self.best: float | None = None
        self.batches = _batches(training) if info.num_test else None

    def row(self, epoch: dict[str, float], is_last: bool) -> dict[str, float]:
        """The metrics of the test samples under ``test/``, if this epoch is one of those that are measured.

        ``epoch``: the row of the epoch, with its validation metrics.
        """
        is_best = epoch["epoch"] > 0 and self._is_best(epoch.get(self.metrics.val_score))
        if self.batches is None or not (is_best or is_last):
            return {}
        training = self.training
        found = evaluate(training.task, training.model, self.batches, training.device, training.job.precision)
        return finite_metrics({f"test/{name}": value for name, value in found.items()})

    def _is_best(self, score: float | None) -> bool:
        if score is None:
            return False
        is_best = self.best is None or (score > self.best if self.metrics.higher_is_better else score < self.best)
        self.best = score if is_best else self.best
        return is_best


def _batches(training: TrainContext) -> Any:
    from torch.utils.data import DataLoader

    job = training.job
    return DataLoader(build_test(job.data), job.micro_batch_size(), collate_fn=training.task.collate)
