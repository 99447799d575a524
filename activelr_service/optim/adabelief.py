"""ActiveBelief: the direction of AdaBelief."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from activelr_service.optim.arguments import documented
from activelr_service.optim.base import ActiveOptimizer
from activelr_service.optim.constants import RobustConstants
from activelr_service.optim.places import Direction
from activelr_service.optim.radam import divide_rectified_, rectified_denominators, rectified_scales
from activelr_service.optim.sums import Group, State


@documented
class ActiveBelief(ActiveOptimizer):
    r"""AdaBelief (Zhuang et al. 2020), rectified and decoupled, with gains in place of a learning rate to choose.

    The direction, along which the rule takes the step:

    .. math::
        exp\_avg &\leftarrow \beta_1\, exp\_avg + (1 - \beta_1)\, g, \qquad
        exp\_avg\_var \leftarrow \beta_2\, exp\_avg\_var + (1 - \beta_2)(g - exp\_avg)^2 + eps \\
        d &= \frac{exp\_avg}{1 - \beta_1^t} \cdot \begin{cases}
            r_t \sqrt{1 - \beta_2^t} / (\sqrt{exp\_avg\_var} + eps) & \text{if } \rho_t \ge 5 \\
            1 & \text{otherwise} \end{cases}

    with :math:`r_t` and :math:`\rho_t` as in :class:`~activelr_service.optim.radam.ActiveRAdam`. Defaults and arithmetic
    are those of ``adabelief_pytorch`` 0.2.1 with ``rectify=True`` and ``weight_decouple=True``. Its ``amsgrad`` has no
    effect on a rectified step and is left out.

    Args:
        params (iterable): parameters, or dicts that define parameter groups.
        betas (tuple[float, float]): decay rates of the first moment and of the variance around it
            (default: (0.9, 0.999)).
        eps (float): what is added to the variance and to the denominator (default: 1e-16).
        weight_decay (float): weight decay (default: 0).
        decoupled_weight_decay (bool): False gives torch's L2 penalty (default: True).
    """

    direction_name = "belief"
    direction_keys = ("step", "exp_avg", "exp_avg_var")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = True,
        *,
        maximize: bool = False,
        rule: str = "robust",
        total_steps: int | None = None,
        constants: RobustConstants | None = None,
        gain_increment: float | None = None,
        gain_decay: float | None = None,
        hold_on_zero: bool | None = None,
        steps_per_epoch: int | None = None,
        fused: bool | None = None,
    ) -> None:
        options = {
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
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
        zeros = torch.zeros_like
        return {"step": torch.tensor(0.0), "exp_avg": zeros(param), "exp_avg_var": zeros(param)}

    def _direction(self, grads: list[Tensor], states: list[State], group: Group) -> list[Tensor]:
        beta1, beta2 = group["betas"]
        steps = self._count_step(states)
        exp_avgs = [state["exp_avg"] for state in states]
        exp_avg_vars = [state["exp_avg_var"] for state in states]
        torch._foreach_lerp_(exp_avgs, grads, 1 - beta1)
        residuals = torch._foreach_sub(grads, exp_avgs)
        torch._foreach_mul_(exp_avg_vars, beta2)
        torch._foreach_addcmul_(exp_avg_vars, residuals, residuals, value=1 - beta2)
        torch._foreach_add_(exp_avg_vars, group["eps"])
        updates = list(torch._foreach_div(exp_avgs, [1 - beta1**step for step in steps]))
        scales, begun = rectified_scales(steps, beta2, threshold=5)
        self.rule.forget_update_rms([states[index] for index in begun])  # until now they were gradients, of any scale
        divide_rectified_(updates, exp_avg_vars, scales, group["eps"])
        return updates

    def _fused_direction(self, states: list[State], group: Group) -> Direction:
        steps = self._count_step(states)
        scales, begun = rectified_scales(steps, group["betas"][1], threshold=5)
        self.rule.forget_update_rms([states[index] for index in begun])
        factors, offsets = rectified_denominators(steps, scales, group["betas"][0], group["eps"])
        return Direction("belief", ("exp_avg", "exp_avg_var"), factors, offsets, group["betas"], group["eps"])
