"""Which rows are held out where the data have no rows for validation, and what each side has of the classes."""

import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from activelr_service.data.info import split_sizes


def hold_out(num_rows: int, val_fraction: float, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (train, val), each in ascending order, drawn with seed 0.

    With ``labels``, integers from 0 of shape (num_rows,), every class gets its share of the held-out rows (a stratified
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


def describe_classes(
    classes: Sequence[str], train: np.ndarray, val: np.ndarray, unit: str = "rows"
) -> tuple[list[str], list[str]]:
    """(notes, warnings) on how many ``unit`` each class has on each side: ``train`` and ``val`` are counts (classes,)."""
    sides = [f"{name} {a:,}/{b:,}" for name, a, b in zip(classes, train, val, strict=True)]
    notes = [f"classes, with their training and held-out {unit}: {shorten(sides, 20)}"]
    warnings = []
    for is_so, text in (
        ((train == 0) & (val > 0), f"only among the held-out {unit}, so that nothing teaches them"),
        ((train > 1) & (val == 0), f"only among the training {unit}, so that nothing measures them"),
        (train + val == 1, f"with one of the {unit} only"),
        (train + val == 0, f"without any {unit}"),
    ):
        if names := [repr(name) for name, one in zip(classes, is_so, strict=True) if one]:
            warnings.append(f"classes {text} ({len(names):,} of {len(classes):,}): {shorten(names, 10)}")
    return notes, warnings + spelled_alike(classes)


def spelled_alike(names: Iterable[str]) -> list[str]:
    """Warnings of class names that differ in upper and lower case, spaces at their ends or the form of accents only."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(folded(name), []).append(repr(name))
    return [f"classes spelled alike are taken as different: {', '.join(same)}" for same in groups.values() if same[1:]]


def folded(name: str) -> str:
    """A name without what people do not see: case, spaces at its ends, the form of accents."""
    return unicodedata.normalize("NFKC", name).casefold().strip()


def shorten(names: Iterable[object], most: int = 5) -> str:
    """The names on one line, with commas between them: at most ``most``, then how many more there are."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return " ".join(", ".join(texts[:most]).split()) + more
