"""A few raw rows of the validation split, kept with a model: MLflow's input example, and rows to check an export with."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

EXAMPLE = "example.parquet"
MOST_ROWS, MOST_IMAGES = 8, 4
TOKENS = 32  # of a text


def write_example(folder: Path, data: Any, log: Callable[[str], None]) -> None:
    """Write the example rows of a prepared data config into the folder of a model.

    If the data cannot be read, that is logged, and there are no example rows.
    """
    try:
        example_rows(data).to_parquet(folder / EXAMPLE)
    except Exception as error:  # also of users' own data; a run that has been trained does not fail for its example
        reason = " ".join(str(error).split())[:300]
        log(f"no example rows are kept with the model, since they cannot be read: {reason}")


def example_rows(data: Any) -> Any:
    """Raw rows of the validation split as a DataFrame that ``Predictor.predict`` takes.

    Numbers of a table are float64 and categories texts; images are encoded files.
    """
    import pandas as pd

    if data.type == "table":
        return _of_table(data)
    if data.type == "npz":
        from activelr_service.data.npz import validation_rows

        return pd.DataFrame({"input": [row.tolist() for row in _spread(validation_rows(data), MOST_ROWS)]})
    if data.type in ("text", "stdlib_chars"):
        return pd.DataFrame({"text": _texts(data)})
    if data.type == "python":
        return pd.DataFrame({"input": [_plain(row) for row in _spread(_build(data), MOST_ROWS)]})
    images = {"imagefolder": _files, "voc": _files, "huggingface": _stored, "digits": _digits}.get(data.type, _pixels)
    return pd.DataFrame({"image": images(data)})


def _build(data: Any) -> Any:
    from activelr_service.data import build_data

    return build_data(data)[1]


def _spread(rows: Any, most: int) -> list[Any]:
    """At most ``most`` of the rows, evenly spaced, so that they are of several classes."""
    count = min(len(rows), most)
    return [rows[number * len(rows) // count] for number in range(count)]


def _of_table(data: Any) -> Any:
    import pandas as pd

    from activelr_service.data.table import validation_cells

    columns = {}
    for cells in validation_cells(data):
        values = np.array(_spread(cells.values, MOST_ROWS))
        columns[cells.name] = values if cells.names is None else np.array([*cells.names, None], dtype=object)[values]
    return pd.DataFrame(columns)


def _texts(data: Any) -> list[str]:
    """The first tokens of some validation blocks, as text."""
    blocks = _spread(_build(data), MOST_ROWS)
    ids = [block[0][:TOKENS].tolist() for block in blocks]
    if data.type == "stdlib_chars":
        return ["".join(map(chr, row)) for row in ids]
    from tokenizers import Tokenizer

    from activelr_service.data.text_encoding import TOKENIZER

    tokenizer = Tokenizer.from_file(str(Path(data.tokens) / TOKENIZER))
    return [tokenizer.decode(row) for row in ids]


def _plain(row: Any) -> Any:
    """The input of a sample of users' own data as lists."""
    return np.asarray(row[0] if isinstance(row, tuple | list) else row).tolist()


def _files(data: Any) -> list[bytes]:
    val = _build(data)
    paths: Sequence[Any] = val.files.paths if data.type == "imagefolder" else [one.image for one in val.annotations]
    return [Path(path).read_bytes() for path in _spread(paths, MOST_IMAGES)]


def _stored(data: Any) -> list[bytes]:
    """The encoded images of a saved dataset; those that it has as paths only are read."""
    val = _build(data)
    numbers = _spread(val.rows.numbers, MOST_IMAGES)
    images = [val.dataset[int(number)][data.image_column] for number in numbers]
    return [Path(one["path"]).read_bytes() if one["bytes"] is None else one["bytes"] for one in images if one]


def _digits(data: Any) -> list[bytes]:
    """Images of 8 x 8 pixels, whose 17 levels of gray are spread over 0 to 255."""
    from activelr_service.data.bundled import raw_val_digits

    return [_png(np.rint(image * (255 / 16)).astype(np.uint8)) for image in _spread(raw_val_digits(), MOST_IMAGES)]


def _pixels(data: Any) -> list[bytes]:
    val = _build(data)
    return [_png(image.permute(1, 2, 0).numpy()) for image in _spread(val.images, MOST_IMAGES)]


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()
