"""Arrays in a .npz file, read without pickle."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from activelr_service.config.data import NpzDataConfig
from activelr_service.data.info import DataInfo, describe_classes, shorten
from activelr_service.data.npz_values import (
    Labels,
    count_tokens,
    find_scales,
    look_at_inputs,
    read_labels,
    repeated_rows,
)
from activelr_service.data.splits import train_val_split
from activelr_service.errors import JobError

NAMES = ("x", "y", "x_val", "y_val")
NAMING = "; call the arrays x and y, and x_val and y_val for validation"
Arrays = dict[str, np.ndarray]
_DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError)


def for_task(config: NpzDataConfig, task: str) -> NpzDataConfig:
    """Return the config that reads ``y`` as classes for classification and as numbers for regression."""
    kind = {"classification": "category", "regression": "number"}.get(task)
    return config.model_copy(update={"target_kind": kind})


def inspect(config: NpzDataConfig) -> DataInfo:
    """Read the arrays, check their values and describe them."""
    notes = _check_headers(config)
    arrays = _read(config.path)
    labels = read_labels(config.path, arrays, config.target_kind) if "y" in arrays else None
    train, val = _rows(config, arrays, labels)
    info = DataInfo((), len(train), len(val), arrays["x"].shape[1:])
    if "x_val" in arrays:
        notes.append(f"validation: the {len(val):,} rows of x_val")
    else:
        share = ", from each class its share" if labels is not None and labels.is_classes else ""
        notes.append(f"validation: {len(val):,} of {len(arrays['x']):,} rows, drawn with seed 0{share}")
    if labels is None:
        vocab_size = count_tokens(config.path, arrays)
        return info._replace(tasks=("language_modeling",), vocab_size=vocab_size, notes=tuple(notes))
    scales, warnings = find_scales(config.path, arrays)
    warnings += labels.warnings + look_at_inputs(arrays["x"], scales["x"])
    warnings += repeated_rows(arrays["x"], train, arrays.get("x_val"), val)
    info = info._replace(input_scale=scales["x"], num_outputs=labels.num_outputs)
    notes += labels.notes
    if not labels.is_classes:
        return info._replace(tasks=("regression",), notes=tuple(notes), warnings=tuple(warnings))
    names = tuple(map(str, range(labels.num_classes)))
    sides = (labels.y[train], (labels.y if labels.y_val is None else labels.y_val)[val])
    num_train, num_val = (np.bincount(side, minlength=len(names)) for side in sides)
    counted, warned = describe_classes(names, num_train, num_val)
    return info._replace(
        tasks=("classification", "regression") if config.target_kind is None else ("classification",),
        num_classes=labels.num_classes,
        notes=(*notes, *counted),
        warnings=(*warnings, *warned),
    )


def build(config: NpzDataConfig) -> tuple[Any, Any]:
    """Make (train, val) tensor datasets. uint8 inputs are scaled to [0, 1].

    The samples are float32 inputs with int64 classes or float32 numbers, or int64 token ids alone.
    """
    import torch
    from torch.utils.data import TensorDataset

    _check_headers(config)
    arrays = _read(config.path)
    labels = read_labels(config.path, arrays, config.target_kind) if "y" in arrays else None
    train, val = _rows(config, arrays, labels)
    x_val = arrays.get("x_val", arrays["x"])
    if labels is None:
        x, x_val = (torch.from_numpy(array.astype(np.int64)) for array in (arrays["x"][train], x_val[val]))
        return TensorDataset(x), TensorDataset(x_val)
    scales, _ = find_scales(config.path, arrays)
    y, y_val = labels.y[train], (labels.y if labels.y_val is None else labels.y_val)[val]
    return (
        TensorDataset(scaled(arrays["x"][train], scales["x"]), torch.from_numpy(y)),
        TensorDataset(scaled(x_val[val], scales.get("x_val", scales["x"])), torch.from_numpy(y_val)),
    )


def validation_rows(config: NpzDataConfig) -> np.ndarray:
    """The validation rows of ``x`` or ``x_val`` as they are stored."""
    _check_headers(config)
    arrays = _read(config.path)
    labels = read_labels(config.path, arrays, config.target_kind) if "y" in arrays else None
    return arrays.get("x_val", arrays["x"])[_rows(config, arrays, labels)[1]]


def _rows(config: NpzDataConfig, arrays: Arrays, labels: Labels | None) -> tuple[np.ndarray, np.ndarray]:
    """The training rows of ``x``, and the validation rows of ``x_val``, or of ``x`` if there is no ``x_val``."""
    if "x_val" in arrays:
        return np.arange(len(arrays["x"])), np.arange(len(arrays["x_val"]))
    classes = labels.y if labels is not None and labels.is_classes else None
    return train_val_split(len(arrays["x"]), config.val_fraction, classes)


def scaled(array: np.ndarray, scale: float) -> Any:
    """The float32 tensor of an array of numbers, divided by ``scale``."""
    import torch

    inputs = torch.from_numpy(array.astype(np.float32))
    return inputs if scale == 1 else inputs.div_(scale)


def _check_headers(config: NpzDataConfig) -> list[str]:
    """Notes on the arrays in the file. Raises :class:`JobError` if their names and shapes do not make a dataset."""
    headers, others = _headers(config.path)
    if "x" not in headers:
        raise _error(config, f"has no array 'x'; found: {shorten([*headers, *others], 10) or 'none'}{NAMING}")
    shape = headers["x"][0]
    if len(shape) < 2 or shape[0] < 2:
        raise _error(config, f"x has shape {shape}; at least 2 rows of at least one value are needed")
    if "x_val" in headers and (headers["x_val"][0][1:] != shape[1:] or headers["x_val"][0][0] < 1):
        raise _error(config, f"x has rows of shape {shape[1:]}, x_val has shape {headers['x_val'][0]}")
    if "y_val" in headers and "x_val" not in headers:
        raise _error(config, "has y_val and no x_val")
    for x, y in (("x", "y"), ("x_val", "y_val")):
        if x in headers and "y" in headers and y not in headers:
            raise _error(config, f"has {x} and no {y}")
        if x in headers and y in headers and headers[x][0][:1] != headers[y][0][:1]:
            shapes = f"{headers[x][0]} and {headers[y][0]}"
            raise _error(config, f"{x} and {y} must have the same number of rows, and have the shapes {shapes}")
    pickled = [name for name in NAMES if name in headers and headers[name][1].hasobject]
    if pickled:
        raise _error(config, f"the arrays {', '.join(pickled)} hold Python objects, which are not read")
    shown = [f"{name} {shape} {dtype}" for name, (shape, dtype) in headers.items()]
    return [
        f"{config.path}: {', '.join(shown)}",
        *([f"arrays that are not read: {shorten(others, 10)}"] if others else []),
    ]


def _headers(path: str) -> tuple[dict[str, tuple[tuple[int, ...], np.dtype]], list[str]]:
    """The shapes and dtypes of the arrays, read from their headers, and the names of the other arrays in the file."""
    if not Path(path).is_file():
        raise JobError.at("data.path", f"no such file: {path}")
    headers = {}
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        with zipfile.ZipFile(path) as archive:
            there = [name.removesuffix(".npy") for name in archive.namelist()]
            for name in [name for name in NAMES if name in there]:
                with archive.open(f"{name}.npy") as member:
                    version = np.lib.format.read_magic(member)
                    shape, _, dtype = read[version](member)
                    headers[name] = (shape, dtype)
    except (*_DAMAGED, KeyError) as error:
        raise JobError.at("data.path", f"{path} is not a readable .npz file: {error}") from error
    return headers, [name for name in there if name not in NAMES]


def _read(path: str) -> Arrays:
    """The arrays; raises :class:`JobError` if one is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in NAMES if name in file}
    except _DAMAGED as error:
        raise JobError.at("data.path", f"{path} is not a readable .npz file: {error}") from error


def _error(config: NpzDataConfig, message: str) -> JobError:
    return JobError.at("data.path", f"{config.path}: {message}")
