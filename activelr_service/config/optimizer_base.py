"""What the config of every optimizer takes."""

from typing import Annotated, Literal

from pydantic import Field, Strict

from activelr_service.config.base import StrictConfig

Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[tuple[Beta, Beta], Strict(False)]  # a YAML list is welcome


class OptimizerSettings(StrictConfig):
    """A learning rate, what becomes of it over the run, and weight decay."""

    lr: float | None = Field(None, gt=0, description="Initial learning rate. Leave it out: the default is derived.")
    schedule: Literal["constant", "cosine", "wsd"] = Field(
        "constant",
        description="cosine: from lr to 0. wsd: 5 % linear warm-up, stable, linear decay to 0 over the last 20 %.",
    )
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
