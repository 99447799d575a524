"""Splits of data told from names, and classes matched by name."""

import re
from collections.abc import Iterable, Sequence

from activelr_service.data.held_out import folded, shorten
from activelr_service.errors import JobError

WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
AFTER = r"[ _-]?(set|split|data|images)"  # as in training_set


def split_of(name: str) -> str | None:
    """The split that a whole name means, in any case: "train", "validation" or "test"; None for any other name."""
    return WORDS.get(re.sub(f"{AFTER}$", "", name.lower()))


def one_name_each(names: Iterable[str], place: str, where: object) -> dict[str, str]:
    """The name of each split among ``names``; raises :class:`JobError` at ``place`` if two names mean the same split."""
    found: dict[str, str] = {}
    for name in names:
        split = split_of(name)
        if split in found:
            text = f"{where} has {found[split]} and {name}, which both mean the {split} split; keep one of them"
            raise JobError.at(place, text)
        if split is not None:
            found[split] = name
    return found


def check_known(names: Iterable[str], classes: Sequence[str], place: str, where: object) -> None:
    """Raise :class:`JobError` at ``place`` for classes that are none of those trained on; hints at names spelled alike."""
    unknown = sorted(set(names) - set(classes))
    if not unknown:
        return
    alike = {folded(name): name for name in classes}
    close = [f"{name} is spelled {alike[folded(name)]} there" for name in unknown if folded(name) in alike]
    hint = f"; {shorten(close)}" if close else f"; those are {shorten(classes)}"
    raise JobError.at(place, f"{where} has classes that are not among those trained on: {shorten(unknown)}{hint}")
