"""Files that are written and hashed in one pass: each byte goes to the file and into its SHA-256, and is not read again."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import _find_shared_tensors, _remove_duplicate_names
from torch import Tensor, nn

Described = dict[str, Any]

PART = 2**22  # bytes that are written and hashed at a time: they are still in the cache of the CPU
SYNC_EVERY = 2**25  # bytes

# The names of types in the format, in the order in which the library sorts tensors: large elements come first.
TYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_file(path: Path, pieces: Iterable[bytes | memoryview]) -> Described:
    """Write bytes to a new file and sync it to the disk. Returns its ``size`` and its ``sha256``, in hex.

    Raises ``OSError`` with the path, for example where the disk is full.
    """
    digest, size = hashlib.sha256(), 0
    syncs: list[Future[None]] = []
    try:
        with path.open("wb") as file, ThreadPoolExecutor(1) as beside:
            for part in _cut(pieces):
                file.write(part)
                digest.update(part)
                size += len(part)
                if size > SYNC_EVERY * (len(syncs) + 1):  # the disk works while the next bytes are hashed
                    file.flush()
                    syncs.append(beside.submit(os.fsync, file.fileno()))
            file.flush()
            syncs.append(beside.submit(os.fsync, file.fileno()))
            for sync in syncs:  # the system tells an error of the disk once: in whichever of them comes first
                sync.result()
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from error
    return {"size": size, "sha256": digest.hexdigest()}


def _cut(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    return (piece[start : start + PART] for piece in pieces for start in range(0, len(piece), PART))


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Described:
    """:func:`write_file` of the bytes that ``safetensors.torch.save_file`` would write. Tensors of a GPU are copied to the
    CPU one at a time. Raises ``ValueError`` if two of them share memory: read again, they would not."""
    if shared := sorted(next((names for names in _find_shared_tensors(tensors) if len(names) > 1), ())):
        raise ValueError(
            f"{path.name} cannot be written: {' and '.join(shared)} share memory; keep a copy in one of them"
        )
    order = {dtype: place for place, dtype in enumerate(TYPES)}
    ordered = dict(sorted(tensors.items(), key=lambda item: (order[item[1].dtype], item[0])))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name, tensor in ordered.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    head = [len(text).to_bytes(8, "little"), text]
    return write_file(path, itertools.chain(head, (_bytes_of(tensor) for tensor in ordered.values())))


def write_model(path: Path, model: nn.Module) -> Described:
    """:func:`write_file` of what ``safetensors.torch.save_model`` would write. A tensor of several names is written once,
    and the metadata have the other names."""
    tensors = model.state_dict()
    shared = {name: kept for kept, names in _remove_duplicate_names(tensors).items() for name in names}
    return write_tensors(path, {name: value for name, value in tensors.items() if name not in shared}, shared)


def _bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, without a copy where they lie in one piece in the memory of the CPU."""
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
