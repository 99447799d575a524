"""All of another text, to measure a model on it."""

from pathlib import Path
from typing import Any

import numpy as np

from activelr_service.config.data import TextDataConfig
from activelr_service.data.info import DataInfo
from activelr_service.data.text import Blocks, key_of, make_once, read_meta
from activelr_service.data.text_encoding import encode_all
from activelr_service.data.text_splits import find_all
from activelr_service.data.whole import Whole
from activelr_service.errors import JobError


def build_whole(config: TextDataConfig, trained: DataInfo, cache: Path) -> list[Whole]:
    """All text of all splits below the root, in blocks, encoded with the tokenizer that the config names.

    A second call finds the work done in ``cache``. Raises :class:`JobError` if there is no text.
    """
    found = find_all(config)
    folder = cache / f"text-{key_of(config, found.files, 'whole')}"
    folder = make_once(folder, lambda made: encode_all(config, found.files, made))
    meta = read_meta(folder)
    empty = {f"file or split without text: {name or config.root}": 1 for name, n in meta["tokens"].items() if n < 2}
    parts = [_read(config, folder, meta, name) for name, count in meta["tokens"].items() if count >= 2]
    if not parts:
        raise JobError.at("data.root", f"{config.root} holds no text")
    first, *others = parts
    return [first._replace(left_out=empty, notes=found.warnings), *others]


def _read(config: TextDataConfig, folder: Path, meta: dict[str, Any], name: str) -> Whole:
    dataset = Blocks(folder / f"{name or 'all'}.bin", np.dtype(meta["dtype"]), config.block_size)
    source = f"the {name} split of {config.root}" if name else config.root
    return Whole(name, source, dataset, {})
