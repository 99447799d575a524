"""Classification: cross entropy; accuracy of the first guess and of the first five."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import default_collate

from activelr_service.tasks.task import Sums, Task, example_sums, mean_loss


def step(model: nn.Module, batch: Any) -> tuple[Tensor, Sums]:
    inputs, targets = batch
    logits = model(inputs).float()
    loss = functional.cross_entropy(logits, targets)
    guesses = logits.topk(min(5, logits.shape[1])).indices == targets[:, None]
    return loss, example_sums(loss, len(targets), correct=guesses[:, 0].sum(), correct_top5=guesses.sum())


def finish(sums: dict[str, float]) -> dict[str, float]:
    top5 = sums["correct_top5"] / sums["count"]
    return {**mean_loss(sums), "accuracy": sums["correct"] / sums["count"], "top5_accuracy": top5}


def collate(rows: list[Any]) -> Any:
    """(inputs, targets) of the rows, without those whose input is None, skipped as corrupt; None if no row is left."""
    kept = [row for row in rows if row[0] is not None]
    return default_collate(kept) if kept else None


TASK = Task(
    step,
    finish,
    ("loss", "count", "correct", "correct_top5"),
    score="accuracy",
    higher_is_better=True,
    collate=collate,
)
