"""Users' own data: an entry point that returns (train, val) map-style datasets."""

from typing import Any

from activelr_service.config import JobError
from activelr_service.config.data import PythonDataConfig
from activelr_service.data.info import DataInfo
from activelr_service.entry_points import DATA, load_entry_point


def inspect(config: PythonDataConfig) -> DataInfo:
    """Looks at the first row: ``(input, target)`` with an integer target is classification, with a float one regression;
    a single tensor of token ids is language modelling. Classes are counted by ``classes`` or ``num_classes`` of the
    training dataset."""
    train, val = build(config)
    row = train[0]
    if not isinstance(row, tuple | list):
        vocab_size = getattr(train, "vocab_size", None)
        return DataInfo(("language_modeling",), len(train), len(val), tuple(row.shape), vocab_size=vocab_size)
    info = DataInfo((), len(train), len(val), tuple(row[0].shape))
    if len(row) == 1:
        return info._replace(tasks=("language_modeling",), vocab_size=getattr(train, "vocab_size", None))
    if isinstance(row[1], float) or getattr(row[1], "is_floating_point", bool)():
        return info._replace(tasks=("regression",), num_outputs=getattr(row[1], "numel", lambda: 1)())
    classes = tuple(getattr(train, "classes", ()))
    num_classes = len(classes) or getattr(train, "num_classes", None)
    if num_classes is None:
        text = f"the training dataset of {config.name!r} needs an attribute num_classes or classes"
        raise JobError.at("data.name", text)
    return info._replace(tasks=("classification",), num_classes=num_classes, classes=classes)


def build(config: PythonDataConfig) -> tuple[Any, Any]:
    factory = load_entry_point(DATA, config.name, "data.name")
    try:
        train, val = factory(**config.args)
    except TypeError as error:
        raise JobError.at("data.args", f"{config.name}: {error}") from error
    return train, val
