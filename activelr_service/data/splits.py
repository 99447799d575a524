"""Training and validation splits: found by their names, or drawn at random; and classes matched by name."""

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
    """The split that a name means, in upper or lower case: "train", "validation", "test", or None for any other name."""
    return WORDS.get(re.sub(f"{AFTER}$", "", name.lower()))


def one_name_each(names: Iterable[str], place: str, where: object) -> dict[str, str]:
    """Map each split to its name among ``names``. Raises :class:`JobError` at ``place`` if two names mean the same split."""
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
    """Raise :class:`JobError` at ``place`` if a name is not in ``classes``. The error shows classes spelled alike."""
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
    """Draw the row numbers (train, val) at random with seed 0; each array is in ascending order.

    ``labels`` are int64 classes from 0, of shape (num_rows,). With them the split is stratified: every class has its share
    of the validation rows. Each class keeps at least one training row. Each class of two rows or more has a validation
    row, if there are enough of them. Each row has its own random number, so that the draw hardly changes when a few rows
    are added.
    """
    _, num_val = split_sizes(num_rows, val_fraction)
    keys = np.random.default_rng(0).random(num_rows)
    if labels is None:
        labels = np.zeros(num_rows, dtype=np.int64)
    counts = np.bincount(labels)
    num_val_of = _share(counts, num_val)
    order = np.lexsort((keys, labels))
    rank = np.arange(num_rows) - (np.cumsum(counts) - counts)[labels[order]]
    is_val = np.zeros(num_rows, dtype=bool)
    is_val[order[rank < num_val_of[labels[order]]]] = True
    return np.flatnonzero(~is_val), np.flatnonzero(is_val)


def _share(counts: np.ndarray, num_val: int) -> np.ndarray:
    """The number of validation rows of each class: its share, rounded by the largest remainders (Hamilton's method)."""
    most = np.maximum(counts - 1, 0)
    if most.sum() == 0:  # every class has one row, so any row can validate
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
    """The sizes (train, val) of a random split. Each is at least 1 if there are two rows."""
    num_val = min(max(1, round(num_rows * val_fraction)), num_rows - 1)
    return num_rows - num_val, num_val
