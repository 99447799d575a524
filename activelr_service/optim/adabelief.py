"""ActiveBelief: the direction of AdaBelief."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from activelr_service.optim.base import ActiveOptimizer, count_step
from activelr_service.optim.radam import divide_rectified_, rectified_scales
from activelr_service.optim.sums import State


class ActiveBelief(ActiveOptimizer):
    r"""AdaBelief (Zhuang et al. 2020) as its authors ship it, rectified and decoupled, with a gain per parameter.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad s \leftarrow \beta_2 s + (1 - \beta_2)(g - m)^2 + \epsilon, \quad
        d = \frac{m}{1 - \beta_1^t} \cdot \begin{cases}
            r_t \sqrt{1 - \beta_2^t} / (\sqrt{s} + \epsilon) & \text{if } \rho_t \ge 5 \\ 1 & \text{otherwise} \end{cases}

    Arguments, defaults and arithmetic are those of ``adabelief_pytorch`` 0.2.1 with ``rectify=True`` and
    ``weight_decouple=True`` (its ``amsgrad`` has no effect on a rectified step and is left out), and those of
    :class:`~activelr_service.optim.base.ActiveOptimizer`. :math:`r_t` as in :class:`ActiveRAdam`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = True,
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
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
            "gain_increment": gain_increment,
            "gain_decay": gain_decay,
            "hold_on_zero": hold_on_zero,
        }
        super().__init__(params, options, steps_per_epoch, rule, total_steps)

    def _init_direction(self, param: Tensor, group: dict[str, Any]) -> State:
        zeros = torch.zeros_like
        return {"step": torch.tensor(0.0), "exp_avg": zeros(param), "exp_avg_var": zeros(param)}

    def _direction(self, grads: list[Tensor], states: list[State], group: dict[str, Any]) -> list[Tensor]:
        beta1, beta2 = group["betas"]
        steps = count_step(states)
        exp_avgs = [state["exp_avg"] for state in states]
        exp_avg_vars = [state["exp_avg_var"] for state in states]
        torch._foreach_lerp_(exp_avgs, grads, 1 - beta1)
        residuals = torch._foreach_sub(grads, exp_avgs)
        torch._foreach_mul_(exp_avg_vars, beta2)
        torch._foreach_addcmul_(exp_avg_vars, residuals, residuals, value=1 - beta2)
        torch._foreach_add_(exp_avg_vars, group["eps"])
        updates = list(torch._foreach_div(exp_avgs, [1 - beta1**step for step in steps]))
        scales = rectified_scales(states, steps, beta2, threshold=5)
        divide_rectified_(updates, exp_avg_vars, scales, group["eps"])
        return updates
