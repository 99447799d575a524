"""From the job as written to the job as it runs: every value that was left out, derived, with the reason."""

from typing import Any, NamedTuple

from activelr_service.config import CompleteJob, ResolvedJob, TrainJob
from activelr_service.config.class_weights import weigh_classes
from activelr_service.config.job import LARGEST_BATCH, ResolvedWorkersConfig, TrackingConfig, WorkersConfig
from activelr_service.config.optimizer import ActiveOptimizerConfig
from activelr_service.config.task import metrics_of_task
from activelr_service.data.info import DataInfo, shorten
from activelr_service.errors import JobError
from activelr_service.runs.run import output_root
from activelr_service.service.check import infer_task, with_absolute_paths
from activelr_service.tracking.store import embedded_store, tracking_uri
from activelr_service.training.batch_size.choice import limit_batch_size

DECODED = ("imagefolder", "huggingface", "voc")  # data whose samples are images to be decoded
LARGEST_DEFAULT_LOADERS = 8


class Resources(NamedTuple):
    """What there is to run on: whole CPUs and GPUs, over all nodes, and whether it is shared with other jobs."""

    num_cpus: int
    num_gpus: int
    is_shared: bool = False


class Choice(NamedTuple):
    """A value of the resolved job, and where it comes from. ``value`` is None for a batch size that the workers are to find:
    then it is ``at_most`` so large."""

    path: str
    value: object
    reason: str
    at_most: int | None = None

    def __str__(self) -> str:
        shown = self.value if self.at_most is None else f"at most {self.at_most}"
        return f"{self.path} = {shown}  ({self.reason})"

    @classmethod
    def read(cls, kept: Any) -> "Choice":
        """From what the state of a run keeps: the fields, or in older runs the line that :meth:`__str__` makes."""
        if isinstance(kept, dict):
            return cls(**kept)
        path, _, rest = kept.partition(" = ")
        value, _, reason = rest.partition("  (")
        return cls(path, value, reason.removesuffix(")"))


def resolve_job(job: TrainJob, info: DataInfo, resources: Resources) -> tuple[ResolvedJob, list[Choice]]:
    """The job with every derived value filled in, itself a valid job, and what was chosen and why.

    It is a :class:`CompleteJob` unless the workers are to find its batch size. ``info`` is that of prepared data, whose
    samples are counted. Raises :class:`JobError` where what was asked for does not fit the data or the resources.
    """
    choices: list[Choice] = []
    task = _resolve_task(job, info, choices)
    metric = _resolve_metric(job, task, choices)
    _explain_class_weights(job, info, choices)
    workers = _resolve_workers(job, resources, choices)
    batch_size = _resolve_batch_size(job, task, info.counted()[0], workers.num_workers, choices)
    job = with_absolute_paths(job)
    values = {
        **dict(job),
        "task": task,
        "metric": metric,
        "optimizer": job.optimizer.model_copy(update={"lr": _resolve_lr(job, choices)}),
        "workers": workers,
        "tracking": _resolve_tracking(job, choices),
        "output_dir": str(output_root(job.output_dir)),
    }
    if batch_size is None:
        return ResolvedJob(**values), choices
    accum_steps = 1 if job.grad_accum_steps is None else job.grad_accum_steps
    return CompleteJob(**{**values, "global_batch_size": batch_size, "grad_accum_steps": accum_steps}), choices


def _resolve_lr(job: TrainJob, choices: list[Choice]) -> float | None:
    optimizer = job.optimizer
    lr = optimizer.default_lr if optimizer.lr is None else optimizer.lr
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


def _resolve_metric(job: TrainJob, task: str, choices: list[Choice]) -> str:
    metrics = metrics_of_task(task, job.metric)
    if job.metric is not None:
        better = "higher" if metrics.higher_is_better else "lower"
        choices.append(Choice("metric", job.metric, f"as written; it chooses the best epoch, {better} is better"))
    return metrics.score


def _explain_class_weights(job: TrainJob, info: DataInfo, choices: list[Choice]) -> None:
    if job.class_weights is None:
        return
    weights = weigh_classes(job.class_weights, info.class_counts, info.classes)
    names = info.classes or range(len(weights))
    listed = shorten([f"{name} {weight:.4g}" for name, weight in zip(names, weights, strict=True)], 20)
    reason = (
        f"as written; in the training loss, of mean 1 over its samples: {listed}; validation counts all samples alike"
    )
    choices.append(Choice("class_weights", job.class_weights, reason))


def _resolve_workers(job: TrainJob, resources: Resources, choices: list[Choice]) -> ResolvedWorkersConfig:
    workers = job.workers
    use_gpu = resources.num_gpus > 0 if workers.use_gpu is None else workers.use_gpu
    num_workers = _resolve_num_workers(workers, use_gpu, resources, choices)
    cpus = workers.cpus_per_worker
    if cpus is None:
        cpus = 1 if resources.is_shared or use_gpu else max(1, resources.num_cpus // num_workers)
    loaders = workers.num_loader_workers
    if loaders is None:
        loaders = min(cpus - 1, LARGEST_DEFAULT_LOADERS) if job.data.type in DECODED else 0
    derived = {"num_workers": num_workers, "use_gpu": use_gpu, "cpus_per_worker": cpus, "num_loader_workers": loaders}
    return ResolvedWorkersConfig(**{**dict(workers), **derived})


def _resolve_num_workers(workers: WorkersConfig, use_gpu: bool, resources: Resources, choices: list[Choice]) -> int:
    if use_gpu and resources.num_gpus == 0:
        raise JobError.at("workers.use_gpu", "a GPU is asked for and there is none; leave it out or set it to false")
    available = resources.num_gpus if use_gpu else resources.num_cpus
    unit = "GPU" if use_gpu else "CPU"
    wanted = workers.num_workers
    may_share_cpus = not use_gpu and not resources.is_shared
    if wanted is not None and wanted > available and not may_share_cpus:
        text = f"{wanted} workers need {wanted} {unit}s and there are {available}; use at most {available}"
        raise JobError.at("workers.num_workers", text)
    if wanted is not None:
        choices.append(Choice("workers.num_workers", wanted, "as written"))
        return wanted
    found = available if use_gpu else min(2, available)
    reason = f"{available} {unit}s: " + ("one each" if use_gpu else "at most two processes")
    choices.append(Choice("workers.num_workers", found, reason))
    return found


def _resolve_tracking(job: TrainJob, choices: list[Choice]) -> TrackingConfig:
    root = output_root(job.output_dir)
    uri = tracking_uri(job.tracking.uri, root, job.tracking.backend)
    if job.tracking.uri is None and uri == embedded_store(root):
        choices.append(Choice("tracking.uri", uri, "no server given: embedded"))
    return job.tracking.model_copy(update={"uri": uri})


def _resolve_batch_size(
    job: TrainJob, task: str, num_train: int, num_workers: int, choices: list[Choice]
) -> int | None:
    """None where the workers are to find it: see :class:`~activelr_service.training.batch_size.choice.BatchSizeChoice`."""
    path, size = "global_batch_size", job.global_batch_size
    steps = 1 if job.grad_accum_steps is None else job.grad_accum_steps
    unit = num_workers * steps
    smallest = unit if size is None else size
    if job.optimizer.full_batch:
        size = smallest = _full_batch(job, num_train // unit * unit)
        choices.append(Choice(path, size, f"{job.optimizer.type} takes the whole training set at once"))
    elif size is None:
        limit = limit_batch_size(num_train, job.duration.total_samples(num_train), task)
        reason = f"probed when the workers start; {limit.reason}"
        choices.append(Choice(path, None, reason, at_most=limit.batch_size))
    elif size % unit:
        below, above = size // unit * unit, (size // unit + 1) * unit
        near = f"use {below} or {above}" if below else f"use {above} or fewer workers"
        text = f"{size} is not a multiple of {num_workers} workers x {steps} accumulation steps; {near}"
        raise JobError.at(path, text)
    else:
        choices.append(Choice(path, size, "overridden by the job"))
    if max(smallest, unit) > num_train:
        text = f"a batch of {max(smallest, unit)} does not fit into {num_train} training samples"
        raise JobError.at("data" if job.global_batch_size is None else path, text)
    return size


def _full_batch(job: TrainJob, size: int) -> int:
    """The batch of an optimizer that takes ``size`` samples, the whole training set, at once."""
    name = job.optimizer.type
    if job.global_batch_size is not None:
        text = f"{name} takes the whole training set at once; leave it out, got {job.global_batch_size}"
        raise JobError.at("global_batch_size", text)
    if size > LARGEST_BATCH:
        text = f"{name} takes the whole training set at once, and a batch has at most {LARGEST_BATCH:,} samples"
        raise JobError.at("optimizer.type", f"{text}; use another optimizer")
    return size
