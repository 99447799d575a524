"""The reference of every key of a job and of a study, made from the schema.

``python -m activelr_service.config.reference > docs/job-reference.md`` writes it; a test says when it is not current.
"""

import inspect
import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from activelr_service.config.job import TrainJob
from activelr_service.config.study import StudyJob

INTRODUCTION = """\
# Job reference

Every key of a training job and of a study, with its type, its default and its meaning. This page is made from the schema of
the program by `python -m activelr_service.config.reference`. `activelr schema` prints the schema itself, for editors.

A key without a default that is not required may be left out: then the program derives the value, or does without it. A file
may also have `presets`, a mapping of names to changes of the job, and `preset`, the name of the one that applies. On the
command line `--set a.b=value` changes any key.
"""

WORDS = {"object": "mapping", "string": "text", "boolean": "true or false", "null": "null"}
Schema = dict[str, Any]


def make_reference() -> str:
    """The page, in Markdown."""
    lines = [INTRODUCTION]
    written: set[str] = set()
    for title, model in (("Training job: `kind: train`", TrainJob), ("Study: `kind: study`", StudyJob)):
        lines += [f"## {title}", "", *_describe(model.model_json_schema(), model, written)]
    return "\n".join(lines).rstrip() + "\n"


def _describe(root: Schema, model: type[BaseModel], written: set[str]) -> Iterator[str]:
    """The keys of a document, then those of its mappings, each described once on the page."""
    definitions = root.get("$defs", {})
    yield from _table(root)
    pending = [(name, ref) for name, prop in root["properties"].items() for ref in _refs(prop)]
    while pending:
        path, name = pending.pop(0)
        if name in written:
            continue
        written.add(name)
        schema = definitions[name]
        kind = schema["properties"].get("type", {}).get("const")
        yield f"### `{path}`" if kind is None else f"### `{path}`, `type: {kind}`"
        yield ""
        yield inspect.cleandoc(schema.get("description", "")).replace("``", "`")
        yield ""
        yield from _table(schema)
        pending += [(f"{path}.{key}", ref) for key, prop in schema["properties"].items() for ref in _refs(prop)]


def _table(schema: Schema) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    required = schema.get("required", [])
    for name, prop in schema["properties"].items():
        default = "required" if name in required else _default(prop)
        if name == "type":
            continue  # the heading has it
        cells = (f"`{name}`", _type(prop), default, prop["description"])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def _default(prop: Schema) -> str:
    return "" if prop.get("default") is None else f"`{json.dumps(prop['default'])}`"


def _type(prop: Schema) -> str:
    """The type of a value, in words."""
    parts = [part for part in prop.get("anyOf", []) if part.get("type") != "null"]
    if parts:
        return " or ".join(dict.fromkeys(map(_type, parts)))
    if "enum" in prop or "const" in prop:
        return " or ".join(f"`{json.dumps(value)}`" for value in prop.get("enum", [prop.get("const")]))
    if "discriminator" in prop or "$ref" in prop:
        return "mapping with `type`" if "discriminator" in prop else "mapping"
    kind = prop.get("type", "any value")
    if kind == "array":
        return f"list of {_type(prop['items'])}" if "items" in prop else "list of two numbers"
    return f"{WORDS.get(kind, kind)}{_bounds(prop)}"


def _bounds(prop: Schema) -> str:
    """``, from 1 to 4096`` or ``, above 0``."""
    low, above = prop.get("minimum"), prop.get("exclusiveMinimum")
    high, below = prop.get("maximum"), prop.get("exclusiveMaximum")
    words = (("from", low), ("above", above), ("to", high), ("below", below))
    shown = [f"{word} {value:,}" for word, value in words if value is not None]
    return f", {' '.join(shown)}" if shown else ""


def _refs(prop: Any) -> list[str]:
    """The names of the definitions that a property refers to, in order."""
    if isinstance(prop, list):
        return [name for item in prop for name in _refs(item)]
    if not isinstance(prop, dict):
        return []
    found = [name for key, value in prop.items() if key != "discriminator" for name in _refs(value)]
    return [prop["$ref"].rpartition("/")[2], *found] if isinstance(prop.get("$ref"), str) else found


if __name__ == "__main__":
    print(make_reference(), end="")
