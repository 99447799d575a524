"""A few raw rows of the validation split, kept with a model: MLflow's input example, and rows to check an export with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from activelr_service.config.data import DataConfig, NpzDataConfig, TableDataConfig

EXAMPLE = "example.parquet"
MOST_ROWS, MOST_IMAGES = 8, 4


def write_example(folder: Path, data: DataConfig, log: Callable[[str], None]) -> None:
    """Write the example rows into the folder of a model. If the data cannot be read, that is logged, and there are none."""
    try:
        frame = example_rows(data)
    except (ValueError, OSError) as error:
        log(f"no example rows are kept with the model, since its data cannot be read: {' '.join(str(error).split())}")
        return
    if frame is not None:
        frame.to_parquet(folder / EXAMPLE)


def example_rows(data: DataConfig) -> Any:
    """Raw rows of the validation split as a DataFrame that ``Predictor.predict`` takes, or None if there are none."""
    if isinstance(data, TableDataConfig):
        return _of_table(data)
    if isinstance(data, NpzDataConfig):
        return _of_arrays(data)
    return None


def _of_table(data: TableDataConfig) -> Any:
    import pandas as pd

    from activelr_service.data.table import validation_cells

    columns = {}
    for cells in validation_cells(data):
        values = cells.values[spread(len(cells.values), MOST_ROWS)]
        if cells.names is None:
            columns[cells.name] = values
        else:
            columns[cells.name] = np.array([*cells.names, None], dtype=object)[values]
    return pd.DataFrame(columns)


def _of_arrays(data: NpzDataConfig) -> Any:
    import pandas as pd

    from activelr_service.data.npz import validation_rows

    rows = validation_rows(data)
    return pd.DataFrame({"input": [row.tolist() for row in rows[spread(len(rows), MOST_ROWS)]]})


def spread(count: int, most: int) -> np.ndarray:
    """At most ``most`` of ``count`` indices, evenly spaced, so that they are of several classes."""
    return np.arange(min(count, most)) * count // min(count, most)
