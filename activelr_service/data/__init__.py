"""The types of data that a job can name.

To add one, write its config class in :mod:`activelr_service.config.data`, a module here, and an entry in ``DATA_TYPES``.
Importing this package imports no torch, so that a job is checked at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activelr_service.data import (
    bundled,
    cifar,
    entry_point,
    huggingface,
    huggingface_whole,
    imagefolder,
    imagefolder_whole,
    npz,
    npz_whole,
    table,
    text,
    text_whole,
    voc,
    voc_whole,
)
from activelr_service.data.info import DataInfo
from activelr_service.data.remote import fetch
from activelr_service.data.table import whole as table_whole
from activelr_service.data.whole import Whole

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DataType:
    """The functions of one type of data. Each takes the config of that type.

    ``inspect`` describes the data without torch. ``build`` makes the (train, val) map-style datasets. A type may have
    more functions. ``prepare(config, cache)`` makes what all workers need, once, and returns the config with it.
    ``check_files(config, limit)`` decodes files, which can be corrupt. ``for_task(config, task)`` returns the config
    that reads the targets as the task needs them. ``build_split(config, split)`` makes the dataset of one split to measure
    a model on, without augmentation, or returns None if there is no such split; only types with it can have a test split.
    ``build_whole(config, trained, cache)`` makes all samples of data that a model was not trained on.
    """

    inspect: Callable[[Any], DataInfo]
    build: Callable[[Any], tuple[Any, Any]]
    prepare: Callable[[Any, Path], Any] | None = None
    check_files: Callable[[Any, int | None], None] | None = None
    for_task: Callable[[Any, str], Any] | None = None
    build_split: Callable[[Any, str], Any] | None = None
    build_whole: Callable[[Any, DataInfo, Path], list[Whole]] | None = None


_CIFAR = DataType(cifar.inspect, cifar.build, build_split=cifar.build_split)
DATA_TYPES = {
    "digits": DataType(bundled.inspect_digits, bundled.build_digits, build_split=bundled.build_digits_split),
    "stdlib_chars": DataType(bundled.inspect_stdlib_chars, bundled.build_stdlib_chars),
    "imagefolder": DataType(
        imagefolder.inspect,
        imagefolder.build,
        imagefolder.prepare,
        imagefolder.check_files,
        build_split=imagefolder.build_split,
        build_whole=imagefolder_whole.build_whole,
    ),
    "huggingface": DataType(
        huggingface.inspect,
        huggingface.build,
        huggingface.prepare,
        huggingface.check_files,
        build_split=huggingface.build_split,
        build_whole=huggingface_whole.build_whole,
    ),
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "npz": DataType(
        npz.inspect,
        npz.build,
        for_task=npz.for_task,
        build_split=npz.build_split,
        build_whole=npz_whole.build_whole,
    ),
    "table": DataType(
        table.inspect,
        table.build,
        table.prepare,
        for_task=table.for_task,
        build_split=table.build_split,
        build_whole=table_whole.build_whole,
    ),
    "text": DataType(
        text.inspect,
        text.build,
        text.prepare,
        text.check_files,
        build_split=text.build_split,
        build_whole=text_whole.build_whole,
    ),
    "voc": DataType(
        voc.inspect,
        voc.build,
        check_files=voc.check_files,
        build_split=voc.build_split,
        build_whole=voc_whole.build_whole,
    ),
    "python": DataType(entry_point.inspect, entry_point.build, build_split=entry_point.build_split),
}


def inspect_data(config: Any, task: str | None = None) -> DataInfo:
    """Describe the data, read for ``task`` if the job gives one.

    Raises :class:`~activelr_service.errors.JobError` if the data cannot be used.
    """
    return DATA_TYPES[config.type].inspect(for_task(config, task))


def prepare_data(config: Any, cache: Path, task: str | None = None) -> Any:
    """Make what all workers need, once, before any of them reads the data, and return the config that names it.

    Data in a bucket are copied into ``cache``. Text is encoded into it. A second call finds the work done.
    """
    config = for_task(fetch(config, cache), task)
    prepare = DATA_TYPES[config.type].prepare
    return config if prepare is None else prepare(config, cache)


def build_data(config: Any) -> tuple[Any, Any]:
    """Make the (train, val) map-style datasets of samples ``(input, target)`` or ``(tokens,)``.

    A sample whose file is corrupt and is to be skipped is None, or has the input None.
    """
    return DATA_TYPES[config.type].build(config)


def build_split(config: Any, split: str) -> Any:
    """Make the dataset of one of :data:`SPLITS` to measure a model on: without augmentation, and images that cannot be
    decoded are left out. None if the data have no such split.
    """
    build_one = DATA_TYPES[config.type].build_split
    if build_one is not None:
        return build_one(config, split)
    return None if split == "test" else build_data(config)[SPLITS.index(split)]


def build_test(config: Any) -> Any:
    """Make the dataset of the test split, which is measured once, at the end of a run. None if the data have none."""
    return build_split(config, "test")


def build_whole(config: Any, trained: DataInfo, cache: Path) -> list[Whole]:
    """Make the datasets of all samples of data that a model was not trained on, one for each split or file.

    ``config`` has the classes, columns and the tokenizer of the model. ``trained`` describes the data of the model.
    Raises :class:`~activelr_service.errors.JobError` for classes that the model does not know, by name.
    """
    build_all = DATA_TYPES[config.type].build_whole
    if build_all is not None:
        return build_all(config, trained, cache)
    there = [(split, build_split(config, split)) for split in SPLITS]
    return [Whole(split, f"the {split} split", dataset, {}) for split, dataset in there if dataset is not None]


def check_files(config: Any, limit: int | None) -> None:
    """Decode at most ``limit`` files of the data, evenly spaced, as the training will; ``None`` decodes all.

    Types of data without such files are not checked. Raises :class:`~activelr_service.errors.JobError` with the first
    file that cannot be decoded.
    """
    check = DATA_TYPES[config.type].check_files
    if check is not None:
        check(config, limit)


def for_task(config: Any, task: str | None) -> Any:
    """The config that reads the targets as ``task`` needs them; the same config if there is no task."""
    convert = DATA_TYPES[config.type].for_task
    return config if task is None or convert is None else convert(config, task)
