"""The answers of a model to the validation samples, kept batch by batch and gathered from all ranks."""

import torch
from torch import Tensor

from activelr_service.config.task import MOST_OUTPUTS
from activelr_service.tasks.answers import Answers
from activelr_service.tasks.losses import best_classes
from activelr_service.training import distributed


class AnswerCollector:
    """Keeps outputs, targets and guesses on their device. Outputs of which there are too many are dropped."""

    def __init__(self, most_outputs: int = MOST_OUTPUTS) -> None:
        self.room = most_outputs // distributed.world_size()  # the ranks have equal shares of the samples
        self.outputs: list[Tensor] = []
        self.targets: list[Tensor] = []
        self.guesses: list[Tensor] = []

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Add the outputs (samples, ...) and the targets of a batch: int64 classes (samples,), or as many numbers."""
        outputs = outputs.detach().float()
        self.room -= outputs.numel()
        if self.room < 0:
            self.outputs.clear()
        if not targets.is_floating_point():
            self.targets.append(targets)
            self.guesses.append(best_classes(outputs)[:, 0])
        elif self.room >= 0:
            outputs = outputs.reshape(len(outputs), -1)
            self.targets.append(targets.float().view_as(outputs))
        if self.room >= 0:
            self.outputs.append(outputs)

    def gather(self, device: torch.device) -> Answers | None:
        """The answers of all ranks, on the ``device`` of rank 0; None on the others."""
        kept: tuple[list[Tensor], ...] = (self.outputs, self.targets, self.guesses)
        if distributed.world_size() > 1:
            kept = tuple([torch.cat(batches).cpu()] if batches else [] for batches in kept)
        parts = distributed.gather_objects((*kept, self.room < 0))
        if parts is None:
            return None
        *columns, is_full = zip(*parts, strict=True)
        outputs, targets, guesses = (
            _join([each for batches in column for each in batches], device) for column in columns
        )
        return Answers(None if any(is_full) else outputs, targets, guesses)


def _join(batches: list[Tensor], device: torch.device) -> Tensor | None:
    return torch.cat([batch.to(device) for batch in batches]) if batches else None
