"""transformers' ``Trainer``: a pair for its argument ``optimizers``, and a callback that tells the rule of the run."""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from activelr_service.errors import naming_missing_packages
from activelr_service.integrations.connect import OptimizerClass, StepHooks, build, mean_over_ranks, say, trainable
from activelr_service.optim import ActiveAdamW, ActiveOptimizer

with naming_missing_packages("activelr_service.integrations.trainer", "transformers"):
    import accelerate  # noqa: F401  the Trainer does not start without it
    from transformers import TrainerCallback

# The fields of TrainingArguments that describe an optimizer or a schedule which does not exist here.
WITHOUT_EFFECT = (
    *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio"),
    *("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "optim", "optim_args"),
)


class EffectiveLR(LRScheduler):
    """In the place of a scheduler: it changes nothing, and its learning rate is the effective one of the last step."""

    def __init__(self, optimizer: ActiveOptimizer, hooks: StepHooks) -> None:
        self.optimizer = optimizer
        self._hooks = hooks

    def step(self, epoch: int | None = None) -> None:
        """The rule has its own warm-up and decay."""

    def get_last_lr(self) -> list[float | Tensor]:
        """The effective learning rate, for each parameter group."""
        return [self._hooks.lr for _ in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """All that there is to save stands in the optimizer."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """There is nothing to load."""


def active_optimizers(
    model: nn.Module, optimizer: OptimizerClass = ActiveAdamW, **options: Any
) -> tuple[ActiveOptimizer, EffectiveLR]:
    """What the argument ``optimizers`` of the ``Trainer`` takes; :class:`ActiveLRCallback` belongs to it.

    ``options`` are those of the ``optimizer`` class, such as ``weight_decay``. The number of steps comes from the
    ``Trainer``. Raises ``ValueError`` or ``TypeError`` for an option that the class does not take, and for a model without
    parameters that require gradients.
    """
    if options.pop("total_steps", None) is not None:
        raise ValueError("leave total_steps out: the Trainer says it, from max_steps or num_train_epochs")
    built, hooks = build(trainable(model, optimizer), optimizer, **options)
    return built, EffectiveLR(built, hooks)


class ActiveLRCallback(TrainerCallback):
    """Tells the rule how long the run is and, under the paper's rule, when an epoch ends.

    At the start of the training it warns once of each argument of the ``Trainer`` that has no effect. It raises
    ``ValueError`` if the optimizer or the scheduler of the ``Trainer`` is another than that of :func:`active_optimizers`,
    and under DeepSpeed, which takes steps of its own.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin the run, or go on with that of a checkpoint."""
        if getattr(args, "deepspeed", None):
            raise ValueError(
                "DeepSpeed takes steps of its own; train with DDP: leave TrainingArguments(deepspeed=...) out"
            )
        scheduler = kwargs.get("lr_scheduler")
        if not isinstance(scheduler, EffectiveLR) or _inner(kwargs.get("optimizer")) is not scheduler.optimizer:
            raise ValueError(
                "the Trainer has an optimizer or a learning rate scheduler of its own; give it both with "
                "Trainer(..., optimizers=active_optimizers(model))"
            )
        self._optimizer = scheduler.optimizer
        self._optimizer.has_trainer = True
        for message in find_without_effect(args, self._optimizer.rule.uses_lr):
            say(message)
        if not self._optimizer.rule.uses_lr:
            set_total_steps(self._optimizer, state.global_step, state.max_steps)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End an epoch of the paper's rule."""
        if self._optimizer.rule.ends_with_epochs:
            self._optimizer.end_epoch(reduce=mean_over_ranks())


def set_total_steps(optimizer: ActiveOptimizer, done: int, total: int) -> None:
    """Tell the robust rule the number of steps of the run, ``done`` of which the ``Trainer`` has taken before."""
    taken = optimizer.param_groups[0]["steps_done"]
    optimizer.rule.total_steps = total
    if done == 0 and taken > 0:
        optimizer.state.clear()
        for group in optimizer.param_groups:
            group.update(optimizer.rule.begin_run())
        say(f"train() begins a new run: the gains and moments of the {taken} steps before it are forgotten")
    elif done > 0 and taken == 0:
        optimizer.rule.total_steps = total - done
        say(
            f"the checkpoint has no state of the optimizer: the gains begin anew at step {done}, with a warm-up over the "
            f"{total - done} steps that are left; save without save_only_model"
        )


def find_without_effect(args: Any, uses_lr: bool) -> list[str]:
    """What in ``TrainingArguments`` has no effect, or not the effect that is expected, in words."""
    defaults = {field.name: field.default for field in fields(args)}
    names = [name for name in WITHOUT_EFFECT if _is_set(args, name, defaults)]
    messages = []
    if names:
        given = ", ".join(f"{name}={_plain(getattr(args, name))}" for name in names)
        kind = "lr=, weight_decay=, betas=" if uses_lr else "weight_decay=, betas="
        messages.append(
            f"TrainingArguments({given}): no effect. The optimizer is that of active_optimizers(model, ...), which takes "
            f"{kind} and others; there is no scheduler"
        )
    if args.max_grad_norm and not uses_lr:
        messages.append(
            f"TrainingArguments(max_grad_norm={args.max_grad_norm}) shortens gradients before the rule reads them. The rule "
            "bounds its steps itself: give max_grad_norm=0"
        )
    return messages


def _is_set(args: Any, name: str, defaults: dict[str, Any]) -> bool:
    """Whether a field has another value than its default."""
    value, default = getattr(args, name, None), defaults.get(name)
    return name in defaults and bool(value or default) and value != default


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)


def _inner(optimizer: Any) -> Any:
    """The optimizer within accelerate's wrapper."""
    while not isinstance(optimizer, ActiveOptimizer) and isinstance(
        getattr(optimizer, "optimizer", None), torch.optim.Optimizer
    ):
        optimizer = optimizer.optimizer
    return optimizer
