"""From the job as written to the job as it runs: every value that was left out, derived, with the reason."""

from typing import NamedTuple

from activelr_service.config import TrainJob
from activelr_service.config.job import WorkersConfig
from activelr_service.config.optimizer import DEFAULT_LR, ActiveOptimizerConfig
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.runs.run import output_root
from activelr_service.service.check import infer_task, with_absolute_paths
from activelr_service.tracking.store import embedded_store, tracking_uri
from activelr_service.training.batch_size.choice import limit_batch_size

DECODED = ("imagefolder", "huggingface", "voc")  # data whose rows are images to be decoded
LARGEST_DEFAULT_LOADERS = 8


class Resources(NamedTuple):
    """What there is to run on: whole CPUs and GPUs, over all nodes, and whether it is shared with other jobs."""

    num_cpus: int
    num_gpus: int
    is_shared: bool = False


class Choice(NamedTuple):
    """A value of the resolved job, and where it comes from."""

    path: str
    value: object
    reason: str

    def __str__(self) -> str:
        return f"{self.path} = {self.value}  ({self.reason})"


def resolve_job(job: TrainJob, info: DataInfo, resources: Resources) -> tuple[TrainJob, list[Choice]]:
    """The job with every derived value filled in, itself a valid job, and what was chosen and why.

    Raises :class:`JobError` where what was asked for does not fit the data or the resources.
    """
    choices: list[Choice] = []
    task = _resolve_task(job, info, choices)
    workers = _resolve_workers(job, resources, choices)
    assert workers.num_workers is not None
    assert info.num_train is not None
    batch_size = _resolve_batch_size(job, task, info.num_train, workers.num_workers, choices)
    lr = _resolve_lr(job, choices)
    resolved = job.model_copy(
        update={
            "task": task,
            "data": with_absolute_paths(job).data,
            "model": with_absolute_paths(job).model,
            "optimizer": job.optimizer.model_copy(update={"lr": lr}),
            "global_batch_size": batch_size,
            "grad_accum_steps": job.grad_accum_steps or (None if batch_size is None else 1),
            "workers": workers,
            "tracking": job.tracking.model_copy(update={"uri": _resolve_tracking(job, choices)}),
            "output_dir": str(output_root(job.output_dir)),
        }
    )
    return resolved, choices


def _resolve_lr(job: TrainJob, choices: list[Choice]) -> float | None:
    optimizer = job.optimizer
    lr = DEFAULT_LR[optimizer.type] if optimizer.lr is None else optimizer.lr
    reason = f"default of {optimizer.type}" if optimizer.lr is None else "overridden by the job"
    if isinstance(optimizer, ActiveOptimizerConfig):
        is_robust = optimizer.rule == "robust"
        reason += "; it has no effect under the robust rule" if is_robust else "; the gains move it from there"
    if lr is not None:
        choices.append(Choice("optimizer.lr", lr, reason))
    return lr


def _resolve_task(job: TrainJob, info: DataInfo, choices: list[Choice]) -> str:
    task = infer_task(job, info)
    choices.append(Choice("task", task, "inferred from the data" if job.task is None else "as written"))
    return task


def _resolve_workers(job: TrainJob, resources: Resources, choices: list[Choice]) -> WorkersConfig:
    use_gpu = job.workers.use_gpu
    if use_gpu is None:
        use_gpu = resources.num_gpus > 0
    if use_gpu and resources.num_gpus == 0:
        raise JobError.at("workers.use_gpu", "a GPU is asked for and there is none; leave it out or set it to false")
    available = resources.num_gpus if use_gpu else resources.num_cpus
    unit = "GPU" if use_gpu else "CPU"
    wanted = job.workers.num_workers
    may_share_cpus = not use_gpu and not resources.is_shared
    if wanted is not None and wanted > available and not may_share_cpus:
        text = f"{wanted} workers need {wanted} {unit}s and there are {available}; use at most {available}"
        raise JobError.at("workers.num_workers", text)
    num_workers = wanted or (available if use_gpu else min(2, available))
    reason = "as written" if wanted else f"{available} {unit}s: " + ("one each" if use_gpu else "at most two processes")
    choices.append(Choice("workers.num_workers", num_workers, reason))
    share = 1 if resources.is_shared or use_gpu else max(1, resources.num_cpus // num_workers)
    cpus = job.workers.cpus_per_worker or share
    loaders = job.workers.num_loader_workers
    if loaders is None:
        loaders = min(cpus - 1, LARGEST_DEFAULT_LOADERS) if job.data.type in DECODED else 0
    derived = {"num_workers": num_workers, "use_gpu": use_gpu, "cpus_per_worker": cpus, "num_loader_workers": loaders}
    return job.workers.model_copy(update=derived)


def _resolve_tracking(job: TrainJob, choices: list[Choice]) -> str | None:
    root = output_root(job.output_dir)
    uri = tracking_uri(job.tracking.uri, root, job.tracking.backend)
    if job.tracking.uri is None and uri == embedded_store(root):
        choices.append(Choice("tracking.uri", uri, "no server given: embedded"))
    return uri


def _resolve_batch_size(
    job: TrainJob, task: str, num_train: int, num_workers: int, choices: list[Choice]
) -> int | None:
    """None where the workers are to choose it: see :class:`~activelr_service.training.batch_size.choice.BatchSizeChoice`."""
    steps = job.grad_accum_steps or 1
    unit, size = num_workers * steps, job.global_batch_size
    if job.optimizer.type == "rprop":
        if size is not None:
            raise JobError.at(
                "global_batch_size", f"rprop takes the whole training set at once; leave it out, got {size}"
            )
        size = num_train // unit * unit
        choices.append(Choice("global_batch_size", size, "rprop takes the whole training set at once"))
    elif size is None:
        limit = limit_batch_size(num_train, num_train * job.epochs if job.epochs else None, task)
        reason = f"probed when the workers start; {limit.reason}"
        choices.append(Choice("global_batch_size", f"at most {limit.batch_size}", reason))
    elif size % unit:
        below, above = size // unit * unit, (size // unit + 1) * unit
        near = f"use {below} or {above}" if below else f"use {above} or fewer workers"
        raise JobError.at(
            "global_batch_size",
            f"{size} is not a multiple of {num_workers} workers x {steps} accumulation steps; {near}",
        )
    else:
        choices.append(Choice("global_batch_size", size, "overridden by the job"))
    if (size or unit) > num_train:
        text = f"a batch of {size or unit} does not fit into {num_train} training rows"
        raise JobError.at("global_batch_size" if job.global_batch_size else "data", text)
    return size
