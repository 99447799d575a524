"""The job schema. Imports pydantic and yaml only, so that a job is checked before anything heavy is loaded."""

from activelr_service.config.job import CompleteJob, ResolvedJob, TrainJob
from activelr_service.config.load import (
    JobSource,
    diff_jobs,
    dump_job,
    is_same_job,
    load_job,
    parse_job,
    parse_resolved_job,
    parse_study,
    read_job,
    read_job_or_study,
    read_resolved_job,
    read_study,
)
from activelr_service.config.study import StudyJob

__all__ = [
    "CompleteJob",
    "JobSource",
    "ResolvedJob",
    "StudyJob",
    "TrainJob",
    "diff_jobs",
    "dump_job",
    "is_same_job",
    "load_job",
    "parse_job",
    "parse_resolved_job",
    "parse_study",
    "read_job",
    "read_job_or_study",
    "read_resolved_job",
    "read_study",
]
