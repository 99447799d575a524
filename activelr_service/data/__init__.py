"""Datasets by ``type``. A new one is a config class, a file here with ``inspect`` and ``build``, and a line in the table.

``inspect`` says what the data are without torch, so that a job is checked at once; ``build`` makes the datasets.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

from activelr_service.data import (
    cifar,
    digits,
    entry_point,
    huggingface,
    imagefolder,
    npz,
    stdlib_chars,
    table,
    text,
    voc,
)
from activelr_service.data.info import DataInfo
from activelr_service.data.remote import fetch

_BY_TYPE: dict[str, ModuleType] = {
    "digits": digits,
    "stdlib_chars": stdlib_chars,
    "imagefolder": imagefolder,
    "huggingface": huggingface,
    "cifar10": cifar,
    "cifar100": cifar,
    "npz": npz,
    "table": table,
    "text": text,
    "voc": voc,
    "python": entry_point,
}


def inspect_data(config: Any, task: str | None = None) -> DataInfo:
    """What the data are, for the ``task`` that the job gives, if it gives one.

    Raises :class:`~activelr_service.config.JobError` if the data cannot be used.
    """
    return _BY_TYPE[config.type].inspect(for_task(config, task))


def prepare_data(config: Any, cache: Path, task: str | None = None) -> Any:
    """The config with what has to be made from the data once, before any worker reads them, made and kept in ``cache``.

    Data in a bucket are copied. Most types need nothing else; a module that does has a function ``prepare``. Called again,
    both find their work done.
    """
    config = for_task(fetch(config, cache), task)
    module = _BY_TYPE[config.type]
    return module.prepare(config, cache) if hasattr(module, "prepare") else config


def build_data(config: Any) -> tuple[Any, Any]:
    """(train, val) map-style datasets whose rows are ``(input, target)`` or ``(tokens,)``; None for one to be skipped."""
    return _BY_TYPE[config.type].build(config)


def check_files(config: Any, limit: int | None) -> None:
    """Decode files of the data as the training will: at most ``limit`` of them, evenly spaced, or all.

    Only modules whose rows are files that can be corrupt have a function ``check_files``. Raises
    :class:`~activelr_service.config.JobError` naming the first file that cannot be decoded.
    """
    module = _BY_TYPE[config.type]
    if hasattr(module, "check_files"):
        module.check_files(config, limit)


def for_task(config: Any, task: str | None) -> Any:
    """The config for a job that gives its ``task``: some modules read the targets differently for another task."""
    module = _BY_TYPE[config.type]
    return module.for_task(config, task) if task is not None and hasattr(module, "for_task") else config
