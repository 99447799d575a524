"""The arguments that all ActiveLR optimizers share: what they mean, and what is refused, each with one message."""

from typing import Any, TypeVar

import torch
from torch import Tensor

from activelr_service.optim import fused, paper_rule
from activelr_service.optim.constants import RobustConstants
from activelr_service.optim.paper_rule import PaperRule
from activelr_service.optim.robust_rule import RobustRule
from activelr_service.optim.rule import Rule

RULES = ("paper", "robust")
NO_LR = 1.0  # what stands in a parameter group as "lr" where the learning rate has no effect

SHARED_ARGUMENTS = r"""
    Args of all ActiveLR optimizers:
        rule (str): ``"robust"`` (default) needs no learning rate: it keeps one gain per tensor and moves it at the ends of
            windows of its own (:mod:`activelr_service.optim.robust_formulas` has the formulas). ``"paper"`` is the rule of
            the ActiveLR paper: it keeps one gain per parameter, which multiplies ``lr``, and moves it at the end of
            every epoch (:mod:`activelr_service.optim.paper_rule`).
        total_steps (int, optional): robust rule: the number of steps of the whole run (default: None). Without it, set
            :attr:`progress` before every step to the share of the run that is behind after that step, in (0, 1].
        constants (RobustConstants, optional): robust rule: for studies of its parts; there is nothing to tune
            (default: ``RobustConstants()``).
        lr (float, optional): paper's rule: the learning rate that the gains multiply (default: 1e-3). The robust rule
            refuses it.
        gain_increment (float, optional): paper's rule: what is added to a gain whose gradient sum kept its sign
            (default: 0.1).
        gain_decay (float, optional): paper's rule: what multiplies a gain whose gradient sum changed its sign
            (default: 0.9).
        hold_on_zero (bool, optional): paper's rule: hold a gain whose product of sums is exactly zero, where the paper
            shrinks it (default: False).
        steps_per_epoch (int, optional): paper's rule: end an epoch after so many steps (default: None: call
            :meth:`end_epoch` yourself).
        fused (bool, optional): False takes the list form of the step for all parameters; True raises ``RuntimeError`` if
            there is no compiled one (default: None: the compiled form where it fits, see
            :mod:`activelr_service.optim.fused`).
        maximize (bool): maximize the objective instead of minimizing it (default: False).

    In one process there is nothing to call but ``step()``. With several ranks every rank calls
    ``optimizer.end_step(reduce=...)`` after each ``step()``; ``reduce`` makes a flat float32 tensor the mean over the
    ranks.
"""

EXAMPLE = """
    Example::

        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = {name}(model.parameters(), total_steps=100)
        >>> for step in range(100):
        ...     loss = model(torch.ones(8, 4)).pow(2).mean()
        ...     loss.backward()
        ...     _ = optimizer.step()
        ...     optimizer.zero_grad()
"""
Class = TypeVar("Class", bound=type)


def documented(optimizer: Class) -> Class:
    """A class decorator: add the shared arguments and an example to the docstring, so that ``help()`` shows them."""
    optimizer.__doc__ = f"{optimizer.__doc__}{SHARED_ARGUMENTS}{EXAMPLE.format(name=optimizer.__name__)}"
    return optimizer


def make_rule(
    optimizer: Any,
    rule: str,
    lr: float | None,
    total_steps: int | None,
    constants: RobustConstants | None,
    steps_per_epoch: int | None,
    **gain_options: Any,
) -> tuple[PaperRule | RobustRule, dict[str, Any]]:
    """The rule of this name for an optimizer, and the options that it puts into every parameter group.

    Raises ``ValueError`` for a rule that does not exist, for an option of the other rule, and for a number of steps
    below one.
    """
    for name, value in (("steps_per_epoch", steps_per_epoch), ("total_steps", total_steps)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1 or None, got {value}")
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    name = type(optimizer).__name__
    if rule == "robust":
        _refuse(name, rule, {"lr": lr, "steps_per_epoch": steps_per_epoch, **gain_options})
        chosen = RobustRule(total_steps, constants, optimizer.initial_update_ratio, optimizer.is_normalized)
        return chosen, {"lr": NO_LR}
    _refuse(name, rule, {"total_steps": total_steps, "constants": constants})
    given = {name: value for name, value in gain_options.items() if value is not None}
    options = {"lr": paper_rule.DEFAULT_LR if lr is None else lr, **paper_rule.DEFAULTS, **given}
    return PaperRule(steps_per_epoch), options


def check_fused(wanted: bool | None) -> None:
    """Raise ``RuntimeError`` if the compiled step is demanded and was not built."""
    if wanted and not any(map(fused.has_kernel, ("cpu", "cuda"))):
        raise RuntimeError(
            f"fused=True: {fused.describe_step()}; install a C compiler and the package again, or leave it out"
        )


def _refuse(optimizer: str, rule: str, options: dict[str, Any]) -> None:
    """Raise ``ValueError`` for the first option that was given and that this rule does not take."""
    other = "paper" if rule == "robust" else "robust"
    for name, value in options.items():
        if value is not None:
            raise ValueError(
                f'{optimizer}: {name}={value} has no effect under rule="{rule}"; leave it out, or give rule="{other}"'
            )


def check_options(options: dict[str, Any]) -> None:
    """Raise ``ValueError`` that names the first option of a parameter group that is out of range."""
    for name in ("lr", "eps", "weight_decay", "momentum", "gain_increment"):
        if name in options and not options[name] >= 0:
            raise ValueError(f"{name} must be at least 0, got {options[name]}")
    if not 0 < options.get("gain_decay", 1) <= 1:
        raise ValueError(f"gain_decay must be above 0 and at most 1, got {options['gain_decay']}")
    for beta in options.get("betas", ()):
        if not 0 <= beta < 1:
            raise ValueError(f"betas must lie in [0, 1), got {options['betas']}")


def check_group(options: dict[str, Any], rule: Rule, optimizer: str) -> None:
    """Raise ``ValueError`` for a parameter group that sets an option of the other rule, or one that is out of range."""
    if not rule.uses_lr:
        lr = options.get("lr", NO_LR)
        _refuse(optimizer, rule.name, {"lr": None if lr == NO_LR else lr})
        _refuse(optimizer, rule.name, {name: options.get(name) for name in paper_rule.DEFAULTS})
    check_options(options)


def check_real(param: Tensor, optimizer: str) -> None:
    """Raise ``ValueError`` for a complex parameter of the ``optimizer``."""
    if param.is_complex():
        raise ValueError(
            f"{optimizer} does not support complex parameters (shape {tuple(param.shape)}); "
            "optimize torch.view_as_real(parameter) instead"
        )


def dense_grads(params: list[Tensor], optimizer: str) -> list[Tensor]:
    """The gradients of parameters that have one. Raises ``RuntimeError`` if one is sparse."""
    grads = [param.grad for param in params]
    for param, grad in zip(params, grads, strict=True):
        if grad.layout != torch.strided:
            raise RuntimeError(
                f"{optimizer} does not support sparse gradients (parameter of shape {tuple(param.shape)}); "
                "create the embedding with sparse=False"
            )
    return grads
