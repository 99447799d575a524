"""Configs of the optimizers that ActiveLR is measured against: torch's own, AdaBelief, and the peers of the extra ``peers``.

Every default is the authors' own unless it says otherwise.
"""

from typing import Literal

from pydantic import Field

from activelr_service.config.optimizer_base import Betas, OptimizerSettings


class SGDConfig(OptimizerSettings):
    """torch.optim.SGD with momentum."""

    type: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum.")
    nesterov: bool = Field(False, description="Nesterov momentum.")


class AdamWConfig(OptimizerSettings):
    """torch.optim.AdamW."""

    type: Literal["adamw"] = "adamw"
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay.")
    betas: Betas = Field((0.9, 0.999), description="Decay rates of the first and second moment.")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator.")


class RAdamConfig(OptimizerSettings):
    """torch.optim.RAdam, with decoupled weight decay."""

    type: Literal["radam"] = "radam"
    betas: Betas = Field((0.9, 0.999), description="Decay rates of the first and second moment.")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator.")


class AdaBeliefConfig(OptimizerSettings):
    """AdaBelief as its authors ship it: rectified, with decoupled weight decay."""

    type: Literal["adabelief"] = "adabelief"
    betas: Betas = Field((0.9, 0.999), description="Decay rates of the first moment and of the variance around it.")
    eps: float = Field(1e-16, gt=0, description="Added to the variance and to the denominator.")


class RpropConfig(OptimizerSettings):
    """torch.optim.Rprop: a full-batch method, so its batch is the whole training set."""

    type: Literal["rprop"] = "rprop"
    weight_decay: Literal[0] = Field(0, description="Rprop has none.")


class ScheduleFreeAdamWConfig(OptimizerSettings):
    """schedulefree.AdamWScheduleFree (Defazio et al. 2024)."""

    type: Literal["schedule_free_adamw"] = "schedule_free_adamw"
    betas: Betas = Field((0.9, 0.999), description="Interpolation with the average, decay rate of the second moment.")
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up.")


class ProdigyConfig(OptimizerSettings):
    """prodigyopt.Prodigy (Mishchenko & Defazio 2023)."""

    type: Literal["prodigy"] = "prodigy"
    d_coef: float = Field(1.0, gt=0, description="Multiplies the estimate of the step size.")


class DAdaptAdamConfig(OptimizerSettings):
    """dadaptation.DAdaptAdam (Defazio & Mishchenko 2023), with decoupled weight decay."""

    type: Literal["dadapt_adam"] = "dadapt_adam"


class COCOBConfig(OptimizerSettings):
    """parameterfree.COCOB (Orabona & Tommasi 2017): coin betting. It has no learning rate: ``lr`` must be left out."""

    type: Literal["cocob"] = "cocob"
    lr: None = Field(None, description="COCOB has none.")
    weight_decay: Literal[0] = Field(0, description="COCOB has none.")
    schedule: Literal["constant"] = Field("constant", description="There is no learning rate to schedule.")
    alpha: float = Field(100.0, gt=0, description="Bounds the first bets.")
