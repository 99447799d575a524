"""The values of the arrays in a .npz file: classes or numbers, their scales, and warnings about unusual ones."""

from typing import Literal, NamedTuple

import numpy as np

from activelr_service.errors import JobError

Arrays = dict[str, np.ndarray]
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
_MOST_CLASSES = 1_000  # more are refused, unless a tenth of the labels occur


class Labels(NamedTuple):
    """Targets: int64 classes (rows,) from 0 to ``num_classes`` - 1, or float32 numbers (rows, ...)."""

    is_classes: bool
    y: np.ndarray
    y_val: np.ndarray | None
    num_classes: int
    num_outputs: int
    notes: list[str]
    warnings: list[str]
    y_test: np.ndarray | None = None

    def of(self, split: str) -> np.ndarray:
        """The targets of a split: of its own array, or else ``y``, of which it has some rows."""
        own = {"validation": self.y_val, "test": self.y_test}.get(split)
        return self.y if own is None else own


def read_labels(path: str, arrays: Arrays, kind: Literal["category", "number"] | None) -> Labels:
    """Read ``y``, ``y_val`` and ``y_test`` as ``kind``, or as their dtype says if it is None.

    Raises :class:`JobError` if that fails.
    """
    y, names = arrays["y"], [name for name in ("y", "y_val", "y_test") if name in arrays]
    for name in names:
        if arrays[name].dtype.kind not in "iufb":
            text = f"{name} is of type {arrays[name].dtype}; numbers are needed. To number classes by name:"
            raise _error(path, f"{text} names, y = np.unique(y, return_inverse=True)")
        if arrays[name].shape[1:] != y.shape[1:]:
            raise _error(path, f"y has rows of shape {y.shape[1:]}, {name} of shape {arrays[name].shape[1:]}")
    is_classes = (y.dtype.kind != "f") if kind is None else kind == "category"
    convert = _classes if is_classes else _numbers
    read = {name: convert(path, name, arrays[name]) for name in names}
    other = "numbers, set task: regression" if is_classes else "classes, set task: classification"
    why = f"since it is {y.dtype}; for {other}" if kind is None else f"for the task; it is {y.dtype}"
    notes = [f"y is read as {'classes' if is_classes else 'numbers'}, {why}"]
    warnings: list[str] = []
    if is_classes and y.ndim == 2:
        notes.append(f"y has shape {y.shape}, read as {(len(y),)}")
    if kind is None and not is_classes and y.ndim == 1 and (y % 1 == 0).all() and len(np.unique(y)) * 5 <= len(y):
        warnings.append(f"y has only {len(np.unique(y))} different values, all of them whole, and is read as numbers")
    num_classes = _count_classes(path, [read[name] for name in names if name != "y_test"]) if is_classes else 0
    num_outputs = 1 if is_classes else int(np.prod(y.shape[1:]))
    y_val, y_test = read.get("y_val"), read.get("y_test")
    return Labels(is_classes, read["y"], y_val, num_classes, num_outputs, notes, warnings, y_test)


def find_scales(path: str, arrays: Arrays) -> tuple[dict[str, float], list[str]]:
    """The divisors of ``x``, ``x_val`` and ``x_test``, and warnings. uint8 is divided by 255; the others get the scale of
    ``x``.

    Raises :class:`JobError` for values that are not finite in float32, and where two are on different scales.
    """
    scales, warnings = _scales_of_pair(path, arrays, "x_val")
    if "x_test" in arrays:
        more, warned = _scales_of_pair(path, arrays, "x_test")
        scales, warnings = {**more, **scales}, [*warnings, *warned]
    return scales, warnings


def _scales_of_pair(path: str, arrays: Arrays, other: str) -> tuple[dict[str, float], list[str]]:
    """The divisors of ``x`` and of another array, if it is there."""
    there: list[str] = [name for name in ("x", other) if name in arrays]
    ranges = [_range(path, name, arrays[name]) for name in there]
    scales = {name: 255.0 if arrays[name].dtype == np.uint8 else 1.0 for name in there}
    if len(set(scales.values())) == 1:
        return scales, _other_scale(there, ranges)
    types = [f"{name} is {arrays[name].dtype} from {a:g} to {b:g}" for name, (a, b) in zip(there, ranges, strict=True)]
    is_unit, is_unit_val = (a >= 0 and b <= 1 for a, b in ranges)
    if min(ranges)[0] < 0 or max(b for _, b in ranges) > 255:
        raise _error(path, f"{' and '.join(types)}: store both on one scale")
    if scales["x"] == 1:
        scales[other] = 255.0 if is_unit and not is_unit_val else 1.0
    else:
        scales[other] = 1.0 if is_unit_val and not is_unit else 255.0
    shown = " and ".join(f"{name} is divided by {scale:g}" for name, scale in scales.items())
    return scales, [f"{' and '.join(types)}: {shown}, so that both are on one scale"]


def _other_scale(names: list[str], ranges: list[tuple[float, float]]) -> list[str]:
    """A warning if one of two arrays of one dtype is within 0 to 1 and the other reaches beyond 50."""
    if not (min(ranges)[0] >= 0 and min(b for _, b in ranges) <= 1 and max(b for _, b in ranges) > 50):
        return []
    shown = " and ".join(f"{name} is from {a:g} to {b:g}" for name, (a, b) in zip(names, ranges, strict=True))
    return [f"{shown}: they look as if they were on different scales, and are used as they are"]


def look_at_inputs(x: np.ndarray, scale: float) -> list[str]:
    """Warnings on inputs that look like images in a layout or on a scale that image models do not take."""
    warnings, shape = [], x.shape[1:]
    if len(shape) == 2 and x.dtype == np.uint8:
        text = f"x has rows of shape {shape}; image models take (channels, height, width)"
        warnings.append(f"{text}: np.repeat(x[:, None], 3, axis=1) makes 3 channels of gray images")
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4):
        text = f"x has rows of shape {shape}, and looks like images whose channels come last"
        warnings.append(f"{text}; image models take (channels, height, width): x.transpose(0, 3, 1, 2)")
    low, high = float(x.min()), float(x.max())
    if scale == 255 and high <= 1:
        warnings.append("x is uint8 and divided by 255, and its largest value is 1; store it as a float to keep it")
    if scale == 1 and len(shape) >= 2 and low >= 0 and high > 50:
        text = f"x is {x.dtype} from {low:g} to {high:g} and is not scaled; networks train better on values around 1"
        warnings.append(f"{text}: store uint8, which is divided by 255, or divide it yourself")
    return warnings


def repeated_rows(
    x: np.ndarray, train: np.ndarray, other: np.ndarray | None, rows: np.ndarray, split: str
) -> list[str]:
    """A warning if some ``rows`` of a split equal training rows. ``other`` is the array of the split, if it is not ``x``."""
    part = x if other is None else other
    if part.dtype != x.dtype or len(rows) == 0:
        return []
    known = {hash(x[row].tobytes()) for row in train}
    repeated = [row for row in rows if hash(part[row].tobytes()) in known]
    if not repeated:
        return []
    text = f"{len(repeated):,} of {len(rows):,} {split} rows of x are training rows, too (first: row {repeated[0] + 1})"
    return [f"{text}; they measure what was learned by heart"]


def count_tokens(path: str, arrays: Arrays) -> int:
    """The largest token id + 1. Raises :class:`JobError` if ``x`` does not hold token ids."""
    x = arrays["x"]
    if x.dtype.kind not in "iu" or x.ndim != 2:
        raise _error(path, "has no 'y'; without it, x must be integer token ids of shape (rows, block)")
    tokens = {name: arrays[name] for name in ("x", "x_val", "x_test") if name in arrays}
    for name, array in tokens.items():
        if array.dtype.kind not in "iu":
            raise _error(path, f"{name} must be integer token ids, as x; it is {array.dtype}")
        if array.min() < 0:
            raise _error(path, "token ids must not be negative")
    return int(max(array.max() for name, array in tokens.items() if name != "x_test")) + 1


def _classes(path: str, name: str, y: np.ndarray) -> np.ndarray:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        text = f"{name} has shape {y.shape}; classes are integers of shape (rows,)"
        raise _error(path, f"{text}. Of one-hot rows: y.argmax(axis=1); for numbers, set task: regression")
    if y.dtype.kind == "f":
        _check_finite(path, name, y)
        odd = np.flatnonzero(y % 1)
        if len(odd):
            text = f"{name} holds {y[odd[0]]:g} in row {odd[0] + 1}, which is no class"
            raise _error(path, f"{text}; number the classes from 0, or set task: regression")
    if y.min() < 0:
        raise _error(
            path, f"class labels must start at 0; {name} holds a negative one; for numbers, set task: regression"
        )
    return y.astype(np.int64)


def _numbers(path: str, name: str, y: np.ndarray) -> np.ndarray:
    _check_finite(path, name, y)
    if name == "y" and (y == y[0]).all():
        raise _error(path, f"y is {y[0]} in every row")
    return y.astype(np.float32)


def _count_classes(path: str, read: list[np.ndarray]) -> int:
    different = np.unique(np.concatenate(read))
    count = int(different[-1]) + 1
    if count == 1:
        raise _error(path, "y is 0 in every row")
    if count > _MOST_CLASSES and len(different) * 10 < count:
        text = f"y has {len(different):,} different labels, the largest of them {count - 1:,}"
        raise _error(path, f"{text}; number the classes from 0, or set task: regression")
    return count


def _range(path: str, name: str, x: np.ndarray) -> tuple[float, float]:
    if x.dtype.kind not in "iufb":
        raise _error(path, f"{name} is of type {x.dtype}; numbers are needed")
    _check_finite(path, name, x)
    return float(x.min()), float(x.max())


def _check_finite(path: str, name: str, array: np.ndarray) -> None:
    """Raise :class:`JobError` with the first row that float32 cannot hold. Minimum and maximum are checked first: that
    needs no copy of the array.
    """
    if array.size == 0 or (float(array.min()) >= -_LARGEST_FLOAT32 and float(array.max()) <= _LARGEST_FLOAT32):
        return
    is_fine = np.abs(array) <= _LARGEST_FLOAT32
    row = int(np.argmin(is_fine.reshape(len(array), -1).all(axis=1))) + 1
    raise _error(path, f"{name} holds NaN, infinity or a number too large for float32, the first in row {row}")


def _error(path: str, message: str) -> JobError:
    return JobError.at("data.path", f"{path}: {message}")
