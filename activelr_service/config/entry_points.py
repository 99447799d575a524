"""Users' own models, data, optimizers and tasks: what an installed package offers in a pip entry point group."""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from activelr_service.config.base import did_you_mean
from activelr_service.errors import JobError

MODELS = "activelr.models"
DATA = "activelr.data"
OPTIMIZERS = "activelr.optimizers"
TASKS = "activelr.tasks"


def names_offered(group: str) -> list[str]:
    """The names that installed packages offer in ``group``, sorted."""
    return sorted({entry.name for entry in entry_points(group=group)})


def find_entry_point(group: str, name: str, location: str) -> EntryPoint:
    """The entry point ``name`` of ``group``, without importing what it names.

    Raises :class:`JobError` at ``location`` if no installed package offers it.
    """
    found = {entry.name: entry for entry in entry_points(group=group)}
    if name not in found:
        hint = did_you_mean(name, found, f"installed: {', '.join(sorted(found)) or 'none'}")
        raise JobError.at(location, f"no installed package offers {name!r} in the entry point group {group!r}; {hint}")
    return found[name]


def load_entry_point(group: str, name: str, location: str) -> Any:
    """Import what the entry point ``name`` of ``group`` names.

    Raises :class:`JobError` at ``location`` if no package offers it, or if it cannot be imported.
    """
    entry = find_entry_point(group, name, location)
    try:
        return entry.load()
    except Exception as error:
        text = f"{entry.value} cannot be imported: {type(error).__name__}: {error}"
        raise JobError.at(location, text) from error
