"""What MLflow takes as names and values, for those that it does not take as they are."""

import hashlib
import re

LONGEST_NAME = 250
LONGEST_PARAM, LONGEST_TAG = 6000, 8000  # characters that MLflow takes

_REFUSED = re.compile(r"[^\w/. :-]")


def tracked_name(name: str) -> str:
    """A name that MLflow takes: letters, digits and ``_ - . : /``, no ``..`` and no empty part between slashes.

    A name that has to be changed ends in a short hash of what it was, so that two names never become one, in any order.
    """
    plain = _REFUSED.sub("_", name)
    plain = "/".join(part for part in plain.split("/") if part.strip(".")) or "_"
    if plain == name and len(name) <= LONGEST_NAME:
        return name
    mark = "-" + hashlib.sha256(name.encode()).hexdigest()[:6]
    return plain[: LONGEST_NAME - len(mark)] + mark


def cut(text: str, longest: int) -> str:
    """The text, or as much of it as MLflow takes, with a mark that says how much is missing."""
    if len(text) <= longest:
        return text
    mark = f"... ({len(text):,} characters in all)"
    return text[: longest - len(mark)] + mark
