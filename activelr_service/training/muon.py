"""Muon as its authors advise to use it: for the matrices of hidden layers, with AdamW for all other parameters."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn


def not_hidden(model: nn.Module) -> set[int]:
    """The ids of the matrices that are not of hidden layers: those of embeddings, and of the last linear layer.

    An output layer that shares its matrix with an embedding is one of them.
    """
    modules = list(model.modules())
    embeddings = [module for module in modules if isinstance(module, nn.Embedding)]
    linear = [module for module in modules if isinstance(module, nn.Linear)]
    return {id(module.weight) for module in (*embeddings, *linear[-1:])}


class Muon(torch.optim.Optimizer):
    """torch.optim.Muon and torch.optim.AdamW as one optimizer, whose state dict holds both.

    ``not_hidden``: ids of matrices that AdamW takes. With ``adjust_lr`` "match_rms_adamw" a step of a matrix has about the
    size of AdamW's (Liu et al. 2025, arXiv 2502.16982), so that both take the same ``lr`` and ``weight_decay``.
    """

    def __init__(
        self,
        params: list[nn.Parameter],
        *,
        lr: float,
        weight_decay: float,
        momentum: float,
        nesterov: bool,
        adjust_lr: str,
        betas: tuple[float, float],
        eps: float,
        not_hidden: Collection[int] = (),
    ) -> None:
        is_matrix = [param.ndim == 2 and id(param) not in not_hidden for param in params]
        matrices = [param for param, is_one in zip(params, is_matrix, strict=True) if is_one]
        others = [param for param, is_one in zip(params, is_matrix, strict=True) if not is_one]
        options: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov, "adjust_lr_fn": adjust_lr}
        both = {"lr": lr, "weight_decay": weight_decay}
        parts: list[torch.optim.Optimizer] = []
        if matrices:
            parts.append(torch.optim.Muon(matrices, **both, **options))
        if others:
            parts.append(torch.optim.AdamW(others, **both, betas=betas, eps=eps))
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts work on the groups and on the state of this optimizer."""
        for part, group in zip(self.parts, self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()
