"""A user's own data: an entry point that returns (train, val) or (train, val, test) map-style datasets."""

import inspect as signatures
import traceback
from typing import Any

from activelr_service.config.data import PythonDataConfig
from activelr_service.config.entry_points import DATA, load_entry_point
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError


def inspect(config: PythonDataConfig) -> DataInfo:
    """Describe the data by the first training sample.

    ``(input, target)`` with an integer target is classification, with a float target regression. One tensor of token ids
    is language modeling. The attribute ``classes`` or ``num_classes`` of the training dataset gives the number of classes.
    Raises :class:`JobError` if a dataset is empty or its first sample cannot be used.
    """
    train, val, *test = _make(config)
    sizes = _size(config, train, "training"), _size(config, val, "validation")
    row, _ = _first(config, train, "training"), _first(config, val, "validation")
    try:
        info = DataInfo((), *sizes, tuple((row[0] if isinstance(row, tuple | list) else row).shape))
    except (AttributeError, IndexError, TypeError):
        text = (
            f"the first training sample of {config.name!r} is {_kinds(row)}; (input, target) or (tokens,) of tensors is"
        )
        raise JobError.at("data.name", f"{text} wanted") from None
    info = _with_test(config, test, info)
    if not isinstance(row, tuple | list) or len(row) == 1:
        return info._replace(tasks=("language_modeling",), vocab_size=getattr(train, "vocab_size", None))
    if isinstance(row[1], float) or getattr(row[1], "is_floating_point", bool)():
        return info._replace(tasks=("regression",), num_outputs=getattr(row[1], "numel", lambda: 1)())
    classes = tuple(str(name) for name in getattr(train, "classes", ()))
    num_classes = len(classes) or getattr(train, "num_classes", None)
    if num_classes is None:
        text = f"the training dataset of {config.name!r} needs an attribute num_classes or classes"
        raise JobError.at("data.name", text)
    return info._replace(tasks=("classification",), num_classes=num_classes, classes=classes)


def _with_test(config: PythonDataConfig, test: list[Any], info: DataInfo) -> DataInfo:
    """The description with the test dataset, if there is one, and a note on the numbers of samples."""
    if not test:
        note = f"from {config.name}: {info.num_train:,} training and {info.num_val:,} validation samples"
        return info._replace(notes=(note,))
    info = info._replace(num_test=_size(config, test[0], "test"))
    _first(config, test[0], "test")
    note = f"from {config.name}: {info.num_train:,} training, {info.num_val:,} validation and {info.num_test:,} test samples"
    return info._replace(notes=(note, "test: measured once, at the end"))


def build(config: PythonDataConfig) -> tuple[Any, Any]:
    """Call the entry point and return its first two datasets. If it raises, :class:`JobError` names the line that did."""
    train, val, *_ = _make(config)
    return train, val


def build_split(config: PythonDataConfig, split: str) -> Any:
    """The dataset of a split, "train", "validation" or "test", as the entry point makes it. None if it makes no such one."""
    return dict(zip(("train", "validation", "test"), _make(config), strict=False)).get(split)


def _make(config: PythonDataConfig) -> list[Any]:
    factory = load_entry_point(DATA, config.name, "data.name")
    _check_args(config, factory)
    try:
        made = factory(**config.args)
    except Exception as error:
        raise JobError.at("data.args", f"{config.name} raised {_where(error)}") from error
    if not isinstance(made, tuple | list) or len(made) not in (2, 3):
        text = (
            f"{config.name} returned {_kinds(made)}; a pair (train, val) of datasets is wanted, or (train, val, test)"
        )
        raise JobError.at("data.name", text)
    return list(made)


def _check_args(config: PythonDataConfig, factory: Any) -> None:
    try:
        signature = signatures.signature(factory)
    except (TypeError, ValueError):
        return  # callables written in C can have no signature; then the call itself raises
    try:
        signature.bind(**config.args)
    except TypeError as error:
        given = ", ".join(config.args) or "none"
        raise JobError.at("data.args", f"{config.name}: {error}; it takes {signature}, got {given}") from error


def _size(config: PythonDataConfig, dataset: Any, part: str) -> int:
    try:
        size = len(dataset)
    except Exception as error:
        text = f"the {part} dataset of {config.name!r} has no length: {_where(error)}; map-style datasets are wanted"
        raise JobError.at("data.name", text) from error
    if size == 0:
        raise JobError.at("data.name", f"the {part} dataset of {config.name!r} has no samples")
    return size


def _first(config: PythonDataConfig, dataset: Any, part: str) -> Any:
    try:
        return dataset[0]
    except Exception as error:
        text = f"sample 0 of the {part} dataset of {config.name!r} raised {_where(error)}"
        raise JobError.at("data.name", text) from error


def _kinds(value: Any) -> str:
    """The type of a value, and the types of the parts of a tuple, for a message."""
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of ({', '.join(type(part).__name__ for part in value[:5])})"
    return type(value).__name__


def _where(error: Exception) -> str:
    """The error in one line, with the file and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}"
