"""Ways to use an optimizer that have no effect, or not the effect that a user may expect: each is said once, or refused."""

import inspect
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from activelr_service.optim.arguments import NO_LR

if TYPE_CHECKING:
    from activelr_service.optim.base import ActiveOptimizer

LONG_EPOCH = 2000  # steps


class ActiveLRWarning(UserWarning):
    """An optimizer is used in a way that has no effect, or not the effect that its user may expect."""


def look_for_misuse(optimizer: "ActiveOptimizer") -> None:
    """Before a step: warn of what has no effect. Raises ``RuntimeError`` where ranks would drift apart."""
    rule, group = optimizer.rule, optimizer.param_groups[0]
    if rule.is_due(group):
        raise RuntimeError(
            "the gradient sums were due to end after the step before this one; with several ranks call "
            "optimizer.end_step(reduce=...) after every step, on every rank"
        )
    if not rule.uses_lr and any(group["lr"] != NO_LR for group in optimizer.param_groups):
        optimizer.say_once(
            "a learning rate was set, by a scheduler or by hand: it has no effect under the robust rule, which has its own "
            'warm-up and decay; remove it, or choose rule="paper"'
        )
    if rule.ends_with_epochs and not optimizer.has_trainer and rule.steps_in_sum(group) == LONG_EPOCH:
        optimizer.say_once(
            f"{LONG_EPOCH} steps without the end of an epoch: no gain has moved since; call "
            "end_epoch() after every epoch, or give steps_per_epoch"
        )
    if rule.total_steps is not None and rule.progress is None and group["steps_done"] == rule.total_steps:
        optimizer.say_once(
            f"step {group['steps_done'] + 1} of a run of total_steps={rule.total_steps}: the decay ends there, and from "
            "here on steps are close to zero; give the number of steps of the whole run"
        )


def warn(message: str) -> None:
    """Warn at the line of the user that has led here: the first that is neither torch's nor this package's."""
    own = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(own):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, ActiveLRWarning, stacklevel=level)


def check_state_dict(state_dict: dict[str, Any], optimizer: "ActiveOptimizer") -> None:
    """Raise ``ValueError`` for a state of another rule, or of another kind of optimizer."""
    group = state_dict["param_groups"][0]
    if "steps_done" in group or "steps_since_epoch_end" in group:
        rule = "robust" if "steps_done" in group else "paper"
        if rule != optimizer.rule.name:
            raise ValueError(f"this state is of the {rule} rule, the optimizer follows the {optimizer.rule.name} rule")
        return
    unknown = {key for state in state_dict["state"].values() for key in state} - set(optimizer.direction_keys)
    if unknown:
        raise ValueError(
            f"this state is of another kind of optimizer than {type(optimizer).__name__}: it has "
            f"{', '.join(sorted(unknown))}; load it into an optimizer of its own kind"
        )


def has_ranks() -> bool:
    """Whether this process is one of several that train together."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
