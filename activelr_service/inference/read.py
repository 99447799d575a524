"""A batch of raw rows after it was read."""

from typing import Any, NamedTuple

import numpy as np


class Read(NamedTuple):
    """``inputs`` are what the model gets of the good rows, in order: a tensor, or a list of tensors that differ in shape.

    ``good`` are the indices of these rows in the batch, int64. ``errors`` says of each other row, by its index, why it is
    bad. ``size`` is the number of rows.
    """

    inputs: Any
    good: np.ndarray
    errors: dict[int, str]
    size: int
