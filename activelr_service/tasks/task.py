"""What a task is: a loss to minimise and metrics to report."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

Sums = dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """``step(model, batch)`` gives the mean loss of a batch, and the 0-dim sums that ``sums`` names, ``count`` of them all.

    Metrics are sums over examples, so that a metric over all ranks is the sum of the ranks' sums, whatever their shares;
    ``finish`` turns summed sums into the metrics of an epoch. ``score`` names the metric that tells the best epoch and
    ``higher_is_better`` how. ``collate`` makes a batch of rows, or None of none. ``evaluator`` makes what measures held-out
    rows where sums do not do (:class:`activelr_service.training.evaluate.Evaluator`).
    """

    step: Callable[[nn.Module, Any], tuple[Tensor, Sums]]
    finish: Callable[[dict[str, float]], dict[str, float]]
    sums: tuple[str, ...]
    score: str
    higher_is_better: bool
    collate: Callable[[list[Any]], Any] = default_collate
    evaluator: Callable[[], Any] | None = None


def example_sums(loss: Tensor, count: int, **more: Tensor) -> Sums:
    """The sums of a batch of ``count`` examples whose mean loss is ``loss``, and ``more``."""
    detached = loss.detach().double()
    return {"loss": detached * count, "count": torch.full_like(detached, count), **more}


def mean_loss(sums: dict[str, float]) -> dict[str, float]:
    return {"loss": sums["loss"] / sums["count"]}
