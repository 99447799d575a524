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
    logits = model(input_ids=inputs).logits.float()
    losses = functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORED, reduction="sum"
    )
    count = (labels != IGNORED).sum()
    loss = losses / count.clamp(min=1)
    return loss, {"loss": losses.detach().double(), "count": count.double()}


def finish(sums: dict[str, float]) -> dict[str, float]:
    loss = mean_loss(sums)["loss"]
    return {"loss": loss, "perplexity": torch.tensor(loss, dtype=torch.float64).exp().item()}


TASK = Task(step, finish, ("loss", "count"), score="perplexity", higher_is_better=False)
