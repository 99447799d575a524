"""From an optimizer's config to the optimizer, and what differs between optimizers while they train."""

import importlib
import math
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import torch
from torch import nn

from activelr_service import optim
from activelr_service.config.entry_points import OPTIMIZERS, load_entry_point
from activelr_service.config.optimizer import (
    ActiveMuonConfig,
    ActiveOptimizerConfig,
    MuonConfig,
    OptimizerConfig,
    PythonOptimizerConfig,
)
from activelr_service.errors import JobError
from activelr_service.optim import fused
from activelr_service.runs.record import gain_edges
from activelr_service.training import distributed
from activelr_service.training.muon import not_hidden

WARM_UP, DECAY = 0.05, 0.2  # shares of the run; the decay is that of Haegele et al. 2024 (arXiv 2405.18392)


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a resolved config over the parameters that require gradients."""
    params: list[Any] = [param for param in model.parameters() if param.requires_grad]
    device_types = {param.device.type for param in params}
    if isinstance(config, PythonOptimizerConfig):
        optimizer = _build_own(config, params)
    else:
        options = config.options()
        if isinstance(config, ActiveOptimizerConfig):
            options = _options_of_rule(config, options)
        if isinstance(config, MuonConfig):
            options["not_hidden"] = not_hidden(model)
        if isinstance(config, ActiveMuonConfig):
            params = optim.muon_groups(model, only_trained=True)
        module, _, name = config.target.rpartition(".")
        with redirect_stdout(StringIO()):  # some packages print their options
            optimizer = getattr(importlib.import_module(module), name)(params, **options)
    for group in optimizer.param_groups:
        group["initial_lr"] = group.get("lr") if config.lr is None else config.lr
    if isinstance(optimizer, optim.ActiveOptimizer):
        optimizer.has_trainer = True
        if not all(map(fused.has_kernel, device_types & {"cpu", "cuda"})):
            warnings.warn(f"the optimizer step: {fused.describe_step()}", stacklevel=2)
    return optimizer


def _build_own(config: PythonOptimizerConfig, params: list[nn.Parameter]) -> torch.optim.Optimizer:
    """A user's own optimizer. Raises :class:`JobError` for arguments that it does not take, and for what is no optimizer."""
    factory = load_entry_point(OPTIMIZERS, config.name, "optimizer.name")
    try:
        optimizer = factory(params, **config.options())
    except (TypeError, ValueError) as error:
        raise JobError.at("optimizer.args", f"{config.name}: {error}") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        text = f"{config.name} returned {type(optimizer).__name__}; a torch.optim.Optimizer is wanted"
        raise JobError.at("optimizer.name", text)
    return optimizer


def _options_of_rule(config: ActiveOptimizerConfig, options: dict[str, Any]) -> dict[str, Any]:
    """The options that the config's rule takes, under the names of the optimizers."""
    paper = {"lr", "gain_increment", "gain_decay", "hold_on_zero"}
    options = {name: value for name, value in options.items() if name not in paper}
    if config.rule == "robust":
        return {**options, "constants": optim.RobustConstants(**config.constants.model_dump())}
    return {**options, **config.model_dump(include=paper), "steps_per_epoch": config.window_steps}


def begin_step(
    optimizer: torch.optim.Optimizer,
    schedule: str,
    before: float,
    after: float,
    ending: float | None = None,
    warmup: float = 0.0,
) -> None:
    """What an optimizer must know before a step: the progress of the run before and after it, as fractions.

    ``ending``: how much of the decay of early stopping is behind, from 0 to 1; None in a run that cannot end early.
    ``warmup``: the share of the run in which the learning rate rises.
    """
    set_lr(optimizer, schedule, before, after, ending, warmup)
    if isinstance(optimizer, optim.ActiveOptimizer):
        optimizer.progress = after


def end_step(optimizer: torch.optim.Optimizer) -> None:
    """End the gradient sums of an ActiveLR optimizer if they are due, on their mean over all ranks."""
    if isinstance(optimizer, optim.ActiveOptimizer):
        optimizer.end_step(reduce=distributed.mean_)


def end_epoch(optimizer: torch.optim.Optimizer) -> None:
    """End the gradient sums of an ActiveLR optimizer whose rule ends them with epochs, on their mean over all ranks."""
    if isinstance(optimizer, optim.ActiveOptimizer) and optimizer.rule.ends_with_epochs:
        optimizer.end_epoch(reduce=distributed.mean_)


def set_lr(
    optimizer: torch.optim.Optimizer,
    schedule: str,
    before: float,
    after: float,
    ending: float | None = None,
    warmup: float = 0.0,
) -> None:
    """Set the learning rate of a step: a function of the shares done and nothing else, so that nothing is saved of it.

    Where early stopping ends the run, it goes to 0 at least as fast as a straight line, whatever the schedule.
    """
    decays = ending is not None and uses_lr(optimizer)
    if schedule == "constant" and not decays and not warmup:
        return
    factor = lr_factor(schedule, before, after, warmup)
    for group in optimizer.param_groups:
        if group["initial_lr"] is not None:
            group["lr"] = group["initial_lr"] * (min(factor, 1 - ending) if decays and ending is not None else factor)


def lr_factor(schedule: str, before: float, after: float, warmup: float = 0.0) -> float:
    """What multiplies the learning rate of a step: a line from 0 to 1 in the warm-up, then the schedule over the rest."""
    if after < warmup:
        return after / warmup
    if schedule == "constant":
        return 1.0
    shares = [max(0.0, share - warmup) / (1 - warmup) for share in (before, after)]
    return SCHEDULES[schedule](*shares)


def cosine(before: float, after: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov & Hutter 2017), as in torch's CosineAnnealingLR stepped at every step."""
    return 0.5 * (1 + math.cos(math.pi * before))


def warmup_stable_decay(before: float, after: float) -> float:
    """Linear warm-up, stable, linear decay (Hu et al. 2024, arXiv 2404.06395)."""
    return min(1.0, after / WARM_UP, (1 - before) / DECAY)


SCHEDULES: dict[str, Callable[[float, float], float]] = {"cosine": cosine, "wsd": warmup_stable_decay}


def set_training(optimizer: torch.optim.Optimizer, mode: bool) -> None:
    """Schedule-free optimizers keep other weights in the model while they train than those to be evaluated and saved."""
    switch = getattr(optimizer, "train" if mode else "eval", None)
    if switch is not None:
        switch()


def uses_lr(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the learning rate has an effect."""
    return not isinstance(optimizer, optim.ActiveOptimizer) or optimizer.rule.uses_lr


def gain_metrics(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """What the gains of an ActiveLR optimizer do; nothing of another."""
    if not isinstance(optimizer, optim.ActiveOptimizer):
        return {}
    plain = ("share_grew", "non_finite")
    stats = optimizer.gain_stats()
    return {f"optim/{name}" if name in plain else f"optim/gain_{name}": value for name, value in stats.items()}


def gain_histogram(optimizer: torch.optim.Optimizer) -> list[int]:
    return optimizer.gain_histogram(gain_edges()) if isinstance(optimizer, optim.ActiveOptimizer) else []
