"""The gradient sums: begun, and reduced over ranks in one collective."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor | None]
State = dict[str, Tensor]
Group = dict[str, Any]


def with_gradient(params: list[Tensor]) -> list[list[Tensor]]:
    """The parameters that have a gradient, in one list for each device."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for param in params:
        if param.grad is not None:
            by_device.setdefault(param.device, []).append(param)
    return list(by_device.values())


def reduce_flat(sums: list[Tensor], reduce: Reduce) -> None:
    """Reduce all sums in one collective: flatten, reduce, copy back. Sums of several devices travel by a GPU, if there
    is one among them."""
    device = next((grad_sum.device for grad_sum in sums if grad_sum.device.type != "cpu"), sums[0].device)
    flat = torch.cat([grad_sum.reshape(-1).to(device) for grad_sum in sums])
    reduced = reduce(flat)
    flat = reduced if isinstance(reduced, Tensor) else flat
    for grad_sum, part in zip(sums, flat.split([grad_sum.numel() for grad_sum in sums]), strict=True):
        grad_sum.copy_(part.view_as(grad_sum))


def start_sum(state: State) -> None:
    """Keep the sum of one parameter as the one before, and begin a new one in the memory of the last but one."""
    previous = state.get("prev_grad_sum")
    if previous is None:
        previous = torch.zeros_like(state["grad_sum"])
    state["grad_sum"], state["prev_grad_sum"] = previous.zero_(), state["grad_sum"]
