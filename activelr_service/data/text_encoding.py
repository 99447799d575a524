"""Encoding text: trains or loads a tokenizer and writes the token ids of each split."""

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from activelr_service.config.data import TextDataConfig
from activelr_service.data.text_files import read_pieces
from activelr_service.data.text_splits import TextSplits
from activelr_service.errors import JobError

END_OF_TEXT = "<|endoftext|>"
KNOWN_ENDS = (END_OF_TEXT, "</s>", "<eos>", "[SEP]")
TOKENIZER, META = "tokenizer.json", "meta.json"
LARGEST_COMPARED = 2**20  # documents at most of which a split keeps digests, to find them in another split
SHORTEST_COMPARED = 100  # characters; shorter documents can be equal by chance

Pieces = Iterator[str | None]


class Encoded(NamedTuple):
    """The numbers of tokens, documents and characters of a split, and the digests of its documents."""

    tokens: int
    documents: int
    characters: int
    digests: set[bytes]


def what_is_encoded(config: TextDataConfig) -> list[Any]:
    """The options that the encoded text depends on."""
    root, tokenizer = (path and str(Path(path).expanduser().resolve()) for path in (config.root, config.tokenizer))
    options = [root, config.vocab_size, config.text_column, config.val_fraction, tokenizer, config.encoding]
    return options if config.test_fraction is None else [*options, config.test_fraction]


def encode(config: TextDataConfig, splits: TextSplits, folder: Path) -> None:
    """Write the tokenizer, the token ids of each split and a description of them into ``folder``."""
    texts = _texts(config, splits.files)
    for name, text in texts.items():
        if not any(text()):
            where = ", ".join(str(path) for path in splits.files.get(name, [Path(config.root)])[:3])
            text_of = f"the split {name!r} of {config.root} holds no text: {where}"
            raise JobError.at("data.root", f"{text_of}; fill or remove it")
    tokenizer = _train_tokenizer(config, texts["train"]()) if config.tokenizer is None else _load_tokenizer(config)
    tokenizer.save(str(folder / TOKENIZER))
    dtype = np.dtype(np.uint16 if tokenizer.get_vocab_size() <= 2**16 else np.uint32)
    written = {name: _write(folder / f"{name}.bin", tokenizer, dtype, text()) for name, text in texts.items()}
    for name, part in written.items():
        if part.tokens < 2:
            raise JobError.at("data.root", f"the split {name!r} of {config.root} holds no text")
    meta = {
        "dtype": dtype.name,
        "vocab_size": tokenizer.get_vocab_size(),
        "tokens": {name: part.tokens for name, part in written.items()},
        "splits": list(splits.files),
        "made_of": what_is_encoded(config),
        "notes": [*splits.notes, *_describe(config, written, tokenizer)],
        "warnings": [*splits.warnings, *_shared_documents(written)],
    }
    (folder / META).write_text(json.dumps(meta))


def encode_all(config: TextDataConfig, splits: dict[str, list[Path]], folder: Path) -> None:
    """Write the token ids of all text of each split, with the tokenizer that the config names, into ``folder``."""
    tokenizer = _load_tokenizer(config)
    dtype = np.dtype(np.uint32)
    written = {
        name: _write(folder / f"{name or 'all'}.bin", tokenizer, dtype, read_pieces(config, paths))
        for name, paths in splits.items()
    }
    tokens = {name: part.tokens if part.characters else 0 for name, part in written.items()}
    (folder / META).write_text(json.dumps({"dtype": dtype.name, "tokens": tokens}))


def _describe(config: TextDataConfig, written: dict[str, Encoded], tokenizer: Any) -> list[str]:
    origin = f"loaded from {config.tokenizer}" if config.tokenizer else "trained on the training text"
    sizes = [
        f"{name}: {part.documents:,} documents, {part.characters:,} characters, {part.tokens:,} tokens"
        for name, part in written.items()
    ]
    return [*sizes, f"tokenizer: {origin}, {tokenizer.get_vocab_size():,} tokens"]


def _shared_documents(written: dict[str, Encoded]) -> list[str]:
    """A warning for each split that shares documents with the training text."""
    shared = {name: len(part.digests & written["train"].digests) for name, part in written.items() if name != "train"}
    return [f"documents of the {name} split that are in the training text too: {n}" for name, n in shared.items() if n]


def _texts(config: TextDataConfig, splits: dict[str, list[Path]]) -> dict[str, Callable[[], Pieces]]:
    """The functions that read the pieces of each split. A test and a validation split that are wanted and not there are cut
    off the end of the training text, the test split last."""
    texts: dict[str, Callable[[], Pieces]] = {
        name: partial(read_pieces, config, paths) for name, paths in splits.items()
    }
    if config.test_fraction is not None and "test" in texts:
        raise JobError.at("data.test_fraction", f"{config.root} has a test split already; leave it out")
    cut = [("test", config.test_fraction)] if config.test_fraction is not None else []
    cut += [("validation", config.val_fraction)] if "validation" not in texts else []
    if not cut:
        return texts
    whole = texts.pop("train")
    end: int | None = None
    left = sum(piece is not None for piece in whole())
    for name, fraction in cut:
        start = left - max(1, round(left * fraction))
        if start < 1:
            what = "validation" if name == "validation" else "a test"
            raise JobError.at("data.root", f"{config.root} holds too little text to split a share off for {what}")
        texts[name] = partial(_take, whole, start, end)
        left = end = start
    texts["train"] = partial(_take, whole, 0, left)
    return {name: texts[name] for name in ("train", "validation", "test") if name in texts}


def _take(whole: Callable[[], Pieces], start: int, stop: int | None) -> Pieces:
    """The pieces from ``start`` to ``stop``, counted without the ends of documents, which are kept."""
    number = 0
    for piece in whole():
        number += piece is not None
        if start < number and (stop is None or number <= stop):
            yield piece


def _train_tokenizer(config: TextDataConfig, pieces: Pieces) -> Any:
    """Train a byte-level BPE tokenizer, as GPT-2 has it (Radford et al. 2019). It can encode any text."""
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
    """Load a tokenizer from ``tokenizer.json``, or from ``vocab.json`` and ``merges.txt`` as GPT-2 has them."""
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


def _write(path: Path, tokenizer: Any, dtype: np.dtype, pieces: Pieces) -> Encoded:
    """Encode the pieces into ``path``, with an end-of-text token where a document ends."""
    end, tokens, characters, documents = _end_of_text(tokenizer, path), 0, 0, _Documents()
    with path.open("wb") as file:
        while some := list(islice(pieces, 1000)):
            encoded = iter(tokenizer.encode_batch([piece for piece in some if piece], add_special_tokens=False))
            ids = [token_id for piece in some for token_id in (next(encoded).ids if piece else [end])]
            np.array(ids, dtype=dtype).tofile(file)
            tokens += len(ids)
            characters += sum(len(piece) for piece in some if piece)
            documents.add(some)
    documents.end()  # the last document, if the split ends within it
    return Encoded(tokens, documents.count, characters, documents.digests)


class _Documents:
    """Counts documents and keeps the digests of those that are long enough to compare."""

    def __init__(self) -> None:
        self.count, self.digests = 0, set[bytes]()
        self._start()

    def add(self, pieces: list[str | None]) -> None:
        for piece in pieces:
            if piece is not None:
                self._digest.update(piece.encode(errors="surrogatepass"))
                self._length += len(piece)
            else:
                self.end()

    def end(self) -> None:
        self.count += self._length > 0
        if self._length >= SHORTEST_COMPARED and len(self.digests) < LARGEST_COMPARED:
            self.digests.add(self._digest.digest())
        self._start()

    def _start(self) -> None:
        self._digest, self._length = hashlib.blake2b(digest_size=8), 0
