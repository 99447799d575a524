"""timm: names of the ActiveLR optimizers for ``create_optimizer_v2`` and for the option ``--opt`` of its scripts."""

from collections.abc import Callable, Iterable
from typing import Any

from activelr_service.errors import naming_missing_packages
from activelr_service.integrations.connect import OptimizerClass, build, say
from activelr_service.optim import ActiveAdamW, ActiveBelief, ActiveMuon, ActiveOptimizer, ActiveRAdam, ActiveSGD

with naming_missing_packages("activelr_service.integrations.timm", "timm"):
    from timm.optim import OptimInfo
    from timm.optim._optim_factory import default_registry

NAMES: dict[str, OptimizerClass] = {
    "activeadamw": ActiveAdamW,
    "activebelief": ActiveBelief,
    "activemuon": ActiveMuon,
    "activeradam": ActiveRAdam,
    "activesgd": ActiveSGD,
}


def register() -> list[str]:
    """Add the ActiveLR optimizers to timm's registry. Returns their names; a second call changes nothing.

    ``create_optimizer_v2(model, opt="activeadamw", total_steps=N)`` then makes one. Any ``lr`` and scale of it for a layer
    are left out under the robust rule, with a warning.
    """
    for name, cls in NAMES.items():
        if name not in default_registry.list_optimizers():
            is_sgd = cls is ActiveSGD
            info = OptimInfo(
                name=name,
                opt_class=_factory(cls),
                description=f"{cls.__name__} of activelr-service: no learning rate, but total_steps",
                has_eps=not is_sgd,
                has_betas=not is_sgd,
                has_momentum=is_sgd or cls is ActiveMuon,
            )
            default_registry.register(info)
    return list(NAMES)


def _factory(cls: OptimizerClass) -> Callable[..., ActiveOptimizer]:
    def create(params: Iterable[Any], lr: float | None = None, **options: Any) -> ActiveOptimizer:
        groups = list(params)
        if options.get("rule") == "paper":
            options["lr"] = lr
        else:
            _say_without_effect(cls.__name__, groups, lr)
        return build(groups, cls, **options)[0]

    return create


def _say_without_effect(name: str, groups: list[Any], lr: float | None) -> None:
    scales = {group.get("lr_scale", 1.0) for group in groups if isinstance(group, dict)}
    if lr is not None:
        say(f"{name}: lr={lr} has no effect under the robust rule; a scheduler (sched) has none either, leave both out")
    if scales - {1.0}:
        say(
            f"{name}: layer_decay has no effect under the robust rule, which scales the steps of each tensor; leave it out"
        )
