"""Checks of a job that need no torch: its data are there, and model, data and task suit each other."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from activelr_service.config import TrainJob
from activelr_service.config.entry_points import OPTIMIZERS, find_entry_point
from activelr_service.config.model import is_published
from activelr_service.config.optimizer import PythonOptimizerConfig
from activelr_service.config.task import TASK_METRICS
from activelr_service.data import inspect_data, prepare_data
from activelr_service.data.info import DataInfo
from activelr_service.data.remote import is_remote
from activelr_service.errors import JobError, install_line
from activelr_service.models import check_model
from activelr_service.runs.run import output_root

Job = TypeVar("Job", bound=TrainJob)

# Fields of data and models that name files.
PATHS = ("root", "path", "val_path", "test_path", "tokenizer", "backbone_weights", "weights", "pretrained")


def check_job(job: TrainJob) -> tuple[DataInfo, str]:
    """What a job's data are, and its task; raises :class:`JobError` for what does not fit."""
    check_installed(job)
    info = inspect_data(job.data, job.task)
    task = infer_task(job, info)
    check_model(job, info, task)
    num_workers = job.workers.num_workers
    if num_workers is not None and info.num_train is not None and info.num_train < num_workers:
        text = f"{info.num_train} training samples cannot be shared by {num_workers} workers"
        raise JobError.at("workers.num_workers", f"{text}; use at most {info.num_train}")
    return info, task


def check_installed(job: TrainJob) -> None:
    """Raise :class:`JobError` if the job's optimizer is in a package that is not installed."""
    if isinstance(job.optimizer, PythonOptimizerConfig):
        find_entry_point(OPTIMIZERS, job.optimizer.name, "optimizer.name")
    package = job.optimizer.package()
    if package is not None and find_spec(package) is None:
        raise JobError.at("optimizer.type", f"{job.optimizer.type} needs {package}: {install_line('peers')}")


def check_before_start(job: TrainJob) -> tuple[DataInfo, str] | None:
    """:func:`check_job` as far as it goes without fetching anything: None for data in a bucket."""
    return None if is_remote(job.data) else check_job(with_absolute_paths(job))


def prepare_job(job: Job) -> tuple[Job, DataInfo]:
    """The job with its data prepared (:func:`~activelr_service.data.prepare_data`) and checked: its samples are counted."""
    job = with_absolute_paths(job)
    prepared = job.model_copy(update={"data": prepare_data(job.data, output_root(job.output_dir) / ".cache", job.task)})
    info, _ = check_job(prepared)
    return prepared, info


def infer_task(job: TrainJob, info: DataInfo) -> str:
    """The task of the job: the one given, if the data can be used for it, else the data's first. A user's own task takes
    any data."""
    if job.task in TASK_METRICS and job.task not in info.tasks:
        raise JobError.at("task", f"these data are for {' or '.join(info.tasks)}, got {job.task!r}")
    return job.task or info.tasks[0]


def with_absolute_paths(job: Job) -> Job:
    """The job with the paths of its data and model absolute: workers run in folders of their own."""
    return job.model_copy(update={"data": _absolute(job.data), "model": _absolute(job.model)})


def _absolute(config: Any) -> Any:
    return config.model_copy(update=absolute_paths({name: getattr(config, name, None) for name in (*PATHS, "type")}))


def absolute_paths(fields: dict[str, Any]) -> dict[str, str]:
    """Those of the fields of data or of a model that are paths on this machine, absolute."""
    texts = {name: fields[name] for name in PATHS if isinstance(fields.get(name), str)}
    return {
        name: str(Path(value).expanduser().resolve())
        for name, value in texts.items()
        if "://" not in value and not is_published(fields.get("type"), name, value)
    }
