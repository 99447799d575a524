"""Regression: mean squared error, of one value or several per row."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from activelr_service.tasks.task import Sums, Task, example_sums, mean_loss


def step(model: nn.Module, batch: Any) -> tuple[Tensor, Sums]:
    inputs, targets = batch
    outputs = model(inputs).float()
    loss = functional.mse_loss(outputs, targets.float().view_as(outputs))
    return loss, example_sums(loss, len(targets))


TASK = Task(step, mean_loss, ("loss", "count"), score="loss", higher_is_better=False)
