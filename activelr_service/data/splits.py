"""Splits of data told from names, and classes matched by name."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from activelr_service.data.info import folded, shorten
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


def train_val_split(
    num_rows: int, val_fraction: float, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (train, val), each in ascending order, drawn with seed 0.

    With ``labels``, integers from 0 of shape (num_rows,), every class gets its share of the validation rows (a stratified
    split). A class keeps at least one training row, and a class of two rows or more has a held-out row where there are
    enough of them. Every row has a random number of its own that does not depend on the other rows, so that a few rows
    more hardly change which are held out.
    """
    _, num_val = split_sizes(num_rows, val_fraction)
    keys = np.random.default_rng(0).random(num_rows)
    if labels is None:
        labels = np.zeros(num_rows, dtype=np.int64)
    counts = np.bincount(labels)
    held = _share(counts, num_val)
    order = np.lexsort((keys, labels))
    rank = np.arange(num_rows) - (np.cumsum(counts) - counts)[labels[order]]
    is_val = np.zeros(num_rows, dtype=bool)
    is_val[order[rank < held[labels[order]]]] = True
    return np.flatnonzero(~is_val), np.flatnonzero(is_val)


def _share(counts: np.ndarray, num_val: int) -> np.ndarray:
    """How many rows of each class are held out: its share, rounded by the largest remainders (Hamilton's method)."""
    most = np.maximum(counts - 1, 0)
    if most.sum() == 0:  # every class has one row: any row will do
        return (np.arange(len(counts)) == np.argmax(counts)).astype(np.int64)
    exact = counts * num_val / counts.sum()
    held = np.minimum(np.floor(exact).astype(np.int64), most)
    if (most > 0).sum() <= num_val:
        held = np.maximum(held, (most > 0).astype(np.int64))
    while held.sum() > num_val:
        held[np.argmax(held)] -= 1
    order = np.argsort(held - exact, kind="stable")
    order = order[held[order] < most[order]]
    held[order[: max(0, num_val - held.sum())]] += 1
    return held


def split_sizes(num_rows: int, val_fraction: float) -> tuple[int, int]:
    """(train, val) row counts of a random split, at least one row each where there are two."""
    num_val = min(max(1, round(num_rows * val_fraction)), num_rows - 1)
    return num_rows - num_val, num_val
