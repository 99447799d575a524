"""The losses and metrics of the tasks whose metrics are made of sums: classification, regression, language modeling."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import default_collate

Sums = dict[str, Tensor]
IGNORED = -100  # a label that is no token: the last block of a text is filled up with it


def sample_sums(loss: Tensor, count: int, **more: Tensor) -> Sums:
    """The float64 sums of a batch of ``count`` samples whose mean loss is ``loss``, and the sums in ``more``."""
    detached = loss.detach().double()
    return {"loss": detached * count, "count": torch.full_like(detached, count), **more}


def mean_loss(sums: dict[str, float]) -> dict[str, float]:
    """The metric ``loss``: the mean over all samples."""
    return {"loss": sums["loss"] / sums["count"]}


def classification_loss(model: nn.Module, batch: Any, weights: Tensor | None = None) -> tuple[Tensor, Sums]:
    """Cross entropy. ``batch`` is (inputs, targets); the targets are int64 classes (samples,).

    The sums also count the samples whose class has the largest logit, or one of the five largest. ``weights`` are float32
    (classes,). In training the loss of each sample is multiplied by the weight of its class. The sum is divided by the
    number of samples, not by the sum of their weights, so that the loss does not depend on which samples share a batch.
    """
    inputs, targets = batch
    logits = model(inputs).float()
    if weights is None or not torch.is_grad_enabled():
        loss = functional.cross_entropy(logits, targets)
    else:
        loss = functional.cross_entropy(logits, targets, weights, reduction="none").mean()
    is_right = best_classes(logits) == targets[:, None]
    return loss, sample_sums(loss, len(targets), correct=is_right[:, 0].sum(), correct_top5=is_right.sum())


def best_classes(logits: Tensor) -> Tensor:
    """The classes of the five largest logits, or of all if there are fewer: int64 (samples, 5), the best first."""
    return logits.topk(min(5, logits.shape[1])).indices


def classification_metrics(sums: dict[str, float]) -> dict[str, float]:
    """``accuracy`` and ``top5_accuracy`` are shares of the samples, from 0 to 1."""
    top5 = sums["correct_top5"] / sums["count"]
    return {**mean_loss(sums), "accuracy": sums["correct"] / sums["count"], "top5_accuracy": top5}


def collate_readable(samples: list[Any]) -> Any:
    """A batch (inputs, targets) of the samples whose input is not None, or None if there are none.

    The input of a sample is None if its file is corrupt and the job skips such files.
    """
    readable = [sample for sample in samples if sample[0] is not None]
    return default_collate(readable) if readable else None


def regression_loss(model: nn.Module, batch: Any) -> tuple[Tensor, Sums]:
    """Mean squared error. ``batch`` is (inputs, targets); the targets have one value or several per sample."""
    inputs, targets = batch
    outputs = model(inputs).float()
    loss = functional.mse_loss(outputs, targets.float().view_as(outputs))
    return loss, sample_sums(loss, len(targets))


def language_modeling_loss(model: nn.Module, batch: Any) -> tuple[Tensor, Sums]:
    """Cross entropy of the next token, in nats; the mean over the tokens of the batch.

    ``batch`` is (tokens,), where each token is predicted from those before it in its block, or (inputs, labels), where
    the labels are one token ahead. All are int64 (blocks, block_size).
    """
    batch = (batch,) if isinstance(batch, Tensor) else batch
    inputs, labels = batch if len(batch) == 2 else (batch[0][:, :-1], batch[0][:, 1:])
    losses = _token_losses(model(input_ids=inputs).logits, labels)
    count = (labels != IGNORED).sum()
    loss = losses.sum() / count.clamp(min=1)
    return loss, {"loss": losses.detach().double().sum(), "count": count.double()}


def _token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of every token, 0 where the label is ignored.

    Training computes it in float32. Evaluation computes it in float64, block by block, which needs less memory.
    """
    if torch.is_grad_enabled():
        return functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none")
    blocks = zip(logits, labels, strict=True)
    return torch.cat([functional.cross_entropy(block.double(), label, reduction="none") for block, label in blocks])


def language_modeling_metrics(sums: dict[str, float]) -> dict[str, float]:
    """``perplexity`` is the exponential of the mean loss of a token; infinity where that is beyond float64."""
    loss = mean_loss(sums)["loss"]
    return {"loss": loss, "perplexity": torch.tensor(loss, dtype=torch.float64).exp().item()}
