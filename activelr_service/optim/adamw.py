"""ActiveAdamW: the direction of AdamW."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from activelr_service.optim.base import ActiveOptimizer, count_step
from activelr_service.optim.sums import State


class ActiveAdamW(ActiveOptimizer):
    r"""AdamW (Loshchilov & Hutter 2019) with a gain per parameter.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
        d = \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}, \quad
        \theta_i \leftarrow (1 - lr \lambda)\, \theta_i - lr \cdot gain_i \cdot d_i

    Arguments are those of :class:`torch.optim.AdamW` (``weight_decay`` :math:`\lambda`, not multiplied by the gain) and
    of :class:`~activelr_service.optim.base.ActiveOptimizer`. With all gains at 1 it equals :class:`torch.optim.AdamW`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        gain_increment: float = 0.1,
        gain_decay: float = 0.9,
        hold_on_zero: bool = False,
        steps_per_epoch: int | None = None,
        rule: str = "paper",
        total_steps: int | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": True,
            "gain_increment": gain_increment,
            "gain_decay": gain_decay,
            "hold_on_zero": hold_on_zero,
        }
        super().__init__(params, options, steps_per_epoch, rule, total_steps)

    def _init_direction(self, param: Tensor, group: dict[str, Any]) -> State:
        names = ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group["amsgrad"] else ()))
        return {"step": torch.tensor(0.0), **{name: torch.zeros_like(param) for name in names}}

    def _direction(self, grads: list[Tensor], states: list[State], group: dict[str, Any]) -> list[Tensor]:
        beta1, beta2 = group["betas"]
        steps = count_step(states)
        exp_avgs = [state["exp_avg"] for state in states]
        exp_avg_sqs = [state["exp_avg_sq"] for state in states]
        torch._foreach_lerp_(exp_avgs, grads, 1 - beta1)
        torch._foreach_mul_(exp_avg_sqs, beta2)
        torch._foreach_addcmul_(exp_avg_sqs, grads, grads, value=1 - beta2)
        if group["amsgrad"]:
            max_exp_avg_sqs = [state["max_exp_avg_sq"] for state in states]
            torch._foreach_maximum_(max_exp_avg_sqs, exp_avg_sqs)
            exp_avg_sqs = max_exp_avg_sqs
        # Both bias corrections go into the denominator, where they are scalars: (sqrt(v) * c1 / c2) + eps * c1.
        corrections1 = [1 - beta1**step for step in steps]
        corrections2 = [math.sqrt(1 - beta2**step) for step in steps]
        updates = torch._foreach_sqrt(exp_avg_sqs)
        torch._foreach_mul_(updates, [c1 / c2 for c1, c2 in zip(corrections1, corrections2, strict=True)])
        torch._foreach_add_(updates, [group["eps"] * c1 for c1 in corrections1])
        torch._foreach_reciprocal_(
            updates
        )  # in place: a second buffer of this size costs more than a pass over this one
        torch._foreach_mul_(updates, exp_avgs)
        return list(updates)
