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
from activelr_service.data.splits import Drawn, draw_splits
from activelr_service.errors import JobError

PAIRS = {"train": ("x", "y"), "validation": ("x_val", "y_val"), "test": ("x_test", "y_test")}
NAMES = tuple(name for pair in PAIRS.values() for name in pair)
NAMING = "; call the arrays x and y, and x_val and y_val for validation, x_test and y_test for a test"
Arrays = dict[str, np.ndarray]
_DAMAGED = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError)


def for_task(config: NpzDataConfig, task: str) -> NpzDataConfig:
    """Return the config that reads ``y`` as classes for classification and as numbers for regression."""
    kind = {"classification": "category", "regression": "number"}.get(task)
    return config.model_copy(update={"target_kind": kind})


def inspect(config: NpzDataConfig) -> DataInfo:
    """Read the arrays, check their values and describe them."""
    notes = check_headers(config)
    arrays = read_arrays(config.path)
    labels = read_labels(config.path, arrays, config.target_kind) if "y" in arrays else None
    rows = _rows(config, arrays, labels)
    info = DataInfo((), len(rows.train), len(rows.val), arrays["x"].shape[1:])
    notes += _describe_splits(config, arrays, labels, rows)
    if labels is None:
        vocab_size = count_tokens(config.path, arrays)
        test, warnings = _of_known(config, arrays, labels, rows, vocab_size)
        info = info._replace(vocab_size=vocab_size, num_test=len(test), warnings=tuple(warnings))
        return info._replace(tasks=("language_modeling",), notes=tuple(notes))
    scales, warnings = find_scales(config.path, arrays)
    test, unknown = _of_known(config, arrays, labels, rows, labels.num_classes)
    warnings += labels.warnings + look_at_inputs(arrays["x"], scales["x"]) + unknown
    for split, chosen in (("validation", rows.val), ("test", test)):
        warnings += repeated_rows(arrays["x"], rows.train, arrays.get(PAIRS[split][0]), chosen, split)
    info = info._replace(input_scale=scales["x"], num_outputs=labels.num_outputs, num_test=len(test))
    notes += labels.notes
    if not labels.is_classes:
        return info._replace(tasks=("regression",), notes=tuple(notes), warnings=tuple(warnings))
    names = tuple(map(str, range(labels.num_classes)))
    sides = [labels.of(split)[chosen] for split, chosen in zip(PAIRS, (rows.train, rows.val, test), strict=True)]
    num_train, num_val, num_test = (np.bincount(side, minlength=len(names)) for side in sides)
    counted, warned = describe_classes(names, num_train, num_val, test=num_test if len(test) else None)
    return info._replace(
        tasks=("classification", "regression") if config.target_kind is None else ("classification",),
        num_classes=labels.num_classes,
        notes=(*notes, *counted),
        warnings=(*warnings, *warned),
        class_counts=tuple(num_train.tolist()),
    )


def build(config: NpzDataConfig) -> tuple[Any, Any]:
    """Make (train, val) tensor datasets. uint8 inputs are scaled to [0, 1].

    The samples are float32 inputs with int64 classes or float32 numbers, or int64 token ids alone.
    """
    train, val = _build(config, ("train", "validation"))
    return train, val


def build_split(config: NpzDataConfig, split: str) -> Any:
    """The dataset of a split, "train", "validation" or "test", as :func:`build` makes them. None if there is no such
    split."""
    (dataset,) = _build(config, (split,))
    return dataset if len(dataset) else None


def _build(config: NpzDataConfig, splits: tuple[str, ...]) -> list[Any]:
    import torch
    from torch.utils.data import TensorDataset

    check_headers(config)
    arrays = read_arrays(config.path)
    labels = read_labels(config.path, arrays, config.target_kind) if "y" in arrays else None
    count = count_tokens(config.path, arrays) if labels is None else labels.num_classes
    rows = _rows(config, arrays, labels)
    if "test" in splits:
        rows = rows._replace(test=_of_known(config, arrays, labels, rows, count)[0])
    scales = {} if labels is None else find_scales(config.path, arrays)[0]
    datasets = []
    for split in splits:
        chosen = dict(zip(PAIRS, rows, strict=True))[split]
        name = PAIRS[split][0]
        x = arrays.get(name, arrays["x"])[chosen]
        if labels is None:
            datasets.append(TensorDataset(torch.from_numpy(x.astype(np.int64))))
        else:
            y = torch.from_numpy(labels.of(split)[chosen])
            datasets.append(TensorDataset(scaled(x, scales.get(name, scales["x"])), y))
    return datasets


def validation_rows(config: NpzDataConfig) -> np.ndarray:
    """The validation rows of ``x`` or ``x_val`` as they are stored."""
    check_headers(config)
    arrays = read_arrays(config.path)
    labels = read_labels(config.path, arrays, config.target_kind) if "y" in arrays else None
    return arrays.get("x_val", arrays["x"])[_rows(config, arrays, labels).val]


def _rows(config: NpzDataConfig, arrays: Arrays, labels: Labels | None) -> Drawn:
    """The rows of each split: of its own array, or of ``x`` if it has none."""
    if config.test_fraction is not None and "x_test" in arrays:
        raise JobError.at("data.test_fraction", f"{config.path} has x_test already; leave it out")
    classes = labels.y if labels is not None and labels.is_classes else None
    val_fraction = None if "x_val" in arrays else config.val_fraction
    rows = draw_splits(len(arrays["x"]), val_fraction, config.test_fraction, classes)
    val, test = (
        np.arange(len(arrays[name])) if name in arrays else drawn
        for name, drawn in (("x_val", rows.val), ("x_test", rows.test))
    )
    return Drawn(rows.train, val, test)


def _of_known(
    config: NpzDataConfig, arrays: Arrays, labels: Labels | None, rows: Drawn, count: int
) -> tuple[np.ndarray, list[str]]:
    """The test rows whose class or token ids are below ``count``, and a warning for the others."""
    if labels is not None and not labels.is_classes:
        return rows.test, []
    what, values = "a class", labels.of("test") if labels is not None else arrays.get("x_test", arrays["x"])
    if labels is None:
        what, values = "a token", values.max(axis=1)
    is_known = values[rows.test] < count
    if is_known.all():
        return rows.test, []
    text = f"{(~is_known).sum():,} test rows of {config.path} are not measured: they have {what} that no other row has"
    return rows.test[is_known], [f"{text}, such as {values[rows.test][~is_known][0]}"]


def _describe_splits(config: NpzDataConfig, arrays: Arrays, labels: Labels | None, rows: Drawn) -> list[str]:
    share = ", from each class its share" if labels is not None and labels.is_classes else ""
    drawn = f"of {len(arrays['x']):,} rows, drawn with seed"
    notes = [f"validation: {len(rows.val):,} {drawn} 0{share}"]
    if "x_val" in arrays:
        notes = [f"validation: the {len(rows.val):,} rows of x_val"]
    if len(rows.test):
        source = (
            f"the {len(rows.test):,} rows of x_test" if "x_test" in arrays else f"{len(rows.test):,} {drawn} 1{share}"
        )
        notes.append(f"test: {source}; measured once, at the end")
    return notes


def scaled(array: np.ndarray, scale: float) -> Any:
    """The float32 tensor of an array of numbers, divided by ``scale``."""
    import torch

    inputs = torch.from_numpy(array.astype(np.float32))
    return inputs if scale == 1 else inputs.div_(scale)


def check_headers(config: NpzDataConfig, smallest: int = 2) -> list[str]:
    """Notes on the arrays in the file. ``smallest``: the fewest rows of ``x``.

    Raises :class:`JobError` if their names and shapes do not make a dataset.
    """
    headers, others = _headers(config.path)
    if "x" not in headers:
        raise _error(config, f"has no array 'x'; found: {shorten([*headers, *others], 10) or 'none'}{NAMING}")
    shape = headers["x"][0]
    if len(shape) < 2 or shape[0] < smallest:
        raise _error(config, f"x has shape {shape}; at least {smallest} rows of at least one value are needed")
    for x, y in list(PAIRS.values())[1:]:
        if x in headers and (headers[x][0][1:] != shape[1:] or headers[x][0][0] < 1):
            raise _error(config, f"x has rows of shape {shape[1:]}, {x} has shape {headers[x][0]}")
        if y in headers and x not in headers:
            raise _error(config, f"has {y} and no {x}")
    for x, y in PAIRS.values():
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


def read_arrays(path: str) -> Arrays:
    """The arrays; raises :class:`JobError` if one is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in NAMES if name in file}
    except _DAMAGED as error:
        raise JobError.at("data.path", f"{path} is not a readable .npz file: {error}") from error


def _error(config: NpzDataConfig, message: str) -> JobError:
    return JobError.at("data.path", f"{config.path}: {message}")
