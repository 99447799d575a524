"""The model as several ranks train it: in torch's DistributedDataParallel, made ready for how it will be used."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from activelr_service.config import CompleteJob
from activelr_service.tasks import Task
from activelr_service.training import distributed
from activelr_service.training.evaluate import autocast, to_device

NO_ROW = "every row of a batch is corrupt: the files are named in the log; repair or remove them"
NAMES_SHOWN = 3


def replicate(
    model: nn.Module, job: CompleteJob, task: Task, dataset: Dataset, device: torch.device
) -> tuple[nn.Module, list[str]]:
    """What the training step runs, and the names of the parameters that a first batch gave no gradient on some rank. Every
    rank must call it."""
    batch = to_device(few_rows(task, dataset, job.micro_batch_size()), device)
    without = without_gradient(model, batch, task, job.precision, device)
    if job.compile:
        model.compile()
    replica = wrap(model, device, looks_for_unused=bool(without) or may_vary(model, job))
    if distributed.world_size() > 2:
        warm_up_ddp_buckets(replica, batch, task, job.precision)
    return replica, without


def wrap(model: nn.Module, device: torch.device, *, looks_for_unused: bool = False) -> DistributedDataParallel:
    return DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        find_unused_parameters=looks_for_unused,
    )


def warm_up_ddp_buckets(replica: DistributedDataParallel, batch: Any, task: Task, precision: str) -> None:
    """One backward pass whose gradients are thrown away, with three ranks or more.

    DistributedDataParallel regroups the gradients after its first backward pass, which changes the order in which three
    or more ranks add up, and so the last bits: without this a resumed training would not end as one that never stopped.
    """
    throw_away_pass(replica, batch, task, precision)
    replica.zero_grad()


def without_gradient(model: nn.Module, batch: Any, task: Task, precision: str, device: torch.device) -> list[str]:
    """Names of the trained parameters that the batch gives no gradient on some rank; equal on every rank."""
    throw_away_pass(model, batch, task, precision)
    trained = [(name, param) for name, param in model.named_parameters() if param.requires_grad]
    lacks = distributed.max_(
        torch.tensor([param.grad is None for _, param in trained], dtype=torch.int64, device=device)
    )
    model.zero_grad()
    return [name for (name, _), lack in zip(trained, lacks.tolist(), strict=True) if lack]


def may_vary(model: nn.Module, job: CompleteJob) -> bool:
    """Whether a parameter may get a gradient in one step and none in another: what users' own models do is not known, and
    layers are dropped at random by some of transformers. Looking for it in every step costs a little."""
    return job.model.type == "python" or any(getattr(module, "layerdrop", 0) for module in model.modules())


def throw_away_pass(module: nn.Module, batch: Any, task: Task, precision: str) -> None:
    """A forward and a backward pass as in training; buffers end as they were."""
    buffers = [buffer.clone() for buffer in module.buffers()]
    module.train()
    with autocast(next(module.parameters()).device, precision):
        loss, _ = task.compute_loss(module, batch)
    loss.backward()
    with torch.no_grad():
        for buffer, before in zip(module.buffers(), buffers, strict=True):
            buffer.copy_(before)


def few_rows(task: Task, dataset: Any, most: int) -> Any:
    """A batch of the first rows of a data set, two if a batch of training may have so many: batch normalization needs two.
    Raises ``ValueError`` if there is no row that can be read."""
    rows = list(itertools.islice(readable_rows(task, dataset, range(len(dataset))), min(2, most)))
    if not rows:
        raise ValueError(NO_ROW)
    return task.collate(rows)


def readable_rows(task: Task, dataset: Any, indices: Iterable[int]) -> Iterator[Any]:
    """The rows at the indices, without those that are skipped as corrupt."""
    rows = (dataset[index] for index in indices)
    return (row for row in rows if task.collate([row]) is not None)


def describe_without_gradient(names: list[str]) -> str:
    """For the user, of :func:`without_gradient`."""
    shown = ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
    return f"the first batch gives {len(names)} parameters no gradient ({shown}): they stay as they are until one does"
