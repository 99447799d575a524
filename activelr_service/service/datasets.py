"""The data of a run as MLflow knows them: a name and a digest for each use of them."""

import hashlib
from pathlib import Path

from activelr_service.config import ResolvedJob
from activelr_service.data.fingerprint import FIELDS
from activelr_service.data.info import DataInfo
from activelr_service.runs.run import Run
from activelr_service.tracking.tracker import Dataset


def datasets_of(run: Run, job: ResolvedJob, info: DataInfo) -> list[Dataset]:
    """The data of a run, one entry for each use of them."""
    num_train, num_val = info.counted()
    counts = {"training": num_train, "validation": num_val, "test": info.num_test}
    digest = data_digest(run, job)
    return [
        Dataset(dataset_name(job, use), digest, _place(job, use), use, count) for use, count in counts.items() if count
    ]


def dataset_name(job: ResolvedJob, use: str) -> str:
    """``iris.csv, validation``. ``use`` is training, validation or test."""
    place = _place(job, use)
    return f"{Path(place).name if place else job.data.type}, {use}"


def data_digest(run: Run, job: ResolvedJob) -> str:
    """32 hexadecimal digits that tell data apart: the fingerprint of the files' contents, or of the config of data that are
    in no file."""
    kept = (run.read_data() or {}).get("fingerprint")
    return str(kept["content"]) if kept else hashlib.sha256(job.data.model_dump_json().encode()).hexdigest()[:32]


def _place(job: ResolvedJob, use: str) -> str | None:
    """The path that data are read from; None for those that a package brings."""
    own = getattr(job.data, {"validation": "val_path", "test": "test_path"}.get(use, ""), None)
    return own or next((value for field in FIELDS if (value := getattr(job.data, field, None))), None)
