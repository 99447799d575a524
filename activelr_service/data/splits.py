"""Splits of data: told from names, made where there are none, and described."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from activelr_service.config import JobError
from activelr_service.data.info import split_sizes

WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
AFTER = r"[ _-]?(set|split|data|images)"  # as in training_set
LARGEST_CLASS_LIST = 20


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


def stratified_split(labels: np.ndarray, val_fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """(train, val) row numbers, in order: of each class the same share at random, with a fixed seed.

    ``labels`` (rows,) are integers from 0. The sizes are those of :func:`~activelr_service.data.info.split_sizes`, as far
    as a class keeps one row to train on.
    """
    counts = np.bincount(labels)
    wanted = counts * (split_sizes(len(labels), val_fraction)[1] / max(1, len(labels)))
    held_out = np.minimum(np.floor(wanted), np.maximum(counts - 1, 0)).astype(int)
    rest = split_sizes(len(labels), val_fraction)[1] - held_out.sum()
    can_give = [label for label in np.argsort(held_out - wanted, kind="stable") if held_out[label] < counts[label] - 1]
    held_out[can_give[: max(0, rest)]] += 1
    random = np.random.default_rng(0)
    val = [random.permutation(np.flatnonzero(labels == label))[:count] for label, count in enumerate(held_out)]
    is_val = np.zeros(len(labels), dtype=bool)
    is_val[np.concatenate(val)] = True
    return np.flatnonzero(~is_val), np.flatnonzero(is_val)


def describe_classes(
    classes: Sequence[str], train: Sequence[int] | np.ndarray, val: Sequence[int] | np.ndarray, unit: str = "rows"
) -> tuple[list[str], list[str]]:
    """(notes, warnings) of the number of ``unit`` of each class in training and held out."""
    counts = [f"{name} {ours:,} + {theirs:,}" for name, ours, theirs in zip(classes, train, val, strict=True)]
    more = f", and {len(counts) - LARGEST_CLASS_LIST} more" if len(counts) > LARGEST_CLASS_LIST else ""
    note = f"{len(classes)} classes; {unit} to train on + held out: {', '.join(counts[:LARGEST_CLASS_LIST])}{more}"
    warnings = []
    for counted, other, side in ((val, train, "held out"), (train, val, "to train on")):
        none = [name for name, here, there in zip(classes, counted, other, strict=True) if not here and there]
        if none:
            warnings.append(f"no {unit} {side} of {some(none)}")
    if few := [name for name, count in zip(classes, train, strict=True) if count == 1]:
        warnings.append(f"only one of the {unit} to train on is of {some(few)}")
    return [note], warnings


def some(names: Sequence[str]) -> str:
    """Names for a message: all of a few, or the first and how many there are."""
    return ", ".join(map(str, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def check_known(names: Iterable[str], classes: Sequence[str], place: str, where: object) -> None:
    """Raise :class:`JobError` at ``place`` for classes that are none of those trained on; hints at names spelled alike."""
    unknown = sorted(set(names) - set(classes))
    if not unknown:
        return
    alike = {_folded(name): name for name in classes}
    close = [f"{name} is spelled {alike[_folded(name)]} there" for name in unknown if _folded(name) in alike]
    hint = f"; {some(close)}" if close else f"; those are {some(classes)}"
    raise JobError.at(place, f"{where} has classes that are not among those trained on: {some(unknown)}{hint}")


def spelled_alike(names: Iterable[str]) -> list[str]:
    """Warnings of class names that differ in upper and lower case, spaces at their ends or the form of accents only."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_folded(name), []).append(name)
    return [f"classes spelled alike are taken as different: {', '.join(same)}" for same in groups.values() if same[1:]]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()
