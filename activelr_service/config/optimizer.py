"""Optimizer configs: a union discriminated by ``type``. Every default is the optimizer's own unless it says otherwise."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from activelr_service.config.base import StrictConfig
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


class RobustConstants(StrictConfig):
    """The constants of the robust rule, for studies of what each does: optim/robust.py says what they are."""

    cap: float = Field(0.1, gt=0, description="Largest step, as a share of the size of its tensor.")
    cap_rises_until: float = Field(
        0.2, ge=0, le=1, description="Share of the run in which the cap rises; 0: from the start."
    )
    full_cap_at: int = Field(400, ge=1, description="Steps of a run below which the cap is looser.")
    set_point: float = Field(-0.2, ge=-1, le=1, description="The agreement at which a gain stays.")
    speed: float = Field(1.0, ge=0, description="How fast gains move; 0 keeps them where they start.")
    full_speed_at: int = Field(20, ge=1, description="Steps of a window from which on a gain moves at full speed.")
    decay: float = Field(1.0, ge=0, description="Power of the decay over the run; 0: none.")
    full_decay_at: int = Field(400, ge=1, description="Steps of a run from which on it decays at that power.")
    window_growth: float = Field(0.2, ge=0, le=1, description="Length of a window, as a share of the steps done.")
    smallest_window: int = Field(2, ge=1, description="Steps of the first windows.")
    unwind: bool = Field(True, description="Forget what the cap cut off.")
    signs: bool = Field(False, description="Read the share of agreeing signs instead of the cosine.")


class ActiveOptimizerConfig(OptimizerSettings):
    """What all ActiveLR optimizers take."""

    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay, not multiplied by the gain.")
    rule: Literal["paper", "robust"] = Field(
        "robust",
        description="robust: a gain per tensor, moved in windows; the learning rate has no effect. paper: a gain per "
        "parameter, moved at the ends of epochs.",
    )
    gain_increment: float = Field(0.1, ge=0, description="Added to a gain whose gradient sum kept its sign.")
    gain_decay: float = Field(0.9, gt=0, le=1, description="Multiplies a gain whose gradient sum changed its sign.")
    hold_on_zero: bool = Field(
        False, description="Hold a gain whose gradient sum is exactly zero, instead of decaying it."
    )
    window_steps: int | None = Field(
        None, ge=1, description="Of the paper's rule: move the gains after so many steps, instead of an epoch."
    )
    constants: RobustConstants = Field(
        default_factory=RobustConstants, description="Of the robust rule, for studies of it; there is nothing to tune."
    )

    @model_validator(mode="after")
    def each_rule_has_its_own_settings(self) -> Self:
        defaults = type(self).model_fields
        if self.rule == "paper" and self.constants != RobustConstants():
            raise ValueError("constants belong to the robust rule; leave them out, or set rule: robust")
        if self.rule == "robust":
            for name in ("gain_increment", "gain_decay", "hold_on_zero", "window_steps"):
                if getattr(self, name) != defaults[name].default:
                    raise ValueError(f"{name} belongs to the paper's rule; leave it out, or set rule: paper")
            if self.schedule != "constant":
                raise ValueError(
                    f"the robust rule has its own decay; leave out schedule: {self.schedule}, or set rule: paper"
                )
        return self


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
