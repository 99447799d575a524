"""Raw texts: their tokens, how well the model predicts them, and what it writes after them."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from activelr_service.data.text_encoding import KNOWN_ENDS, TOKENIZER
from activelr_service.errors import InputError
from activelr_service.inference.notes import Notes
from activelr_service.inference.read import Read, cells_of

COLUMN = "text"
NEW_TOKENS = 50  # that are generated, if nothing is said; at most half a block
_IGNORED = -100


class Codec:
    """Turns texts into token ids and back: by a tokenizer, or for a model of characters by their ASCII numbers."""

    def __init__(self, folder: Path, is_characters: bool) -> None:
        self.tokenizer: Any = None
        self.end: int | None = None
        if not is_characters:
            from tokenizers import Tokenizer

            if not (folder / TOKENIZER).is_file():
                raise InputError(f"the model in {folder} has no {TOKENIZER}; copy it from the run that made the model")
            self.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
            known = [self.tokenizer.token_to_id(name) for name in KNOWN_ENDS]
            self.end = next((number for number in known if number is not None), None)

    def encode(self, texts: list[str], notes: Notes) -> list[list[int]]:
        if self.tokenizer is not None:
            return [found.ids for found in self.tokenizer.encode_batch(texts, add_special_tokens=False)]
        if any(not text.isascii() for text in texts):
            notes.say("characters beyond ASCII are left out, as in the training")
        return [[ord(sign) for sign in text if sign.isascii()] for text in texts]

    def decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids)) if self.tokenizer is not None else "".join(map(chr, ids))


class TextReader:
    """Makes token ids, int64 (tokens,), of texts. Texts differ in length, so that a batch is a list."""

    names = (COLUMN,)

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def rows(self, frame: Any, notes: Notes) -> list[Any]:
        """The cells of the column ``text``. Raises :class:`InputError` if there is none."""
        return cells_of(frame, COLUMN, "texts")

    def batches(self, rows: Any, batch_size: int, notes: Notes) -> Iterator[Read]:
        """The texts in batches. A cell that is no text is a bad row."""
        import torch

        for start in range(0, len(rows), batch_size):
            some = rows[start : start + batch_size]
            errors = {
                row: f"it is no text: {cell!r}"[:100] for row, cell in enumerate(some) if not isinstance(cell, str)
            }
            good = np.setdiff1d(np.arange(len(some)), [*errors])
            encoded = self.codec.encode([some[row] for row in good], notes)
            yield Read([torch.tensor(ids, dtype=torch.int64) for ids in encoded], good, errors, len(some))


def losses(module: Any, tokens: list[Any], block_size: int, device: str) -> dict[str, list[float | None]]:
    """The mean loss of the tokens of each text in nats, and its exponential. None for a text of less than two tokens.

    A text is cut into blocks as the training text is: the model sees at most ``block_size`` tokens before a token.
    """
    import torch
    from torch.nn import functional

    windows = [
        (row, ids[start : start + block_size + 1])
        for row, ids in enumerate(tokens)
        for start in range(0, len(ids) - 1, block_size)
    ]
    sums = [0.0] * len(tokens)
    for first in range(0, len(windows), 16):
        some = windows[first : first + 16]
        width = max(len(window) for _, window in some) - 1
        inputs = torch.zeros((len(some), width), dtype=torch.int64)
        labels = torch.full((len(some), width), _IGNORED)
        for place, (_, window) in enumerate(some):
            inputs[place, : len(window) - 1], labels[place, : len(window) - 1] = window[:-1], window[1:]
        logits = module(input_ids=inputs.to(device)).logits.cpu()
        for (row, _), scores, label in zip(some, logits, labels, strict=True):
            sums[row] += functional.cross_entropy(scores.double(), label, reduction="sum").item()
    means = [total / (len(ids) - 1) if len(ids) > 1 else None for total, ids in zip(sums, tokens, strict=True)]
    return {"loss": means, "perplexity": [None if mean is None or mean > 700 else math.exp(mean) for mean in means]}


def generate(
    module: Any, tokens: list[Any], block_size: int, end: int | None, count: int | None, notes: Notes, device: str
) -> list[list[int]]:
    """At most ``count`` token ids that follow each text: at each step the likeliest one, until the end of the text.

    Of a text and what is generated the model sees one block at most, so that the start of a long text is left out.
    Raises :class:`InputError` for a ``count`` that leaves no room for a text.
    """
    import torch

    count = min(NEW_TOKENS, max(1, block_size // 2)) if count is None else count
    if not 0 <= count < block_size:
        text = f"max_new_tokens must be from 0 to {block_size - 1}, since the model sees {block_size} tokens"
        raise InputError(f"{text}; got {count}")
    if count == 0:
        return [[] for _ in tokens]
    room = block_size - count
    if any(len(ids) > room for ids in tokens):
        notes.say(
            f"of texts longer than {room} tokens the last {room} are continued: the model sees {block_size} tokens"
        )
    start = torch.tensor([end or 0], dtype=torch.int64)
    prompts = [ids[-room:] if len(ids) else start for ids in tokens]
    found: list[list[int]] = [[] for _ in tokens]
    for length in sorted({len(prompt) for prompt in prompts}):  # texts of one length need no padding
        rows = [row for row, prompt in enumerate(prompts) if len(prompt) == length]
        batch = torch.stack([prompts[row] for row in rows]).to(device)
        for row, ids in zip(rows, _continue(module, batch, end, count), strict=True):
            found[row] = ids[: ids.index(end)] if end in ids else ids
    return found


def _continue(module: Any, batch: Any, end: int | None, count: int) -> list[list[int]]:
    import torch
    from transformers import GenerationConfig

    config = GenerationConfig(max_new_tokens=count, do_sample=False, eos_token_id=end, pad_token_id=end or 0)
    whole = module.generate(input_ids=batch, attention_mask=torch.ones_like(batch), generation_config=config)
    ids: list[list[int]] = whole[:, batch.shape[1] :].tolist()
    return ids
