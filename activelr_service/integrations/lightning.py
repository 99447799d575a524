"""Lightning: an optimizer for ``configure_optimizers``, and a callback that shows its effective learning rate."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from activelr_service.errors import naming_missing_packages
from activelr_service.integrations.connect import OptimizerClass, build, mean_over_ranks, say, trainable
from activelr_service.optim import ActiveAdamW, ActiveOptimizer
from activelr_service.optim.stats import effective_lr

with naming_missing_packages("activelr_service.integrations.lightning", "lightning"):
    # `pytorch_lightning` is the same code under its other name; it takes callbacks of both.
    is_other = find_spec("lightning") is None and find_spec("pytorch_lightning") is not None
    Callback: Any = import_module("pytorch_lightning" if is_other else "lightning.pytorch").Callback

ENDLESS = (
    "the number of steps is unknown: {why}. Give the Trainer max_steps, or max_epochs with a loader that has a length; "
    "or say it yourself: active_optimizer(self, total_steps=N)"
)


def active_optimizer(
    module: Any, optimizer: OptimizerClass = ActiveAdamW, *, total_steps: int | None = None, **options: Any
) -> ActiveOptimizer:
    """What ``configure_optimizers`` of a ``LightningModule`` returns.

    ``options`` are those of the ``optimizer`` class, such as ``weight_decay``. ``total_steps`` is
    ``trainer.estimated_stepping_batches`` where it is not given. Raises ``ValueError`` if the ``Trainer`` does not know
    the number of its steps, and for a module without parameters that require gradients.
    """
    if options.get("rule") != "paper":
        options["total_steps"] = count_steps(module.trainer) if total_steps is None else total_steps
    built, hooks = build(trainable(module, optimizer), optimizer, **options)
    hooks.as_number = has_callback(module.trainer, "LearningRateMonitor")
    return built


def count_steps(trainer: Any) -> int:
    """The number of steps of a ``Trainer``'s whole run. Raises ``ValueError`` if it does not know it."""
    if has_callback(trainer, "GradientAccumulationScheduler"):
        raise ValueError(ENDLESS.format(why="GradientAccumulationScheduler changes how many batches make a step"))
    steps = trainer.estimated_stepping_batches
    if 0 < steps < float("inf"):
        return int(steps)
    if has_callback(trainer, "Timer"):
        raise ValueError(ENDLESS.format(why="max_time ends the run at an hour, not at a step"))
    if steps == float("inf"):
        raise ValueError(ENDLESS.format(why="Trainer(max_epochs=-1) without max_steps has no end"))
    raise ValueError(ENDLESS.format(why="the training loader has no length, and there is no max_steps"))


class ActiveLRCallback(Callback):
    """Shows the effective learning rate in the progress bar and logs it as ``lr``; ends the epochs of the paper's rule.

    At the start it warns once of each argument that has no effect, or not the expected one. It raises ``ValueError`` if
    no optimizer of the module is one of ActiveLR.
    """

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Check what the rule meets in this run."""
        optimizers = find_optimizers(trainer)
        if not optimizers:
            raise ValueError(
                "no optimizer of the module is one of ActiveLR: return active_optimizer(self) from configure_optimizers"
            )
        for message in find_without_effect(trainer, optimizers):
            say(message)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Log the learning rate of the last step, without waiting for a GPU."""
        optimizers = find_optimizers(trainer)
        for number, optimizer in enumerate(optimizers):
            name = "lr" if len(optimizers) == 1 else f"lr/{number}"
            pl_module.log(name, effective_lr(optimizer), prog_bar=True, on_step=True, on_epoch=False)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """End an epoch of the paper's rule."""
        for optimizer in find_optimizers(trainer):
            if optimizer.rule.ends_with_epochs:
                optimizer.end_epoch(reduce=mean_over_ranks())


def has_callback(trainer: Any, name: str) -> bool:
    """Whether one of Lightning's own callbacks is there. Its two packages have a class each of the same name."""
    return any(cls.__name__ == name for callback in trainer.callbacks for cls in type(callback).__mro__)


def find_optimizers(trainer: Any) -> list[ActiveOptimizer]:
    """The ActiveLR optimizers of a ``Trainer``."""
    return [optimizer for optimizer in trainer.optimizers if isinstance(optimizer, ActiveOptimizer)]


def find_without_effect(trainer: Any, optimizers: list[ActiveOptimizer]) -> list[str]:
    """What in a ``Trainer`` has no effect under the robust rule, or not the effect that is expected, in words."""
    robust = [optimizer for optimizer in optimizers if not optimizer.rule.uses_lr]
    messages = []
    if trainer.gradient_clip_val and robust:
        messages.append(
            f"Trainer(gradient_clip_val={trainer.gradient_clip_val}) shortens gradients before the rule reads them. The "
            "rule bounds its steps itself: leave it out"
        )
    if has_callback(trainer, "Timer") and robust:
        messages.append(
            f"Trainer(max_time=...) may end the run before its {robust[0].rule.total_steps} steps: its steps have then not "
            "decayed to the end"
        )
    return messages
