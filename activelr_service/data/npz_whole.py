"""All rows of another .npz file, to measure a model on them."""

from pathlib import Path
from typing import Any

import numpy as np

from activelr_service.config.data import NpzDataConfig
from activelr_service.data.info import DataInfo
from activelr_service.data.npz import PAIRS, check_headers, read_arrays, scaled
from activelr_service.data.splits import check_known
from activelr_service.data.whole import Whole, name_splits
from activelr_service.errors import JobError

_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


def build_whole(config: NpzDataConfig, trained: DataInfo, cache: Path) -> list[Whole]:
    """All rows of the arrays in the file; ``y`` is read as the model was trained.

    Rows with NaN or infinity are left out. Raises :class:`JobError` for classes and token ids that the model does not know,
    for rows of another shape, and if no row is left.
    """
    check_headers(config, smallest=1)
    arrays = read_arrays(config.path)
    shape, expected = arrays["x"].shape[1:], trained.input_shape
    if trained.vocab_size is None and _fixed(shape) != _fixed(expected):
        raise JobError.at("data.path", f"the data have rows of shape {shape}, and the model was trained on {expected}")
    names = {split: pair for split, pair in PAIRS.items() if pair[0] in arrays}
    return name_splits([_read(config, trained, arrays, split, *pair) for split, pair in names.items()])


def _read(
    config: NpzDataConfig, trained: DataInfo, arrays: dict[str, np.ndarray], split: str, x_name: str, y_name: str
) -> Whole:
    import torch
    from torch.utils.data import TensorDataset

    x = arrays[x_name]
    if trained.vocab_size is not None:
        _check_numbers(config, {x_name: x}, "iu")
        _check_below(config, trained.vocab_size, x.ravel(), "different token ids")
        return Whole(split, config.path, TensorDataset(torch.from_numpy(x.astype(np.int64))), {})
    if y_name not in arrays:
        raise JobError.at("data.path", f"{config.path} has {x_name} and no {y_name}, which holds the right answers")
    y = _as_numbers(arrays[y_name])
    _check_numbers(config, {x_name: x, y_name: y}, "iufb")
    is_fine = _is_finite(x) & _is_finite(y)
    left_out = {f"NaN, infinity or a number too large in {x_name} or {y_name}": int((~is_fine).sum())}
    if not is_fine.all():
        x, y = x[is_fine], y[is_fine]
    if not len(x):
        raise JobError.at("data.path", f"{config.path}: no row can be measured: each holds NaN or infinity")
    targets = _targets(config, trained, y_name, y)
    divisor, notes = _divisor(config, trained, x_name, x)
    dataset = TensorDataset(scaled(x, divisor), torch.from_numpy(targets))
    return Whole(split, config.path, dataset, {reason: n for reason, n in left_out.items() if n}, tuple(notes))


def _fixed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The part of the shape of a sample that has to agree. Images of other sizes can be measured, too."""
    return shape if len(shape) < 2 else (len(shape), shape[0])


def _as_numbers(y: np.ndarray) -> np.ndarray:
    """Texts that are numbers, such as "1" or "1.0", as numbers; any other array as it is."""
    if y.dtype.kind not in "US":
        return y
    try:
        return y.astype(np.float64)
    except ValueError:
        return y


def _check_numbers(config: NpzDataConfig, arrays: dict[str, np.ndarray], kinds: str) -> None:
    wanted = "token ids" if kinds == "iu" else "numbers"
    for name, array in arrays.items():
        if array.dtype.kind not in kinds:
            raise JobError.at("data.path", f"{config.path}: {name} is of type {array.dtype}; {wanted} are needed")


def _is_finite(array: np.ndarray) -> Any:
    """bool (rows,): whether float32 holds all numbers of a row."""
    if float(array.min()) >= -_LARGEST_FLOAT32 and float(array.max()) <= _LARGEST_FLOAT32:
        return np.ones(len(array), dtype=bool)
    return (np.abs(array) <= _LARGEST_FLOAT32).reshape(len(array), -1).all(axis=1)


def _targets(config: NpzDataConfig, trained: DataInfo, name: str, y: np.ndarray) -> np.ndarray:
    if trained.num_classes is None:
        outputs = int(np.prod(y.shape[1:]))
        if outputs != trained.num_outputs:
            text = f"{name} has {outputs} values in each row, and the model was trained on {trained.num_outputs}"
            raise JobError.at("data.path", f"{config.path}: {text}")
        return y.astype(np.float32)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1:
        raise JobError.at("data.path", f"{config.path}: {name} has shape {y.shape}; classes have the shape (rows,)")
    _check_below(config, trained.num_classes, y, "classes")
    return y.astype(np.int64)


def _check_below(config: NpzDataConfig, count: int, values: np.ndarray, what: str) -> None:
    """Raise :class:`JobError` with the values that are no integer from 0 to ``count`` - 1, and how many have each."""
    is_unknown = (values < 0) | (values >= count) | (values % 1 != 0)
    if not is_unknown.any():
        return
    if what == "classes":
        names = [f"{value:g}" for value in values[is_unknown].tolist()]
        check_known(names, [str(number) for number in range(count)], "data.path", f"y of {config.path}")
    number = int(values.max()) + 1
    raise JobError.at("data.path", f"the data have {number:,} {what}, and the model was trained on {count:,}")


def _divisor(config: NpzDataConfig, trained: DataInfo, name: str, x: np.ndarray) -> tuple[float, list[str]]:
    """What ``x`` is divided by to be on the scale that the model was trained on, and a note where that is not plain."""
    low, high = float(x.min()), float(x.max())
    is_pixels = x.dtype == np.uint8
    if trained.input_scale == 1:
        if not is_pixels or high <= 1:
            return 1.0, []
        return 255.0, [f"{name} is uint8 and divided by 255; the model was trained on numbers that were not divided"]
    if is_pixels:
        return trained.input_scale, []
    if low < 0 or high > trained.input_scale:
        text = f"{name} is {x.dtype} from {low:g} to {high:g}, and the model was trained on uint8"
        raise JobError.at("data.path", f"{config.path}: {text}; store it as uint8")
    divisor = 1.0 if high <= 1 else trained.input_scale
    return divisor, [f"{name} is {x.dtype} from {low:g} to {high:g} and is divided by {divisor:g}"]
