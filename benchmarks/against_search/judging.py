"""The tasks that judge the rule, on other data than those that decide: photographs of scikit-learn, the manual of Python."""

import email
import functools
from pathlib import Path
from pydoc_data.topics import topics

import torch
from sklearn.datasets import load_diabetes, load_sample_images, load_wine
from torch import Generator, Tensor, nn
from torch.nn import functional

from benchmarks.against_search.models import (
    Adapted,
    InBfloat16,
    Next,
    Patches,
    Recurrent,
    ReZero,
    Table,
    Transformer,
    Waves,
    convnet,
    perceptron,
)
from benchmarks.against_search.task import (
    Batch,
    Data,
    characters,
    cross_entropy,
    last_characters,
    of_classes,
    of_loss,
    of_precision,
    pretrained,
    rows,
)

SIDE = 12  # pixels of a piece of a photograph
ROWS, HELD_OUT = 3000, 1000


@functools.cache
def photographs() -> Tensor:
    """Two photographs, (2, 3, 213, 320), of variance about one."""
    images = torch.stack([torch.tensor(image) for image in load_sample_images().images])
    smaller = functional.avg_pool2d(images.permute(0, 3, 1, 2).float(), 2)
    return (smaller - 115) / 75


@functools.cache
def pieces() -> tuple[Tensor, Tensor]:
    """Pieces (4000, 3, 12, 12) and their places: which of ten columns of which photograph, as a class of 0 to 9."""
    rng = Generator().manual_seed(0)
    images = photographs()
    picks = torch.randint(2, (ROWS + HELD_OUT,), generator=rng)
    tops = torch.randint(images.shape[2] - SIDE, picks.shape, generator=rng)
    lefts = torch.randint(images.shape[3] - SIDE, picks.shape, generator=rng)
    cut = [
        images[pick, :, top : top + SIDE, left : left + SIDE]
        for pick, top, left in zip(picks, tops, lefts, strict=True)
    ]
    return torch.stack(cut), picks * 5 + lefts * 5 // images.shape[3]


def places(train: int, wrong: float = 0.0) -> tuple[Batch, Batch]:
    """Where a piece comes from. A share of the classes to train on is drawn."""
    images, classes = pieces()
    rng = Generator().manual_seed(3)
    is_wrong = torch.rand(train, generator=rng) < wrong
    given = torch.where(is_wrong, torch.randint(10, (train,), generator=rng), classes[:train])
    return (images[:train], given), (images[ROWS:], classes[ROWS:])


def turns() -> tuple[Batch, Batch]:
    """By how many quarters a piece was turned."""
    images, _ = pieces()
    quarters = torch.randint(4, (len(images),), generator=Generator().manual_seed(4))
    turned = torch.stack([image.rot90(int(number), (1, 2)) for image, number in zip(images, quarters, strict=True)])
    return (turned[:ROWS], quarters[:ROWS]), (turned[ROWS:], quarters[ROWS:])


def manual() -> Tensor:
    """Topics of the reference manual, as int64 characters."""
    text = "".join(topics[name] for name in sorted(topics)).encode("ascii", errors="ignore")[:400_000]
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


def mail() -> Tensor:
    """The code of the package email, as int64 characters."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(Path(email.__file__).parent.glob("*.py")))
    return torch.frombuffer(bytearray(text.encode("ascii", errors="ignore")), dtype=torch.uint8).long()


def wine() -> tuple[Batch, Batch]:
    """The 178 rows of wine, 80 to train on."""
    (train, classes), (held_out, held_classes) = scaled(load_wine(), 80)
    return (train, classes.long()), (held_out, held_classes.long())


def diabetes() -> tuple[Batch, Batch]:
    """The 442 noisy rows of diabetes, 250 to train on. The targets have a variance of one."""
    (train, targets), (held_out, held_targets) = scaled(load_diabetes(), 250)
    mean, std = targets.mean(), targets.std()
    return (train, ((targets - mean) / std).unsqueeze(1)), (held_out, ((held_targets - mean) / std).unsqueeze(1))


def scaled(found: dict[str, object], train: int) -> tuple[Batch, Batch]:
    """Rows in an order that is drawn once, with columns of variance one."""
    values, targets = torch.tensor(found["data"]).float(), torch.tensor(found["target"]).float()
    order = torch.randperm(len(values), generator=Generator().manual_seed(0))
    values, targets = values[order], targets[order]
    values = (values - values[:train].mean(0)) / values[:train].std(0)
    return (values[:train], targets[:train]), (values[train:], targets[train:])


def categories() -> tuple[Batch, Batch]:
    """Six columns of 300 categories each, most of them rare. Each category has an effect, and there is noise."""
    rng = Generator().manual_seed(0)
    frequencies = 1 / torch.arange(1, 301) ** 1.1
    columns = [torch.multinomial(frequencies, 12_000, replacement=True, generator=rng) for _ in range(6)]
    effects = torch.randn(6, 300, generator=rng)
    wanted = sum(effect[column] for effect, column in zip(effects, columns, strict=True)) / 6**0.5
    wanted = wanted * (1 + 0.5 * torch.tanh(wanted)) + 0.5 * torch.randn(12_000, generator=rng)
    ids = torch.stack(columns, 1) + 300 * torch.arange(6)
    return (ids[:10_000], wanted[:10_000]), (ids[10_000:], wanted[10_000:])


def flower() -> tuple[Batch, Batch]:
    """Colors of a photograph at its points; a tenth is held out."""
    image = photographs()[1, :, ::2, ::2]
    height, width = image.shape[1:]
    grid = torch.stack(torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"), -1)
    points, colors = grid.flatten(0, 1), image.permute(1, 2, 0).flatten(0, 1)
    order = torch.randperm(len(points), generator=Generator().manual_seed(0))
    held_out, train = order[: len(order) // 10], order[len(order) // 10 :]
    return (points[train], colors[train]), (points[held_out], colors[held_out])


def placed(train: int, batch: int, wrong: float = 0.0) -> Data:
    return rows(lambda: places(train, wrong), batch)


def vit(classes: int) -> nn.Module:
    return Patches(SIDE, 3, classes)


MANUAL, MAIL, TURNS = characters(manual, 48, 16), characters(mail, 48, 16), rows(turns, 64)
PIXELS = 3 * SIDE * SIDE
small_gpt = functools.partial(Transformer, 2, 64)
trained_gpt = pretrained(small_gpt, MANUAL)
small_gru = functools.partial(Recurrent, nn.GRU, 1, 48)

TASKS = [
    of_loss("LSTM of two layers", 250, lambda: Recurrent(nn.LSTM, 2, 48), MANUAL, cross_entropy),
    of_loss("tied transformer", 300, lambda: Transformer(3, 64, tied=True), MANUAL, cross_entropy),
    of_loss("GPT, 60 steps", 60, small_gpt, MANUAL, cross_entropy),
    of_classes("convnet, batch 512", 100, lambda: convnet(10, 3, 8), placed(3000, 512)),
    of_classes("ViT, bfloat16 parameters", 200, lambda: InBfloat16(vit(10)), placed(3000, 32)),
    of_classes("ReZero", 600, lambda: ReZero(PIXELS), placed(3000, 128)),
    of_loss("next character, batch 4,096", 100, lambda: Next(8, 96), last_characters(manual, 8, 4096), cross_entropy),
    of_classes("20,000 steps, batch 16", 20_000, lambda: perceptron(PIXELS, 32, 32, 10), placed(3000, 16)),
    of_classes("20 steps, batch 512", 20, lambda: perceptron(PIXELS, 128, 128, 10), placed(3000, 512)),
    of_classes("30 % wrong classes", 600, lambda: convnet(10, 3, 8), placed(3000, 64, 0.3)),
    of_loss("rare categories", 600, lambda: Table(1800, 6), rows(categories, 128), functional.mse_loss),
    of_loss("wine", 400, lambda: perceptron(13, 64, 64, 3), rows(wine, 16), cross_entropy),
    of_loss("diabetes", 500, lambda: perceptron(10, 64, 64, 1), rows(diabetes, 16), functional.mse_loss),
    of_precision("flower", 1000, lambda: Waves(3), rows(flower, 512)),
    of_loss("low-rank adapters", 150, lambda: Adapted(trained_gpt()), MAIL, cross_entropy),
    of_loss("fine-tuned GPT, 200 steps", 200, trained_gpt, MAIL, cross_entropy),
    of_loss("fine-tuned GRU", 100, pretrained(small_gru, MANUAL), MAIL, cross_entropy),
    of_classes("fine-tuned ViT, 60 steps", 60, pretrained(functools.partial(vit, 10), TURNS, "head"), placed(200, 32)),
    of_classes(
        "fine-tuned convnet, 300 steps", 300, pretrained(lambda: convnet(10, 3, 16), TURNS, "12"), placed(200, 32)
    ),
]
