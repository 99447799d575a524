"""Raw rows: the cells of a column, pieces of files, and batches after they were read."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from activelr_service.errors import InputError


def cells_of(frame: Any, name: str, what: str) -> list[Any]:
    """The cells of a column of a DataFrame. ``what`` says what it holds.

    Raises :class:`InputError` if there is no such column.
    """
    if name not in frame.columns:
        shown = ", ".join(map(repr, frame.columns)) or "no column"
        raise InputError(f"the input lacks the column {name!r}, with {what}; it has {shown}")
    return list(frame[name])


class Read(NamedTuple):
    """``inputs`` are what the model gets of the good rows, in order: a tensor, or a list of tensors that differ in shape.

    ``good`` are the indices of these rows in the batch, int64. ``errors`` says of each other row, by its index, why it is
    bad. ``size`` is the number of rows.
    """

    inputs: Any
    good: np.ndarray
    errors: dict[int, str]
    size: int


class Piece(NamedTuple):
    """Some rows of a file, as an arrow table. ``errors`` says of rows, by their index, why they cannot be read."""

    table: Any
    errors: dict[int, str]


class Opened(NamedTuple):
    """A file whose column ``names`` are known, and the iterator over all its pieces."""

    names: list[str]
    pieces: Iterator[Piece]
