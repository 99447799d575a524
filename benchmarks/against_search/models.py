"""Models of the tasks. Each is small: a step takes one to ten milliseconds on one core."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY = 128  # ASCII


def perceptron(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """Linear layers between these widths."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def convnet(classes: int = 10, channels: int = 1, width: int = 16) -> nn.Module:
    """Three convolutions with batch normalization."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    body = [*block(channels, width), *block(width, 2 * width), nn.MaxPool2d(2), *block(2 * width, 2 * width)]
    body += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(2 * width, classes))  # the head is number 12


class Transformer(nn.Module):
    """A causal transformer over characters: pre-norm or post-norm; ``tied`` has one table at both ends."""

    def __init__(self, layers: int, width: int, norm_first: bool = True, tied: bool = False, context: int = 48) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(context, width)
        for table in (self.tokens, self.positions):
            nn.init.normal_(table.weight, std=0.02 if norm_first else width**-0.5)
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=norm_first)
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY, bias=False)
        for parameter in self.blocks.parameters():  # the blocks are copies of one: let them differ
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        if tied:
            self.head.weight = self.tokens.weight
        self.mask: Tensor
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context))

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.tokens(ids) + self.positions.weight
        return self.head(self.norm(self.blocks(hidden, self.mask, is_causal=True)))


class Recurrent(nn.Module):
    """A recurrent network over characters: a GRU or an LSTM."""

    def __init__(self, kind: type[nn.RNNBase], layers: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.net = kind(width, 2 * width, layers, batch_first=True)
        self.head = nn.Linear(2 * width, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.net(self.tokens(ids))[0])


class Patches(nn.Module):
    """A vision transformer: patches of 2 x 2, a class token, two pre-norm layers."""

    def __init__(self, size: int, channels: int, classes: int = 10, width: int = 48) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, 2, 2)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, (size // 2) ** 2 + 1, width) * 0.02)
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)
        for parameter in self.blocks.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        hidden = torch.cat([self.first.expand(len(images), -1, -1), patches], 1) + self.positions
        return self.head(self.norm(self.blocks(hidden))[:, 0])


class ReZero(nn.Module):
    """A deep perceptron whose layers begin at zero strength (Bachlechner et al. 2021)."""

    def __init__(self, inputs: int, layers: int = 12, width: int = 48, classes: int = 10) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, width), nn.Linear(width, classes)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.strengths = nn.Parameter(torch.zeros(layers))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.first(images.flatten(1))
        for layer, strength in zip(self.layers, self.strengths, strict=True):
            hidden = hidden + strength * functional.relu(layer(hidden))
        return self.last(hidden)


class Waves(nn.Module):
    """A perceptron of sines from coordinates to values (Sitzmann et al. 2020)."""

    def __init__(self, outputs: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, width), nn.Linear(width, width), nn.Linear(width, width)])
        self.last = nn.Linear(width, outputs)
        for number, layer in enumerate([*self.layers, self.last]):
            bound = math.sqrt(6 / width) / 20 if number else 0.5
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, places: Tensor) -> Tensor:
        for layer in self.layers:
            places = torch.sin(20 * layer(places))
        return self.last(places)


class Table(nn.Module):
    """A perceptron on the features of categories, which it looks up."""

    def __init__(self, categories: int, columns: int, width: int = 64) -> None:
        super().__init__()
        self.table = nn.Embedding(categories, 16)
        self.net = nn.Sequential(nn.Linear(16 * columns, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.last = nn.Linear(width, 1)

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(self.net(self.table(ids).flatten(1))).squeeze(1)


class Adapted(nn.Module):
    """A frozen transformer with low-rank adapters on the linear layers of its perceptrons (Hu et al. 2021)."""

    def __init__(self, model: Transformer, rank: int = 4) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.downs, self.ups = nn.ParameterList(), nn.ParameterList()
        for layer in model.blocks.layers:
            for linear in (layer.linear1, layer.linear2):
                self.downs.append(torch.randn(rank, linear.in_features) / math.sqrt(linear.in_features))
                self.ups.append(torch.zeros(linear.out_features, rank))
                linear.register_forward_hook(self.adapt(len(self.ups) - 1))

    def adapt(self, number: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + inputs[0] @ self.downs[number].T @ self.ups[number].T

        return hook

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(ids)


class InBfloat16(nn.Module):
    """A model whose parameters are bfloat16; inputs and outputs are float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.bfloat16()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs.bfloat16()).float()


class Next(nn.Module):
    """A perceptron of the characters before."""

    def __init__(self, context: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, 16)
        self.net = perceptron(16 * context, width, width, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        return self.net(self.tokens(ids))
