"""What the optimizers refuse, each with one message: the place, the value and the remedy."""

from typing import Any

import torch
from torch import Tensor

RULES = ("paper", "robust")


def check_rule(rule: str, steps_per_epoch: int | None, total_steps: int | None) -> None:
    """Raise ``ValueError`` for a rule that does not exist, or a number of steps below one."""
    for name, value in (("steps_per_epoch", steps_per_epoch), ("total_steps", total_steps)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1 or None, got {value}")
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")


def check_options(options: dict[str, Any]) -> None:
    """Raise ``ValueError`` naming the first option of a parameter group that is out of range."""
    for name in ("lr", "eps", "weight_decay", "momentum", "gain_increment"):
        if name in options and not options[name] >= 0:
            raise ValueError(f"{name} must be at least 0, got {options[name]}")
    if not 0 < options["gain_decay"] <= 1:
        raise ValueError(f"gain_decay must be above 0 and at most 1, got {options['gain_decay']}")
    for beta in options.get("betas", ()):
        if not 0 <= beta < 1:
            raise ValueError(f"betas must lie in [0, 1), got {options['betas']}")


def check_real(param: Tensor, optimizer: str) -> None:
    """Raise ``ValueError`` for a complex parameter of the ``optimizer``."""
    if param.is_complex():
        raise ValueError(
            f"{optimizer} does not support complex parameters (shape {tuple(param.shape)}); "
            "optimize torch.view_as_real(parameter) instead"
        )


def check_progress(progress: float) -> float:
    """The progress; raises ``ValueError`` if it is not in (0, 1]: at 0 no step would move, and no gain ever after."""
    if not 0 < progress <= 1:
        raise ValueError(
            f"progress must be the share of the run that is done after the coming step, in (0, 1], got {progress}; "
            "of step number n, counted from 0, it is (n + 1) / total_steps"
        )
    return progress


def dense_grad(param: Tensor, optimizer: str) -> Tensor:
    """The gradient of a parameter that has one; raises ``RuntimeError`` if it is sparse."""
    assert param.grad is not None
    if param.grad.layout != torch.strided:
        raise RuntimeError(
            f"{optimizer} does not support sparse gradients (parameter of shape {tuple(param.shape)}); "
            "create the embedding with sparse=False"
        )
    return param.grad
