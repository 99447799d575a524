"""Measuring a model on rows, and the sums that metrics are made of. The ranks of a training share the work."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from activelr_service.tasks import Task
from activelr_service.training import distributed


class Evaluator(Protocol):
    """Collects what a model makes of this rank's batches; ``compute`` gives the metrics over the rows of all ranks, and
    the ``count`` of examples they were measured on."""

    def update(self, model: nn.Module, batch: Any) -> None: ...

    def compute(self) -> dict[str, float]: ...


@torch.no_grad()
def evaluate(task: Task, model: nn.Module, batches: Any, device: torch.device, precision: str) -> dict[str, float]:
    """The metrics of ``model`` on the rows of ``batches``: each counted once, whatever the number of ranks."""
    model.eval()
    evaluator: Evaluator = task.evaluator() if task.evaluator else SumEvaluator(task, device)
    for batch in batches:
        if batch is not None:
            with autocast(device, precision):
                evaluator.update(model, to_device(batch, device))
    return evaluator.compute()


class SumEvaluator:
    """Metrics that are made of sums over rows: those of most tasks."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self.task = task
        self.totals = Totals(task.sum_names, device)

    def update(self, model: nn.Module, batch: Any) -> None:
        self.totals.add(self.task.compute_loss(model, batch)[1])

    def compute(self) -> dict[str, float]:
        sums = self.totals.over_ranks(0)
        if sums["count"] == 0:
            raise ValueError("no held-out row can be read: the files are named in the log; repair or remove them")
        return {**self.task.compute_metrics(sums), "count": sums["count"]}


class Totals:
    """Sums kept on the device until the end of an epoch, and the first step whose loss was not finite."""

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

    def over_ranks(self, num_steps: int) -> dict[str, float]:
        """Summed over ranks, in two collectives; ``first_bad_step`` is there if a rank met one."""
        values = distributed.sum_(torch.stack(list(self.sums.values())))
        steps_after_bad = torch.where(self.bad_step >= 0, num_steps - self.bad_step, 0.0)
        worst = distributed.max_(steps_after_bad).item()
        sums = dict(zip(self.sums, values.tolist(), strict=True))
        return {**sums, "first_bad_step": num_steps - worst} if worst > 0 else sums


def autocast(device: torch.device, precision: str) -> Any:
    """Runs the model in bfloat16 where that is safe, if ``precision`` says so."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def to_device(batch: Any, device: torch.device) -> Any:
    """The same tuples, lists and mappings with their tensors on ``device``."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return [to_device(value, device) for value in batch]
    return batch
