"""What is minimised and what is measured: classification, regression and language modelling.

Metrics are sums over examples, so that a metric over all ranks is the sum of the ranks' sums, whatever their shares.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Sums = dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """``step(model, batch)`` gives the mean loss of a batch, and the 0-dim sums that ``sums`` names, ``count`` of them all.

    ``score`` names the metric that tells the best epoch and ``higher_is_better`` how. ``finish`` turns summed sums into
    the metrics of an epoch.
    """

    step: Callable[[nn.Module, Any], tuple[Tensor, Sums]]
    finish: Callable[[dict[str, float]], dict[str, float]]
    sums: tuple[str, ...]
    score: str
    higher_is_better: bool


def _classify(model: nn.Module, batch: Any) -> tuple[Tensor, Sums]:
    inputs, targets = batch
    logits = model(inputs)
    loss = functional.cross_entropy(logits.float(), targets)
    correct = (logits.argmax(dim=1) == targets).sum()
    return loss, _sums(loss, len(targets), correct=correct)


def _regress(model: nn.Module, batch: Any) -> tuple[Tensor, Sums]:
    inputs, targets = batch
    outputs = model(inputs).float()
    loss = functional.mse_loss(outputs, targets.float().view_as(outputs))
    return loss, _sums(loss, len(targets))


def _model_language(model: nn.Module, batch: Any) -> tuple[Tensor, Sums]:
    """Mean negative log likelihood in nats of every token given those before it in its block."""
    (tokens,) = batch
    logits = model(input_ids=tokens).logits[:, :-1].float()
    loss = functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))
    return loss, _sums(loss, tokens[:, 1:].numel())


def _sums(loss: Tensor, count: int, **more: Tensor) -> Sums:
    detached = loss.detach().double()
    return {"loss": detached * count, "count": torch.full_like(detached, count), **more}


def _mean_loss(sums: dict[str, float]) -> dict[str, float]:
    return {"loss": sums["loss"] / sums["count"]}


def _accuracy(sums: dict[str, float]) -> dict[str, float]:
    return {**_mean_loss(sums), "accuracy": sums["correct"] / sums["count"]}


def _perplexity(sums: dict[str, float]) -> dict[str, float]:
    loss = sums["loss"] / sums["count"]
    return {"loss": loss, "perplexity": torch.tensor(loss, dtype=torch.float64).exp().item()}


TASKS = {
    "classification": Task(_classify, _accuracy, ("loss", "count", "correct"), "accuracy", higher_is_better=True),
    "regression": Task(_regress, _mean_loss, ("loss", "count"), "loss", higher_is_better=False),
    "language_modeling": Task(_model_language, _perplexity, ("loss", "count"), "perplexity", higher_is_better=False),
}
