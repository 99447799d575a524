"""A study: one YAML document that spans many trainings of some workloads, to see what a setting does to the result."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from activelr_service.config.base import StrictConfig
from activelr_service.config.job import Name, TrackingConfig

Optimizer = dict[str, Any]
Values = list[Any]


class TrialsConfig(StrictConfig):
    """What a trial runs on. Trials of one worker are packed: long-lived processes take one after the other."""

    num_workers: int = Field(1, ge=1, le=4096, description="Ray Train workers of each trial.")
    cpus_per_worker: int = Field(1, ge=1, description="CPUs and threads of each worker.")
    gpus_per_worker: float = Field(
        0, ge=0, le=1, description="GPUs of each worker; a fraction packs several trials of one worker on a GPU."
    )
    packed: bool | None = Field(
        None,
        description="Whether processes are kept and take trial after trial. Derived: true for one worker. false makes each "
        "trial a Ray Train run of its own.",
    )
    max_concurrent: int | None = Field(
        None, ge=1, description="How many trials run at once. Derived: as many as the resources allow."
    )

    @model_validator(mode="after")
    def what_is_packed_has_one_worker(self) -> Self:
        is_fraction = 0 < self.gpus_per_worker < 1
        if self.num_workers > 1 and (self.packed or is_fraction):
            asked = "a fraction of a GPU" if is_fraction else "packed: true"
            raise ValueError(f"{asked} needs num_workers: 1, got {self.num_workers}")
        if self.packed is False and is_fraction:
            raise ValueError("packed: false needs whole GPUs, got gpus_per_worker: " + str(self.gpus_per_worker))
        return self


class RandomSearchConfig(StrictConfig):
    """A random search over AdamW on each workload, for comparison.

    Drawn are lr and weight_decay (1e-3 to 0.3), log-uniform; betas from 0.8, 0.9, 0.95 and from 0.95, 0.99, 0.999; schedule
    from constant and cosine; warmup from 0, 0.02, 0.05 and 0.1. Each trial is run once. The winner is trained again with the
    seeds of the study.
    """

    trials: int = Field(ge=1, le=10_000, description="Settings that are drawn. More of them continue the same draw.")
    lr_from: float = Field(1e-5, gt=0, description="The smallest learning rate.")
    lr_to: float = Field(1e-1, gt=0, le=1e3, description="The largest learning rate.")
    draw: int = Field(0, ge=0, lt=2**31, description="The seed of the draw.")

    @model_validator(mode="after")
    def a_range(self) -> Self:
        if self.lr_from > self.lr_to:
            raise ValueError(f"lr_from must be at most lr_to, got lr_from: {self.lr_from:g} and lr_to: {self.lr_to:g}")
        return self


class StudyJob(StrictConfig):
    """A study. Required: kind, name, workloads, optimizers.

    Trials: every workload x (every optimizer x every sweep, and every baseline) x every seed. A trial that several sweeps
    ask for is run once. A random search has trials of its own.
    """

    kind: Literal["study"] = Field(description="Says that this document is a study.")
    name: Name = Field(description="The name becomes a folder in output_dir/studies.")
    workloads: dict[Name, dict[str, Any]] = Field(
        min_length=1,
        description="Training jobs by name, without kind, name, optimizer and seed; `job: FILE` takes those of a file.",
    )
    optimizers: list[Optimizer] = Field(
        min_length=1, description="Optimizers to compare, as in a job. A name alone takes its defaults."
    )
    baselines: list[Optimizer] = Field(
        [], description="Optimizers that keep their own settings: sweeps of `optimizer.*` leave them out."
    )
    sweeps: list[dict[str, Annotated[Values, Field(min_length=1)]]] = Field(
        [{}],
        min_length=1,
        description="Each is a grid: values by path, such as `optimizer.lr`; a list, or {from, to, points_per_decade}. "
        "`only` lists the types of the optimizers that it is for. Left out: each optimizer has its own settings.",
    )
    random_search: RandomSearchConfig | None = Field(
        None, description="AdamW at random settings, for comparison: {trials: 100}."
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(
        [0, 1, 2], min_length=1, description="Every trial is run once with each of these seeds."
    )
    trials: TrialsConfig = Field(default_factory=TrialsConfig, description="What each trial runs on.")
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="Where the study is tracked.")
    output_dir: str = Field(
        "outputs", min_length=1, description="The output folder, as in a job. The study goes to DIR/studies/NAME."
    )

    @field_validator("optimizers", "baselines", mode="before")
    @classmethod
    def a_name_is_an_optimizer_with_its_defaults(cls, entries: Any) -> Any:
        if not isinstance(entries, list):
            return entries
        return [{"type": entry} if isinstance(entry, str) else entry for entry in entries]

    @field_validator("optimizers", "baselines")
    @classmethod
    def every_optimizer_has_a_type(cls, entries: list[Optimizer]) -> list[Optimizer]:
        for entry in entries:
            if not isinstance(entry.get("type"), str):
                raise ValueError(f"every entry needs a type, such as active_adamw, got {entry}")
        return entries

    @field_validator("sweeps", mode="before")
    @classmethod
    def a_range_is_the_list_of_its_points(cls, sweeps: Any) -> Any:
        if not isinstance(sweeps, list) or not all(isinstance(sweep, dict) for sweep in sweeps):
            return sweeps
        return [{path: expand_range(path, values) for path, values in sweep.items()} for sweep in sweeps]

    @field_validator("seeds")
    @classmethod
    def no_seed_twice(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"a seed is there twice, got {seeds}")
        return seeds


def expand_range(path: str, values: Any) -> Any:
    """``{from: 1e-6, to: 1e-1, points_per_decade: 1}`` as a list, rounded to 6 digits; anything else as it is."""
    if not isinstance(values, dict):
        return values
    if set(values) - {"points_per_decade"} != {"from", "to"}:
        raise ValueError(f"{path}: a range is {{from, to, points_per_decade}}, got the keys {sorted(values)}")
    low, high, density = values["from"], values["to"], values.get("points_per_decade", 1)
    is_number = all(isinstance(value, int | float) for value in (low, high, density))
    if not is_number or not 0 < low <= high or not 0 < density <= 100 or not math.isfinite(high):
        text = f"from {low!r} to {high!r} with {density!r} points per decade"
        raise ValueError(f"{path}: a range needs 0 < from <= to and at most 100 points per decade, got {text}")
    count = math.floor(math.log10(high / low) * density + 1e-9) + 1
    return [float(f"{low * 10 ** (index / density):.6g}") for index in range(count)]
