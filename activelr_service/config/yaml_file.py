"""Reading a YAML job: plain data plus the line every value stands on.

Stricter than PyYAML's safe loader, because a job that is read differently from what its author meant costs a training:
anchors, aliases, tags, duplicate keys, non-string keys and several documents are refused, and scalars follow YAML 1.2
(``1e-3`` is a number; ``no``, ``010`` and ``12:30`` are strings).
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from activelr_service.errors import JobError, Location, Problem

MAX_BYTES = 1_000_000
MAX_DEPTH = 20

_SCALARS = [
    ("tag:yaml.org,2002:null", re.compile(r"^(?:null|~|)$"), ["n", "~", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), ["t", "f"]),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]{0,17})$"), list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|nan))$"),
        list("-+0123456789."),
    ),
]


class YamlDocument(NamedTuple):
    """``data`` as dicts, lists and scalars; ``lines`` from location to line number, counted from 1."""

    data: Any
    lines: dict[Location, int]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(
                None, None, "anchors and aliases are not allowed; write the value out", event.start_mark
            )
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(None, None, f"the tag {event.tag!r} is not allowed", event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(None, None, f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes exactly the strings that the loader would not read as strings."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        is_escaped = "\x85" in data  # YAML takes this character for a line break, except where it is escaped
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if is_escaped else None)


for _tag, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, _pattern, _first)


_Dumper.add_representer(str, _Dumper.represent_str)


def dump_yaml(data: Any) -> str:
    """Plain data as YAML that :func:`parse_yaml` reads back as they were."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> YamlDocument:
    """Read a YAML file of at most 1 MB; raises :class:`JobError` with file and line for anything it refuses."""
    name = str(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise JobError([Problem((), f"cannot be read: {error.strerror}")], [name]) from None
    if len(raw) > MAX_BYTES:
        raise JobError([Problem((), f"{len(raw):,} bytes; a job file has at most {MAX_BYTES:,}")], [name])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise JobError([Problem((), f"not UTF-8 text (byte {error.start}); a job is a YAML file")], [name]) from None
    return parse_yaml(text, name)


def parse_yaml(text: str, name: str) -> YamlDocument:
    """Parse the text of one YAML document; ``name`` stands in error messages."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[Location, int] = {}
        if node is not None:
            _note_lines(node, (), lines)
        return YamlDocument(None if node is None else loader.construct_document(node), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}" if mark else name
        raise JobError([Problem((), ", ".join(filter(None, [error.context, error.problem])))], [place]) from None
    except yaml.YAMLError as error:
        raise JobError([Problem((), " ".join(str(error).split()))], [name]) from None


def _note_lines(node: yaml.Node, location: Location, lines: dict[Location, int]) -> None:
    lines.setdefault(location, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*location, index), lines)
    elif isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(None, None, f"the key {key!r} is not a string", key_node.start_mark)
            if (*location, key) in lines:
                first = lines[(*location, key)]
                raise yaml.MarkedYAMLError(
                    None, None, f"duplicate key {key!r} (first on line {first})", key_node.start_mark
                )
            lines[(*location, key)] = key_node.start_mark.line + 1
            _note_lines(value_node, (*location, key), lines)
