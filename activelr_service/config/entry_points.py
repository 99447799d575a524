"""Users' own models and data: callables that an installed package offers in a pip entry point group."""

from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Any

from activelr_service.errors import JobError

MODELS = "activelr.models"
DATA = "activelr.data"


def load_entry_point(group: str, name: str, location: str) -> Any:
    """Import the callable ``name`` of ``group``; raises :class:`JobError` at ``location`` if no package offers it."""
    found = {entry.name: entry for entry in entry_points(group=group)}
    if name not in found:
        close = get_close_matches(name, found, n=1)
        known = f'did you mean "{close[0]}"?' if close else f"installed: {', '.join(sorted(found)) or 'none'}"
        raise JobError.at(location, f"no installed package offers {name!r} in the entry point group {group!r}; {known}")
    try:
        return found[name].load()
    except Exception as error:
        text = f"{found[name].value} cannot be imported: {type(error).__name__}: {error}"
        raise JobError.at(location, text) from error
