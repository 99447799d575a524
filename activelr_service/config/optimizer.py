"""Optimizer configs: a union discriminated by ``type``. Every default is the optimizer's own unless it says otherwise."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from activelr_service.config.baseline import (
    AdaBeliefConfig,
    AdamWConfig,
    COCOBConfig,
    DAdaptAdamConfig,
    ProdigyConfig,
    RAdamConfig,
    RpropConfig,
    ScheduleFreeAdamWConfig,
    SGDConfig,
)
from activelr_service.config.optimizer_base import Betas, OptimizerSettings

DEFAULT_LR = {
    "active_sgd": 1e-2,
    "active_adamw": 1e-3,
    "active_radam": 1e-3,
    "active_belief": 1e-3,
    "sgd": 1e-2,
    "adamw": 1e-3,
    "radam": 1e-3,
    "adabelief": 1e-3,
    "rprop": 1e-2,
    "schedule_free_adamw": 2.5e-3,
    "prodigy": 1.0,
    "dadapt_adam": 1.0,
    "cocob": None,
}


class ActiveOptimizerConfig(OptimizerSettings):
    """What all ActiveLR optimizers take."""

    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay, not multiplied by the gain.")
    rule: Literal["paper", "robust"] = Field(
        "paper",
        description="paper: a gain per parameter, moved at the ends of epochs. robust: one per tensor, moved in windows; "
        "the learning rate cancels.",
    )
    gain_increment: float = Field(0.1, ge=0, description="Added to a gain whose gradient sum kept its sign.")
    gain_decay: float = Field(0.9, gt=0, le=1, description="Multiplies a gain whose gradient sum changed its sign.")
    hold_on_zero: bool = Field(
        False, description="Hold a gain whose gradient sum is exactly zero, instead of decaying it."
    )


class ActiveSGDConfig(ActiveOptimizerConfig):
    """SGD with momentum."""

    type: Literal["active_sgd"] = "active_sgd"
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum.")
    nesterov: bool = Field(False, description="Nesterov momentum.")


class ActiveAdamWConfig(ActiveOptimizerConfig):
    """AdamW."""

    type: Literal["active_adamw"] = "active_adamw"
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay, not multiplied by the gain.")
    betas: Betas = Field((0.9, 0.999), description="Decay rates of the first and second moment.")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator.")
    amsgrad: bool = Field(False, description="Use the maximum of the second moments.")


class ActiveRAdamConfig(ActiveOptimizerConfig):
    """RAdam."""

    type: Literal["active_radam"] = "active_radam"
    betas: Betas = Field((0.9, 0.999), description="Decay rates of the first and second moment.")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator.")


class ActiveBeliefConfig(ActiveOptimizerConfig):
    """AdaBelief."""

    type: Literal["active_belief"] = "active_belief"
    betas: Betas = Field((0.9, 0.999), description="Decay rates of the first moment and of the variance around it.")
    eps: float = Field(1e-16, gt=0, description="Added to the variance and to the denominator.")


OptimizerConfig = Annotated[
    ActiveSGDConfig
    | ActiveAdamWConfig
    | ActiveRAdamConfig
    | ActiveBeliefConfig
    | SGDConfig
    | AdamWConfig
    | RAdamConfig
    | AdaBeliefConfig
    | RpropConfig
    | ScheduleFreeAdamWConfig
    | ProdigyConfig
    | DAdaptAdamConfig
    | COCOBConfig,
    Field(discriminator="type"),
]


def config_of(optimizer_type: str) -> type[OptimizerSettings] | None:
    """The config class of a ``type``; None if there is no such optimizer."""
    classes = get_args(get_args(OptimizerConfig)[0])
    return next((found for found in classes if found.model_fields["type"].default == optimizer_type), None)
