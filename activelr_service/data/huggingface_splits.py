"""The splits of a folder of ``datasets.save_to_disk`` with images: which rows are trained on, validate and test."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from activelr_service.config.data import HuggingFaceDataConfig
from activelr_service.data.info import shorten
from activelr_service.data.saved_datasets import (
    check_columns,
    class_names,
    is_unlabeled,
    known_labels,
    list_splits,
    load_split,
    read_labels,
)
from activelr_service.data.splits import draw_splits, one_name_each
from activelr_service.errors import JobError


class Rows(NamedTuple):
    """Some rows of a split: their numbers in the saved dataset and their int64 classes, both of shape (rows,)."""

    split: str
    dataset: Any
    numbers: np.ndarray
    labels: np.ndarray

    def describe(self, index: int) -> str:
        return f"row {self.numbers[index]} of the split {self.split}"


class Found(NamedTuple):
    """The rows of each split, the names of the classes, and notes and warnings about them. ``test`` can be None."""

    train: Rows
    val: Rows
    test: Rows | None
    classes: list[str]
    notes: list[str]
    warnings: list[str]


def read_splits(config: HuggingFaceDataConfig) -> Found:
    if not Path(config.path).is_dir():
        text = (
            f"no such folder: {config.path}; load_dataset(NAME).save_to_disk(FOLDER) makes one of a dataset of the Hub"
        )
        raise JobError.at("data.path", text)
    folders = list_splits(Path(config.path), "data.path")
    names = one_name_each(folders, "data.path", config.path)
    if "train" not in names:
        raise JobError.at("data.path", f"{config.path} has no split train; it has {', '.join(folders)}")
    loaded = {split: load_split(folders[name], "data.path") for split, name in names.items()}
    train = loaded["train"]
    if train is None:
        raise JobError.at("data.path", f"the split {names['train']} of {config.path} has no rows")
    check_columns(config, train, names["train"])
    classes = config.classes or class_names(config, train)
    labels = read_labels(config, train, names["train"], classes)
    warnings: list[str] = []
    val, test = _find_others(config, loaded, names, warnings)
    if test is not None and config.test_fraction is not None:
        raise JobError.at("data.test_fraction", f"there is a split {names[test]} already; leave it out")
    ours, theirs, kept = _draw(config, _all(names["train"], train, labels), has_val=val is not None)
    if val is not None:
        theirs = _all(names[val], loaded[val], read_labels(config, loaded[val], names[val], classes))
    if test is not None:
        kept = _known(config, names[test], loaded[test], classes, warnings)
    notes = _notes(config, list(folders), names, val, test)
    return Found(ours, theirs, kept if len(kept.labels) else None, classes, notes, warnings)


def _notes(
    config: HuggingFaceDataConfig, all_names: list[str], names: dict[str, str], val: str | None, test: str | None
) -> list[str]:
    """Notes on the validation and the test split, and on the splits that are not used."""
    used = {names["train"], *(names[split] for split in (val, test) if split)}
    others = " other" if config.test_fraction is not None else ""
    share = f"of the{others} rows of each class, at random with a fixed seed"
    source = f"the split {names[val]}" if val else f"{100 * config.val_fraction:g}% {share}"
    if val == "test":
        source += ", since there is no validation split; data.hold_out_test: true keeps it for a test at the end"
    notes = [f"validation: {source}"]
    if test is not None:
        notes.append(f"test: the split {names[test]}; measured once, at the end")
    elif config.test_fraction is not None:
        share = "of the rows of each class, at random with a fixed seed"
        notes.append(f"test: {100 * config.test_fraction:g}% {share}; measured once, at the end")
    left = [name for name in all_names if name not in used]
    return [*notes, *([f"left out: the splits {shorten(left)}"] if left else [])]


def _find_others(
    config: HuggingFaceDataConfig, loaded: dict[str, Any], names: dict[str, str], warnings: list[str]
) -> tuple[str | None, str | None]:
    """(the validation split, else the test split; the test split, if it does not validate).

    A split without labels is not used; many test splits have none.
    """
    val = "validation" if _is_usable(config, loaded, names, "validation", warnings) else None
    is_kept = val is not None or config.hold_out_test
    if not _is_usable(config, loaded, names, "test", warnings, may_be_odd=is_kept):
        return val, None
    return (val, "test") if is_kept else ("test", None)


def _is_usable(
    config: HuggingFaceDataConfig,
    loaded: dict[str, Any],
    names: dict[str, str],
    split: str,
    warnings: list[str],
    may_be_odd: bool = False,
) -> bool:
    """Whether a split can be used. Raises :class:`JobError` for columns that cannot be read, unless the split
    ``may_be_odd``: then there is a warning."""
    if split not in loaded:
        return False
    dataset = loaded[split]
    if split == "validation":
        if dataset is None:
            text = f"the split {names[split]} of {config.path} has no rows; fill it, or save the dataset without it"
            raise JobError.at("data.path", text)
        check_columns(config, dataset, names[split])
    if dataset is None or config.label_column not in dataset.features or is_unlabeled(config, dataset):
        what = "rows" if dataset is None else "labels"
        warnings.append(f"the split {names[split]} has no {what} and is not used")
        return False
    try:
        check_columns(config, dataset, names[split])
    except JobError as error:
        if not may_be_odd:
            raise
        warnings.append(f"the split {names[split]} is not used: {error}")
        return False
    return True


def _all(split: str, dataset: Any, labels: np.ndarray) -> Rows:
    return Rows(split, dataset, np.arange(len(labels)), labels)


def _known(config: HuggingFaceDataConfig, split: str, dataset: Any, classes: list[str], warnings: list[str]) -> Rows:
    """The rows whose label is one of ``classes``. The others are warned of: they cannot be scored."""
    labels, unknown = known_labels(config, dataset, classes)
    if (labels < 0).any():
        text = f"{(labels < 0).sum():,} rows of the split {split} are not measured: they have no label"
        some = shorten(f"{name} ({count:,})" for name, count in unknown.items())
        warnings.append(f"{text}, or a class that is not trained on: {some}" if unknown else text)
    return Rows(split, dataset, np.flatnonzero(labels >= 0), labels[labels >= 0])


def _draw(config: HuggingFaceDataConfig, rows: Rows, has_val: bool) -> list[Rows]:
    """(train, val, test) rows drawn from the training split. Validation rows are drawn unless there is a split for them."""
    if not has_val and np.bincount(rows.labels).max() < 2:
        text = f"{config.path} has {len(rows.labels)} rows and no class with two, one of them for validation; add rows"
        raise JobError.at("data.path", text)
    val_fraction = None if has_val else config.val_fraction
    parts = draw_splits(len(rows.labels), val_fraction, config.test_fraction, rows.labels)
    return [rows._replace(numbers=chosen, labels=rows.labels[chosen]) for chosen in parts]
