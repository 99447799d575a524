"""Language modelling: cross entropy of every next token, in nats; perplexity over tokens."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from activelr_service.tasks.task import Sums, Task, mean_loss

IGNORED = -100  # a label that is no token: the end of a last block that is not full


def step(model: nn.Module, batch: Any) -> tuple[Tensor, Sums]:
    """``batch``: (tokens,), each given those before it in its block; or (inputs, labels), the labels one token ahead."""
    batch = (batch,) if isinstance(batch, Tensor) else batch
    inputs, labels = batch if len(batch) == 2 else (batch[0][:, :-1], batch[0][:, 1:])
    losses = _losses(model(input_ids=inputs).logits, labels)
    count = (labels != IGNORED).sum()
    loss = losses.sum() / count.clamp(min=1)
    return loss, {"loss": losses.detach().double().sum(), "count": count.double()}


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Of every token, 0 where the label is ignored. Measured in float64, a row at a time to spare memory; trained in
    float32."""
    if torch.is_grad_enabled():
        return functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none")
    rows = zip(logits, labels, strict=True)
    return torch.cat([functional.cross_entropy(row.double(), label, reduction="none") for row, label in rows])


def finish(sums: dict[str, float]) -> dict[str, float]:
    loss = mean_loss(sums)["loss"]
    return {"loss": loss, "perplexity": torch.tensor(loss, dtype=torch.float64).exp().item()}


TASK = Task(step, finish, ("loss", "count"), score="perplexity", higher_is_better=False)
