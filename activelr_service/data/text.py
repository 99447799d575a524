"""Text for language modeling: a tokenizer, and for each split one stream of token ids that is cut into blocks.

The streams are plain arrays in the cache. Workers map them into memory, so that a text can be larger than the memory.
"""

import codecs
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from activelr_service.config.data import TextDataConfig
from activelr_service.data.info import DataInfo
from activelr_service.data.text_encoding import META, encode, what_is_encoded
from activelr_service.data.text_files import PIECE, read_pieces
from activelr_service.data.text_splits import find_splits
from activelr_service.errors import JobError

FORMAT = 2  # the version of the files in the cache
CHECKED = 2**14  # pieces that are read of a file, about 16 MB
IGNORED = -100  # a label that is no token; torch.nn.functional.cross_entropy ignores it


def inspect(config: TextDataConfig) -> DataInfo:
    """Describe the text. Before it is prepared, only the names of files are read, and blocks are not counted."""
    shape = (config.block_size,)
    _check_encoding(config)
    if not is_prepared(config):
        found = find_splits(config)
        if config.eval_split not in found.files and config.eval_split == "test":
            raise JobError.at("data.eval_split", f"{config.root} has no split 'test'; it has {', '.join(found.files)}")
        if config.tokenizer is not None and not Path(config.tokenizer).exists():
            raise JobError.at("data.tokenizer", f"no such file or folder: {config.tokenizer}")
        notes = (*found.notes, *_left_out(config, found.files))
        return DataInfo(("language_modeling",), None, None, shape, notes=notes, warnings=found.warnings)
    meta = _read_meta(config)
    if config.eval_split not in meta["tokens"]:
        raise JobError.at("data.eval_split", f"{config.root} has no split {config.eval_split!r}")
    train, val = (num_blocks(meta["tokens"][split], config.block_size) for split in ("train", config.eval_split))
    test = num_blocks(meta["tokens"]["test"], config.block_size) if _has_test(config, meta) else 0
    return DataInfo(
        ("language_modeling",),
        train,
        val,
        shape,
        vocab_size=meta["vocab_size"],
        notes=(*meta.get("notes", ()), *_left_out(config, meta.get("splits", meta["tokens"]))),
        warnings=tuple(meta.get("warnings", ())),
        num_test=test,
    )


def prepare(config: TextDataConfig, cache: Path) -> TextDataConfig:
    """Train or load the tokenizer, encode the splits into a folder of ``cache``, and return the config with this folder.

    The same files and options use the same folder again. A folder exists only when it is complete.
    """
    _check_encoding(config)
    if is_prepared(config):
        return config
    found = find_splits(config)
    folder = make_once(cache / f"text-{key_of(config, found.files)}", lambda made: encode(config, found, made))
    return config.model_copy(update={"tokens": str(folder)})


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Have ``make`` fill ``folder`` unless it is there; it appears complete or not at all. Returns the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            for leftover in folder.parent.glob(f".{folder.name}.*"):  # of a process that was killed
                shutil.rmtree(leftover)
            temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
            temporary.mkdir()
            make(temporary)
            os.rename(temporary, folder)
    return folder


def check_files(config: TextDataConfig, limit: int | None) -> None:
    """Read at most ``limit`` files, evenly spaced, and at most :data:`CHECKED` pieces of each; None reads all of them.

    Raises :class:`JobError` with the first file that cannot be read or has no text in the column. Prepared text is not read
    again.
    """
    if is_prepared(config):
        return
    files = [path for paths in find_splits(config).files.values() for path in paths]
    chosen = files if limit is None else [files[i * len(files) // limit] for i in range(min(limit, len(files)))]
    for path in chosen:
        for _ in islice(read_pieces(config, [path]), None if limit is None else CHECKED):
            pass


def build(config: TextDataConfig) -> tuple[Any, Any]:
    """Make (train, val) datasets of blocks; see :class:`Blocks`."""
    meta = _read_meta(config)
    return _blocks(config, meta, "train"), _blocks(config, meta, config.eval_split)


def build_split(config: TextDataConfig, split: str) -> Any:
    """The blocks of a split, "train", "validation" or "test". None if there is no such split."""
    meta = _read_meta(config)
    if split == "test":
        return _blocks(config, meta, "test") if _has_test(config, meta) else None
    return _blocks(config, meta, config.eval_split if split == "validation" else split)


def _blocks(config: TextDataConfig, meta: dict[str, Any], split: str) -> "Blocks":
    return Blocks(Path(config.tokens or "") / f"{split}.bin", np.dtype(meta["dtype"]), config.block_size)


def _has_test(config: TextDataConfig, meta: dict[str, Any]) -> bool:
    """Whether there is a test split that is not the validation split."""
    return "test" in meta["tokens"] and config.eval_split != "test"


class Blocks:
    """A dataset of blocks ``(inputs, labels)``, both int64 token ids of shape (block_size,).

    The label of a position is the token that follows its input. Each token of the stream, except the first, is a label
    once. The last block is filled up with inputs 0 and labels -100.
    """

    def __init__(self, path: Path, dtype: np.dtype, block_size: int) -> None:
        self.tokens = np.memmap(path, dtype, mode="r")
        self.block_size = block_size

    def __len__(self) -> int:
        return num_blocks(len(self.tokens), self.block_size)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        import torch

        if not 0 <= index < len(self):
            raise IndexError(index)
        start = index * self.block_size
        window = torch.from_numpy(self.tokens[start : start + self.block_size + 1].astype(np.int64))
        inputs, labels = torch.zeros(self.block_size, dtype=torch.int64), torch.full((self.block_size,), IGNORED)
        inputs[: len(window) - 1], labels[: len(window) - 1] = window[:-1], window[1:]
        return inputs, labels


def num_blocks(num_tokens: int, block_size: int) -> int:
    return -(-(num_tokens - 1) // block_size)


def is_prepared(config: TextDataConfig) -> bool:
    """Whether the folder ``tokens`` was made of what the config names. Another root, for example, must be encoded first."""
    if config.tokens is None or not (Path(config.tokens) / META).is_file():
        return False
    made_of = _read_meta(config).get("made_of")
    return made_of is None or made_of == what_is_encoded(config)


def _read_meta(config: TextDataConfig) -> dict[str, Any]:
    assert config.tokens is not None, "prepare comes first"
    return read_meta(Path(config.tokens))


def read_meta(folder: Path) -> dict[str, Any]:
    """The description of the encoded text in a folder of the cache."""
    meta: dict[str, Any] = json.loads((folder / META).read_text())
    return meta


def _check_encoding(config: TextDataConfig) -> None:
    try:
        codecs.lookup(config.encoding or "utf-8")
    except LookupError as error:
        text = f"{config.encoding!r} is no encoding that Python knows, such as latin-1, cp1252 or utf-16-le"
        raise JobError.at("data.encoding", text) from error


def _left_out(config: TextDataConfig, splits: Iterable[str]) -> list[str]:
    """Notes on the validation and the test text, and on the split that is not used."""
    notes = [f"validation: the {config.eval_split} split"] if config.eval_split in splits else []
    pieces = f"in pieces of about {PIECE:,} characters"
    if config.eval_split not in splits:
        before = " before the test" if config.test_fraction is not None else ""
        share = f"the last {100 * config.val_fraction:g}% of the text{before}, {pieces}"
        notes = [f"validation: {share}, since there is no validation split"]
    if config.eval_split == "test":
        return [*notes, "left out: the validation split"] if "validation" in splits else notes
    if config.test_fraction is not None:
        return [
            *notes,
            f"test: the last {100 * config.test_fraction:g}% of the text, {pieces}; measured once, at the end",
        ]
    return [*notes, "test: the test split; measured once, at the end"] if "test" in splits else notes


def key_of(config: TextDataConfig, splits: dict[str, list[Path]], *more: str) -> str:
    """A hash of the options, ``more``, and the paths, sizes and times of the files: the name of what is made of them."""
    named = [
        *(path for paths in splits.values() for path in paths),
        *([Path(config.tokenizer)] if config.tokenizer else []),
    ]
    files = [file for path in named for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([FORMAT, stats, what_is_encoded(config), *more]).encode()).hexdigest()[:16]
