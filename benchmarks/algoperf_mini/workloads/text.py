"""A made translation (WMT), and the next byte of Python's standard library (FineWeb-Edu)."""

import argparse
import inspect
import json
import pathlib

import torch
from torch import Tensor, nn

from benchmarks.algoperf_mini.spec import Batch, LossType, Splits, Workload
from benchmarks.algoperf_mini.workloads.tables import split

SOURCES = (argparse, inspect, json.decoder, pathlib)


class Wmt(Workload):
    """Sentences of eight words. A translation swaps neighbors, and a word's form depends on the word before it."""

    name, loss_type = "wmt", LossType.SOFTMAX_CROSS_ENTROPY
    batch_size, target_steps = 64, 300
    words, length = 16, 8

    def make_data(self) -> Splits:
        g = torch.Generator().manual_seed(6)
        sizes = {"train": 16_384, "validation": 512, "test": 512}
        count = sum(sizes.values())
        sources = torch.randint(self.words, (count, self.length), generator=g)
        dictionary = torch.stack([torch.randperm(self.words, generator=g) for _ in range(2)])
        before = nn.functional.pad(sources[:, :-1], (1, 0))
        translated = dictionary[before % 2, sources]
        targets = translated.unflatten(1, (-1, 2)).flip(2).flatten(1)
        return split({"inputs": sources, "targets": targets}, sizes)

    def build_model(self) -> nn.Module:
        return Translator(self.words, self.length)


class Translator(nn.Module):
    """An encoder and a decoder of two layers each; the decoder is given the words before."""

    def __init__(self, words: int, length: int, dim: int = 32) -> None:
        super().__init__()
        self.words = words
        self.embed = nn.Embedding(words + 1, dim)  # the last one begins a sentence
        self.positions = nn.Parameter(0.02 * torch.randn(length, dim))
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, 0.0, batch_first=True, norm_first=True)
        encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.body = nn.Transformer(
            dim, 4, 2, 2, 2 * dim, 0.0, custom_encoder=encoder, batch_first=True, norm_first=True
        )
        self.head = nn.Linear(dim, words)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, batch: Batch) -> Tensor:
        before = nn.functional.pad(batch["targets"][:, :-1], (1, 0), value=self.words)
        source, target = (self.embed(tokens) + self.positions for tokens in (batch["inputs"], before))
        return self.head(self.body(source, target, tgt_mask=self.mask, tgt_is_causal=True))


class FineWebEdu(Workload):
    """Pieces of 48 bytes of four modules of the standard library, in which bytes above 127 are question marks."""

    name, loss_type = "finewebedu_lm", LossType.SOFTMAX_CROSS_ENTROPY
    batch_size, target_steps = 16, 300
    length, bytes = 48, 128

    def make_data(self) -> Splits:
        text = "\n".join(inspect.getsource(module) for module in SOURCES).encode("ascii", "replace")
        pieces = torch.tensor(list(text)).unfold(0, self.length + 1, self.length)
        pieces = pieces[torch.randperm(len(pieces), generator=torch.Generator().manual_seed(7))]
        data = {"inputs": pieces[:, :-1].contiguous(), "targets": pieces[:, 1:].contiguous()}
        return split(data, {"train": len(pieces) - 512, "validation": 256, "test": 256})

    def build_model(self) -> nn.Module:
        return LanguageModel(self.bytes, self.length)


class LanguageModel(nn.Module):
    def __init__(self, tokens: int, length: int, dim: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, dim)
        self.positions = nn.Parameter(0.02 * torch.randn(length, dim))
        layer = nn.TransformerEncoderLayer(dim, 4, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.head = nn.Linear(dim, tokens)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, batch: Batch) -> Tensor:
        hidden = self.embed(batch["inputs"]) + self.positions
        return self.head(self.layers(hidden, self.mask, is_causal=True))
