"""ActiveRAdam: the direction of RAdam."""

import math
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
class ActiveRAdam(ActiveOptimizer):
    r"""RAdam (Liu et al. 2019, Algorithm 2), with gains in place of a learning rate to choose.

    The direction, along which the rule takes the step:

    .. math::
        exp\_avg &\leftarrow \beta_1\, exp\_avg + (1 - \beta_1)\, g, \qquad
        exp\_avg\_sq \leftarrow \beta_2\, exp\_avg\_sq + (1 - \beta_2)\, g^2 \\
        d &= \frac{exp\_avg}{1 - \beta_1^t} \cdot \begin{cases}
            r_t \sqrt{1 - \beta_2^t} / (\sqrt{exp\_avg\_sq} + eps) & \text{if } \rho_t > 5 \\
            1 & \text{otherwise} \end{cases}

    with :math:`r_t` and :math:`\rho_t` from :func:`rectified_scale`. Under the paper's rule, with all gains at 1, it
    equals :class:`torch.optim.RAdam`.

    Args:
        params (iterable): parameters, or dicts that define parameter groups.
        betas (tuple[float, float]): decay rates of the first and second moment (default: (0.9, 0.999)).
        eps (float): what is added to the denominator (default: 1e-8).
        weight_decay (float): weight decay (default: 0).
        decoupled_weight_decay (bool): False gives torch's L2 penalty (default: True).
    """

    direction_name = "radam"
    direction_keys = ("step", "exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
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
        return {"step": torch.tensor(0.0), "exp_avg": zeros(param), "exp_avg_sq": zeros(param)}

    def _direction(self, grads: list[Tensor], states: list[State], group: Group) -> list[Tensor]:
        beta1, beta2 = group["betas"]
        steps = self._count_step(states)
        exp_avgs = [state["exp_avg"] for state in states]
        exp_avg_sqs = [state["exp_avg_sq"] for state in states]
        torch._foreach_lerp_(exp_avgs, grads, 1 - beta1)
        torch._foreach_mul_(exp_avg_sqs, beta2)
        torch._foreach_addcmul_(exp_avg_sqs, grads, grads, value=1 - beta2)
        updates = list(torch._foreach_div(exp_avgs, [1 - beta1**step for step in steps]))
        scales, begun = rectified_scales(steps, beta2, threshold=math.nextafter(5, 6))
        self.rule.forget_update_rms([states[index] for index in begun])  # until now they were gradients, of any scale
        divide_rectified_(updates, exp_avg_sqs, scales, group["eps"])
        return updates

    def _fused_direction(self, states: list[State], group: Group) -> Direction:
        steps = self._count_step(states)
        scales, begun = rectified_scales(steps, group["betas"][1], threshold=math.nextafter(5, 6))
        self.rule.forget_update_rms([states[index] for index in begun])
        factors, offsets = rectified_denominators(steps, scales, group["betas"][0], group["eps"])
        return Direction("adam", ("exp_avg", "exp_avg_sq"), factors, offsets, group["betas"])


def rectified_denominators(
    steps: list[float], scales: list[float | None], beta1: float, eps: float
) -> tuple[list[float], list[float]]:
    """What multiplies the square root of each second moment, and what is added: the direction is ``exp_avg`` divided by the
    sum. Without a scale it is ``exp_avg`` with its bias correction alone."""
    corrections = [1 - beta1**step for step in steps]
    factors = [0.0 if scale is None else c1 / scale for c1, scale in zip(corrections, scales, strict=True)]
    offsets = [c1 if scale is None else eps * c1 / scale for c1, scale in zip(corrections, scales, strict=True)]
    return factors, offsets


def rectified_scales(steps: list[float], beta2: float, threshold: float) -> tuple[list[float | None], list[int]]:
    """:func:`rectified_scale` of each tensor, and the indices of those that have one for the first time."""
    scales = [rectified_scale(step, beta2, threshold) for step in steps]
    begun = [
        index
        for index, step in enumerate(steps)
        if scales[index] is not None and rectified_scale(step - 1, beta2, threshold) is None
    ]
    return scales, begun


def rectified_scale(step: float, beta2: float, threshold: float) -> float | None:
    r""":math:`r_t \sqrt{1 - \beta_2^t}` where :math:`\rho_t` reaches ``threshold``, else None (the variance is intractable).

    :math:`\rho_t = \rho_\infty - 2 t \beta_2^t / (1 - \beta_2^t)` and :math:`r_t` are those of Liu et al. 2019, section 4.
    """
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * step * beta2**step / (1 - beta2**step)
    if rho < threshold:
        return None
    rectification = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
    return math.sqrt(rectification * (1 - beta2**step))


def divide_rectified_(
    updates: list[Tensor], second_moments: list[Tensor], scales: list[float | None], eps: float
) -> None:
    """In place: divide the updates that have a scale by ``(sqrt(second moment) + eps) / scale``."""
    rectified = [index for index, scale in enumerate(scales) if scale is not None]
    if not rectified:
        return
    denominators = torch._foreach_sqrt([second_moments[index] for index in rectified])
    torch._foreach_add_(denominators, eps)
    torch._foreach_mul_(denominators, [1 / scale for scale in scales if scale is not None])
    torch._foreach_div_([updates[index] for index in rectified], denominators)
