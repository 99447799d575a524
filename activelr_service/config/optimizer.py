"""Optimizer configs: a union that ``type`` tells apart. A new optimizer is a class here and its place in the union.

Fields are the keys of the YAML. Class attributes say what the service has to know about the optimizer. Every default is that
of the optimizer's authors unless it says otherwise.
"""

from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, Strict, model_validator

from activelr_service.config.base import StrictConfig
from activelr_service.optim.constants import RobustConstants as Defaults

Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[tuple[Beta, Beta], Strict(False)]  # a YAML list is welcome
ROBUST = Defaults()  # the constants stand in one place


class BaseOptimizerConfig(StrictConfig):
    """A learning rate, its schedule over the run, and weight decay."""

    target: ClassVar[str] = ""  # where the class is imported from
    fixed: ClassVar[dict[str, Any]] = {}  # arguments of the class that no job changes
    not_passed: ClassVar[tuple[str, ...]] = ()  # fields that are no arguments of the class
    default_lr: ClassVar[float | None] = 1e-3  # None: the optimizer has no learning rate
    finds_step_size: ClassVar[bool] = False  # the learning rate does not set the length of its steps
    full_batch: ClassVar[bool] = False  # each step takes the whole training set

    lr: float | None = Field(None, gt=0, description="Initial learning rate. Leave it out: the default is derived.")
    schedule: Literal["constant", "cosine", "wsd"] = Field(
        "constant",
        description="cosine: from lr to 0. wsd: 5 % linear warm-up, stable, linear decay to 0 over the last 20 %.",
    )
    warmup: float = Field(0.0, ge=0, lt=1, description="Share of the run in which lr rises to its value, in a line.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")

    @model_validator(mode="after")
    def one_warm_up(self) -> Self:
        if self.warmup and self.schedule == "wsd":
            raise ValueError(
                f"warmup: wsd has its own of 5 %; leave out warmup: {self.warmup}, or take another schedule"
            )
        return self

    @classmethod
    def package(cls) -> str | None:
        """The package of the extra ``peers`` that the class is in; None for torch and this package."""
        package = cls.target.partition(".")[0]
        return None if package in ("torch", "activelr_service", "") else package

    def options(self) -> dict[str, Any]:
        """The keyword arguments that build the optimizer."""
        return {**self.fixed, **self.model_dump(exclude={"type", "schedule", "warmup", *self.not_passed})}


class RobustConstants(StrictConfig):
    """The constants of the robust rule, for studies of what each does. There is nothing to tune."""

    cap: float = Field(ROBUST.cap, gt=0, description="Largest step, as a share of the size of its tensor.")
    cap_rises_until: float = Field(
        ROBUST.cap_rises_until, ge=0, le=1, description="Share of the run in which the cap rises; 0: from the start."
    )
    full_cap_at: int = Field(ROBUST.full_cap_at, ge=1, description="Steps of a run below which the cap is looser.")
    set_point: float = Field(
        ROBUST.set_point,
        ge=-1,
        le=1,
        description="The agreement at which a gain stays; nearer to 0 in windows above full_speed_at.",
    )
    speed: float = Field(ROBUST.speed, ge=0, description="How fast gains move; 0 keeps them where they start.")
    full_speed_at: int = Field(
        ROBUST.full_speed_at, ge=1, description="Steps of a window in which a gain moves at full speed."
    )
    decay: float = Field(ROBUST.decay, ge=0, description="Power of the decay over the run; 0: none.")
    full_decay_at: int = Field(ROBUST.full_decay_at, ge=1, description="Steps of a run that decays at that power.")
    window_growth: float = Field(
        ROBUST.window_growth, ge=0, le=1, description="Length of a window: share of the steps done."
    )
    smallest_window: int = Field(ROBUST.smallest_window, ge=1, description="Steps of the first windows.")
    unwind: bool = Field(ROBUST.unwind, description="Forget what the cap cut off.")
    signs: bool = Field(ROBUST.signs, description="Read the share of agreeing signs instead of the cosine.")
    hold: float = Field(
        ROBUST.hold, ge=0, lt=1, description="Share by which a step may be off, so that one pass over memory is enough."
    )
    bfloat16_sums_from: int = Field(
        ROBUST.bfloat16_sums_from,
        ge=1,
        description="Elements of a tensor from which on its gradient sums are bfloat16.",
    )


class ActiveOptimizerConfig(BaseOptimizerConfig):
    """What all ActiveLR optimizers take."""

    not_passed = ("window_steps", "constants")

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
            if self.warmup:
                raise ValueError(
                    f"the robust rule has its own warm-up; leave out warmup: {self.warmup}, or set rule: paper"
                )
            if self.schedule != "constant":
                raise ValueError(
                    f"the robust rule has its own decay; leave out schedule: {self.schedule}, or set rule: paper"
                )
        return self


class ActiveSGDConfig(ActiveOptimizerConfig):
    """SGD with momentum."""

    target, default_lr = "activelr_service.optim.ActiveSGD", 1e-2

    type: Literal["active_sgd"] = "active_sgd"
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum.")
    nesterov: bool = Field(False, description="Nesterov momentum.")


class ActiveAdamWConfig(ActiveOptimizerConfig):
    """AdamW."""

    target = "activelr_service.optim.ActiveAdamW"

    type: Literal["active_adamw"] = "active_adamw"
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay, not multiplied by the gain.")
    betas: Betas = Field((0.9, 0.999), description="Decay rates of the first and second moment.")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator.")
    amsgrad: bool = Field(False, description="Use the maximum of the second moments.")


class ActiveRAdamConfig(ActiveOptimizerConfig):
    """RAdam."""

    target = "activelr_service.optim.ActiveRAdam"

    type: Literal["active_radam"] = "active_radam"
    betas: Betas = Field((0.9, 0.999), description="Decay rates of the first and second moment.")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator.")


class ActiveBeliefConfig(ActiveOptimizerConfig):
    """AdaBelief."""

    target = "activelr_service.optim.ActiveBelief"

    type: Literal["active_belief"] = "active_belief"
    betas: Betas = Field((0.9, 0.999), description="Decay rates of the first moment and of the variance around it.")
    eps: float = Field(1e-16, gt=0, description="Added to the variance and to the denominator.")


class ActiveMuonConfig(ActiveOptimizerConfig):
    """Muon: orthogonalized momentum for matrices and convolutions. Vectors and embeddings take Adam's direction."""

    target = "activelr_service.optim.ActiveMuon"

    type: Literal["active_muon"] = "active_muon"
    momentum: float = Field(0.95, ge=0, lt=1, description="Momentum of matrices.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay, not multiplied by the gain.")
    betas: Betas = Field((0.9, 0.999), description="Decay rates of the moments of all that takes Adam's direction.")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator of Adam's direction.")


class SGDConfig(BaseOptimizerConfig):
    """torch.optim.SGD with momentum."""

    target, default_lr = "torch.optim.SGD", 1e-2

    type: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum.")
    nesterov: bool = Field(False, description="Nesterov momentum.")


class AdamWConfig(BaseOptimizerConfig):
    """torch.optim.AdamW."""

    target = "torch.optim.AdamW"

    type: Literal["adamw"] = "adamw"
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay.")
    betas: Betas = Field((0.9, 0.999), description="Decay rates of the first and second moment.")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator.")


class NAdamWConfig(BaseOptimizerConfig):
    """torch.optim.NAdam with decoupled weight decay and constant momentum (Dozat 2016)."""

    # torch scales the momentum of step t by 1 - 0.5 * 0.96^(t * momentum_decay); with this one the factor is 1
    target, fixed = "torch.optim.NAdam", {"decoupled_weight_decay": True, "momentum_decay": 1e6}

    type: Literal["nadamw"] = "nadamw"
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay.")
    betas: Betas = Field((0.9, 0.999), description="Decay rates of the first and second moment.")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator.")


class MuonConfig(BaseOptimizerConfig):
    """torch.optim.Muon (Jordan 2024) for the matrices of hidden layers, and torch.optim.AdamW for all other parameters.

    The others are vectors, kernels of convolutions, embeddings and the last linear layer.
    """

    target = "activelr_service.training.muon.Muon"

    type: Literal["muon"] = "muon"
    weight_decay: float = Field(0.1, ge=0, description="Decoupled weight decay, of all parameters.")
    momentum: float = Field(0.95, ge=0, lt=1, description="Momentum of the matrices.")
    nesterov: bool = Field(True, description="Nesterov momentum of the matrices.")
    adjust_lr: Literal["match_rms_adamw", "original"] = Field(
        "match_rms_adamw",
        description="How lr becomes that of a matrix. match_rms_adamw: one lr suits matrices and the others (Liu et al. "
        "2025). original: that of torch, whose lr is usually some 20 times larger.",
    )
    betas: Betas = Field((0.9, 0.999), description="Decay rates of the moments of the others.")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator of the others.")


class RAdamConfig(BaseOptimizerConfig):
    """torch.optim.RAdam, with decoupled weight decay."""

    target, fixed = "torch.optim.RAdam", {"decoupled_weight_decay": True}

    type: Literal["radam"] = "radam"
    betas: Betas = Field((0.9, 0.999), description="Decay rates of the first and second moment.")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator.")


class AdaBeliefConfig(BaseOptimizerConfig):
    """AdaBelief as its authors ship it: rectified, with decoupled weight decay."""

    target = "activelr_service.optim.ActiveBelief"
    fixed: ClassVar = {"rule": "paper", "gain_increment": 0.0, "gain_decay": 1.0}  # all gains stay at one

    type: Literal["adabelief"] = "adabelief"
    betas: Betas = Field((0.9, 0.999), description="Decay rates of the first moment and of the variance around it.")
    eps: float = Field(1e-16, gt=0, description="Added to the variance and to the denominator.")


class RpropConfig(BaseOptimizerConfig):
    """torch.optim.Rprop: a full-batch method, so its batch is the whole training set."""

    target, not_passed = "torch.optim.Rprop", ("weight_decay",)
    default_lr, finds_step_size, full_batch = 1e-2, True, True

    type: Literal["rprop"] = "rprop"
    weight_decay: Literal[0] = Field(0, description="Rprop has none.")


class ScheduleFreeAdamWConfig(BaseOptimizerConfig):
    """schedulefree.AdamWScheduleFree (Defazio et al. 2024)."""

    target, default_lr = "schedulefree.AdamWScheduleFree", 2.5e-3

    type: Literal["schedule_free_adamw"] = "schedule_free_adamw"
    betas: Betas = Field((0.9, 0.999), description="Interpolation with the average, decay rate of the second moment.")
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up.")


class ProdigyConfig(BaseOptimizerConfig):
    """prodigyopt.Prodigy (Mishchenko & Defazio 2023)."""

    target, default_lr, finds_step_size = "prodigyopt.Prodigy", 1.0, True

    type: Literal["prodigy"] = "prodigy"
    d_coef: float = Field(1.0, gt=0, description="Multiplies the estimate of the step size.")


class DAdaptAdamConfig(BaseOptimizerConfig):
    """dadaptation.DAdaptAdam (Defazio & Mishchenko 2023), with decoupled weight decay."""

    target, fixed = "dadaptation.DAdaptAdam", {"decouple": True}
    default_lr, finds_step_size = 1.0, True

    type: Literal["dadapt_adam"] = "dadapt_adam"


class COCOBConfig(BaseOptimizerConfig):
    """parameterfree.COCOB (Orabona & Tommasi 2017): coin betting. It has no learning rate: ``lr`` must be left out."""

    target, not_passed = "parameterfree.COCOB", ("lr",)
    default_lr, finds_step_size = None, True

    type: Literal["cocob"] = "cocob"
    lr: None = Field(None, description="COCOB has none.")
    weight_decay: Literal[0] = Field(0, description="COCOB has none.")
    schedule: Literal["constant"] = Field("constant", description="There is no learning rate to schedule.")
    warmup: Literal[0] = Field(0, description="There is no learning rate to warm up.")
    alpha: float = Field(100.0, gt=0, description="Bounds the first bets.")


class PythonOptimizerConfig(BaseOptimizerConfig):
    """Your own optimizer: a callable in the pip entry point group ``activelr.optimizers``.

    It is called with the parameters, ``args`` and, if the job gives one, ``lr``, and returns a ``torch.optim.Optimizer``.
    """

    default_lr = None

    type: Literal["python"] = "python"
    name: str = Field(description="Name of the entry point.")
    args: dict[str, Any] = Field({}, description="Keyword arguments of the callable.")
    lr: float | None = Field(None, gt=0, description="Passed to the callable if given; its own default if left out.")
    weight_decay: Literal[0] = Field(0, description="Give it in args, if your optimizer has one.")

    def options(self) -> dict[str, Any]:
        """The keyword arguments that build the optimizer."""
        return self.args if self.lr is None else {**self.args, "lr": self.lr}


OptimizerConfig = Annotated[
    ActiveSGDConfig
    | ActiveAdamWConfig
    | ActiveRAdamConfig
    | ActiveBeliefConfig
    | ActiveMuonConfig
    | SGDConfig
    | AdamWConfig
    | NAdamWConfig
    | MuonConfig
    | RAdamConfig
    | AdaBeliefConfig
    | RpropConfig
    | ScheduleFreeAdamWConfig
    | ProdigyConfig
    | DAdaptAdamConfig
    | COCOBConfig
    | PythonOptimizerConfig,
    Field(discriminator="type"),
]


OPTIMIZER_CONFIGS: dict[str, type[BaseOptimizerConfig]] = {
    config.model_fields["type"].default: config for config in get_args(get_args(OptimizerConfig)[0])
}
