"""Measuring a model on samples, and the sums that metrics are computed from. The ranks of a training share the work."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from activelr_service.tasks import Task
from activelr_service.tasks.answers import Measured
from activelr_service.training import distributed
from activelr_service.training.answers import AnswerCollector

Tables = dict[str, Tensor]


class Evaluator(Protocol):
    """Measures a model on the batches of this rank, one by one. ``compute`` returns the metrics over the samples of all
    ranks, and their number as ``count``."""

    def update(self, model: nn.Module, batch: Any) -> None: ...

    def compute(self) -> dict[str, float]: ...


@torch.no_grad()
def evaluate(
    task: Task, model: nn.Module, batches: Any, device: torch.device, precision: str, tables: Tables | None = None
) -> dict[str, float]:
    """The metrics of ``model`` on ``batches``, which hold this rank's samples. Each sample counts once, on one rank.

    ``tables`` is filled with the tables of counts that the task measures, on rank 0.
    """
    model.eval()
    evaluator: Evaluator = task.evaluator() if task.evaluator else SumEvaluator(task, device)
    for batch in batches:
        if batch is not None:
            with autocast(device, precision):
                evaluator.update(model, to_device(batch, device))
    metrics = evaluator.compute()
    if tables is not None and isinstance(evaluator, SumEvaluator):
        tables.clear()
        tables.update(evaluator.tables)
    return metrics


class SumEvaluator:
    """Metrics that are computed from sums over samples, and those that the task measures from the answers to all samples."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self.task = task
        self.totals = MetricAccumulator(task.sum_names, device)
        self.answers = AnswerCollector()
        self.tables: Tables = {}

    def update(self, model: nn.Module, batch: Any) -> None:
        if self.task.measure is not None:
            outputs = model(batch[0])
            self.answers.add(outputs, batch[1])
            model = Answered(outputs)  # the loss needs no second pass
        self.totals.add(self.task.compute_loss(model, batch)[1])

    def compute(self) -> dict[str, float]:
        sums = self.totals.over_ranks(0)
        if sums["count"] == 0:
            raise ValueError("no validation sample can be read: the files are named in the log; repair or remove them")
        return {**self.task.compute_metrics(sums), **self._measure(), "count": sums["count"]}

    def _measure(self) -> dict[str, float]:
        """What the task measures from the answers, computed on rank 0: the same on every rank."""
        if self.task.measure is None:
            return {}
        answers = self.answers.gather(self.totals.bad_step.device)
        measured = Measured({}, {}) if answers is None else self.task.measure(answers)
        self.tables = measured.tables
        metrics: dict[str, float] = distributed.broadcast_object(measured.metrics)
        return metrics


class Answered(nn.Module):
    """A model that has answered: it returns its answer to whatever it is asked."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, inputs: Any) -> Tensor:
        return self.outputs


class MetricAccumulator:
    """Sums of an epoch, kept on the device, and the first step whose loss was not finite.

    ``sums`` are 0-dim float64 tensors; ``bad_step`` is one too, and -1 while every loss was finite.
    """

    def __init__(self, names: tuple[str, ...], device: torch.device) -> None:
        self.sums = {name: torch.zeros((), dtype=torch.float64, device=device) for name in names}
        self.bad_step = torch.full((), -1.0, dtype=torch.float64, device=device)

    def add(self, sums: dict[str, Tensor]) -> None:
        for name, value in sums.items():
            self.sums[name] += value

    def add_loss(self, loss: Tensor, sums: dict[str, Tensor], step: int) -> None:
        is_first = ~loss.detach().isfinite() & (self.bad_step < 0)
        self.bad_step = torch.where(is_first, float(step), self.bad_step)
        self.add(sums)

    def to_json(self) -> dict[str, Any]:
        """The sums of this rank. It waits for the device."""
        return {"sums": {name: value.item() for name, value in self.sums.items()}, "bad_step": self.bad_step.item()}

    def load(self, kept: dict[str, Any]) -> None:
        """Go on from what :meth:`to_json` returned."""
        self.sums = {name: torch.full_like(value, kept["sums"][name]) for name, value in self.sums.items()}
        self.bad_step = torch.full_like(self.bad_step, kept["bad_step"])

    def over_ranks(self, num_steps: int) -> dict[str, float]:
        """The sums over all ranks, in two collectives. ``first_bad_step`` is among them if a rank met one."""
        values = distributed.sum_(torch.stack(list(self.sums.values())))
        steps_after_bad = torch.where(self.bad_step >= 0, num_steps - self.bad_step, 0.0)
        worst = distributed.max_(steps_after_bad).item()
        sums = dict(zip(self.sums, values.tolist(), strict=True))
        return {**sums, "first_bad_step": num_steps - worst} if worst > 0 else sums


def autocast(device: torch.device, precision: str) -> Any:
    """A context in which the model runs under torch's autocast to bfloat16, if ``precision`` is that."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with its tensors on ``device``; tuples, lists and dicts keep their structure, tuples become lists."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return [to_device(value, device) for value in batch]
    return batch
