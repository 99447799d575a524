"""A loop of one's own: it counts the steps, accumulates gradients, and continues from a checkpoint to the same bits."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from activelr_service.integrations.connect import OptimizerClass, build, mean_over_ranks, trainable
from activelr_service.optim import ActiveAdamW


class ActiveLoop:
    """An optimizer and the batches of a run: iterate over it, and call :meth:`step` with the loss of each batch.

    ``total_steps`` is ``epochs * ceil(len(loader) / accumulate)``. Where ``torch.distributed`` has several ranks, they
    take the same steps, and ``model`` is to be wrapped in DDP.

    Args:
        model: the module whose parameters are trained.
        loader: a loader with a length. The ``set_epoch`` of its sampler is called, if there is one.
        epochs: how often the loader is passed.
        optimizer: the class of the optimizer (default: ``ActiveAdamW``).
        accumulate: of how many batches a step takes the mean loss (default: 1). The last step of an epoch takes what
            is left.
        options: those of the optimizer, such as ``weight_decay``.

    Attributes:
        total_steps (int): the number of steps of the whole run.
        steps_done (int): the number of steps that were taken.
        epoch (int): the epoch of the coming batch, from 0.

    Raises ``ValueError`` for a loader without a length or without batches, and for a number below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: DataLoader[Any],
        epochs: int,
        optimizer: OptimizerClass = ActiveAdamW,
        *,
        accumulate: int = 1,
        **options: Any,
    ) -> None:
        for name, value in (("epochs", epochs), ("accumulate", accumulate)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self._loader, self._accumulate, self.epochs = loader, accumulate, epochs
        self._batches = _length_of(loader)
        self.total_steps = epochs * math.ceil(self._batches / accumulate)
        if options.get("rule") != "paper":
            options["total_steps"] = self.total_steps
        self.optimizer, self._hooks = build(trainable(model, optimizer), optimizer, **options)
        self.optimizer.has_trainer = True
        self.epoch = self.steps_done = self._batch = 0
        self._epoch_rng = self._resume_rng = _random_state(loader)
        self._is_resumed = False

    @property
    def lr(self) -> float:
        """The effective learning rate of the last step; 0 before the first. It waits for a GPU."""
        return float(self._hooks.lr)

    def __iter__(self) -> Iterator[Any]:
        """The batches that are left of the run."""
        while self.epoch < self.epochs:
            if hasattr(self._loader.sampler, "set_epoch"):
                self._loader.sampler.set_epoch(self.epoch)
            for number, batch in enumerate(self._begin_epoch()):
                if number < self._batch:
                    continue
                self._end_resuming()
                yield batch
                if self._batch != number + 1:
                    raise RuntimeError("call step(loss) once for each batch, before the next one")
            self._end_resuming()
            if self.optimizer.rule.ends_with_epochs:
                self.optimizer.end_epoch(reduce=mean_over_ranks())
            self.epoch, self._batch = self.epoch + 1, 0

    def step(self, loss: Tensor) -> bool:
        """Add the gradient of a batch's mean loss, and take a step if it completes one. Returns whether it did."""
        first = self._batch - self._batch % self._accumulate
        (loss / min(self._accumulate, self._batches - first)).backward()
        self._batch += 1
        if self._batch % self._accumulate and self._batch < self._batches:
            return False
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps_done += 1
        return True

    def state_dict(self) -> dict[str, Any]:
        """The place in the run, the optimizer and torch's random numbers; the weights are the model's own.

        Raises ``RuntimeError`` between two steps, where there is half a gradient.
        """
        if self._batch % self._accumulate and self._batch < self._batches:
            raise RuntimeError("there is half a gradient: save where step() has returned True")
        return {
            "optimizer": self.optimizer.state_dict(),
            "place": {"epoch": self.epoch, "batch": self._batch, "steps_done": self.steps_done},
            "epoch_rng": self._epoch_rng,
            "rng": _random_state(self._loader),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was saved. The batches of the epoch that are behind are read and left out."""
        self.optimizer.load_state_dict(state["optimizer"])
        place = state["place"]
        self.epoch, self._batch, self.steps_done = place["epoch"], place["batch"], place["steps_done"]
        self._epoch_rng, self._resume_rng = state["epoch_rng"], state["rng"]
        self._is_resumed = True

    def _begin_epoch(self) -> Iterator[Any]:
        """The batches of an epoch, in the order of its first time."""
        if self._is_resumed:
            _set_random_state(self._loader, self._epoch_rng)
        else:
            self._epoch_rng = _random_state(self._loader)
        return iter(self._loader)

    def _end_resuming(self) -> None:
        """Once the batches that are behind were read, draw the random numbers that the run would have drawn next."""
        if self._is_resumed:
            _set_random_state(self._loader, self._resume_rng)
            self._is_resumed = False


def _length_of(loader: DataLoader[Any]) -> int:
    """How many batches a loader has."""
    try:
        length = len(loader)
    except TypeError:
        raise ValueError(
            "the loader has no length, so the number of steps is unknown; write the loop yourself and give the optimizer "
            "total_steps"
        ) from None
    if length < 1:
        raise ValueError("the loader has no batches")
    return length


def _random_state(loader: DataLoader[Any]) -> dict[str, Any]:
    """The states of the generators that a run draws from."""
    gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    own = loader.generator.get_state() if loader.generator is not None else None
    return {"cpu": torch.get_rng_state(), "gpu": gpu, "loader": own}


def _set_random_state(loader: DataLoader[Any], state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["gpu"]:
        torch.cuda.set_rng_state_all(state["gpu"])
    if loader.generator is not None and state["loader"] is not None:
        loader.generator.set_state(state["loader"])
