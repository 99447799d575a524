"""The gradients and their sums: reduced over ranks at the end of an epoch or window, turned into gains, and begun anew."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from activelr_service.optim import robust
from activelr_service.optim.gain import update_gain

Reduce = Callable[[Tensor], Tensor | None]
State = dict[str, Tensor]


class WindowStats(NamedTuple):
    """What the robust rule's last window said of a tensor, 0-dim each: the cosine of its sum with that of the window before,
    the share of signs that agreed and the share of steps that the cap cut."""

    cosine: Tensor
    signs: Tensor
    capped: Tensor


def with_gradient(params: list[Tensor]) -> list[list[Tensor]]:
    """Those that have a gradient, a list for each device."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for param in params:
        if param.grad is not None:
            by_device.setdefault(param.device, []).append(param)
    return list(by_device.values())


def reduce_flat(sums: list[Tensor], reduce: Reduce) -> None:
    """One collective for all sums: flatten, reduce, copy back. Sums of several devices travel by a GPU if one has any."""
    device = next((grad_sum.device for grad_sum in sums if grad_sum.device.type != "cpu"), sums[0].device)
    flat = torch.cat([grad_sum.reshape(-1).to(device) for grad_sum in sums])
    reduced = reduce(flat)
    flat = reduced if isinstance(reduced, Tensor) else flat
    for grad_sum, part in zip(sums, flat.split([grad_sum.numel() for grad_sum in sums]), strict=True):
        grad_sum.copy_(part.view_as(grad_sum))


def end_epoch_of(state: State, group: dict[str, Any]) -> None:
    """Move the gains of one parameter by the paper's rule, from its second epoch on, and begin new sums."""
    if "prev_grad_sum" not in state:
        state["prev_grad_sum"] = torch.zeros_like(state["grad_sum"])
    else:
        update = update_gain(
            state["gain"],
            state["grad_sum"],
            state["prev_grad_sum"],
            gain_increment=group["gain_increment"],
            gain_decay=group["gain_decay"],
            hold_on_zero=group["hold_on_zero"],
        )
        state["gain"].copy_(update.gain)
        state["gain_counts"] = torch.stack([update.grew, update.non_finite]).float()
    _start_sum(state)


def end_window_of(state: State, steps: int, constants: robust.Constants) -> None:
    """Move the gain of one tensor by the robust rule after a window of ``steps`` steps, from the second on, and begin new
    sums."""
    pace = robust.Pace(*state["pace"])
    non_finite = ~state["grad_sum"].isfinite().all()
    if "prev_grad_sum" not in state:
        state["prev_grad_sum"] = torch.zeros_like(state["grad_sum"])
    else:
        agreed = robust.agreement(state["grad_sum"], state["prev_grad_sum"])
        gain = robust.update_gain(state["gain"], pace.clip, agreed, steps, constants)
        state["gain_counts"] = torch.stack([gain > state["gain"], non_finite]).float()
        state["gain"], length = robust.bound_gain(gain, pace.length)
        pace = pace._replace(length=length)
        state["window"] = torch.stack([*agreed[:2], pace.capped / max(1, steps)])
    seen = torch.maximum(pace.seen, torch.count_nonzero(state["grad_sum"]))
    state["pace"] = torch.stack(pace._replace(seen=seen, capped=torch.zeros_like(pace.capped)))
    _start_sum(state)


def _start_sum(state: State) -> None:
    state["grad_sum"], state["prev_grad_sum"] = state["prev_grad_sum"], state["grad_sum"]
    state["grad_sum"].zero_()
