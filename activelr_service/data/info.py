"""What a job needs to know of its data before anything is loaded."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np


class DataInfo(NamedTuple):
    """Shape and size of a dataset. Rows are None where only :func:`~activelr_service.data.prepare_data` can count them.

    ``tasks``: what it can be used for, the default first. ``input_shape``: of one row, ``()`` if rows differ in it.
    ``num_classes`` is set for classification and, without the background, for detection; ``num_outputs`` for regression
    (values per row), ``vocab_size`` for token ids (largest id + 1). ``notes`` say what was read: files and rows, classes and
    columns, the split, and what was left out and why. ``warnings`` say what a person should look at twice. Both are plain
    lines; the log, MLflow and ``activelr validate`` show them. ``input_scale``: what stored integers (pixels of 0 to 255)
    are divided by before the model sees them.
    """

    tasks: tuple[str, ...]
    num_train: int | None
    num_val: int | None
    input_shape: tuple[int, ...]
    num_classes: int | None = None
    num_outputs: int | None = None
    vocab_size: int | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    input_scale: float = 1.0

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "DataInfo":
        """From ``_asdict()``, also after a way through JSON, which makes lists of tuples."""
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
        return cls(**fields)

    def describe(self) -> str:
        """One line for a log."""
        if self.num_train is None:
            return f"rows of shape {self.input_shape}, counted when the training starts"
        size = f"{self.num_train:,} training and {self.num_val:,} validation samples"
        size += f" of shape {self.input_shape}" if self.input_shape else ""
        return f"{size}, {self.num_classes} classes" if self.num_classes else size


def describe_classes(
    classes: Sequence[str], train: np.ndarray, val: np.ndarray, unit: str = "samples"
) -> tuple[list[str], list[str]]:
    """(notes, warnings) on how many ``unit`` each class has on each side: ``train`` and ``val`` are counts (classes,)."""
    sides = [f"{name} {a:,}/{b:,}" for name, a, b in zip(classes, train, val, strict=True)]
    notes = [f"classes, with their training and validation {unit}: {shorten(sides, 20)}"]
    warnings = []
    for is_so, text in (
        ((train == 0) & (val > 0), f"only among the validation {unit}, so that nothing teaches them"),
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
