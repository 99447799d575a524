"""From a YAML file and ``a.b=c`` overrides to a validated job, and back to YAML."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from activelr_service.config.duration import drop_other_duration
from activelr_service.config.job import CompleteJob, ResolvedJob, TrainJob
from activelr_service.config.no_secrets import refuse_secrets
from activelr_service.config.presets import apply_preset, merge
from activelr_service.config.problems import problem_of
from activelr_service.config.study import StudyJob
from activelr_service.config.yaml_file import dump_yaml, parse_yaml, read_yaml
from activelr_service.errors import JobError, Location, Problem, dotted
from activelr_service.redact import HIDDEN, is_secret_key, redact

Job = TypeVar("Job", bound=BaseModel)

COMMANDS = {"train": "`activelr train`", "study": "`activelr study`"}


class JobSource(NamedTuple):
    """Where the values of a job were written: file and lines, and the options that set some of them."""

    name: str
    lines: dict[Location, int]
    overridden: dict[Location, str]

    def place(self, location: Location) -> str:
        """``job.yaml:4`` for the value at ``location``, or for the innermost mapping around it that was written."""
        for end in range(len(location), -1, -1):
            if location[:end] in self.overridden:
                return self.overridden[location[:end]]
            if location[:end] in self.lines:
                return f"{self.name}:{self.lines[location[:end]]}"
        return self.name

    @contextmanager
    def locating(self) -> Iterator[None]:
        """Give the :class:`JobError` raised inside the places in this source."""
        try:
            yield
        except JobError as error:
            raise JobError(error.problems, [self.place(problem.location) for problem in error.problems]) from None


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> TrainJob:
    """Read and validate a job. ``overrides`` are ``a.b=value`` texts, the value read as YAML.

    Raises :class:`JobError` with one line for each problem: file, line, path, value and remedy.
    """
    return read_job(path, overrides)[0]


def read_job(path: str | Path, overrides: Sequence[str] = ()) -> tuple[TrainJob, JobSource]:
    """As :func:`load_job`, with the source, for errors that are found later."""
    data, source = read_document(path, overrides)
    with source.locating():
        return parse_job(data), source


def read_resolved_job(path: str | Path, overrides: Sequence[str] = ()) -> tuple[ResolvedJob, JobSource]:
    """As :func:`read_job`, for the ``resolved.yaml`` of a run."""
    data, source = read_document(path, overrides)
    with source.locating():
        return parse_resolved_job(data), source


def read_study(path: str | Path, overrides: Sequence[str] = ()) -> tuple[StudyJob, JobSource]:
    """As :func:`read_job`, for a study. Workloads that name a job's file, relative to the study's, have its keys."""
    data, source = read_document(path, overrides)
    with source.locating():
        workloads = data.get("workloads")
        for name, workload in list(workloads.items()) if isinstance(workloads, dict) else []:
            if isinstance(workload, dict) and "job" in workload:
                data["workloads"][name] = _include_job(workload, Path(path).parent, ("workloads", name, "job"))
        return parse_study(data), source


def read_job_or_study(path: str | Path, overrides: Sequence[str] = ()) -> tuple[TrainJob | StudyJob, JobSource]:
    """As :func:`read_study` for a study, and as :func:`read_job` for everything else."""
    data = read_yaml(Path(path)).data
    is_study = isinstance(data, dict) and data.get("kind") == "study"
    return read_study(path, overrides) if is_study else read_job(path, overrides)


def read_document(path: str | Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], JobSource]:
    """The plain data of a file, changed by its preset and by ``overrides``, and where they were written."""
    document = read_yaml(Path(path))
    source = JobSource(str(path), document.lines, {})
    with source.locating():
        if not isinstance(document.data, dict):
            raise JobError([Problem((), "a job is one mapping of keys to values")])
        for override in apply_preset(document.data, document.lines, overrides):
            _apply_override(document.data, override, source)
        return document.data, source


def parse_job(data: dict[str, Any]) -> TrainJob:
    """Validate plain data as a job."""
    return _parse(TrainJob, data)


def parse_resolved_job(data: dict[str, Any]) -> ResolvedJob:
    """Validate plain data as a resolved job: a :class:`CompleteJob` if it has a batch size."""
    return _parse(ResolvedJob if data.get("global_batch_size") is None else CompleteJob, data)


def parse_study(data: dict[str, Any]) -> StudyJob:
    """Validate plain data as a study; its trials are validated when they are made."""
    return _parse(StudyJob, data)


def is_same_job(job: TrainJob, other: TrainJob) -> bool:
    """Whether two jobs have the same values, whether or not they are resolved."""
    return not diff_jobs(job, other)


def _parse(model: type[Job], data: dict[str, Any]) -> Job:
    kind, (expected,) = data.get("kind"), get_args(model.model_fields["kind"].annotation)
    if kind != expected and isinstance(kind, str) and kind in COMMANDS:
        raise JobError([Problem(("kind",), f"is {kind!r}: this file is for {COMMANDS[kind]}")])
    refuse_secrets(data)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise JobError([problem_of(detail, data, model) for detail in error.errors(include_url=False)]) from None


def _include_job(workload: dict[str, Any], folder: Path, location: Location) -> dict[str, Any]:
    """The keys of the file that ``workload`` names, its ``preset`` applied, under those that the workload itself has."""
    own = {key: value for key, value in workload.items() if key not in ("job", "preset")}
    path = folder / str(workload["job"])
    if not path.is_file():
        raise JobError([Problem(location, f"no such file: {path}")])
    overrides = [f"preset={workload['preset']}"] if "preset" in workload else []
    included, _ = read_document(path, overrides)
    merge(included, own)
    return {key: value for key, value in included.items() if key not in ("kind", "name", "optimizer", "seed")}


def dump_job(job: TrainJob | StudyJob) -> str:
    """The job as YAML that :func:`load_job` reads back to an equal job, without the keys that are None."""
    return dump_yaml(job.model_dump(mode="json", exclude_none=True))


def _apply_override(data: dict[str, Any], override: str, source: JobSource) -> None:
    path, equals, text = override.partition("=")
    keys = tuple(path.strip().split("."))
    option = redact(f"--set {path}={HIDDEN}" if any(map(is_secret_key, keys)) else f"--set {override}")
    if not equals or not all(keys):
        raise JobError([Problem((), f"{option}: write it as a.b=value")])
    value = parse_yaml(text, option).data
    if not any(key[0] in ("epochs", "budget") for key in source.overridden):  # two such options contradict each other
        drop_other_duration(data, {keys[0]: value})
    target: Any = data
    for depth, key in enumerate(keys[:-1]):
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise JobError([Problem(keys[: depth + 1], f"is a single value; {option} cannot go inside it")])
    target[keys[-1]] = value
    source.overridden[keys] = option


def diff_jobs(old: TrainJob, new: TrainJob) -> list[str]:
    """The paths at which two jobs differ, as ``epochs: 20 -> 30``."""
    before, after = _flatten(old.model_dump()), _flatten(new.model_dump())
    return [
        f"{dotted(location)}: {before.get(location)!r} -> {after.get(location)!r}"
        for location in sorted(before.keys() | after.keys(), key=str)
        if before.get(location) != after.get(location)
    ]


def _flatten(value: Any, location: Location = ()) -> dict[Location, Any]:
    if isinstance(value, dict) and value:
        return {key: leaf for name, item in value.items() for key, leaf in _flatten(item, (*location, name)).items()}
    return {location: value}
