"""Training, validation and test splits: found by their names, or drawn at random; and classes matched by name."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

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
    """Raise :class:`JobError` at ``place`` if a name is not in ``classes``. ``names`` has a name for each row.

    The error counts the rows of each unknown name, and shows classes spelled alike.
    """
    counts = Counter(names)
    unknown = sorted(counts.keys() - set(classes))
    if not unknown:
        return
    alike = {folded(name): name for name in classes}
    close = [f"{name} is spelled {alike[folded(name)]} there" for name in unknown if folded(name) in alike]
    hint = f"; {shorten(close)}" if close else f"; those are {shorten(classes)}"
    shown = shorten((f"{name} ({counts[name]:,} samples)" for name in unknown), 20)
    raise JobError.at(place, f"{where} has classes that are not among those trained on: {shown}{hint}")


class Drawn(NamedTuple):
    """The row numbers of the splits that were drawn, each in ascending order. A split that was not drawn is empty."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def draw_splits(
    num_rows: int, val_fraction: float | None, test_fraction: float | None, labels: np.ndarray | None = None
) -> Drawn:
    """Draw the test rows, then the validation rows from the others; ``None`` draws none. See :func:`train_val_split`.

    The test rows do not depend on ``val_fraction``. Without ``test_fraction`` the validation rows are those of
    :func:`train_val_split`. Raises :class:`JobError` if there are too few rows for a test split.
    """
    if test_fraction is not None and num_rows < (2 if val_fraction is None else 3):
        raise JobError.at("data.test_fraction", f"{num_rows} samples are too few to keep some for a test; leave it out")
    train, test = np.arange(num_rows), np.arange(0)
    if test_fraction is not None:
        train, test = _cut_off(train, np.random.default_rng(1).random(num_rows), test_fraction, labels)
    val = np.arange(0)
    if val_fraction is not None:
        train, val = _cut_off(train, np.random.default_rng(0).random(num_rows), val_fraction, labels)
    return Drawn(train, val, test)


def train_val_split(
    num_rows: int, val_fraction: float, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the row numbers (train, val) at random with seed 0; each array is in ascending order.

    ``labels`` are int64 classes from 0, of shape (num_rows,). With them the split is stratified: every class has its share
    of the validation rows. Each class keeps at least one training row. Each class of two rows or more has a validation
    row, if there are enough of them. Each row has its own random number, so that the draw hardly changes when a few rows
    are added.
    """
    return draw_splits(num_rows, val_fraction, None, labels)[:2]


def _cut_off(
    rows: np.ndarray, keys: np.ndarray, fraction: float, labels: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Split ``rows`` into (kept, cut off): of each class its share, the rows with the smallest ``keys``.

    ``keys`` and ``labels`` are those of all rows, also of the rows that are not in ``rows``.
    """
    _, num_cut = split_sizes(len(rows), fraction)
    keys = keys[rows]
    labels = np.zeros(len(rows), dtype=np.int64) if labels is None else labels[rows]
    counts = np.bincount(labels)
    num_cut_of = _share(counts, num_cut)
    order = np.lexsort((keys, labels))
    rank = np.arange(len(rows)) - (np.cumsum(counts) - counts)[labels[order]]
    is_cut = np.zeros(len(rows), dtype=bool)
    is_cut[order[rank < num_cut_of[labels[order]]]] = True
    return rows[~is_cut], rows[is_cut]


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
