"""Six small tasks for :mod:`benchmarks.any_direction`: each trains in seconds on one core, on data that never run out.

Data are of the standard library and of scikit-learn, or are drawn. What is held out is the same in every run.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn
from torch.nn import functional

CONTEXT, WIDTH, VOCABULARY = 48, 64, 128  # of the language models: characters, features, ASCII
HELD_OUT_CHARS, TRAIN_CHARS = 40_000, 1_000_000
CATEGORIES, COLUMNS = 2000, 4  # of the table


class Task(NamedTuple):
    """A model, its loss, and its data.

    - ``steps``: of a run of AdamW;
    - ``build``: makes the model; the caller seeds torch before;
    - ``draw``: a batch of inputs and targets from a generator;
    - ``loss``: of outputs and targets, 0-dim, in nats;
    - ``held_out``: one large batch.
    """

    name: str
    steps: int
    build: Callable[[], nn.Module]
    draw: Callable[[Generator], tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]
    held_out: Callable[[], tuple[Tensor, Tensor]]


class Transformer(nn.Module):
    """A causal transformer over characters: pre-norm or post-norm; ``tied`` has one table at both ends."""

    def __init__(self, layers: int, norm_first: bool, tied: bool) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        for table in (self.tokens, self.positions):
            nn.init.normal_(table.weight, std=0.02 if norm_first else WIDTH**-0.5)
        block = nn.TransformerEncoderLayer(
            WIDTH, 4, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm_first
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        for parameter in self.blocks.parameters():  # the blocks are copies of one: let them differ
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        if tied:
            self.head.weight = self.tokens.weight
        self.mask: Tensor
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT))

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.tokens(ids) + self.positions.weight
        return self.head(self.norm(self.blocks(hidden, self.mask, is_causal=True)))


class Recurrent(nn.Module):
    """A GRU over characters."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.gru = nn.GRU(WIDTH, 2 * WIDTH, batch_first=True)
        self.head = nn.Linear(2 * WIDTH, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.gru(self.tokens(ids))[0])


class ReZero(nn.Module):
    """A deep perceptron whose layers begin at zero strength (Bachlechner et al. 2021)."""

    def __init__(self, layers: int = 16) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, WIDTH), nn.Linear(WIDTH, 10)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(layers))
        self.strengths = nn.Parameter(torch.zeros(layers))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.first(images.flatten(1))
        for layer, strength in zip(self.layers, self.strengths, strict=True):
            hidden = hidden + strength * functional.relu(layer(hidden))
        return self.last(hidden)


class Table(nn.Module):
    """A perceptron on the features of categories, which it looks up."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(CATEGORIES, 16)
        self.net = nn.Sequential(nn.Linear(16 * COLUMNS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
        self.last = nn.Linear(WIDTH, 1)

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(self.net(self.table(ids).flatten(1))).squeeze(1)


def convnet() -> nn.Module:
    """Three convolutions with batch normalization, for 8 x 8 images."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    layers = [*block(1, 16), *block(16, 32), nn.MaxPool2d(2), *block(32, 32)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


@functools.cache
def text() -> Tensor:
    """The first characters of the modules of the standard library, int64."""
    found = bytearray()
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        found += path.read_text(encoding="utf-8", errors="ignore").encode("ascii", errors="ignore")
    return torch.frombuffer(found[: TRAIN_CHARS + HELD_OUT_CHARS], dtype=torch.uint8).long()


def windows(chars: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    blocks = chars[starts[:, None] + torch.arange(CONTEXT + 1)]
    return blocks[:, :-1], blocks[:, 1:]


def draw_text(rng: Generator) -> tuple[Tensor, Tensor]:
    return windows(text(), torch.randint(TRAIN_CHARS - CONTEXT - 1, (16,), generator=rng))


def held_out_text() -> tuple[Tensor, Tensor]:
    return windows(text()[TRAIN_CHARS:], torch.arange(0, HELD_OUT_CHARS - CONTEXT - 1, 4 * CONTEXT))


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 8, 8) of variance about one, and their classes."""
    found = load_digits()
    return torch.tensor(found.images, dtype=torch.float32).unsqueeze(1).sub_(4.9).div_(6.0), torch.tensor(found.target)


def draw_digits(rng: Generator, first: int = 0, last: int = 1400, count: int = 64) -> tuple[Tensor, Tensor]:
    """Images moved by up to one pixel each way, under noise: no two are the same."""
    images, classes = digits()
    picks = torch.randint(first, last, (count,), generator=rng)
    moved = functional.pad(images[picks], (1, 1, 1, 1), value=-0.8)
    rows, columns = torch.randint(3, (2, count), generator=rng)
    over = torch.arange(8)
    grid = (torch.arange(count)[:, None, None], (rows[:, None] + over)[:, :, None], (columns[:, None] + over)[:, None])
    found = moved.squeeze(1)[grid].unsqueeze(1)
    return found + 0.5 * torch.randn(found.shape, generator=rng), classes[picks]


def held_out_digits() -> tuple[Tensor, Tensor]:
    return draw_digits(Generator().manual_seed(1), 1400, 1797, 2000)


@functools.cache
def category_weights() -> tuple[Tensor, Tensor]:
    """What the table is drawn from: effects of categories (CATEGORIES,) and of pairs of columns."""
    rng = Generator().manual_seed(2)
    return torch.randn(CATEGORIES, generator=rng), torch.randn(CATEGORIES, generator=rng)


def draw_table(rng: Generator, count: int = 128) -> tuple[Tensor, Tensor]:
    """Categories with Zipf's frequencies: half of them come less than once in ten batches."""
    alone, in_pairs = category_weights()
    frequencies = 1 / torch.arange(1.0, CATEGORIES + 1)
    ids = torch.multinomial(frequencies, count * COLUMNS, replacement=True, generator=rng).view(count, COLUMNS)
    logits = alone[ids].sum(1) + in_pairs[ids[:, 0]] * in_pairs[ids[:, 1]]
    return ids, torch.bernoulli(logits.sigmoid(), generator=rng)


def held_out_table() -> tuple[Tensor, Tensor]:
    return draw_table(Generator().manual_seed(3), 4000)


def of_classes(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


TASKS = [
    Task("GPT", 400, lambda: Transformer(2, norm_first=True, tied=False), draw_text, of_classes, held_out_text),
    Task(
        "post-norm, tied",
        400,
        lambda: Transformer(3, norm_first=False, tied=True),
        draw_text,
        of_classes,
        held_out_text,
    ),
    Task("convnet", 1000, convnet, draw_digits, of_classes, held_out_digits),
    Task("ReZero", 1000, ReZero, draw_digits, of_classes, held_out_digits),
    Task("GRU", 400, Recurrent, draw_text, of_classes, held_out_text),
    Task("rare categories", 1000, Table, draw_table, functional.binary_cross_entropy_with_logits, held_out_table),
]
