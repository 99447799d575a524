"""From a YAML file and ``a.b=c`` overrides to a validated job, and back to YAML."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from activelr_service.config.base import did_you_mean
from activelr_service.config.duration import drop_other_duration
from activelr_service.config.job import CompleteJob, ResolvedJob, TrainJob
from activelr_service.config.no_secrets import refuse_secrets
from activelr_service.config.presets import apply_preset, merge
from activelr_service.config.study import StudyJob
from activelr_service.config.yaml_file import dump_yaml, parse_yaml, read_yaml
from activelr_service.errors import JobError, Location, Problem, dotted
from activelr_service.redact import HIDDEN, is_secret_key, redact, redact_values

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
        raise JobError([_problem(detail, data, model) for detail in error.errors(include_url=False)]) from None


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


def _problem(detail: Any, data: dict[str, Any], model: type[BaseModel]) -> Problem:
    """One pydantic error in this project's words."""
    location = _written_location(detail["loc"], data)
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = _allowed_keys(detail["loc"][:-1], model)
        return Problem(location, f"unknown key; {_suggest(str(location[-1]), allowed)}")
    if kind == "missing":
        return Problem(location, "is required")
    if kind == "union_tag_not_found":
        allowed = [tag.strip("' ") for tag in _tags(detail["loc"])]
        return Problem((*location, "type"), f"is required: one of {', '.join(allowed)}")
    if kind == "union_tag_invalid":
        allowed = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
        return Problem((*location, "type"), f"unknown type {context['tag']!r}; {_suggest(context['tag'], allowed)}")
    if kind == "value_error":
        return Problem(location, str(context["error"]))  # a validator of ours: it decides whether to repeat the value
    message = detail["msg"].replace("Input should be", "must be")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        message = "must be a mapping of keys to values"
    if location == ("name",) and kind == "string_pattern_mismatch":
        message = (
            "must be a plain name of at most 63 letters, digits, '.', '_' and '-', starting with a letter or digit"
        )
    if location[-1:] == ("separator",) and kind == "string_pattern_mismatch":
        message = "must be one sign, such as ';', or tab"
    return Problem(location, f"{message}, got {redact_values(detail['input'])!r}"[:500])


def _written_location(location: Location, data: Any) -> Location:
    """Pydantic's location without the union tags it puts in, which are not in the document."""
    written: list[str | int] = []
    for position, part in enumerate(location):
        is_last = position == len(location) - 1
        is_tag = position > 0 and isinstance(data, dict) and part not in data
        is_tag = is_tag and data.get("type", None if is_last else part) == part
        if is_tag:
            continue
        written.append(part)
        data = data.get(part) if isinstance(data, dict) else None
    return tuple(written)


def _allowed_keys(location: Location, root: type[BaseModel]) -> list[str]:
    models = [root]
    for part in location:
        inner = [m for model in models if part in model.model_fields for m in models_in(model.model_fields[str(part)])]
        models = inner or [model for model in models if _tag(model) == part]
    return sorted({key for model in models for key in model.model_fields})


def _tags(location: Location) -> list[str]:
    """The types that the union at ``location`` knows."""
    field = TrainJob.model_fields[str(location[-1])]
    return [tag for model in models_in(field) if (tag := _tag(model))]


def models_in(field: Any) -> list[type[BaseModel]]:
    pending, models = [field.annotation], []
    while pending:
        annotation = pending.pop(0)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            models.append(annotation)
        pending.extend(get_args(annotation))
    return models


def _tag(model: type[BaseModel]) -> str | None:
    return model.model_fields["type"].default if "type" in model.model_fields else None


def _suggest(word: str, allowed: list[str]) -> str:
    if word in ("lr", "learning_rate") and "optimizer" in allowed:
        return "leave it out: a job needs none; that of an optimizer is optimizer.lr"
    return did_you_mean(word, allowed, f"known here: {', '.join(allowed)}", cutoff=0.5)


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
