"""The gradient sums: by device, and reduced over ranks in few collectives."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor | None]
State = dict[str, Tensor]
Group = dict[str, Any]

DITHER_BY_ELEMENT = 0x9E3779B1  # 2**32 times the fraction of the golden ratio; kernel.c has the same number
DITHER_BY_STEP = 0x6A09E667  # 2**32 times the fraction of the square root of 2
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


def add_to_sums(sums: list[Tensor], grads: list[Tensor], step: int) -> None:
    """Add gradients to their sums, in place, in step number ``step``.

    Sums in bfloat16 are rounded up or down by a dither, so that gradients that are small beside the sum are not lost. The
    dither of an element is the sequence of multiples of an irrational number, which fills an interval evenly (Weyl): the
    golden ratio over the elements of a tensor, in the order of memory, and the square root of 2 over the steps.
    """
    is_half = [each.dtype is torch.bfloat16 for each in sums]
    whole = [number for number, half in enumerate(is_half) if not half]
    if whole:
        torch._foreach_add_([sums[i] for i in whole], [grads[i] for i in whole])
    for total, grad, half in zip(sums, grads, is_half, strict=True):
        if half:
            _add_dithered(total, grad, dither_of(step))


def dither_of(step: int) -> int:
    """The dither of the first element of all tensors in a step, in 0..2**32-1."""
    return step * DITHER_BY_STEP % 2**32


def _add_dithered(total: Tensor, grad: Tensor, dither: int) -> None:
    exact = total.float().add_(grad)
    places = torch.arange(total.numel(), dtype=torch.int32, device=total.device).as_strided(total.shape, total.stride())
    noise = ((places * signed(DITHER_BY_ELEMENT) + signed(dither)) >> 16) & 0xFFFF
    rounded = ((exact.view(torch.int32) + noise) & -(2**16)).view(torch.float32)
    total.copy_(torch.where(exact.isnan(), exact, rounded))


def signed(number: int) -> int:
    """The int32 with the bits of a number in 0..2**32-1."""
    return number - 2**32 if number >= 2**31 else number


def reduce_flat(sums: list[Tensor], reduce: Reduce) -> None:
    """Reduce all sums, in collectives of at most 256 MB or one sum: flatten, reduce, copy back. Sums of several devices
    travel by a GPU, if there is one among them."""
    device = next((grad_sum.device for grad_sum in sums if grad_sum.device.type != "cpu"), sums[0].device)
    for some in in_pieces(sums):
        flat = torch.cat([grad_sum.reshape(-1).to(device, torch.float32) for grad_sum in some])
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
