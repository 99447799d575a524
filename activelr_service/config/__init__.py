"""The job schema. Imports pydantic and yaml only, so that a job is checked before anything heavy is loaded."""

from activelr_service.config.base import CommandError, JobError
from activelr_service.config.job import TrainJob
from activelr_service.config.load import JobSource, diff_jobs, dump_job, load_job, parse_job, read_job

__all__ = [
    "CommandError",
    "JobError",
    "JobSource",
    "TrainJob",
    "diff_jobs",
    "dump_job",
    "load_job",
    "parse_job",
    "read_job",
]
