"""Ways to use an optimizer that have no effect, or not the effect that a user may expect: each is said once, or refused."""

import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from activelr_service.optim.arguments import NO_LR
from activelr_service.optim.rule import Rule
from activelr_service.optim.sums import Group

if TYPE_CHECKING:
    from activelr_service.optim.base import ActiveOptimizer

LONG_EPOCH = 2000  # steps


class ActiveLRWarning(UserWarning):
    """An optimizer is used in a way that has no effect, or not the effect that its user may expect."""


def find_misuse(rule: Rule, groups: list[Group], has_trainer: bool) -> Iterator[str]:
    """Before a step: what has no effect, in words. Raises ``RuntimeError`` where ranks would drift apart.

    ``groups`` are the parameter groups. ``has_trainer`` says that a training loop ends the epochs, however long they are.
    """
    first = groups[0]
    if rule.is_due(first):
        raise RuntimeError(
            "the gradient sums were due to end after the step before this one; with several ranks call "
            "optimizer.end_step(reduce=...) after every step, on every rank"
        )
    if not rule.uses_lr and any(group["lr"] != NO_LR for group in groups):
        yield (
            "a learning rate was set, by a scheduler or by hand: it has no effect under the robust rule, which has its own "
            'warm-up and decay; remove it, or choose rule="paper"'
        )
    if rule.ends_with_epochs and not has_trainer and rule.steps_in_sum(first) == LONG_EPOCH:
        yield (
            f"{LONG_EPOCH} steps without the end of an epoch: no gain has moved since; call end_epoch() after every epoch, "
            "or give steps_per_epoch"
        )
    if rule.total_steps is not None and rule.progress is None and first["steps_done"] == rule.total_steps:
        yield (
            f"step {first['steps_done'] + 1} of a run of total_steps={rule.total_steps}: the decay ends there, and from "
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
    """Raise ``ValueError`` for a state of another rule, or of another kind of optimizer, than those of ``optimizer``."""
    group = state_dict["param_groups"][0]
    if "steps_done" in group or "steps_since_epoch_end" in group:
        found = "robust" if "steps_done" in group else "paper"
        if found != optimizer.rule.name:
            raise ValueError(f"this state is of the {found} rule, the optimizer follows the {optimizer.rule.name} rule")
        reason = _other_direction(group, optimizer)
    else:
        unknown = {key for state in state_dict["state"].values() for key in state} - set(optimizer.direction_keys)
        reason = f"it has {', '.join(sorted(unknown))}" if unknown else _lacking(optimizer.torch_option, group)
    if reason:
        raise ValueError(
            f"this state is of another kind of optimizer than {type(optimizer).__name__}: {reason}; load it into an "
            "optimizer of its own kind"
        )


def _other_direction(group: Group, optimizer: "ActiveOptimizer") -> str:
    """Why the direction of a saved group is not that of the optimizer; empty where it is. States of older versions have no
    name of it, but its options."""
    if "direction" not in group:
        return _lacking(optimizer.torch_option, group)
    found, own = group["direction"], optimizer.direction_name
    return "" if found == own else f'its direction is "{found}", not "{own}"'


def _lacking(option: str, group: Group) -> str:
    return "" if option in group else f"it has no option {option}"


def has_ranks() -> bool:
    """Whether this process is one of several that train together."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
