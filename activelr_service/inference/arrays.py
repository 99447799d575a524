"""Raw rows that are arrays: those of .npz files and of users' own data."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from activelr_service.data.info import DataInfo
from activelr_service.errors import InputError
from activelr_service.inference.notes import Notes
from activelr_service.inference.read import Read, cells_of

COLUMN = "input"
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


class ArrayReader:
    """Makes float32 inputs (rows, ...) of arrays of the shape that the model was trained on, or int64 token ids.

    Integers are divided by what the training divided them by. So are floating-point numbers beyond 1, if that is 255:
    pixels are from 0 to 1 or from 0 to 255.
    """

    names = (COLUMN,)

    def __init__(self, info: DataInfo, is_tokens: bool) -> None:
        self.info, self.is_tokens = info, is_tokens

    def rows(self, frame: Any, notes: Notes) -> list[Any]:
        """The cells of the column ``input``. Raises :class:`InputError` if there is none."""
        return cells_of(frame, COLUMN, "an array in each row")

    def batches(self, rows: Any, batch_size: int, notes: Notes) -> Iterator[Read]:
        """The rows in batches. A row of another shape, or with a value that is no number, is bad."""
        for start in range(0, len(rows), batch_size):
            yield self._read(rows[start : start + batch_size], notes)

    def _read(self, rows: Any, notes: Notes) -> Read:
        import torch

        arrays, errors = [], {}
        for index, row in enumerate(rows):
            try:
                arrays.append(self._input(to_array(row), notes))
            except InputError as error:
                errors[index] = str(error)
        good = np.array([index for index in range(len(rows)) if index not in errors], dtype=np.int64)
        if self.is_tokens:
            return Read([torch.from_numpy(array) for array in arrays], good, errors, len(rows))
        stacked = np.stack(arrays) if arrays else np.zeros((0, *self.info.input_shape), np.float32)
        return Read(torch.from_numpy(stacked), good, errors, len(rows))

    def _input(self, array: np.ndarray, notes: Notes) -> np.ndarray:
        if array.dtype.kind not in "iufb":
            raise InputError(f"it holds {array.dtype} values; numbers are needed")
        if self.is_tokens:
            return self._tokens(array)
        if array.shape != self.info.input_shape:
            raise InputError(f"it has the shape {array.shape}; the model takes {self.info.input_shape}")
        if array.size and not (np.abs(array, dtype=np.float64) <= _LARGEST_FLOAT32).all():
            raise InputError("it holds NaN, infinity or a number too large for float32")
        return np.asarray(array.astype(np.float32) / np.float32(self._scale(array, notes)))

    def _scale(self, array: np.ndarray, notes: Notes) -> float:
        scale = self.info.input_scale
        if scale == 1 and array.dtype == np.uint8:
            notes.say("the input is uint8 and is used as it is: the model was trained on numbers that were not divided")
        if scale == 1 or array.dtype.kind in "iub":
            return scale
        if array.min() < 0 or array.max() > scale:
            raise InputError(
                f"it is from {array.min():g} to {array.max():g}; from 0 to 1 or from 0 to {scale:g} is needed"
            )
        return scale if array.max() > 1 else 1.0

    def _tokens(self, array: np.ndarray) -> np.ndarray:
        if array.ndim != 1 or array.dtype.kind not in "iu" or not array.size:
            raise InputError(
                f"it is {array.dtype} of shape {array.shape}; token ids, integers of shape (n,), are needed"
            )
        if array.min() < 0 or array.max() >= (self.info.vocab_size or np.inf):
            raise InputError(
                f"it holds token ids from {array.min()} to {array.max()}; the model has {self.info.vocab_size}"
            )
        return array.astype(np.int64)


def to_array(cell: Any) -> np.ndarray:
    """A cell as an array: lists, arrays, and the arrays of arrays that parquet files give. Raises :class:`InputError`."""
    try:
        return np.asarray(_plain(cell))
    except (ValueError, TypeError) as error:
        raise InputError("it is no array whose rows have one length") from error


def _plain(cell: Any) -> Any:
    """Arrays of objects as lists, at any depth."""
    if isinstance(cell, np.ndarray) and cell.dtype == object:
        return np.stack([np.asarray(_plain(part)) for part in cell]) if len(cell) else cell
    return cell
