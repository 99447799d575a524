"""Folders of ``datasets.save_to_disk``: their splits, and the labels in their rows."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from activelr_service.config.data import HuggingFaceDataConfig
from activelr_service.data.splits import check_known
from activelr_service.errors import JobError

SEVERAL, ONE = "dataset_dict.json", "state.json"  # the files that ``datasets`` writes for several splits and for one
UNLABELED = -1  # the label in test splits of the Hub whose labels are not published
TEXTS = ("string", "large_string")


def is_saved(folder: Path) -> bool:
    """Whether ``folder`` was written by ``save_to_disk``."""
    return any((folder / name).is_file() for name in (SEVERAL, ONE))


def list_splits(folder: Path, place: str) -> dict[str, Path]:
    """Map the name of each split to its folder. A dataset without splits is the split ``train``.

    Raises :class:`JobError` at ``place`` for a folder that holds no saved dataset.
    """
    if (folder / ONE).is_file():
        return {"train": folder}
    if not (folder / SEVERAL).is_file():
        text = f"{folder} is not a dataset saved by datasets: it holds neither {SEVERAL} nor {ONE}"
        raise JobError.at(place, text)
    try:
        names = json.loads((folder / SEVERAL).read_text())["splits"]
        return {name: folder / name for name in names}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError.at(place, f"{folder / SEVERAL} cannot be read: {error!r}") from error


def load_split(folder: Path, place: str) -> Any:
    """Load the dataset in ``folder``; None if it has no rows. Raises :class:`JobError` at ``place`` if that fails."""
    from datasets import load_from_disk

    try:
        if (
            json.loads((folder / ONE).read_text())["_data_files"] == []
        ):  # ``datasets`` cannot load a dataset without rows
            return None
        dataset: Any = load_from_disk(str(folder))
    except Exception as error:
        raise JobError.at(place, f"{folder} is not a dataset saved by datasets: {error}") from error
    return dataset if len(dataset) else None


def check_columns(config: HuggingFaceDataConfig, dataset: Any, split: str) -> None:
    """Raise :class:`JobError` unless the split has an image column and a label column of types that are read."""
    features = dataset.features
    have = ", ".join(f"{column} ({_kind(feature)})" for column, feature in features.items())
    where = f"the split {split} of {config.path}"
    image, label = features.get(config.image_column), features.get(config.label_column)
    if image is None or _kind(image) != "Image":
        text = f"{where} has no column {config.image_column!r} of type Image; it has {have}"
        raise JobError.at("data.image_column", text)
    if label is None or _kind(label) not in ("ClassLabel", *TEXTS):
        text = f"{where} has no column {config.label_column!r} of type ClassLabel or of texts; it has {have}"
        remedy = f"; dataset.cast_column({config.label_column!r}, ClassLabel(names=[...])) makes one of numbers"
        raise JobError.at("data.label_column", text + (remedy if label is not None else ""))


def class_names(config: HuggingFaceDataConfig, dataset: Any) -> list[str]:
    """The names of the classes: those of a ClassLabel in its order, or the different texts in alphabetical order."""
    feature = dataset.features[config.label_column]
    names = sorted(set(_names(config, dataset))) if _kind(feature) in TEXTS else list(feature.names or [])
    if len(names) < 2:
        text = f"the column {config.label_column!r} of {config.path} has {len(names)} classes; at least 2 are needed"
        raise JobError.at("data.label_column", text)
    return names


def is_unlabeled(config: HuggingFaceDataConfig, dataset: Any) -> bool:
    """Whether no row has a label."""
    return all(value in (None, UNLABELED) or not str(value).strip() for value in _values(config, dataset))


def read_labels(config: HuggingFaceDataConfig, dataset: Any, split: str, classes: list[str]) -> np.ndarray:
    """The class of each row, int64 (rows,), matched by name with ``classes``.

    Raises :class:`JobError` with the first row without a class.
    """
    values, names = _values(config, dataset), _names(config, dataset)
    number = {name: index for index, name in enumerate(classes)}
    where = f"the split {split} of {config.path}"
    for row, value in enumerate(values):
        if value not in names:
            without = sum(value not in names for value in values)
            text = f"row {row} of {where} has the label {value!r}, which is no class; so have {without} rows in all"
            raise JobError.at("data.label_column", f"{text}: label them or take them out")
    check_known((names[value] for value in values), classes, "data.label_column", where)
    return np.array([number[names[value]] for value in values], dtype=np.int64)


def known_labels(config: HuggingFaceDataConfig, dataset: Any, classes: list[str]) -> tuple[np.ndarray, dict[str, int]]:
    """The class of each row, int64 (rows,), matched by name with ``classes``; -1 for a row without a label or with another.

    The second value counts the rows of each other class.
    """
    names = _names(config, dataset)
    named = [names.get(value) for value in _values(config, dataset)]
    number = {name: index for index, name in enumerate(classes)}
    unknown = Counter(name for name in named if name is not None and name not in number)
    return np.array([-1 if name is None else number.get(name, -1) for name in named], dtype=np.int64), dict(unknown)


def _names(config: HuggingFaceDataConfig, dataset: Any) -> dict[Any, str]:
    """Map each value that is allowed in the column to the name of its class."""
    feature = dataset.features[config.label_column]
    if _kind(feature) in TEXTS:
        return {value: value for value in _values(config, dataset) if value is not None and value.strip()}
    return dict(enumerate(feature.names or []))


def _values(config: HuggingFaceDataConfig, dataset: Any) -> list[Any]:
    column = dataset.select_columns([config.label_column]).with_format("arrow")[:].column(0)
    return column.to_pylist()


def _kind(feature: Any) -> str:
    """The type of a column: ``Image``, ``ClassLabel``, or for plain values their data type, such as ``int64``."""
    return str(getattr(feature, "dtype", None)) if type(feature).__name__ == "Value" else type(feature).__name__
