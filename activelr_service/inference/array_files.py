"""Arrays in .npz and .npy files, read piece by piece and without pickle."""

import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from activelr_service.data.info import shorten
from activelr_service.errors import InputError

_DAMAGED = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError)
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def open_array(path: str, rows: int) -> tuple[int, Iterator[np.ndarray]]:
    """The number of rows of an array, and its pieces of at most so many ``rows``, in order.

    Of a .npz file it is the array ``x``, or the only one. Raises :class:`InputError` for another file, and for one that
    cannot be read, here or when a piece is read.
    """
    if not path.endswith((".npz", ".npy")):
        raise InputError(f"{path} is no .npz or .npy file of arrays; those and .parquet or .jsonl files are read")
    try:
        shape, pieces = _open_npz(path, rows) if path.endswith(".npz") else _slices(_map(path), rows)
    except _DAMAGED as error:
        raise _unreadable(path, error) from error
    if len(shape) < 2:
        raise InputError(f"{path} has an array of shape {shape}; (rows, ...) is needed")
    return shape[0], _naming(path, pieces)


def _naming(path: str, pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    try:
        yield from pieces
    except _DAMAGED as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> InputError:
    return InputError(f"{path} is not a readable file of arrays: {error}")


def _map(path: str) -> np.ndarray:
    mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def _slices(array: np.ndarray, rows: int) -> tuple[tuple[int, ...], Iterator[np.ndarray]]:
    return array.shape, (array[start : start + rows] for start in range(0, len(array) if array.ndim else 0, rows))


def _open_npz(path: str, rows: int) -> tuple[tuple[int, ...], Iterator[np.ndarray]]:
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if "x" not in names and len(names) != 1:
            raise InputError(f"{path} has no array 'x'; it has {shorten(names, 10) or 'none'}")
        name = "x" if "x" in names else names[0]
        with archive.open(f"{name}.npy") as member:
            shape, is_fortran, dtype = _HEADERS[np.lib.format.read_magic(member)](member)
    if dtype.hasobject:
        raise InputError(f"{path}: the array {name!r} holds Python objects, which are not read")
    if is_fortran:  # its rows do not lie one after another
        with np.load(path, allow_pickle=False) as file:
            return _slices(file[name], rows)
    return shape, _stream(path, name, (shape, dtype), rows)


def _stream(path: str, name: str, header: tuple[tuple[int, ...], Any], rows: int) -> Iterator[np.ndarray]:
    """The rows of an array in an archive. Only one piece is in memory."""
    shape, dtype = header
    width = int(np.prod(shape[1:])) * dtype.itemsize
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
        _HEADERS[np.lib.format.read_magic(member)](member)
        for start in range(0, shape[0], rows):
            count = min(rows, shape[0] - start)
            yield np.frombuffer(_read(member, count * width), dtype).reshape(count, *shape[1:])


def _read(member: Any, size: int) -> bytes:
    content: bytes = member.read(size)
    if len(content) < size:
        raise EOFError("it ends too early")
    return content
