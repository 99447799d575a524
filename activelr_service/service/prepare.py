"""Everything that is checked and derived before a training starts: ``activelr validate`` and ``activelr train`` share it."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from activelr_service.config import ResolvedJob, TrainJob
from activelr_service.data import check_files
from activelr_service.data.fingerprint import FIELDS, Fingerprint, compare_data, take_fingerprint
from activelr_service.data.info import DataInfo
from activelr_service.data.remote import is_remote
from activelr_service.errors import JobError
from activelr_service.runs.begin import unfinished_run
from activelr_service.runs.run import Run, output_root
from activelr_service.service.check import check_installed, prepare_job, with_absolute_paths
from activelr_service.service.ray_run import find_resources
from activelr_service.service.resolve import Choice, resolve_job
from activelr_service.tracking.client import connect
from activelr_service.tracking.store import embedded_store, is_embedded

Job = TypeVar("Job", bound=ResolvedJob)

FILES_DECODED = 1000  # of the images, before a training starts; validate --data decodes all


class Prepared(NamedTuple):
    """A job that can start: resolved, with what its data are and what was derived, and why."""

    job: ResolvedJob
    info: DataInfo
    choices: list[Choice]

    def state(self) -> dict[str, Any]:
        """What a new run keeps of it in its state."""
        why = {choice.path: choice.reason for choice in self.choices}
        return {"tracked": False, "choices": [choice._asdict() for choice in self.choices], "why": why}


def prepare(job: TrainJob, files_decoded: int | None = FILES_DECODED) -> Prepared:
    """Check and resolve a job; its data are prepared in the cache of its output directory.

    ``files_decoded``: how many images are decoded to see that they can be, None for all. Raises :class:`JobError` for
    whatever would keep the job from its first step.
    """
    from activelr_service.service.start import describe_start, suit_images
    from activelr_service.training.build import check_forward

    suited, images = suit_images(with_absolute_paths(job))
    prepared, info = prepare_job(suited)
    check_files(prepared.data, files_decoded)
    resolved, choices = resolve_job(prepared, info, find_resources())
    start = describe_start(resolved, info, check_forward(resolved, info))
    info = info._replace(warnings=(*info.warnings, *images.warnings, *start.warnings))
    return Prepared(resolved, info, [*choices, *images.choices, *start.choices])


def validate_job(job: TrainJob, files_decoded: int | None = FILES_DECODED) -> Prepared | None:
    """Check all that :func:`prepare` and the start of a training check, and start nothing.

    None for data in a bucket, which are looked at once they are fetched. Raises :class:`JobError`, or
    :class:`~activelr_service.errors.TrackingError` if a tracking server does not answer.
    """
    root = output_root(job.output_dir)
    _check_writable(root)
    unfinished_run(root / job.name, job)
    if is_remote(job.data):
        check_installed(job)
        return None
    prepared = prepare(job, files_decoded)
    uri = prepared.job.tracking.uri
    if uri is not None and not is_embedded(uri):
        connect(uri)
    return prepared


def _check_writable(root: Path) -> None:
    parent = next(folder for folder in (root, *root.parents) if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise JobError.at("output_dir", f"{root} cannot be written: {parent} is no folder that this user may write to")


def describe_data(info: DataInfo) -> list[str]:
    """What was read, line by line, and what to look at twice."""
    return [*info.notes, *(f"warning: {warning}" for warning in info.warnings)]


def write_data(job: ResolvedJob, info: DataInfo) -> str:
    """What :attr:`Run.data` holds: what the data of a run are when it begins. See :func:`check_data` and
    :func:`read_info`."""
    fingerprint = take_fingerprint(job.data)
    return json.dumps({"fingerprint": fingerprint and fingerprint._asdict(), "info": info._asdict()}, indent=1)


def read_info(run: Run) -> DataInfo | None:
    """What the data of a run were when it began. None for a run of version 0.1.0, which kept nothing of them."""
    kept = run.read_data()
    return DataInfo.from_json(kept["info"]) if kept else None


def check_data(run: Run, remedy: str) -> str:
    """Compare the data of a run with those that it began with; returns what to say of it, mostly nothing.

    Raises :class:`JobError` with the ``remedy`` if they have changed.
    """
    data = run.read_data()
    if data is None:
        return f"whether its data have changed is not known: there is no {run.data.name}, as in runs of version 0.1.0"
    if (kept := data["fingerprint"]) is None:
        return ""
    found = compare_data(relocate(run.job(), run.folder.parent.parent).data, Fingerprint.from_json(kept))
    if found.change:
        raise JobError.at("data", f"the data of run {run.label} have changed since it began: {found.change}; {remedy}")
    return found.doubt


def relocate(job: Job, root: Path) -> Job:
    """A resolved job with the output directory ``root``, and in it what was in the one before: the embedded MLflow store and
    what was made of the data."""
    before = Path(job.output_dir)
    if before == root:
        return job
    uri = embedded_store(root) if job.tracking.uri == embedded_store(before) else job.tracking.uri
    values = {field: getattr(job.data, field, None) for field in (*FIELDS, "tokens")}
    inside = {field: value for field, value in values.items() if value and Path(value).is_relative_to(before)}
    data = {field: str(root / Path(value).relative_to(before)) for field, value in inside.items()}
    changes = {"tracking": job.tracking.model_copy(update={"uri": uri}), "data": job.data.model_copy(update=data)}
    return job.model_copy(update={"output_dir": str(root), **changes})
