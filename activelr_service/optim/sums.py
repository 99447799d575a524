"""The gradient sums: by device, and reduced over ranks in few collectives."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor | None]
State = dict[str, Tensor]
Group = dict[str, Any]

REDUCED_AT_ONCE = 2**26  # elements: 256 MB of float32


def with_gradient(params: list[Tensor]) -> list[list[Tensor]]:
    """The parameters that have a gradient, in one list for each device."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for param in params:
        if param.grad is not None:
            by_device.setdefault(param.device, []).append(param)
    return list(by_device.values())


def by_device(states: list[State]) -> list[list[State]]:
    """States of parameters, in one list for each device."""
    lists: dict[torch.device, list[State]] = {}
    for state in states:
        lists.setdefault(state["grad_sum"].device, []).append(state)
    return list(lists.values())


def reduce_flat(sums: list[Tensor], reduce: Reduce) -> None:
    """Reduce all sums, in collectives of at most 256 MB or one sum: flatten, reduce, copy back. Sums of several devices
    travel by a GPU, if there is one among them."""
    device = next((grad_sum.device for grad_sum in sums if grad_sum.device.type != "cpu"), sums[0].device)
    for some in in_pieces(sums):
        flat = torch.cat([grad_sum.reshape(-1).to(device) for grad_sum in some])
        reduced = reduce(flat)
        flat = reduced if isinstance(reduced, Tensor) else flat
        for grad_sum, part in zip(some, flat.split([grad_sum.numel() for grad_sum in some]), strict=True):
            grad_sum.copy_(part.view_as(grad_sum))


def in_pieces(sums: list[Tensor]) -> list[list[Tensor]]:
    """The sums in order, in lists of at most 2**26 elements or one sum."""
    pieces: list[list[Tensor]] = [[]]
    size = 0
    for grad_sum in sums:
        if pieces[-1] and size + grad_sum.numel() > REDUCED_AT_ONCE:
            pieces.append([])
            size = 0
        pieces[-1].append(grad_sum)
        size += grad_sum.numel()
    return pieces
