"""The answers of a model to the validation samples, kept batch by batch and gathered from all ranks."""

from typing import NamedTuple

import torch
from torch import Tensor

from activelr_service.config.task import MOST_OUTPUTS
from activelr_service.tasks.answers import Answers
from activelr_service.tasks.losses import best_classes
from activelr_service.training import distributed


class Part(NamedTuple):
    """The answers that one rank has, as in :class:`Answers`. ``is_full``: its outputs were too many and are dropped."""

    outputs: Tensor | None
    targets: Tensor | None
    guesses: Tensor | None
    is_full: bool


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

    def gather(self) -> Answers | None:
        """The answers of all ranks, on rank 0; None on the others."""
        mine = Part(_join(self.outputs), _join(self.targets), _join(self.guesses), self.room < 0)
        parts = distributed.gather_objects(mine)
        if parts is None:
            return None
        outputs, targets, guesses = (
            _join([column for column in columns if column is not None])
            for columns in zip(*(part[:3] for part in parts), strict=True)
        )
        return Answers(None if any(part.is_full for part in parts) else outputs, targets, guesses)


def _join(batches: list[Tensor]) -> Tensor | None:
    return torch.cat(batches).cpu() if batches else None
