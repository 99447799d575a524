"""From pydantic's errors to messages for the writer of a job."""

from typing import Any, get_args

from pydantic import BaseModel

from activelr_service.config.base import did_you_mean
from activelr_service.config.job import TrainJob
from activelr_service.errors import Location, Problem
from activelr_service.redact import redact_values

PLACES = {"path": "root", "root": "path"}  # some data have the one key, some the other


def problem_of(detail: Any, data: dict[str, Any], model: type[BaseModel]) -> Problem:
    """A pydantic error in the words of this project: the place in the document, what is wrong, the value and the remedy."""
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
    """The config classes that a field may hold."""
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
    other = PLACES.get(word)
    if other in allowed:
        return f'did you mean "{other}"?'
    if word in ("lr", "learning_rate") and "optimizer" in allowed:
        return "leave it out: a job needs none; that of an optimizer is optimizer.lr"
    return did_you_mean(word, allowed, f"known here: {', '.join(allowed)}", cutoff=0.5)
