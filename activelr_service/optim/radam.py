"""ActiveRAdam: the direction of RAdam."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from activelr_service.optim import robust
from activelr_service.optim.base import ActiveOptimizer, count_step
from activelr_service.optim.sums import State


class ActiveRAdam(ActiveOptimizer):
    r"""RAdam (Liu et al. 2019, Algorithm 2) with a gain per parameter.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
        d = \frac{m}{1 - \beta_1^t} \cdot \begin{cases}
            r_t \sqrt{1 - \beta_2^t} / (\sqrt{v} + \epsilon) & \text{if } \rho_t > 5 \\ 1 & \text{otherwise} \end{cases}

    with :math:`r_t` from :func:`rectification`, then :math:`\theta_i \leftarrow (1 - lr \lambda)\, \theta_i - lr \cdot
    gain_i \cdot d_i`. Arguments are those of :class:`torch.optim.RAdam` and of
    :class:`~activelr_service.optim.base.ActiveOptimizer`; weight decay is decoupled here unless
    ``decoupled_weight_decay=False``. With all gains at 1 it equals :class:`torch.optim.RAdam`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
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
        return {"step": torch.tensor(0.0), "exp_avg": zeros(param), "exp_avg_sq": zeros(param)}

    def _direction(self, grads: list[Tensor], states: list[State], group: dict[str, Any]) -> list[Tensor]:
        beta1, beta2 = group["betas"]
        steps = count_step(states)
        exp_avgs = [state["exp_avg"] for state in states]
        exp_avg_sqs = [state["exp_avg_sq"] for state in states]
        torch._foreach_lerp_(exp_avgs, grads, 1 - beta1)
        torch._foreach_mul_(exp_avg_sqs, beta2)
        torch._foreach_addcmul_(exp_avg_sqs, grads, grads, value=1 - beta2)
        updates = list(torch._foreach_div(exp_avgs, [1 - beta1**step for step in steps]))
        scales = rectified_scales(states, steps, beta2, threshold=math.nextafter(5, 6))
        divide_rectified_(updates, exp_avg_sqs, scales, group["eps"])
        return updates


def rectified_scales(states: list[State], steps: list[float], beta2: float, threshold: float) -> list[float | None]:
    """:func:`rectified_scale` of each tensor. At the first that there is, the robust rule forgets the length of the
    directions so far, which were gradients, of any scale."""
    scales = [rectified_scale(step, beta2, threshold) for step in steps]
    for state, step, scale in zip(states, steps, scales, strict=True):
        if "pace" in state and scale is not None and rectified_scale(step - 1, beta2, threshold) is None:
            state["pace"][robust.Pace._fields.index("length")] = 0.0
    return scales


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
