"""ActiveSGD: the direction of SGD with momentum."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from activelr_service.optim.base import ActiveOptimizer
from activelr_service.optim.sums import State


class ActiveSGD(ActiveOptimizer):
    r"""SGD with momentum (Sutskever et al. 2013) with a gain per parameter.

    .. math::
        b \leftarrow \mu b + (1 - \tau) g, \qquad
        d = \begin{cases} g + \mu b & \text{nesterov} \\ b & \text{otherwise} \end{cases}, \qquad
        \theta_i \leftarrow (1 - lr \lambda)\, \theta_i - lr \cdot gain_i \cdot d_i

    Arguments are those of :class:`torch.optim.SGD` (``momentum`` :math:`\mu`, ``dampening`` :math:`\tau`,
    ``weight_decay`` :math:`\lambda`) and of :class:`~activelr_service.optim.base.ActiveOptimizer`. Weight decay is
    decoupled, as in the authors' code; ``decoupled_weight_decay=False`` gives torch's L2 penalty.
    With all gains at 1 and no weight decay it equals :class:`torch.optim.SGD`.
    """

    first_step = (
        0.015  # of its size; a gradient has fewer dimensions than an adaptive direction, so a step goes further
    )

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = True,
        gain_increment: float = 0.1,
        gain_decay: float = 0.9,
        hold_on_zero: bool = False,
        steps_per_epoch: int | None = None,
        rule: str = "paper",
        total_steps: int | None = None,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("nesterov needs momentum above 0 and dampening 0")
        options = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
            "gain_increment": gain_increment,
            "gain_decay": gain_decay,
            "hold_on_zero": hold_on_zero,
        }
        super().__init__(params, options, steps_per_epoch, rule, total_steps)

    def _init_direction(self, param: Tensor, group: dict[str, Any]) -> State:
        return {}

    def _direction(self, grads: list[Tensor], states: list[State], group: dict[str, Any]) -> list[Tensor]:
        momentum = group["momentum"]
        if momentum == 0:
            return [grad.clone() for grad in grads]
        started = [index for index, state in enumerate(states) if "momentum_buffer" in state]
        if started:
            buffers = [states[index]["momentum_buffer"] for index in started]
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_add_(buffers, [grads[index] for index in started], alpha=1 - group["dampening"])
        for state, grad in zip(states, grads, strict=True):
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = grad.clone()  # as torch: the first gradient is not dampened
        buffers = [state["momentum_buffer"] for state in states]
        if group["nesterov"]:
            return list(torch._foreach_add(grads, buffers, alpha=momentum))
        return [buffer.clone() for buffer in buffers]
