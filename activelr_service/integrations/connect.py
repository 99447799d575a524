"""What every trainer needs of an ActiveLR optimizer: sums over the ranks, and a learning rate to show."""

import warnings
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from activelr_service.optim import ActiveAdamW, ActiveLRWarning, ActiveMuon, ActiveOptimizer, muon_groups
from activelr_service.optim.arguments import NO_LR
from activelr_service.optim.misuse import has_ranks
from activelr_service.optim.stats import effective_lr
from activelr_service.optim.sums import Reduce
from activelr_service.training import distributed

OptimizerClass = type[ActiveOptimizer]


class StepHooks:
    """What is done around each step of an optimizer, whoever calls it: hooks, which a skipped step does not call.

    - With several ranks a step ends the sums that are due, on their mean over the ranks.
    - Between the steps, ``lr`` in the parameter groups is the effective one, because trainers log it from there. A step
      does not read it. Under the paper's rule the groups stay as they are: there ``lr`` has an effect.

    Attributes:
        lr (Tensor): the effective learning rate of the last step (see :func:`activelr_service.optim.stats.effective_lr`),
            0-dim, on the device of the parameters: no step waits for it.
        as_number (bool): whether the groups show a float where the parameters are on a GPU; the host then waits for it at
            every step.
    """

    def __init__(self, optimizer: ActiveOptimizer) -> None:
        self.as_number = False
        self._shown: Tensor | float | None = None
        self._show(optimizer)
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(self._after_step)
        optimizer.register_load_state_dict_post_hook(self._show)

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Take back what was shown. What a scheduler has set stays: the optimizer then says that it has no effect."""
        is_changed = getattr(self._shown, "_version", 0) > 0  # torch's schedulers overwrite a tensor in place
        for group in optimizer.param_groups:
            if group["lr"] is self._shown and not is_changed:
                group["lr"] = NO_LR

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        optimizer.end_step(reduce=mean_over_ranks())
        self._show(optimizer)

    def _show(self, optimizer: Any) -> None:
        self.lr = effective_lr(optimizer)
        if not optimizer.rule.uses_lr:
            is_ready = self.as_number or self.lr.device.type == "cpu"
            self._shown = self.lr.item() if is_ready else self.lr.clone()
            for group in optimizer.param_groups:
                group["lr"] = self._shown


def mean_over_ranks() -> Reduce | None:
    """What ``end_step`` and ``end_epoch`` take as ``reduce``: None in one process, which has nothing to reduce."""
    return distributed.mean_ if has_ranks() else None


def build(
    params: Iterable[Any], optimizer: OptimizerClass = ActiveAdamW, **options: Any
) -> tuple[ActiveOptimizer, StepHooks]:
    """An optimizer with its hooks. Raises as the ``optimizer`` class does for an option that it does not take."""
    built = optimizer(params, **options)
    return built, StepHooks(built)


def trainable(model: nn.Module, optimizer: OptimizerClass = ActiveAdamW) -> list[Any]:
    """The parameters of a model that require gradients, in the groups that the ``optimizer`` class needs. Raises
    ``ValueError`` if there are none."""
    params = [param for param in model.parameters() if param.requires_grad]
    if params and issubclass(optimizer, ActiveMuon):
        return muon_groups(model, only_trained=True)
    if not params:
        raise ValueError(f"no parameter of {type(model).__name__} requires gradients: there is nothing to train")
    return params


def say(message: str) -> None:
    """Warn of something that has no effect, or not the expected one: on rank 0 alone, at the caller."""
    if distributed.rank() == 0:
        warnings.warn(message, ActiveLRWarning, stacklevel=2)
