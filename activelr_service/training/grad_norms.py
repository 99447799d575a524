"""The L1 norm of the gradient of every layer, as in Figure 2 of the paper."""

import torch
from torch import nn

from activelr_service.runs.record import GRAD_NORM_PREFIX


class GradNorms:
    """Means over the steps of an epoch, kept on the device: one host synchronisation an epoch.

    A layer is a weight of two or more dimensions (convolutions, dense layers, embeddings), under its name.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.layers = {
            name: param for name, param in model.named_parameters() if param.requires_grad and param.ndim >= 2
        }
        self.sums = torch.zeros(len(self.layers), dtype=torch.float64, device=device)
        self.steps = 0

    @torch.no_grad()
    def add(self) -> None:
        """Add the norms of the gradients that the layers have now; a layer without one adds nothing."""
        self.steps += 1
        for index, param in enumerate(self.layers.values()):
            if param.grad is not None:
                self.sums[index] += param.grad.abs().sum(dtype=torch.float64)

    def take(self) -> dict[str, float]:
        """The mean norm of each layer since the last call, as metrics."""
        means = (self.sums / max(self.steps, 1)).tolist()
        self.sums.zero_()
        self.steps = 0
        return {f"{GRAD_NORM_PREFIX}{name}": mean for name, mean in zip(self.layers, means, strict=True)}
