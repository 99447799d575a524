"""The characters of Python's standard library, its own source text: a small real language without a download."""

import os
from pathlib import Path
from typing import Any

from activelr_service.config.data import StdlibCharsDataConfig
from activelr_service.data.info import DataInfo

VOCAB_SIZE = 128  # ASCII; other characters are left out
NUM_VAL = 256


def inspect(config: StdlibCharsDataConfig) -> DataInfo:
    shape = (config.block_size,)
    return DataInfo(("language_modeling",), config.num_train, NUM_VAL, shape, vocab_size=VOCAB_SIZE)


def build(config: StdlibCharsDataConfig) -> tuple[Any, Any]:
    """(train, val) datasets of blocks of ``block_size`` int64 characters; the held-out text follows the training text."""
    import torch
    from torch.utils.data import TensorDataset

    size = (config.num_train + NUM_VAL) * config.block_size
    ids = torch.frombuffer(bytearray(_read(size)), dtype=torch.uint8).long()
    blocks = ids.view(-1, config.block_size)
    return TensorDataset(blocks[: config.num_train]), TensorDataset(blocks[config.num_train :])


def _read(size: int) -> bytes:
    """The first ``size`` ASCII characters of the modules in alphabetical order, from the start again if they run out."""
    paths = sorted(Path(os.__file__).parent.glob("*.py"))
    text = bytearray()
    while len(text) < size:
        for path in paths:
            text += path.read_text(encoding="utf-8", errors="ignore").encode("ascii", errors="ignore")
            if len(text) >= size:
                break
    return bytes(text[:size])
