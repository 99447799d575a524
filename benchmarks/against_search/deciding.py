"""The tasks on which the rule is decided: digits of scikit-learn, and Python code of the standard library."""

import functools
import os
from pathlib import Path

import torch
from sklearn.datasets import load_breast_cancer, load_digits, make_friedman1
from torch import Generator, Tensor, nn
from torch.nn import functional

from benchmarks.against_search.models import Patches, Recurrent, Transformer, Waves, convnet, perceptron
from benchmarks.against_search.task import (
    Batch,
    Data,
    characters,
    cross_entropy,
    of_classes,
    of_loss,
    of_precision,
    pretrained,
    rows,
)


@functools.cache
def digits() -> Batch:
    """Images (1797, 1, 8, 8) of variance about one, and their classes, in an order that is drawn once."""
    found = load_digits()
    order = torch.randperm(1797, generator=Generator().manual_seed(0))
    images = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1).sub_(4.9).div_(6.0)
    return images[order], torch.tensor(found.target)[order]


def split_digits(train: int, wrong: float = 0.0) -> tuple[Batch, Batch]:
    """The first rows to train on, a share of them with classes that are drawn; the last 700 are held out."""
    images, classes = digits()
    rng = Generator().manual_seed(3)
    is_wrong = torch.rand(train, generator=rng) < wrong
    given = torch.where(is_wrong, torch.randint(10, (train,), generator=rng), classes[:train])
    return (images[:train], given), (images[-700:], classes[-700:])


def turned_digits() -> tuple[Batch, Batch]:
    """Digits on their side: 100 to train on."""
    (images, classes), (held_images, held_classes) = split_digits(100)
    return (images.rot90(1, (2, 3)), classes), (held_images.rot90(1, (2, 3)), held_classes)


def code(pattern: str) -> Tensor:
    """Modules of the standard library, as int64 characters."""
    found = bytearray()
    for path in sorted(Path(os.__file__).parent.glob(pattern)):
        found += path.read_text(encoding="utf-8", errors="ignore").encode("ascii", errors="ignore")
    return torch.frombuffer(found[:500_000], dtype=torch.uint8).long()


def cancer() -> tuple[Batch, Batch]:
    """The 569 rows of breast cancer, 300 to train on."""
    found = load_breast_cancer()
    order = torch.randperm(569, generator=Generator().manual_seed(0))
    values = torch.tensor(found.data, dtype=torch.float32)[order]
    values = (values - values[:300].mean(0)) / values[:300].std(0)
    classes = torch.tensor(found.target)[order]
    return (values[:300], classes[:300]), (values[300:], classes[300:])


def friedman() -> tuple[Batch, Batch]:
    """A nonlinear function of ten numbers with noise (Friedman 1991), 400 rows to train on."""
    inputs, targets = make_friedman1(2400, noise=2.0, random_state=0)
    values = torch.tensor(inputs, dtype=torch.float32) * 3.46 - 1.73
    wanted = torch.tensor((targets - targets.mean()) / targets.std(), dtype=torch.float32).unsqueeze(1)
    return (values[:400], wanted[:400]), (values[400:], wanted[400:])


def waves() -> tuple[Batch, Batch]:
    """A smooth function of two coordinates, exact: what counts is precision."""
    places = torch.rand(4000, 2, generator=Generator().manual_seed(0)) * 2 - 1
    first, second = places.unbind(1)
    values = (torch.sin(5 * first * second) + torch.cos(7 * second + first**2)).unsqueeze(1)
    return (places[:3000], values[:3000]), (places[3000:], values[3000:])


def itself() -> tuple[Batch, Batch]:
    """Digits as their own targets."""
    (images, _), (held_images, _) = split_digits(1000)
    return (images, images.flatten(1)), (held_images, held_images.flatten(1))


CODE = characters(lambda: code("*.py"), 48, 16, 20_000)
TABLES = characters(lambda: code("encodings/*.py"), 48, 16, 20_000)
TURNED = functools.partial(rows, turned_digits)


def upright(train: int, batch: int, wrong: float = 0.0) -> Data:
    return rows(lambda: split_digits(train, wrong), batch)


def small_gpt() -> nn.Module:
    return Transformer(2, 64)


TASKS = [
    of_loss("GPT", 300, small_gpt, CODE, cross_entropy),
    of_loss("post-norm transformer", 300, lambda: Transformer(3, 64, norm_first=False), CODE, cross_entropy),
    of_loss("GRU", 250, lambda: Recurrent(nn.GRU, 1, 64), CODE, cross_entropy),
    of_classes("convnet", 400, convnet, upright(1000, 32)),
    of_classes("ViT", 500, lambda: Patches(8, 1), upright(1000, 64)),
    of_classes("deep, batch 1,024", 100, lambda: perceptron(64, *[32] * 6, 10), upright(1000, 1024)),
    of_classes("20 steps", 20, lambda: perceptron(64, 64, 64, 10), upright(1000, 256)),
    of_classes("60 steps of a convnet", 60, convnet, upright(1000, 64)),
    of_classes("20 % wrong classes", 1000, lambda: perceptron(64, 128, 128, 10), upright(1000, 64, 0.2)),
    of_loss("breast cancer", 600, lambda: perceptron(30, 64, 64, 2), rows(cancer, 16), cross_entropy),
    of_loss("Friedman", 1000, lambda: perceptron(10, 64, 64, 1), rows(friedman, 32), functional.mse_loss),
    of_classes("10,000 steps, 20 % wrong", 10_000, lambda: perceptron(64, 32, 32, 10), upright(1000, 16, 0.2)),
    of_loss(
        "10,000 steps of Friedman", 10_000, lambda: perceptron(10, 32, 32, 1), rows(friedman, 16), functional.mse_loss
    ),
    of_precision("waves", 1500, lambda: Waves(1), rows(waves, 256)),
    of_loss("autoencoder", 600, lambda: perceptron(64, 64, 12, 64, 64), rows(itself, 64), functional.mse_loss),
    of_classes("fine-tuned convnet, 30 steps", 30, pretrained(convnet, upright(1000, 64), "12"), TURNED(32)),
    of_classes("fine-tuned convnet, 120 steps", 120, pretrained(convnet, upright(1000, 64), "12"), TURNED(32)),
    of_classes("fine-tuned ViT", 150, pretrained(lambda: Patches(8, 1), upright(1000, 64), "head"), TURNED(32)),
    of_loss("fine-tuned GPT", 100, pretrained(small_gpt, CODE), TABLES, cross_entropy),
]
