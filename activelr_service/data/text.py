"""Text for language modelling: a tokenizer, trained once, and each split as one stream of token ids, cut into blocks.

The streams lie in the cache as plain arrays that workers map into memory, so that text larger than memory can be used.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from activelr_service.config import JobError
from activelr_service.config.data import TextDataConfig
from activelr_service.data.info import DataInfo
from activelr_service.data.text_files import find_splits, read_pieces

END_OF_TEXT = "<|endoftext|>"
KNOWN_ENDS = (END_OF_TEXT, "</s>", "<eos>", "[SEP]")
TOKENIZER, META = "tokenizer.json", "meta.json"
IGNORED = -100  # as torch.nn.functional.cross_entropy has it: a label that is no token


def inspect(config: TextDataConfig) -> DataInfo:
    """Before the text is prepared, looks at the names of files only, and rows are not counted."""
    shape = (config.block_size,)
    if not _is_prepared(config):
        find_splits(config)
        if config.tokenizer is not None and not Path(config.tokenizer).exists():
            raise JobError.at("data.tokenizer", f"no such file or folder: {config.tokenizer}")
        return DataInfo(("language_modeling",), None, None, shape)
    meta = _read_meta(config)
    held_out = "validation" if config.eval_split == "validation" else "test"
    if held_out not in meta["tokens"]:
        raise JobError.at("data.eval_split", f"{config.root} has no split {held_out!r}")
    train, val = (_num_blocks(meta["tokens"][split], config.block_size) for split in ("train", held_out))
    return DataInfo(("language_modeling",), train, val, shape, vocab_size=meta["vocab_size"])


def prepare(config: TextDataConfig, cache: Path) -> TextDataConfig:
    """Train or load the tokenizer and encode the splits into ``cache``, unless that is done; sets ``tokens``.

    The same files and options find their work done; a folder is there whole or not at all.
    """
    splits = {} if _is_prepared(config) else find_splits(config)
    if not splits:
        return config
    folder = cache / f"text-{_key(config, splits)}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            _encode(config, splits, temporary)
            os.rename(temporary, folder)
    return config.model_copy(update={"tokens": str(folder)})


def build(config: TextDataConfig) -> tuple[Any, Any]:
    """(train, val) datasets of blocks; see :class:`Blocks`."""
    meta, folder = _read_meta(config), Path(config.tokens or "")
    held_out = "validation" if config.eval_split == "validation" else "test"
    paths = (folder / f"{split}.bin" for split in ("train", held_out))
    train, val = (Blocks(path, np.dtype(meta["dtype"]), config.block_size) for path in paths)
    return train, val


class Blocks:
    """Rows ``(inputs, labels)`` of int64 token ids (block_size,): each token of the stream but the first is the label of
    exactly one position, the one after it its input. The last row is filled with inputs 0 and labels -100."""

    def __init__(self, path: Path, dtype: np.dtype, block_size: int) -> None:
        self.tokens = np.memmap(path, dtype, mode="r")
        self.block_size = block_size

    def __len__(self) -> int:
        return _num_blocks(len(self.tokens), self.block_size)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        import torch

        if not 0 <= index < len(self):
            raise IndexError(index)
        start = index * self.block_size
        window = torch.from_numpy(self.tokens[start : start + self.block_size + 1].astype(np.int64))
        inputs, labels = torch.zeros(self.block_size, dtype=torch.int64), torch.full((self.block_size,), IGNORED)
        inputs[: len(window) - 1], labels[: len(window) - 1] = window[:-1], window[1:]
        return inputs, labels


def _encode(config: TextDataConfig, splits: dict[str, list[Path]], folder: Path) -> None:
    texts = _texts(config, splits)
    tokenizer = _train_tokenizer(config, texts["train"]()) if config.tokenizer is None else _load_tokenizer(config)
    tokenizer.save(str(folder / TOKENIZER))
    dtype = np.dtype(np.uint16 if tokenizer.get_vocab_size() <= 2**16 else np.uint32)
    counts = {name: _write(folder / f"{name}.bin", tokenizer, dtype, text()) for name, text in texts.items()}
    for name, count in counts.items():
        if count < 2:
            raise JobError.at("data.root", f"the split {name!r} of {config.root} holds no text")
    meta = {"dtype": dtype.name, "vocab_size": tokenizer.get_vocab_size(), "tokens": counts}
    (folder / META).write_text(json.dumps(meta))


def _texts(config: TextDataConfig, splits: dict[str, list[Path]]) -> dict[str, Callable[[], Iterator[str | None]]]:
    """What gives the pieces of each split; the end of the training text is held out where there is no validation split."""
    texts = {name: partial(read_pieces, config, paths) for name, paths in splits.items()}
    if "validation" in texts:
        return {**texts}
    whole = texts.pop("train")
    count = sum(piece is not None for piece in whole())
    num_train = count - max(1, round(count * config.val_fraction))
    if num_train < 1:
        raise JobError.at("data.root", f"{config.root} holds too little text to hold out a share of it")
    held_out = partial(_take, whole, num_train, None)
    return {**texts, "train": partial(_take, whole, 0, num_train), "validation": held_out}


def _take(whole: Callable[[], Iterator[str | None]], start: int, stop: int | None) -> Iterator[str | None]:
    return islice(whole(), start, stop)


def _train_tokenizer(config: TextDataConfig, pieces: Iterator[str | None]) -> Any:
    """Byte-level BPE, as GPT-2's (Radford et al. 2019): any text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((piece for piece in pieces if piece is not None), trainer)
    return tokenizer


def _load_tokenizer(config: TextDataConfig) -> Any:
    """From a ``tokenizer.json``, or from GPT-2's ``vocab.json`` and ``merges.txt``."""
    from tokenizers import ByteLevelBPETokenizer, Tokenizer

    path = Path(config.tokenizer or "")
    file = path / TOKENIZER if path.is_dir() else path
    pair = [path / "vocab.json", path / "merges.txt"]
    try:
        if file.is_file():
            tokenizer = Tokenizer.from_file(str(file))
        elif all(part.is_file() for part in pair):
            tokenizer = Tokenizer.from_str(ByteLevelBPETokenizer(*map(str, pair)).to_str())
        else:
            raise JobError.at("data.tokenizer", f"{path} has neither {TOKENIZER} nor vocab.json and merges.txt")
    except JobError:
        raise
    except Exception as error:
        raise JobError.at("data.tokenizer", f"{path} is not a tokenizer that can be read: {error}") from error
    _end_of_text(tokenizer, path)
    return tokenizer


def _end_of_text(tokenizer: Any, source: Any) -> int:
    ids = [tokenizer.token_to_id(name) for name in KNOWN_ENDS]
    known = [token_id for token_id in ids if token_id is not None]
    if not known:
        raise JobError.at("data.tokenizer", f"{source} has no end-of-text token, such as {END_OF_TEXT}")
    return int(known[0])


def _write(path: Path, tokenizer: Any, dtype: np.dtype, pieces: Iterator[str | None]) -> int:
    """Encode the pieces into ``path``, with an end-of-text token where a document ends; returns the number of tokens."""
    end, count = _end_of_text(tokenizer, path), 0
    with path.open("wb") as file:
        while some := list(islice(pieces, 1000)):
            encoded = iter(tokenizer.encode_batch([piece for piece in some if piece], add_special_tokens=False))
            ids = [token_id for piece in some for token_id in (next(encoded).ids if piece else [end])]
            np.array(ids, dtype=dtype).tofile(file)
            count += len(ids)
    return count


def _num_blocks(num_tokens: int, block_size: int) -> int:
    return -(-(num_tokens - 1) // block_size)


def _is_prepared(config: TextDataConfig) -> bool:
    return config.tokens is not None and (Path(config.tokens) / META).is_file()


def _read_meta(config: TextDataConfig) -> dict[str, Any]:
    assert config.tokens is not None, "prepare comes first"
    return json.loads((Path(config.tokens) / META).read_text())


def _key(config: TextDataConfig, splits: dict[str, list[Path]]) -> str:
    """Names what is made of these files, as they are now, with these options."""
    named = [
        *(path for paths in splits.values() for path in paths),
        *([Path(config.tokenizer)] if config.tokenizer else []),
    ]
    files = [file for path in named for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    options = [config.vocab_size, config.text_column, config.val_fraction, config.tokenizer]
    return hashlib.sha256(json.dumps([stats, options]).encode()).hexdigest()[:16]
