"""ActiveSGD: the direction of SGD with momentum."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from activelr_service.optim.arguments import documented
from activelr_service.optim.base import ActiveOptimizer
from activelr_service.optim.constants import RobustConstants
from activelr_service.optim.places import Direction
from activelr_service.optim.sums import Group, State


@documented
class ActiveSGD(ActiveOptimizer):
    r"""SGD with momentum (Sutskever et al. 2013), with gains in place of a learning rate to choose.

    The direction, along which the rule takes the step:

    .. math::
        momentum\_buffer &\leftarrow momentum \cdot momentum\_buffer + (1 - dampening)\, g \\
        d &= \begin{cases} g + momentum \cdot momentum\_buffer & \text{nesterov} \\
        momentum\_buffer & \text{otherwise} \end{cases}

    Under the paper's rule, with all gains at 1 and no weight decay, it equals :class:`torch.optim.SGD`.

    Args:
        params (iterable): parameters, or dicts that define parameter groups.
        momentum (float): momentum (default: 0).
        dampening (float): dampening of the momentum (default: 0).
        weight_decay (float): weight decay (default: 0).
        nesterov (bool): Nesterov momentum; needs momentum above 0 and dampening 0 (default: False).
        decoupled_weight_decay (bool): as in the authors' code; False gives torch's L2 penalty (default: True).
    """

    is_normalized = False
    direction_name = "sgd"
    direction_keys, torch_option = ("momentum_buffer",), "dampening"

    initial_update_ratio = 0.015  # a gradient has fewer dimensions than an adaptive direction: a step goes further

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None = None,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = True,
        rule: str = "robust",
        total_steps: int | None = None,
        constants: RobustConstants | None = None,
        gain_increment: float | None = None,
        gain_decay: float | None = None,
        hold_on_zero: bool | None = None,
        steps_per_epoch: int | None = None,
        fused: bool | None = None,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("nesterov needs momentum above 0 and dampening 0")
        options = {
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(
            params,
            options,
            rule,
            fused,
            lr=lr,
            total_steps=total_steps,
            constants=constants,
            gain_increment=gain_increment,
            gain_decay=gain_decay,
            hold_on_zero=hold_on_zero,
            steps_per_epoch=steps_per_epoch,
        )

    def _init_direction(self, param: Tensor, group: Group) -> State:
        return {}

    def _direction(self, grads: list[Tensor], states: list[State], group: Group) -> list[Tensor]:
        momentum = group["momentum"]
        if momentum == 0:
            return [grad.clone() for grad in grads]
        started = [index for index, state in enumerate(states) if state.get("momentum_buffer") is not None]
        if started:
            buffers = [states[index]["momentum_buffer"] for index in started]
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_add_(buffers, [grads[index] for index in started], alpha=1 - group["dampening"])
        for state, grad in zip(states, grads, strict=True):
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = grad.clone()  # as torch: the first gradient is not dampened
        buffers = [state["momentum_buffer"] for state in states]
        if group["nesterov"]:
            return list(torch._foreach_add(grads, buffers, alpha=momentum))
        return [buffer.clone() for buffer in buffers]

    def _fused_direction(self, states: list[State], group: Group) -> Direction:
        momentum, own = group["momentum"], 1 - group["dampening"]
        if momentum == 0:
            return Direction("plain", (), [0.0] * len(states), [1.0] * len(states))
        started = [state.get("momentum_buffer") is not None for state in states]
        for state, has_buffer in zip(states, started, strict=True):
            if not has_buffer:
                state["momentum_buffer"] = torch.zeros_like(state["grad_sum"], dtype=torch.float32)
        kind = "nesterov" if group["nesterov"] else "sgd"
        gradients = [own if has_buffer else 1.0 for has_buffer in started]  # as torch: the first is not dampened
        return Direction(kind, ("momentum_buffer",), [momentum] * len(states), gradients, momentum=momentum)
