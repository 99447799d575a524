"""Arrays in a .npz file, read without pickle."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from activelr_service.config import JobError
from activelr_service.config.data import NpzDataConfig
from activelr_service.data.info import DataInfo, split_sizes

NAMES = ("x", "y", "x_val", "y_val")


def inspect(config: NpzDataConfig) -> DataInfo:
    """Reads the labels and the headers of the other arrays."""
    headers = _headers(config.path)
    if "x" not in headers:
        raise _error(config, f"has no array 'x'; found: {', '.join(headers) or 'none'}")
    shape, dtype = headers["x"]
    if "x_val" in headers and headers["x_val"][0][1:] != shape[1:]:
        raise _error(config, f"x has rows of shape {shape[1:]}, x_val of shape {headers['x_val'][0][1:]}")
    if len(shape) < 2 or shape[0] < 2:
        raise _error(config, f"x has shape {shape}; at least 2 rows of at least one value are needed")
    sizes = (shape[0], headers["x_val"][0][0]) if "x_val" in headers else split_sizes(shape[0], config.val_fraction)
    if "y" not in headers:
        return _inspect_tokens(config, dtype, DataInfo(("language_modeling",), *sizes, shape[1:]))
    for x, y in (("x", "y"), ("x_val", "y_val")):
        if x in headers and (y not in headers or headers[x][0][0] != headers[y][0][0]):
            raise _error(config, f"{x} and {y} must have the same number of rows")
    return _inspect_targets(config, DataInfo((), *sizes, shape[1:]))


def build(config: NpzDataConfig) -> tuple[Any, Any]:
    """(train, val) tensor datasets: float32 inputs (uint8 is scaled to [0, 1]) or int64 token ids, and targets."""
    import torch
    from torch.utils.data import TensorDataset

    with np.load(config.path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in NAMES if name in file}
    if "x_val" not in arrays:
        order = torch.randperm(len(arrays["x"]), generator=torch.Generator().manual_seed(0)).numpy()
        num_train, _ = split_sizes(len(order), config.val_fraction)
        for name in [name for name in ("x", "y") if name in arrays]:
            arrays[name], arrays[f"{name}_val"] = arrays[name][order[:num_train]], arrays[name][order[num_train:]]
    if "y" not in arrays:
        return tuple(TensorDataset(torch.from_numpy(arrays[x].astype(np.int64))) for x in ("x", "x_val"))  # type: ignore[return-value]
    pairs = (("x", "y"), ("x_val", "y_val"))
    return tuple(TensorDataset(_inputs(arrays[x]), _targets(arrays[y])) for x, y in pairs)  # type: ignore[return-value]


def _headers(path: str) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of the arrays, without reading them."""
    if not Path(path).is_file():
        raise JobError.at("data.path", f"no such file: {path}")
    headers = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in NAMES:
                if f"{name}.npy" in archive.namelist():
                    with archive.open(f"{name}.npy") as member:
                        version = np.lib.format.read_magic(member)
                        read = {
                            (1, 0): np.lib.format.read_array_header_1_0,
                            (2, 0): np.lib.format.read_array_header_2_0,
                        }
                        shape, _, dtype = read[version](member)
                        headers[name] = (shape, dtype)
    except (zipfile.BadZipFile, ValueError, KeyError, OSError) as error:
        raise JobError.at("data.path", f"{path} is not a readable .npz file: {error}") from error
    pickled = [name for name, (_, dtype) in headers.items() if dtype.hasobject]
    if pickled:
        raise JobError.at(
            "data.path", f"{path}: the arrays {', '.join(pickled)} hold Python objects, which are not read"
        )
    return headers


def _inspect_tokens(config: NpzDataConfig, dtype: np.dtype, info: DataInfo) -> DataInfo:
    if dtype.kind not in "iu" or len(info.input_shape) != 1:
        raise _error(config, "has no 'y'; without it, x must be integer token ids of shape (rows, block)")
    tokens = _read(config.path, ("x", "x_val"))
    if min(array.min() for array in tokens) < 0:
        raise _error(config, "token ids must not be negative")
    return info._replace(vocab_size=int(max(array.max() for array in tokens)) + 1)


def _inspect_targets(config: NpzDataConfig, info: DataInfo) -> DataInfo:
    targets = _read(config.path, ("y", "y_val"))
    shape = targets[0].shape[1:]
    if targets[0].dtype.kind == "f":
        if not all(np.isfinite(array).all() for array in targets):
            raise _error(config, "y holds NaN or infinity")
        return info._replace(tasks=("regression",), num_outputs=int(np.prod(shape)))
    if targets[0].dtype.kind not in "iu" or shape:
        raise _error(
            config, f"y must be integers of shape (rows,) or floats, got {targets[0].dtype} {targets[0].shape}"
        )
    if min(array.min() for array in targets) < 0:
        raise _error(config, "class labels must start at 0; y holds a negative one")
    num_classes = int(max(array.max() for array in targets)) + 1
    return info._replace(tasks=("classification", "regression"), num_classes=num_classes, num_outputs=1)


def _read(path: str, names: tuple[str, ...]) -> list[np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return [file[name] for name in names if name in file]


def _inputs(array: np.ndarray) -> Any:
    import torch

    inputs = torch.from_numpy(array).float()
    if not inputs.isfinite().all():
        raise ValueError("the inputs x hold NaN or infinity")
    return inputs / 255 if array.dtype == np.uint8 else inputs


def _targets(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))


def _error(config: NpzDataConfig, message: str) -> JobError:
    return JobError.at("data.path", f"{config.path}: {message}")
