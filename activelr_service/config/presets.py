"""Presets: named sets of changes that a job file carries along, such as a small version of itself.

preset: smoke             # or --set preset=smoke
presets:
  smoke: {epochs: 1, model: {type: mlp}}
"""

from collections.abc import Sequence
from typing import Any

from activelr_service.config.base import did_you_mean
from activelr_service.config.duration import drop_other_duration
from activelr_service.config.yaml_file import parse_yaml
from activelr_service.errors import JobError, Location, Problem

Lines = dict[Location, int]


def apply_preset(document: dict[str, Any], lines: Lines, overrides: Sequence[str]) -> list[str]:
    """Change ``document`` by the preset it names, in place, and ``lines`` with it; returns the overrides that are left.

    A mapping of the preset is merged into the document's, unless it has a ``type``: then it replaces it. Raises
    :class:`JobError` for a preset that is not there.
    """
    presets = document.pop("presets", {})
    if not isinstance(presets, dict) or not all(isinstance(changes, dict) for changes in presets.values()):
        raise JobError([Problem(("presets",), "must be a mapping of names to the keys that they change")])
    name = document.pop("preset", None)
    left = []
    for override in overrides:
        key, _, text = override.partition("=")
        if key.strip() == "preset":
            name = parse_yaml(text, f"--set {override}").data
        else:
            left.append(override)
    if name is None:
        return left
    if not isinstance(name, str) or name not in presets:
        hint = did_you_mean(str(name), presets, f"this file has {', '.join(presets) or 'none'}")
        raise JobError([Problem(("preset",), f"no preset {name!r}; {hint}")])
    _merge(document, presets[name], lines, (), ("presets", name))
    return left


def merge(target: dict[str, Any], changes: dict[str, Any]) -> None:
    """Change ``target`` in place: mappings are merged, unless they have a ``type``; everything else replaces what was."""
    _merge(target, changes, {}, (), ())


def _merge(target: dict[str, Any], changes: dict[str, Any], lines: Lines, to: Location, origin: Location) -> None:
    if not to:
        drop_other_duration(target, changes)
    for key, value in changes.items():
        inner = target.get(key)
        if isinstance(value, dict) and isinstance(inner, dict) and "type" not in value:
            _merge(inner, value, lines, (*to, key), (*origin, key))
        else:
            target[key] = value
            _move_lines(lines, (*to, key), (*origin, key))


def _move_lines(lines: Lines, to: Location, origin: Location) -> None:
    """What stood at ``origin`` in the file now stands for the value at ``to``."""
    for location in [place for place in lines if place[: len(to)] == to]:
        del lines[location]
    moved = {(*to, *place[len(origin) :]): line for place, line in lines.items() if place[: len(origin)] == origin}
    lines.update(moved)
