"""The small model and the made data of these tests."""

import torch
from torch.utils.data import TensorDataset

torch.manual_seed(1)
INPUTS = torch.randn(96, 8)
TARGETS = INPUTS.square().sum(dim=1, keepdim=True)
DATASET = TensorDataset(INPUTS, TARGETS)
ROWS = [{"inputs": row, "labels": target} for row, target in DATASET]


def make_network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))


class Regression(torch.nn.Module):
    """As transformers' Trainer wants it: the loss is in what it returns."""

    def __init__(self):
        super().__init__()
        self.network = make_network()

    def forward(self, inputs, labels):
        return {"loss": torch.nn.functional.mse_loss(self.network(inputs), labels)}


def same_bits(one, other):
    return all(torch.equal(mine, its) for mine, its in zip(one.parameters(), other.parameters(), strict=True))
