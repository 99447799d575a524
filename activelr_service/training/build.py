"""From a resolved job to the objects that train it: model, optimizer, loaders."""

import math
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

from activelr_service.config import CompleteJob, ResolvedJob
from activelr_service.config.task import TASK_METRICS
from activelr_service.data import build_data
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.models import Start, build_model, find_fit, load_pretrained
from activelr_service.models.freeze import freeze
from activelr_service.tasks import Task, find_task
from activelr_service.training import distributed
from activelr_service.training.batches import ResumableSampler
from activelr_service.training.monitors import EnergyMeter, GradNorms
from activelr_service.training.optimizers import build_optimizer
from activelr_service.training.progress import RunProgress
from activelr_service.training.replicate import replicate, wrap


@dataclass(frozen=True)
class TrainContext:
    """Everything that one rank needs to train.

    ``model`` is the bare module; ``replica`` is what the training step runs, wrapped for several ranks. ``without_gradient``
    names the parameters that got no gradient from a first batch, which several ranks look for.
    """

    job: CompleteJob
    task: Task
    device: torch.device
    model: nn.Module
    replica: nn.Module
    optimizer: torch.optim.Optimizer
    train_loader: DataLoader
    val_loader: DataLoader
    steps_per_epoch: int
    progress: RunProgress
    energy: EnergyMeter
    grad_norms: GradNorms | None = None
    without_gradient: list[str] = field(default_factory=list)


def build_training(
    job: CompleteJob, info: DataInfo, device: torch.device, *, is_probe: bool = False, is_continued: bool = False
) -> TrainContext:
    """Build everything for this rank of a job. Every rank gets the same random weights.

    ``is_probe``: the training is only measured. Then no pass of the model is run here, since it may not fit into memory.
    ``is_continued``: the weights of a checkpoint follow. Then no pretrained ones are loaded, whose file may be gone.
    """
    assert job.workers.num_workers == distributed.world_size(), "the job was resolved for another number of workers"
    seed_everything(job.seed)
    model = build_model(job.model, info, job.task)
    if not is_continued:
        load_pretrained(job.model, model)
    freeze(model, getattr(job.model, "freeze", None))
    model.to(device)
    if job.channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(job.optimizer, model)
    train_loader, val_loader = build_loaders(job, find_task(job.task), device)
    replica, without_gradient = _replica_of(model, job, train_loader.dataset, device, is_probe)
    accum_steps = job.grad_accum_steps
    steps_per_epoch = len(train_loader) // accum_steps
    eval_batches = most_batches(info.counted()[1], job) / accum_steps
    return TrainContext(
        job=job,
        task=find_task(job.task),
        device=device,
        model=model,
        replica=replica,
        optimizer=optimizer,
        train_loader=train_loader,
        val_loader=val_loader,
        steps_per_epoch=steps_per_epoch,
        progress=RunProgress(job, steps_per_epoch, eval_batches, device),
        energy=EnergyMeter(device),
        grad_norms=GradNorms(model, device) if job.log_grad_norms else None,
        without_gradient=without_gradient,
    )


def build_loaders(job: CompleteJob, task: Task, device: torch.device) -> tuple[DataLoader, DataLoader]:
    """(train, val) loaders of this rank.

    Training samples are dealt out so that step k sees the same samples whatever the number of workers. An incomplete last
    batch is left out; its samples come in the next epoch, which is shuffled anew. Validation samples are shared without
    padding, so that none counts twice.
    """
    train, val = build_data(job.data)
    rank, world_size = distributed.rank(), distributed.world_size()
    sampler = ResumableSampler(train, world_size, rank, shuffle=True, drop_last=True)
    common: dict[str, Any] = {
        "batch_size": job.micro_batch_size(),
        "num_workers": job.workers.num_loader_workers,
        "pin_memory": device.type == "cuda",
        "collate_fn": task.collate,
    }
    generator = torch.Generator()
    train_loader = DataLoader(train, sampler=sampler, drop_last=True, generator=generator, **common)
    seed_loader(train_loader, job.seed, 0)
    return train_loader, DataLoader(Subset(val, range(rank, len(val), world_size)), **common)


def seed_loader(loader: DataLoader, seed: int, epoch: int) -> None:
    """Seed a training loader for an epoch.

    Every rank has the same order of samples. What the loader processes draw, such as crops and flips, differs between ranks.
    Seeds and epochs are mixed, so that seed 1 in epoch 2 differs from seed 2 in epoch 1.
    """
    assert isinstance(loader.sampler, DistributedSampler)
    assert isinstance(loader.generator, torch.Generator)
    loader.sampler.seed = mixed_seed(seed, epoch)
    loader.generator.manual_seed(mixed_seed(seed, epoch, distributed.rank()))


def most_batches(num_samples: int, job: CompleteJob) -> int:
    """The batches of the rank with the largest share of ``num_samples``. Every rank returns the same number."""
    return math.ceil(math.ceil(num_samples / distributed.world_size()) / job.micro_batch_size())


def seed_everything(*keys: int) -> None:
    """Seed Python, NumPy and torch from the keys, such as (seed, epoch, rank): an epoch needs no saved random state."""
    state = np.random.SeedSequence(keys).generate_state(2, np.uint32)
    random.seed(int(state[0]))
    np.random.seed(int(state[0]))
    torch.manual_seed(int(state[0]) << 32 | int(state[1]))


def mixed_seed(*keys: int) -> int:
    """A seed of 63 bits for the keys. Their number is part of it: numpy takes (1, 2) and (1, 2, 0) for the same."""
    return int(np.random.SeedSequence((len(keys), *keys)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def check_forward(job: ResolvedJob, info: DataInfo) -> Start:
    """Run the model's forward pass on the meta device: shapes only, no memory. Raises :class:`JobError` if it fails, if
    pretrained weights are those of another model, or if what is to be frozen does not exist.

    Users' own models are only built when the training starts, since they may not support the meta device. Detectors
    are built but not run: which boxes they keep depends on values, and they take images of any size.
    """
    if job.model.type == "python":
        return Start()
    kind = job.task if job.task in TASK_METRICS else info.tasks[0]  # a task of one's own has the inputs of the data's
    dtype = torch.int64 if kind == "language_modeling" else torch.float32
    try:
        model = _build_without_memory(job, info)
        with torch.device("meta"), torch.no_grad():
            if kind != "detection":
                inputs = torch.zeros((2, *info.input_shape), dtype=dtype)
                model(input_ids=inputs) if dtype == torch.int64 else model(inputs)
    except (JobError, ModuleNotFoundError):
        raise
    except Exception as error:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise JobError.at("model", f"does not take samples of shape {info.input_shape}: {reason}") from error
    return Start(find_fit(job.model, model), freeze(model, getattr(job.model, "freeze", None)))


def _build_without_memory(job: ResolvedJob, info: DataInfo) -> nn.Module:
    """The model on the meta device. A few are built on the CPU first, because they compute their sizes in tensors."""
    try:
        with torch.device("meta"):
            model: nn.Module = build_model(job.model, info, job.task)
            return model
    except NotImplementedError:
        on_cpu: nn.Module = build_model(job.model, info, job.task)
        return on_cpu.to("meta")


def _replica_of(
    model: nn.Module, job: CompleteJob, dataset: Dataset, device: torch.device, is_probe: bool
) -> tuple[nn.Module, list[str]]:
    """What the training step runs, and the names of the parameters that got no gradient from a first batch."""
    if distributed.world_size() > 1 and not is_probe:
        return replicate(model, job, find_task(job.task), dataset, device)
    if job.compile:
        model.compile()  # in place: names in the state dict stay as they are
    if distributed.world_size() > 1:
        return wrap(model, device), []  # its buckets are part of the memory that the probe measures
    return model, []
