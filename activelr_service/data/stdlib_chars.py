"""The characters of Python's standard library, its own source text: a small real language without a download."""

import os
from pathlib import Path
from typing import Any

from activelr_service.config.data import StdlibCharsDataConfig
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError

VOCAB_SIZE = 128  # ASCII; other characters are left out
NUM_VAL = 256


def inspect(config: StdlibCharsDataConfig) -> DataInfo:
    """Reads as much of the library as is asked for; raises :class:`JobError` if it does not hold that much."""
    size = (config.num_train + NUM_VAL) * config.block_size
    found = len(_read(size))
    if found < size:
        largest = found // config.block_size - NUM_VAL
        text = f"the standard library here has {found:,} characters, and {config.num_train} + {NUM_VAL} rows of"
        hint = f"{config.block_size} need {size:,}; use at most {largest}, or a smaller block_size"
        raise JobError.at("data.num_train", f"{text} {hint}")
    notes = (
        f"the first {size:,} characters of the modules of the standard library, in alphabetical order",
        f"held out: the last {NUM_VAL} rows of {config.block_size} characters",
    )
    shape = (config.block_size,)
    return DataInfo(("language_modeling",), config.num_train, NUM_VAL, shape, vocab_size=VOCAB_SIZE, notes=notes)


def build(config: StdlibCharsDataConfig) -> tuple[Any, Any]:
    """(train, val) datasets of blocks of ``block_size`` int64 characters; the held-out text follows the training text."""
    import torch
    from torch.utils.data import TensorDataset

    size = (config.num_train + NUM_VAL) * config.block_size
    ids = torch.frombuffer(bytearray(_read(size)), dtype=torch.uint8).long()
    blocks = ids.view(-1, config.block_size)
    return TensorDataset(blocks[: config.num_train]), TensorDataset(blocks[config.num_train :])


def _read(size: int) -> bytes:
    """The first ``size`` ASCII characters of the modules in alphabetical order, or all if there are fewer."""
    text = bytearray()
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        if len(text) >= size:
            break
        text += path.read_text(encoding="utf-8", errors="ignore").encode("ascii", errors="ignore")
    return bytes(text[:size])
