"""What a task is, and the parts that tasks share: data that are drawn from, scores, models with trained weights."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

Batch = tuple[Tensor, Tensor]
PRETRAINING_STEPS, PRETRAINING_LR = 600, 2e-3


class Task(NamedTuple):
    """A model, its loss, its data and its score.

    - ``build``: makes the model; the caller seeds torch before;
    - ``draw``: a batch of inputs and targets from a generator;
    - ``loss``: of outputs and targets, 0-dim;
    - ``held_out``: one large batch;
    - ``score``: of outputs and targets of ``held_out``, higher is better: points of accuracy, or -100 times a loss;
    - ``half_a_point``: the difference that counts: 0.5 of accuracy, or 0.01 of a loss.
    """

    name: str
    steps: int
    build: Callable[[], nn.Module]
    draw: Callable[[Generator], Batch]
    loss: Callable[[Tensor, Tensor], Tensor]
    held_out: Callable[[], Batch]
    score: Callable[[Tensor, Tensor], float]
    half_a_point: float


def of_classes(name: str, steps: int, build: Callable[[], nn.Module], data: "Data") -> Task:
    """A task that is scored by its accuracy, in percent."""
    return Task(name, steps, build, data.draw, cross_entropy, data.held_out, accuracy, 0.5)


def of_loss(
    name: str, steps: int, build: Callable[[], nn.Module], data: "Data", loss: Callable[[Tensor, Tensor], Tensor]
) -> Task:
    """A task that is scored by its loss on held-out data, times -100."""

    def score(outputs: Tensor, targets: Tensor) -> float:
        return -100 * loss(outputs, targets).item()

    return Task(name, steps, build, data.draw, loss, data.held_out, score, 1.0)


def of_precision(name: str, steps: int, build: Callable[[], nn.Module], data: "Data") -> Task:
    """A task of exact values that is scored in decibels: ten for each digit of the mean squared error."""

    def score(outputs: Tensor, targets: Tensor) -> float:
        return -10 * functional.mse_loss(outputs, targets).log10().item()

    return Task(name, steps, build, data.draw, functional.mse_loss, data.held_out, score, 0.5)


class Data(NamedTuple):
    """Where batches come from, and what is held out."""

    draw: Callable[[Generator], Batch]
    held_out: Callable[[], Batch]


def rows(make: Callable[[], tuple[Batch, Batch]], batch: int) -> Data:
    """Batches from training rows, with replacement. ``make`` returns the training and the held-out rows."""
    cached = functools.cache(make)

    def draw(rng: Generator) -> Batch:
        inputs, targets = cached()[0]
        picks = torch.randint(len(inputs), (batch,), generator=rng)
        return inputs[picks], targets[picks]

    return Data(draw, lambda: cached()[1])


def characters(read: Callable[[], Tensor], context: int, batch: int, held_out: int = 10_000) -> Data:
    """Windows of a text and the characters that follow. The last ``held_out`` characters are held out."""
    cached = functools.cache(read)

    def windows(chars: Tensor, starts: Tensor) -> Batch:
        blocks = chars[starts[:, None] + torch.arange(context + 1)]
        return blocks[:, :-1], blocks[:, 1:]

    def draw(rng: Generator) -> Batch:
        text = cached()[:-held_out]
        return windows(text, torch.randint(len(text) - context - 1, (batch,), generator=rng))

    def all_held_out() -> Batch:
        text = cached()[-held_out:]
        return windows(text, torch.arange(0, held_out - context - 1, context))

    return Data(draw, all_held_out)


def last_characters(read: Callable[[], Tensor], context: int, batch: int) -> Data:
    """``context`` characters of a text and the one that follows. The last 10,000 characters are held out."""
    whole = characters(read, context, batch)

    def draw(rng: Generator) -> Batch:
        inputs, following = whole.draw(rng)
        return inputs, following[:, -1]

    def held_out() -> Batch:
        inputs, following = whole.held_out()
        return inputs, following[:, -1]

    return Data(draw, held_out)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    return 100 * (outputs.argmax(-1) == targets).float().mean().item()


def pretrained(build: Callable[[], nn.Module], data: Data, new_head: str | None = None) -> Callable[[], nn.Module]:
    """Makes a model with weights that were trained on other data; the head of this name begins anew."""

    @functools.cache
    def weights() -> dict[str, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(12)
            model = build()
            optimizer = torch.optim.AdamW(model.parameters(), PRETRAINING_LR)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, PRETRAINING_STEPS)
            rng = Generator().manual_seed(13)
            for _ in range(PRETRAINING_STEPS):
                inputs, targets = data.draw(rng)
                cross_entropy(model(inputs), targets).backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def make() -> nn.Module:
        model = build()
        kept = weights()
        if new_head:
            kept = {name: tensor for name, tensor in kept.items() if not name.startswith(new_head)}
        model.load_state_dict(kept, strict=False)
        return model

    return make
