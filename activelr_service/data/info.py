"""The description of a dataset, and the wording of notes and warnings about its classes."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np


class DataInfo(NamedTuple):
    """The shape and size of a dataset, known before it is loaded.

    ``tasks`` are the tasks that the data can be used for; the first is the default. ``num_train`` and ``num_val`` count
    the samples; they are None until :func:`~activelr_service.data.prepare_data` has counted them. ``input_shape`` is the
    shape of the input of one sample, or ``()`` if the shapes differ. ``num_classes`` is set for classification and for
    detection, where it does not count the background. ``num_outputs`` is the number of target values of a sample, for
    regression. ``vocab_size`` is the largest token id + 1. ``notes`` say what was read: the files, the classes, the
    columns, the split, and what was left out and why. ``warnings`` name what a person should check. Both are plain lines,
    which the log, MLflow and ``activelr validate`` show. Stored inputs are divided by ``input_scale`` before the model
    gets them: 255 for pixels from 0 to 255. ``num_test`` counts the samples of the test split, which is measured once, at
    the end; it is 0 if there is none. ``class_counts`` are the training samples of each class; they are empty where nothing
    counts them. A difference of 1 in a regression's target means ``target_scale`` in the unit of the data: the deviation of
    a target that is standardized, else 1.
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
    num_test: int = 0
    class_counts: tuple[int, ...] = ()
    target_scale: float = 1.0

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "DataInfo":
        """Make a DataInfo from ``_asdict()``. The lists that JSON makes of tuples become tuples again."""
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
        return cls(**fields)

    def counted(self) -> tuple[int, int]:
        """The numbers of training and of validation samples. Raises ``ValueError`` if they are not counted yet."""
        if self.num_train is None or self.num_val is None:
            raise ValueError("these data are counted by prepare_data only")
        return self.num_train, self.num_val

    def describe(self) -> str:
        """The number and shape of the samples, and the number of classes, in one line."""
        if self.num_train is None:
            return f"samples of shape {self.input_shape}, counted when the training starts"
        size = f"{self.num_train:,} training and {self.num_val:,} validation samples"
        if self.num_test:
            size = f"{self.num_train:,} training, {self.num_val:,} validation and {self.num_test:,} test samples"
        size += f" of shape {self.input_shape}" if self.input_shape else ""
        return f"{size}, {self.num_classes} classes" if self.num_classes else size


def describe_classes(
    classes: Sequence[str], train: np.ndarray, val: np.ndarray, unit: str = "samples", test: np.ndarray | None = None
) -> tuple[list[str], list[str]]:
    """Notes and warnings on the sizes of the classes. ``train``, ``val`` and ``test``, if there is a test split, are counts
    of ``unit``, of shape (classes,)."""
    parts = [train, val] if test is None else [train, val, test]
    sides = [f"{name} {'/'.join(f'{n:,}' for n in counts)}" for name, *counts in zip(classes, *parts, strict=True)]
    splits = "training and validation" if test is None else "training, validation and test"
    notes = [f"classes, with their {splits} {unit}: {shorten(sides, 20)}"]
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
    """A warning for each group of class names that differ only in case, in spaces at the ends or in the form of accents."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(folded(name), []).append(repr(name))
    return [f"classes spelled alike are taken as different: {', '.join(same)}" for same in groups.values() if same[1:]]


def folded(name: str) -> str:
    """The name in one case, without spaces at its ends, and with accents in one form (Unicode NFKC)."""
    return unicodedata.normalize("NFKC", name).casefold().strip()


def shorten(names: Iterable[object], most: int = 5) -> str:
    """At most ``most`` of the names in one line, and how many more there are."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return " ".join(", ".join(texts[:most]).split()) + more
