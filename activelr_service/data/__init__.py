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
    imagefolder,
    npz,
    table,
    text,
    voc,
)
from activelr_service.data.info import DataInfo
from activelr_service.data.remote import fetch


@dataclass(frozen=True)
class DataType:
    """The functions of one type of data. Each takes the config of that type.

    ``inspect`` describes the data without torch. ``build`` makes the (train, val) map-style datasets. A type may have
    three more functions. ``prepare(config, cache)`` makes what all workers need, once, and returns the config with it.
    ``check_files(config, limit)`` decodes files, which can be corrupt. ``for_task(config, task)`` returns the config
    that reads the targets as the task needs them.
    """

    inspect: Callable[[Any], DataInfo]
    build: Callable[[Any], tuple[Any, Any]]
    prepare: Callable[[Any, Path], Any] | None = None
    check_files: Callable[[Any, int | None], None] | None = None
    for_task: Callable[[Any, str], Any] | None = None


_CIFAR = DataType(cifar.inspect, cifar.build)
DATA_TYPES = {
    "digits": DataType(bundled.inspect_digits, bundled.build_digits),
    "stdlib_chars": DataType(bundled.inspect_stdlib_chars, bundled.build_stdlib_chars),
    "imagefolder": DataType(imagefolder.inspect, imagefolder.build, imagefolder.prepare, imagefolder.check_files),
    "huggingface": DataType(huggingface.inspect, huggingface.build, huggingface.prepare, huggingface.check_files),
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "npz": DataType(npz.inspect, npz.build, for_task=npz.for_task),
    "table": DataType(table.inspect, table.build, table.prepare, for_task=table.for_task),
    "text": DataType(text.inspect, text.build, text.prepare, text.check_files),
    "voc": DataType(voc.inspect, voc.build, check_files=voc.check_files),
    "python": DataType(entry_point.inspect, entry_point.build),
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
