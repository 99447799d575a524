"""ActiveAdamW: the direction of AdamW."""

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
class ActiveAdamW(ActiveOptimizer):
    r"""AdamW (Loshchilov & Hutter 2019), with gains in place of a learning rate to choose.

    The direction, along which the rule takes the step:

    .. math::
        exp\_avg &\leftarrow \beta_1\, exp\_avg + (1 - \beta_1)\, g, \qquad
        exp\_avg\_sq \leftarrow \beta_2\, exp\_avg\_sq + (1 - \beta_2)\, g^2 \\
        d &= \frac{exp\_avg / (1 - \beta_1^t)}{\sqrt{exp\_avg\_sq / (1 - \beta_2^t)} + eps}

    Under the paper's rule, with all gains at 1, it equals :class:`torch.optim.AdamW`.

    Args:
        params (iterable): parameters, or dicts that define parameter groups.
        betas (tuple[float, float]): decay rates of the first and second moment (default: (0.9, 0.999)).
        eps (float): what is added to the denominator (default: 1e-8).
        weight_decay (float): decoupled weight decay, which no gain multiplies (default: 1e-2).
        amsgrad (bool): use the largest second moment so far (default: False).
    """

    direction_name = "adamw"
    direction_keys = ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
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
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": True,
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
        return adam_state(param, group)

    def _direction(self, grads: list[Tensor], states: list[State], group: Group) -> list[Tensor]:
        return adam_direction(grads, states, self._count_step(states), group)

    def _fused_direction(self, states: list[State], group: Group) -> Direction:
        return adam_kernel_direction(self._count_step(states), group)


def adam_state(param: Tensor, group: Group) -> State:
    """What Adam keeps of a parameter before its first step."""
    names = ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group.get("amsgrad") else ()))
    return {"step": torch.tensor(0.0), **{name: torch.zeros_like(param) for name in names}}


def adam_direction(grads: list[Tensor], states: list[State], steps: list[float], group: Group) -> list[Tensor]:
    """Adam's step at learning rate 1: a fresh tensor for each gradient. ``steps`` is the number of this step of each.
    ``group`` has ``betas``, ``eps`` and maybe ``amsgrad``."""
    beta1, beta2 = group["betas"]
    factors, offsets = _denominators(steps, group)
    exp_avgs = [state["exp_avg"] for state in states]
    exp_avg_sqs = [state["exp_avg_sq"] for state in states]
    torch._foreach_lerp_(exp_avgs, grads, 1 - beta1)
    torch._foreach_mul_(exp_avg_sqs, beta2)
    torch._foreach_addcmul_(exp_avg_sqs, grads, grads, value=1 - beta2)
    if group.get("amsgrad"):
        max_exp_avg_sqs = [state["max_exp_avg_sq"] for state in states]
        torch._foreach_maximum_(max_exp_avg_sqs, exp_avg_sqs)
        exp_avg_sqs = max_exp_avg_sqs
    updates = torch._foreach_sqrt(exp_avg_sqs)
    torch._foreach_mul_(updates, factors)
    torch._foreach_add_(updates, offsets)
    torch._foreach_reciprocal_(updates)  # in place: a second buffer of this size costs more than a pass over this one
    torch._foreach_mul_(updates, exp_avgs)
    return list(updates)


def adam_kernel_direction(steps: list[float], group: Group) -> Direction:
    """The same step as the kernel takes it."""
    factors, offsets = _denominators(steps, group)
    return Direction("adam", ("exp_avg", "exp_avg_sq"), factors, offsets, group["betas"])


def _denominators(steps: list[float], group: Group) -> tuple[list[float], list[float]]:
    """What multiplies the square root of each second moment, and what is added: both bias corrections are in them, as
    scalars of the denominator: (sqrt(v) * c1 / c2) + eps * c1."""
    (beta1, beta2), eps = group["betas"], group["eps"]
    corrections = {step: (1 - beta1**step, math.sqrt(1 - beta2**step)) for step in set(steps)}
    pairs = [corrections[step] for step in steps]
    return [c1 / c2 for c1, c2 in pairs], [eps * c1 for c1, _ in pairs]
